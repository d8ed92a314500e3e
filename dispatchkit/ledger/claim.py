"""The claim of a target and its outcome: as a holder writes them, and as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import attrs

from dispatchkit.errors import State

__all__ = ["Claim", "Record", "StoredClaim", "StoredOutcome", "Story"]


class Claim(NamedTuple):
    """A claim of a target, before its request leaves."""

    run: int
    chunk: int
    index: int  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride] - of a tuple
    token: str
    """The token of the hold."""
    request_id: str | None
    since: datetime
    """Start of the first unclear request: `Unsettled.since`, or now."""


class Record(NamedTuple):
    """The outcome of a target."""

    run: int
    chunk: int
    index: int  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride] - of a tuple
    token: str
    """The token of the hold."""
    state: State
    summary: str
    """The error's summary; empty without an error."""
    code: int | str | None
    request_id: str | None
    attempts: int
    at: datetime
    is_final: bool = False
    """Whether the outcome is unknown and nothing can settle it."""
    since: datetime | None = None
    """`Claim.since` of the first claim in this hold, for the latency; None without a claim."""


@attrs.frozen
class StoredClaim:
    """A claim of a target, as it is stored."""

    send_no: int
    """Counts the holds that claimed the target, from 1."""
    request_id: str | None
    since: datetime
    """Start of the first unclear request."""
    claimed_at: datetime
    """Time of the latest claim of this hold."""


@attrs.frozen
class StoredOutcome:
    """An outcome of a target, as it is stored."""

    send_no: int
    """The claim that it belongs to; 0 if nothing was claimed."""
    state: str
    summary: str
    code: int | str | None
    request_id: str | None
    attempts: int
    at: datetime
    is_final: bool = False
    """Whether the outcome is unknown and nothing can settle it."""


@attrs.frozen
class Story:
    """What a ledger stores of one target. A file has only the latest outcome."""

    claims: Sequence[StoredClaim] = ()
    outcomes: Sequence[StoredOutcome] = ()

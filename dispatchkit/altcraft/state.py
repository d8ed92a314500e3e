"""The state of mailings: status and log of each, read together."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from datetime import datetime
from typing import TypeAlias, cast

import attrs

from dispatchkit.altcraft.base import AltcraftCommand, AltcraftWire
from dispatchkit.altcraft.models import LogEntry, MailingStatus
from dispatchkit.altcraft.reads import ReadLog, ReadStatus
from dispatchkit.core.call.client import Client
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.core.fanout.reads import read_all
from dispatchkit.core.listing import Listing
from dispatchkit.errors import DispatchkitError

__all__ = ["MailingState", "read_states"]

_Part: TypeAlias = MailingStatus | Listing[LogEntry]


@attrs.frozen
class MailingState:
    """What was read of one mailing: its status and its log, or an error."""

    index: int
    """The place of the mailing in the list."""
    mailing_id: int
    status: MailingStatus | None
    log: Listing[LogEntry] | None
    error: DispatchkitError | None


async def read_states(
    client: Client[AltcraftWire],
    ids: Iterable[int],
    *,
    since: datetime | None,
    timeout: float | None = None,
    within: float | None = None,
) -> AsyncGenerator[MailingState]:
    """The state of each mailing, in the order of completion. Only states that are half read are kept.

    Args:
        client: Reads.
        ids: The mailings.
        since: Only log entries of this time or later; None takes the whole log.
        timeout: See `read_all`, as for the next one.
        within: None: no bound.

    Raises:
        RejectedError: The platform refuses the token or, in its first answer, the account.
        TypeError: An id is not an integer.
        ValueError: An id is not positive.
    """
    half: dict[int, Outcome[_Part]] = {}
    async with aclosing(read_all(client, _reads(ids, since), timeout=timeout, within=within)) as reading:
        async for outcome in reading:
            index = outcome.index // 2
            other = half.pop(index, None)
            if other is None:
                half[index] = outcome
            else:
                status, log = (outcome, other) if outcome.index < other.index else (other, outcome)
                yield MailingState(
                    index,
                    cast("int", outcome.target),
                    cast("MailingStatus | None", status.result if status.error is None else None),
                    cast("Listing[LogEntry] | None", log.result if log.error is None else None),
                    status.error or log.error,
                )


def _reads(ids: Iterable[int], since: datetime | None) -> Iterator[AltcraftCommand[_Part]]:
    for number in ids:
        yield ReadStatus(number)
        yield ReadLog(number, since)

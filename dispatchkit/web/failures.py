"""The failures of a run by kind, read block by block: only blocks whose numbers have changed are read again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from dispatchkit.errors import State
from dispatchkit.ledger.blocks import BLOCK, TALLIED
from dispatchkit.ledger.store import Store
from dispatchkit.ledger.target import Target
from dispatchkit.redaction import redact_urls

__all__ = ["FAILED", "LISTED", "READ", "Failure", "FailureIndex"]

FAILED = (State.REJECTED.value, State.NOT_SENT.value, State.UNKNOWN.value)
READ = 5000
"""The most failures that are read and grouped. What is beyond them is counted only."""
LISTED = 100
"""The most failures that a search lists."""
_KINDS = 50
"""The most kinds that are shown."""
_LETTERS = 300
"""The most letters of a summary."""
_COLUMNS = [1 + TALLIED.index(name) for name in FAILED]
_SHORT = 4
"""Digits of a number that stays in the name of a kind."""
_NUMBER = re.compile(r"\d(?:[\d,.:-]*\d)?")


class Failure(NamedTuple):
    """A target that is not done."""

    at_index: int
    target: int | None
    state: str
    code: int | str | None
    summary: str
    request_id: str | None
    at: datetime | None

    @property
    def kind(self) -> tuple[str, str]:
        """State and summary, with ``#`` for ids and times. Short numbers stay: they are codes."""
        own = str(self.target)

        def hidden(found: re.Match[str]) -> str:
            return found[0] if len(found[0]) <= _SHORT and found[0] != own else "#"

        return self.state, _NUMBER.sub(hidden, self.summary)

    def to_dict(self) -> dict[str, object]:
        """As a page shows it."""
        return {
            "index": self.at_index,
            "target": None if self.target is None else str(self.target),
            "state": self.state,
            "code": self.code,
            "summary": self.summary,
            "request_id": self.request_id,
            "at": None if self.at is None else self.at.timestamp(),
        }


def _failure(target: Target) -> Failure:
    summary = redact_urls(target.summary)[:_LETTERS]
    return Failure(target.index, target.target, target.state, target.code, summary, target.request_id, target.at)


class FailureIndex:
    """The first failures of one run, in the order of its plan."""

    def __init__(self, run: int) -> None:
        self._run = run
        self._blocks: dict[int, tuple[tuple[int, ...], Sequence[Failure]]] = {}

    async def refresh(self, store: Store) -> None:
        """Read the blocks whose numbers of failures have changed, until `READ` failures are known.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        known, fresh = self._blocks, dict[int, tuple[tuple[int, ...], Sequence[Failure]]]()
        left = READ
        for number, *tally in await store.blocks(self._run):
            counts = tuple(tally[column - 1] for column in _COLUMNS)
            if not any(counts):
                continue
            if left <= 0:
                break
            before, failures = known.get(number, ((), ()))
            if before != counts:
                failures = [
                    _failure(target)
                    async for target in store.targets(
                        self._run, states=FAILED, start=number * BLOCK, end=(number + 1) * BLOCK
                    )
                ]
            fresh[number] = counts, failures
            left -= len(failures)
        self._blocks = fresh

    @property
    def known(self) -> list[Failure]:
        """The failures that were read, at most `READ`."""
        return [failure for _, failures in self._blocks.values() for failure in failures][:READ]

    def kinds(self, total: int) -> dict[str, object]:
        """The kinds, the most frequent first.

        Args:
            total: The number of all failures, for the note that only the first ones were read.
        """
        known = self.known
        groups: dict[tuple[str, str], list[Failure]] = {}
        for failure in known:
            groups.setdefault(failure.kind, []).append(failure)
        ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
        return {
            "read": len(known),
            "total": total,
            "more": max(0, len(ordered) - _KINDS),
            "kinds": [
                {
                    "state": state,
                    "kind": kind,
                    "code": failures[0].code,
                    "example": failures[0].summary,
                    "count": len(failures),
                }
                for (state, kind), failures in ordered[:_KINDS]
            ],
        }

    def search(self, words: str, *, state: str | None = None, kind: str | None = None) -> Mapping[str, object]:
        """The first `LISTED` failures of a kind with words in their summary, code, target or request id."""
        wanted = words.casefold().strip()
        found = [
            failure
            for failure in self.known
            if (kind is None or failure.kind == (state, kind))
            and (not wanted or any(wanted in str(part).casefold() for part in failure[1:6] if part is not None))
        ]
        return {"found": len(found), "failures": [failure.to_dict() for failure in found[:LISTED]]}

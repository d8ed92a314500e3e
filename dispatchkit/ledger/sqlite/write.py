"""The writer's thread of a SQLite ledger: it writes batches of claims and outcomes in one statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import cast

import attrs

from dispatchkit.core.claim import ClaimResult
from dispatchkit.core.clock import Clock
from dispatchkit.ledger.sqlite.sql import ANSWER
from dispatchkit.ledger.store import Claim

__all__ = ["Afterwards", "Batch", "Moment", "Work", "Writing", "read_all"]


@attrs.frozen
class Moment:
    """A moment on this machine's clocks."""

    wall: float
    boot_time: float
    boot: int
    """Number of this boot; 0 without a boot id, which equals no other boot."""

    def is_same_boot(self, boot: int) -> bool:
        """Whether the boot clock can compare this moment with one of that boot."""
        return bool(self.boot) and boot == self.boot

    @property
    def given(self) -> dict[str, object]:
        """The parameters of a statement."""
        return {"now": self.wall, "boot_now": self.boot_time, "boot": self.boot or None}


@attrs.frozen(eq=False)
class Batch:
    """Claims or records to be written in one statement with other batches."""

    rows: str
    """The rows as JSON arrays, joined with commas."""
    claims: Sequence[Claim] = ()
    records: int = 0


@attrs.frozen(eq=False)
class Afterwards:
    """Work to run after the commit, outside of the transaction."""

    work: Callable[[sqlite3.Connection], object]
    within: Callable[[sqlite3.Connection], object] = lambda _: None
    """Work to run in the transaction. Its result is the result of both."""


Work = Callable[[sqlite3.Connection], object]


class Writing:
    """The work of the writer's thread. It has no reference to the store, which can thus be garbage-collected."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.boot = 0

    def moment(self) -> Moment:
        """The current moment."""
        return Moment(self._clock.now().timestamp(), self._clock.boottime(), self.boot)

    def perform(self, db: sqlite3.Connection, works: Sequence[object]) -> list[object]:
        """Perform all work in one transaction."""
        batches = [work for work in works if isinstance(work, Batch)]
        if len(batches) == len(works):
            return write_batches(db, batches, self.moment())
        db.execute("BEGIN IMMEDIATE")
        results = [self._perform(db, work) for work in works]
        db.execute("COMMIT")
        for work in works:
            if isinstance(work, Afterwards):
                work.work(db)
        return results

    def _perform(self, db: sqlite3.Connection, work: object) -> object:
        if isinstance(work, Batch):
            return write_batches(db, [work], self.moment())[0]
        return work.within(db) if isinstance(work, Afterwards) else cast("Work", work)(db)


def read_all(db: sqlite3.Connection, works: Sequence[object]) -> list[object]:
    """Perform reads one after another, in the reader's thread."""
    return [cast("Work", work)(db) for work in works]


def write_batches(db: sqlite3.Connection, batches: Sequence[Batch], moment: Moment) -> list[object]:
    claims = ",".join([batch.rows for batch in batches if batch.claims])
    records = ",".join([batch.rows for batch in batches if batch.records])
    before = db.total_changes
    db.execute(
        "INSERT INTO batch VALUES (?, ?, ?, ?, ?)",
        (f"[{claims}]", f"[{records}]", moment.wall, moment.boot_time, moment.boot),
    )
    written = db.total_changes - before
    if written == sum(len(batch.claims) + batch.records for batch in batches):
        return [[ClaimResult.GRANTED] * len(batch.claims) for batch in batches]
    return [[_claim_result(db, claim, moment) for claim in batch.claims] for batch in batches]


def _claim_result(db: sqlite3.Connection, claim: Claim, moment: Moment) -> ClaimResult:
    """Whether a claim was granted, or why not."""
    given = {"run": claim.run, "chunk": claim.chunk, "index": claim.index, "token": claim.token, **moment.given}
    held, final, granted = db.execute(ANSWER, given).fetchone()
    if held and granted:
        return ClaimResult.GRANTED
    return ClaimResult.TAKEN if held and final else ClaimResult.STOPPED

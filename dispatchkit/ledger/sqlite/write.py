"""The writer's thread of a SQLite ledger: it writes batches of claims and outcomes in one statement."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import attrs

from dispatchkit.core.claim import ClaimResult
from dispatchkit.core.clock import Clock
from dispatchkit.ledger.blocks import BLOCK, TALLIED
from dispatchkit.ledger.claim import Claim, Record
from dispatchkit.ledger.series import BUCKET_SECONDS, LATENCY_BOUNDS, NO_SLOT, slot_of
from dispatchkit.ledger.sqlite.sql import ANSWER, OUTCOMES_OF_BATCH, SERIES, STATES_OF_BATCH, TALLY

__all__ = ["Afterwards", "Batch", "Moment", "Work", "Writing"]

_json = json.JSONEncoder(separators=(",", ":")).encode
_PLACES = f"({','.join('?' * 14)})"
_GROUPS = 50
"""Maximum groups of a statement: older SQLite releases allow 999 parameters."""
_BUCKET = timedelta(seconds=BUCKET_SECONDS)
_TENS = len("2026-01-31T09:00:0")
"""Characters of a time up to the tens of its seconds, which its bucket in the series shares."""


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

    claims: Sequence[Claim] = ()
    records: Sequence[Record] = ()


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


def write_batches(db: sqlite3.Connection, batches: Sequence[Batch], moment: Moment) -> list[object]:
    """Write batches, in the current transaction or in one of their own."""
    claims = [claim for batch in batches for claim in batch.claims]
    records = [record for batch in batches for record in batch.records]
    if _write_first(db, claims, records, moment):
        return [[ClaimResult.GRANTED] * len(batch.claims) for batch in batches]
    if db.in_transaction:
        return _write_any(db, batches, moment)
    db.execute("BEGIN IMMEDIATE")
    results = _write_any(db, batches, moment)
    db.execute("COMMIT")
    return results


def _write_first(db: sqlite3.Connection, claims: Sequence[Claim], records: Sequence[Record], moment: Moment) -> bool:
    """Write first claims and first outcomes, with their tally, in one statement. Returns False if some are not."""
    times = (moment.wall, moment.boot_time, moment.boot)
    groups: dict[tuple[object, ...], dict[int, object]] = {}
    slots_of: dict[tuple[object, ...], list[int]] = {}
    _group_claims(claims, groups)
    _group_records(records, groups, slots_of)
    if not groups:
        return True
    if len(groups) > _GROUPS or sum(map(len, groups.values())) != len(claims) + len(records):
        return False
    values: list[object] = []
    for key, rows in groups.items():
        *hold, start, outcome, is_final = key
        blocks, slots = _counted([index // BLOCK for index in rows]), _counted(slots_of.get(key, []))
        values += (*hold, _json(rows), len(rows), blocks, start, slots, outcome, is_final, *times)
    try:
        db.execute(f"INSERT INTO first_batch VALUES {','.join([_PLACES] * len(groups))}", values)
    except sqlite3.IntegrityError:
        return False
    return True


def _counted(numbers: Sequence[int]) -> str:
    """How often each number occurs, as JSON. Most often, all are one: a `Counter` takes ten times as long."""
    if not numbers:
        return "{}"
    first = numbers[0]
    return f'{{"{first}":{len(numbers)}}}' if numbers.count(first) == len(numbers) else _json(Counter(numbers))


def _group_claims(claims: Sequence[Claim], groups: dict[tuple[object, ...], dict[int, object]]) -> None:
    """Group the rows of claims. Most often, all have the same hold and start."""
    before: tuple[object, ...] | None = None
    rows: dict[int, object] = {}
    for run, chunk, index, token, request_id, begun in claims:
        if (run, chunk, token, begun) != before:
            before = (run, chunk, token, begun)
            rows = groups.setdefault(("claim", run, chunk, token, begun.isoformat(), None, 0), {})
        rows[index] = request_id


def _group_records(
    records: Sequence[Record],
    groups: dict[tuple[object, ...], dict[int, object]],
    slots_of: dict[tuple[object, ...], list[int]],
) -> None:
    """Group the rows of outcomes by bucket of the series, and the slots of their latencies. Most often, all are one."""
    before: tuple[object, ...] | None = None
    rows: dict[int, object] = {}
    slots: list[int] = []
    start = end = datetime.min.replace(tzinfo=UTC)
    form = ""
    for run, chunk, index, token, state, summary, code, request_id, attempts, at, final, since in records:
        if (run, chunk, token, state, final) != before or not start <= at < end:
            before = (run, chunk, token, state, final)
            start = at.replace(second=at.second // 10 * 10, microsecond=0)
            end = start + _BUCKET
            text = start.isoformat()
            form = f"{text[:_TENS]}%d.%06d{text[_TENS + 1 :]}"
            key = ("outcome", run, chunk, token, text, state, final)
            rows, slots = groups.setdefault(key, {}), slots_of.setdefault(key, [])
        passed = at - start
        # The text of `isoformat`, which takes twice as long, and leaves out a zero.
        micros = passed.microseconds
        time = form % (passed.seconds, micros) if micros else at.isoformat()
        is_plain = attempts == 1 and request_id is None and code is None and not summary
        rows[index] = time if is_plain else (time, request_id, summary, code, attempts)
        # `slot_of`, without the cost of a call
        slots.append(NO_SLOT if since is None else bisect_left(LATENCY_BOUNDS, (at - since).total_seconds()))


def _write_any(db: sqlite3.Connection, batches: Sequence[Batch], moment: Moment) -> list[object]:
    """Write any claims and outcomes, and what they change in the tally."""
    claims = _json([(*claim[:5], claim.since.isoformat()) for batch in batches for claim in batch.claims])
    records = _json(
        [(*record[:9], record.is_final, record.at.isoformat()) for batch in batches for record in batch.records]
    )
    touched = f"[{claims[1:-1]}{',' if len(claims) > len('[]') < len(records) else ''}{records[1:-1]}]"
    changes: dict[tuple[int, int, int], Counter[str]] = {}
    _add_states(db, touched, changes, -1)
    before = _outcomes(db, records)
    db.execute("INSERT INTO batch VALUES (?, ?, ?, ?, ?)", (claims, records, *moment.given.values()))
    _add_states(db, touched, changes, 1)
    new = _outcomes(db, records) - before
    db.executemany(
        TALLY,
        [
            (*block, *(change[name] for name in TALLIED))
            for block, change in changes.items()
            if any(change[name] for name in TALLIED)
        ],
    )
    db.executemany(SERIES, _series([record for batch in batches for record in batch.records], new))
    return [[_claim_result(db, claim, moment) for claim in batch.claims] for batch in batches]


def _outcomes(db: sqlite3.Connection, records: str) -> set[tuple[int, int, str, str]]:
    """The outcomes of the records' targets, as run, index, state and time."""
    return set(db.execute(OUTCOMES_OF_BATCH, (records,)))


def _series(records: Sequence[Record], new: set[tuple[int, int, str, str]]) -> Iterator[tuple[object, ...]]:
    """The rows of the series for the new outcomes."""
    counted: Counter[tuple[object, ...]] = Counter()
    for record in records:
        time = record.at.isoformat()
        outcome = (record.run, record.index, str(record.state), time)
        if outcome in new:
            new.discard(outcome)
            slot = slot_of(record.since, record.at)
            counted[record.run, _bucket(time[:_TENS]), record.chunk, record.state, slot] += 1
    return ((*key, count) for key, count in counted.items())


def _bucket(prefix: str) -> str:
    """The start of a bucket in the series, from the times of its outcomes up to the tens of seconds."""
    return f"{prefix}0+00:00"


def _add_states(
    db: sqlite3.Connection, touched: str, changes: dict[tuple[int, int, int], Counter[str]], sign: int
) -> None:
    for run, chunk, block, state, is_final, count in db.execute(STATES_OF_BATCH, (touched,)).fetchall():
        change = changes.setdefault((run, chunk, block), Counter())
        change[state] += sign * count
        change["final"] += sign * count * is_final


def _claim_result(db: sqlite3.Connection, claim: Claim, moment: Moment) -> ClaimResult:
    """Whether a claim was granted, or why not."""
    given = {"run": claim.run, "chunk": claim.chunk, "index": claim.index, "token": claim.token, **moment.given}
    held, final, granted = db.execute(ANSWER, given).fetchone() or (False, False, False)  # the run was deleted
    if held and granted:
        return ClaimResult.GRANTED
    return ClaimResult.TAKEN if held and final else ClaimResult.STOPPED

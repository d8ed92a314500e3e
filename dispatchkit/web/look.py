"""What one look at a ledger tells, as JSON for the page: the list of runs, one run, one target.

No command leaves the ledger as it is stored: its text has the contents of a message. `Value.to_dict` leaves them out.
"""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias, cast

import attrs

from dispatchkit.core.fanout.snapshot import RateMeter, time_left
from dispatchkit.ledger.chunk import LEASE_TIMEOUT, Chunk
from dispatchkit.ledger.claim import StoredClaim, StoredOutcome
from dispatchkit.ledger.run import Counts, Run
from dispatchkit.ledger.run_snapshot import RunSnapshot, take_snapshot
from dispatchkit.ledger.store import SharedStore, Store
from dispatchkit.ledger.target import Target
from dispatchkit.providers import parse_settings
from dispatchkit.redaction import redact_urls

if TYPE_CHECKING:
    from dispatchkit.ledger.ledger import Ledger

__all__ = ["PAGE", "Frame", "GoneError", "look_at_run", "look_at_runs", "tell_story"]

Frame: TypeAlias = dict[str, object]

PAGE = 20
"""Runs of one page of the list."""
_WORKERS = 100
"""The most workers that are shown."""
_FOUND = 20
"""The most targets that a search for an id finds."""
_COUNTS = ("done", "rejected", "not_sent", "unknown", "sending", "planned")


class GoneError(Exception):
    """The ledger has no such run, or the run no such target."""


async def look_at_runs(ledger: Ledger, page: int) -> Frame:
    """One page of the runs, newest first.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    runs = await ledger.runs()
    pages = max(1, -(-len(runs) // PAGE))
    page = min(page, pages)
    shown = runs[(page - 1) * PAGE : page * PAGE]
    return {
        "page": page,
        "pages": pages,
        "total": len(runs),
        "runs": [_summary(await take_snapshot(ledger, run)) for run in shown],
    }


def _summary(snapshot: RunSnapshot) -> Frame:
    run = snapshot.run
    return {
        "name": run.name,
        "state": snapshot.state,
        "created": run.created.timestamp(),
        "total": run.total,
        "counts": _counts(snapshot.counts),
    }


def _counts(counts: Counts) -> Frame:
    return {name: getattr(counts, name) for name in _COUNTS}


async def look_at_run(
    ledger: Ledger, store: Store, name: str, *, meter: RateMeter, resume_line: Callable[[Run], str]
) -> Frame:
    """A run with counts, rate and workers.

    Raises:
        GoneError: There is no such run.
        LedgerError: The ledger cannot be read.
    """
    run = await store.run(name)
    if run is None:
        raise GoneError(f"The ledger holds no run {name!r}.")
    chunks = await store.chunks(run.number)
    holders = {holder.token: holder for chunk in chunks if (holder := chunk.holder) is not None}
    snapshot = RunSnapshot(run, await store.counts(run.number), [*holders.values()])
    if ledger.is_shared and await cast("SharedStore", store).pauses():
        paused = await ledger.paused_accounts()
        until = next((each.until for each in paused if any(run.number == at.number for at in each.runs)), None)
        snapshot = attrs.evolve(snapshot, paused_until=until)
    return _run_frame(snapshot, chunks, ledger, meter, resume_line)


def _run_frame(
    snapshot: RunSnapshot, chunks: Sequence[Chunk], ledger: Ledger, meter: RateMeter, resume_line: Callable[[Run], str]
) -> Frame:
    run, counts = snapshot.run, snapshot.counts
    over = counts.done + counts.rejected + counts.not_sent + counts.unknown
    clock = ledger._clock
    rate = meter.rate(clock.monotonic(), over)
    held = bool(snapshot.holders)
    left = counts.planned + counts.sending if run.plan_complete else None
    paused = snapshot.paused_until
    paused_for = 0.0 if paused is None else max(0.0, (paused - clock.now()).total_seconds())
    may_resume = snapshot.left and not held and run.plan_complete
    return {
        "number": run.number,
        "settings": {name: redact_urls(value) for name, value in parse_settings(run.settings).items()},
        "account": run.account,
        **_summary(snapshot),
        "plan_complete": run.plan_complete,
        "over": snapshot.over,
        "can_stop": snapshot.can_stop and not run.stopped,
        "left": snapshot.left,
        "kept": counts.unknown_for_good,
        "rate": rate if held else None,
        "time_left": time_left(left, rate, paused_for) if held and not snapshot.over else None,
        "paused_until": None if paused is None else paused.timestamp(),
        "resume": redact_urls(resume_line(run)) if may_resume else None,
        "workers": _workers(chunks),
        "workers_more": max(0, len(snapshot.holders) - _WORKERS),
        "chunks_left": len(chunks),
        "lease": LEASE_TIMEOUT,
    }


def _workers(chunks: Sequence[Chunk]) -> list[Frame]:
    """The processes that hold chunks, with the age of their latest heartbeats in seconds."""
    workers: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        if chunk.holder is not None:
            workers.setdefault(chunk.holder.token, []).append(chunk)
    shown: list[Frame] = []
    for held in [*workers.values()][:_WORKERS]:
        holder = held[0].holder
        if holder is None:
            continue
        latest = max((chunk.holder.lease_left for chunk in held if chunk.holder is not None), default=0.0)
        shown.append(
            {
                "pid": holder.pid,
                "host": holder.host,
                "since": None if holder.since is None else holder.since.timestamp(),
                "heartbeat": round(max(0.0, LEASE_TIMEOUT - latest), 1),
                "chunks": [chunk.number for chunk in held],
                "start": held[0].start,
                "end": held[-1].end,
            }
        )
    return shown


async def tell_story(ledger: Ledger, store: Store, name: str, *, index: int | None, target: int | None) -> Frame:
    """Everything that is stored of a target, or the targets that have an id.

    Raises:
        GoneError: There is no such run, or no such target.
        LedgerError: The ledger cannot be read.
    """
    run = await store.run(name)
    if run is None:
        raise GoneError(f"The ledger holds no run {name!r}.")
    if index is None:
        indexes = (
            [] if target is None or not 0 < target < 2**63 else await store.indexes_of(run.number, target, limit=_FOUND)
        )
    else:
        indexes = [index]
    found = [each for at in indexes if (each := await _target(store, run.number, at)) is not None]
    if index is None:
        found = [each for each in found if each.target == target]
    if not found:
        what = f"id {target}" if index is None else f"index {index}"
        raise GoneError(f"Run {name!r} has no target with {what}.")
    return {"run": name, "targets": [await _story(store, run.number, each) for each in found]}


async def _target(store: Store, run: int, index: int) -> Target | None:
    async for target in store.targets(run, start=index, end=index + 1):
        return target
    return None


async def _story(store: Store, run: int, target: Target) -> Frame:
    story = await store.story(run, target.index)
    shown = target.to_dict()
    command = shown["command"]
    return {
        "index": target.index,
        "target": None if target.target is None else str(target.target),
        "command": command and {key: _in_words(value) for key, value in _fields(command).items()},
        "state": target.state,
        "summary": redact_urls(target.summary),
        "code": target.code,
        "attempts": target.attempts,
        "request_id": target.request_id,
        "is_final": target.is_final,
        "claims": [_claim(claim) for claim in story.claims],
        "outcomes": [_outcome(outcome) for outcome in story.outcomes],
    }


def _fields(command: object) -> dict[str, object]:
    """The fields of a command that have a value. `Value.to_dict` has left out its content."""
    fields: dict[str, object] = dict(command) if isinstance(command, dict) else {}  # pyright: ignore[reportUnknownArgumentType]
    return {key: value for key, value in fields.items() if value not in (None, "", False, [], {})}


def _in_words(value: object) -> str:
    """A field of a command, as a person reads it: ``segment 5``, or the names of attachments in a row."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, cast("Sequence[object]", value)))
    if isinstance(value, dict):
        parts = cast("dict[str, object]", value)
        return str(parts["name"]) if "name" in parts else " ".join(map(_in_words, parts.values()))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _claim(claim: StoredClaim) -> Frame:
    return {
        "send_no": claim.send_no,
        "request_id": claim.request_id,
        "since": _time(claim.since),
        "claimed_at": _time(claim.claimed_at),
    }


def _outcome(outcome: StoredOutcome) -> Frame:
    return {
        "send_no": outcome.send_no,
        "state": outcome.state,
        "summary": redact_urls(outcome.summary),
        "code": outcome.code,
        "request_id": outcome.request_id,
        "attempts": outcome.attempts,
        "at": _time(outcome.at),
        "is_final": outcome.is_final,
    }


def _time(moment: datetime) -> float:
    return moment.timestamp()

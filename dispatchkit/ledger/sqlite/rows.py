"""Convert the rows of a SQLite ledger to values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from dispatchkit.ledger.chunk import LEASE_TIMEOUT, Holder
from dispatchkit.ledger.claim import StoredClaim, StoredOutcome, Story
from dispatchkit.ledger.run import Run
from dispatchkit.ledger.sqlite.write import Moment
from dispatchkit.ledger.target import Target, TargetRow

__all__ = ["HOLD", "holder_of", "rows_of", "run_of", "story_of", "target_of"]

HOLD = """
token, pid, host, since, boot.id, process_started, pid_namespace, seen, seen_boot, boot
FROM chunk LEFT JOIN boot ON boot.number = chunk.boot
"""
"""The columns of a hold, for `holder_of`."""


def run_of(row: tuple[Any, ...]) -> Run:
    """A run, from the columns of `RUNS`."""
    number, name, settings, created, total, plan_complete, stopped, account, fingerprint, timeout, restored, *more = row
    stops, repeat_window, canary, pruned, *planned = more
    return Run(
        number,
        name,
        settings,
        datetime.fromisoformat(created),
        total,
        bool(plan_complete),
        bool(stopped),
        account,
        fingerprint,
        timeout,
        bool(restored),
        stops,
        repeat_window,
        canary,
        pruned and datetime.fromisoformat(pruned),
        *planned,
    )


def holder_of(hold: Sequence[Any], moment: Moment, *, exists: bool) -> Holder:
    """The holder of a chunk, from the columns of `HOLD`."""
    token, pid, host, since, boot_id, started, namespace, seen, seen_boot, boot = hold
    if token is None:  # a lock without a hold: its process was suspended or killed between the two
        return Holder("", 0, "", exists=exists)
    # Another machine's clock may be ahead of this one.
    age = moment.boot_time - seen_boot if moment.is_same_boot(boot) else abs(moment.wall - seen)
    return Holder(
        token,
        pid,
        host,
        datetime.fromtimestamp(since, UTC),
        boot_id or "",
        started,
        namespace,
        LEASE_TIMEOUT - age,
        exists,
    )


def target_of(row: tuple[Any, ...], command: str) -> Target:
    """A target, from its columns and its command with contents."""
    index, _, state, summary, code, request_id, attempts, at, since, is_final = row
    moment = at and datetime.fromisoformat(at)
    began = since and datetime.fromisoformat(since)
    if state == "sending":  # the columns of an earlier outcome do not apply
        return Target(index, command, state, request_id=request_id, at=began, since=began)
    return Target(index, command, state, summary or "", code, request_id, attempts or 0, moment, bool(is_final), began)


def rows_of(rows: Sequence[tuple[Any, ...]], commands: Sequence[str]) -> list[TargetRow]:
    """The rows of targets, as `target_of` makes targets of them."""
    return [
        (index, command, state, "", None, request_id, 0, since, 0)
        if state == "sending"
        else (index, command, state, summary or "", code, request_id, attempts or 0, at, is_final)
        for (index, _, state, summary, code, request_id, attempts, at, since, is_final), command in zip(
            rows, commands, strict=True
        )
    ]


def story_of(claims: Iterable[tuple[Any, ...]], outcomes: Iterable[tuple[Any, ...]]) -> Story:
    """The story of a target, from the rows of its claims and of its outcome."""
    return Story(
        [
            StoredClaim(send_no, request_id, datetime.fromisoformat(since), datetime.fromtimestamp(claimed_at, UTC))
            for send_no, request_id, since, claimed_at in claims
        ],
        [
            StoredOutcome(send_no, state, summary, code, request_id, attempts, datetime.fromisoformat(at), bool(final))
            for send_no, state, summary, code, request_id, attempts, at, final in outcomes
        ],
    )

"""The facts of a run's report.

They are gathered in one pass over the run's targets, in pages. They hold no token, and no content of a command.
"""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import attrs

from dispatchkit.cli.input.ledger_ref import LedgerRef
from dispatchkit.cli.option_names import as_options
from dispatchkit.cli.output.report_file import ReportFile
from dispatchkit.cli.text import escape_control, redact_urls
from dispatchkit.cli.views.snapshot import RunSnapshot, notify_remark, resolve_run, resume_line, take_snapshot
from dispatchkit.cli.views.target_lines import TargetLines
from dispatchkit.core.clock import SYSTEM
from dispatchkit.ledger.run_snapshot import with_taken_over
from dispatchkit.ledger.series import LATENCY_BOUNDS, Bucket, percentile
from dispatchkit.ledger.target import Target, TargetRow
from dispatchkit.plots import regular
from dispatchkit.values import HIDDEN, Value

if TYPE_CHECKING:
    from dispatchkit.ledger.ledger import Ledger

__all__ = ["FailureKind", "RunReport", "make_report"]

_FAILED = ("rejected", "not_sent", "unknown")
_KINDS = 20
"""Maximum kinds of failures that a report shows."""
_COUNTED_KINDS = 1000
"""Maximum kinds that are counted. A summary with an id in it may be a kind for each target."""
_EXAMPLES = 3
_LONGEST_SUMMARY = 160


@attrs.frozen
class FailureKind(Value):
    """Targets that failed in the same way."""

    state: str
    code: int | str | None
    summary: str
    count: int
    examples: tuple[int, ...] = ()
    """The ids of the first targets."""


@attrs.frozen(kw_only=True)
class RunReport(Value):
    """What a run did."""

    made_at: datetime
    snapshot: RunSnapshot
    first_target: Target | None
    """An example of the commands. They may differ in more than their ids."""
    first_request: datetime | None
    """When the first target was claimed."""
    last_outcome: datetime | None
    median_latency: float | None
    """Seconds from a claim to its outcome, see `dispatchkit.ledger.series`."""
    p95_latency: float | None
    retried: int
    """Targets whose latest outcome took more than one attempt."""
    most_attempts: int
    failures: tuple[FailureKind, ...]
    """The most frequent kinds, the most frequent first."""
    other_failures: int
    """Targets that failed in other ways."""
    series: tuple[Bucket, ...]
    """The outcomes over time, in at most 300 buckets."""
    resume: str | None
    """The line that resumes the run, if that does anything."""
    resume_remark: str = attrs.field(default="", metadata=HIDDEN)
    """What that line leaves out; empty if nothing."""
    list_failures: str
    """The line that writes the targets that are not done."""
    export: str
    """The line that writes all targets."""


@attrs.define
class _Tally:
    """What is counted over all targets."""

    first: Target | None = None
    retried: int = 0
    most_attempts: int = 0
    failed: int = 0
    kinds: dict[tuple[str, int | str | None, str], list[int]] = attrs.Factory(
        dict[tuple[str, int | str | None, str], list[int]]
    )
    """The number of targets of each kind, followed by the ids of the first ones."""

    def add(self, rows: Sequence[TargetRow]) -> None:
        """Count some targets."""
        if self.first is None and rows:
            self.first = Target.of_row(rows[0])
        for row in rows:
            state, attempts = row[2], row[6]
            self.retried += attempts > 1
            self.most_attempts = max(self.most_attempts, attempts)
            if state in _FAILED:
                self._add_failure(row)

    def _add_failure(self, row: TargetRow) -> None:
        self.failed += 1
        target = Target.of_row(row)
        key = (target.state, target.code, target.summary)
        kind = self.kinds.get(key)
        if kind is None:
            if len(self.kinds) >= _COUNTED_KINDS:
                return
            kind = self.kinds[key] = [0]
        kind[0] += 1
        if len(kind) <= _EXAMPLES and (number := target.target) is not None:
            kind.append(number)

    def failures(self) -> tuple[FailureKind, ...]:
        """The most frequent kinds of failures."""
        most = sorted(self.kinds.items(), key=lambda item: -item[1][0])[:_KINDS]
        return tuple(
            FailureKind(state, _shown(code) if isinstance(code, str) else code, _shown(summary), count, tuple(examples))
            for (state, code, summary), (count, *examples) in most
        )


async def make_report(
    ledger: Ledger, ledger_ref: LedgerRef, targets: ReportFile | None = None, lines: TargetLines | None = None
) -> RunReport:
    """Gather the facts of a run.

    Args:
        ledger: The ledger.
        ledger_ref: Its name on the command line, and the name of the run.
        targets: Where all targets are written, too.
        lines: Makes their lines.

    Raises:
        ValueError: The run is not named, and is not the only one.
        LedgerError: The run does not exist, or the ledger cannot be read.
    """
    run = await resolve_run(ledger, ledger_ref)
    tally = _Tally()
    store = await ledger._open_store()
    async for page in store.rows(run.number):
        tally.add(page)
        if targets is not None and lines is not None:
            targets.write(lines.of(page))
    buckets, now = await ledger.series(run.name), SYSTEM.now()
    snapshot = await with_taken_over(ledger, await take_snapshot(ledger, await ledger.run(run.name)))
    if ledger.is_shared:
        paused = [account.until for account in await ledger.paused_accounts() if run.number in _numbers(account.runs)]
        snapshot = attrs.evolve(snapshot, paused_until=max(paused, default=None))
    latency = [sum(slot) for slot in zip(*(bucket.latency for bucket in buckets), strict=True)]
    latency = latency or [0] * (len(LATENCY_BOUNDS) + 1)
    first, last = await store.times(run.number)
    failures = tally.failures()
    can_resume = snapshot.left and not snapshot.holders and run.plan_complete
    return RunReport(
        made_at=now,
        snapshot=snapshot,
        first_target=tally.first,
        first_request=first,
        last_outcome=last,
        median_latency=percentile(latency, 0.5),
        p95_latency=percentile(latency, 0.95),
        retried=tally.retried,
        most_attempts=tally.most_attempts,
        failures=failures,
        other_failures=tally.failed - sum(kind.count for kind in failures),
        series=tuple(regular(buckets, until=now if snapshot.holders else None)),
        resume=resume_line(ledger_ref, run) if can_resume else None,
        resume_remark=notify_remark(ledger_ref, run) if can_resume else "",
        list_failures=ledger_ref.failures(run.name),
        export=ledger_ref.export(run.name),
    )


def _numbers(runs: Sequence[object]) -> set[int]:
    return {getattr(run, "number", -1) for run in runs}


def _shown(text: str) -> str:
    """A text of the provider or of an error: one line, without a secret, and not too long."""
    text = redact_urls(as_options(escape_control(text)))
    return text if len(text) <= _LONGEST_SUMMARY else f"{text[: _LONGEST_SUMMARY - 3]}..."

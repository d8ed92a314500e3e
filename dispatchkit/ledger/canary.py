"""The canary of a run: the targets that go first. See ``canary`` in `FanOutOptions`."""

from __future__ import annotations

import attrs

from dispatchkit.core.fanout.id_set import IdSet
from dispatchkit.core.fanout.journal import FinishedTarget, PlanSummary
from dispatchkit.errors import State
from dispatchkit.ledger.codec import decode
from dispatchkit.ledger.run import Run
from dispatchkit.ledger.store import Store
from dispatchkit.ledger.target import Target

__all__ = ["with_canary"]

_FINAL = frozenset({State.DONE.value, State.REJECTED.value})


async def with_canary(store: Store, run: Run, summary: PlanSummary, count: int, left_out: IdSet) -> PlanSummary:
    """Add the targets that go first to the summary of a plan. Once another target has begun, they were seen to go out.

    Args:
        store: The store of the run.
        run: The run.
        summary: The summary.
        count: The number of targets that go first.
        left_out: The indexes of targets that are left out.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    first: list[Target] = []
    first_begun = 0
    async for target in store.targets(run.number):
        if target.index >= count and len(first) >= count:
            break
        first_begun += target.index < count and target.state != "planned"
        if target.index not in left_out and len(first) < count:
            first.append(target)
    counts = await store.counts(run.number)
    begun = counts.sending + counts.done + counts.rejected + counts.not_sent + counts.unknown
    if begun > first_begun:
        return attrs.evolve(summary, canary=0)
    finished = tuple(_finished(target) for target in first if target.state in _FINAL or target.is_final)
    return attrs.evolve(summary, canary=len(first), finished=finished)


def _finished(target: Target) -> FinishedTarget:
    return FinishedTarget(
        decode(target.command, partial=True), State(target.state), target.since, target.summary, target.index
    )

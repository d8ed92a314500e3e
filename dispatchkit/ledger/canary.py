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
_BEGUN = ("sending", *(state.value for state in State))


async def with_canary(store: Store, run: Run, summary: PlanSummary, count: int, left_out: IdSet) -> PlanSummary:
    """Add the targets that go first to the summary of a plan. Once more targets than these have begun, they went out.

    Args:
        store: The store of the run.
        run: The run.
        summary: The summary.
        count: The number of targets that go first.
        left_out: The indexes of targets that are left out.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    # A canary began no more targets than it had. The first ones of another process may have been others: those that
    # another run has taken over are left out, and each resume may have a canary of its own.
    limit = max(count, run.canary or 0)
    begun: list[Target] = []
    async for target in store.targets(run.number, states=_BEGUN):
        if target.index not in left_out:
            begun.append(target)
            if len(begun) > limit:
                return attrs.evolve(summary, canary=0)
    finished = tuple(_finished(target) for target in begun if target.state in _FINAL or target.is_final)
    return attrs.evolve(summary, canary=min(max(count, len(begun)), summary.total or 0), finished=finished)


def _finished(target: Target) -> FinishedTarget:
    return FinishedTarget(
        decode(target.command, partial=True), State(target.state), target.since, target.summary, target.index
    )

"""Which runs may be pruned, and how. See `Ledger.prune`."""

from __future__ import annotations

from datetime import datetime

from dispatchkit.ledger.run import Run
from dispatchkit.ledger.store import Store

__all__ = ["is_prunable", "prune_runs"]


async def is_prunable(store: Store, run: Run, *, whole: bool) -> bool:
    """Whether nothing is left to do in a run, and there is something to delete. `prune_runs` looks once more.

    Args:
        store: The store of the run.
        run: The run.
        whole: Whether the run itself is deleted. Then a stopped run is no longer needed either.
    """
    if any(chunk.holder is not None for chunk in await store.chunks(run.number)):
        return False
    if not whole and not await store.has_contents(run.number):
        return False
    return (whole and run.stopped) or (run.plan_complete and not (await store.counts(run.number)).left)


async def prune_runs(store: Store, before: datetime, *, whole: bool) -> list[str]:
    """Prune the runs that were made before a moment. Returns their names, newest first."""
    await store.check_identity()
    old = [run for run in await store.runs() if run.created < before]
    # The store decides in the transaction that deletes: a process may take the run, or add targets, until then.
    return [
        run.name
        for run in old
        if await is_prunable(store, run, whole=whole)
        and await (store.delete(run.number) if whole else store.prune_contents(run.number))
    ]

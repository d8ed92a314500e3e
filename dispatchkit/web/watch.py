"""The feeds of the pages: the list of runs, and one run with its failures and plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dispatchkit.core.fanout.snapshot import RateMeter
from dispatchkit.ledger.ledger import Ledger
from dispatchkit.ledger.store import Run, Store
from dispatchkit.web.failures import FAILED, FailureIndex
from dispatchkit.web.feed import Feed, Part
from dispatchkit.web.look import Frame, GoneError, look_at_run, look_at_runs
from dispatchkit.web.source import LedgerSource

__all__ = ["RunFeed", "runs_feed"]

_FAILURES_EVERY = 5.0
"""Seconds between two reads of the failures, at least."""


def runs_feed(source: LedgerSource, page: int) -> Feed:
    """The feed of one page of the list."""

    async def look(ledger: Ledger, store: Store) -> Frame:
        del store
        return await look_at_runs(ledger, page)

    return Feed([Part("runs", lambda: source.read(look), every=1.0)])


class RunFeed(Feed):
    """The feed of one run.

    Args:
        source: The ledger.
        name: The run's name.
        resume_line: Makes the line that resumes a run.
    """

    def __init__(self, source: LedgerSource, name: str, resume_line: Callable[[Run], str]) -> None:
        super().__init__(
            [
                Part("run", self._look, every=1.0),
                Part("failures", self._look_at_failures, every=_FAILURES_EVERY),
            ]
        )
        self._source = source
        self._name = name
        self._resume_line = resume_line
        self._meter = RateMeter()
        self._identity: tuple[int, object] | None = None
        """Number of the run, and whether a process holds it."""
        self._failed: tuple[int, ...] = ()
        self._failures: FailureIndex | None = None
        self._shown: tuple[int, ...] | None = None

    async def search(self, words: str, *, state: str | None, kind: str | None) -> Mapping[str, object]:
        """Search the failures. A feed that has not read them reads them now.

        Raises:
            AwayError: The ledger cannot be read.
        """
        if self._failures is None:
            await self._look()
            await self._look_at_failures()
        if self._failures is None:
            return {"found": 0, "failures": []}
        return self._failures.search(words, state=state, kind=kind)

    async def _look(self) -> Frame:
        async def look(ledger: Ledger, store: Store) -> Frame:
            return await look_at_run(ledger, store, self._name, meter=self._meter, resume_line=self._resume_line)

        try:
            frame = await self._source.read(look)
        except GoneError as error:
            self._identity, self._failures = None, None
            return {"gone": str(error)}
        run = int(str(frame["number"])), bool(frame["workers"])
        if run != self._identity:  # another run of this name, or it was resumed: known failures may have other reasons
            self._identity, self._failures, self._shown = run, FailureIndex(run[0]), None
        counts = frame["counts"]
        self._failed = tuple(counts[state] for state in FAILED) if isinstance(counts, dict) else ()
        return frame

    async def _look_at_failures(self) -> Frame | None:
        index, failed = self._failures, self._failed
        if index is None or failed == self._shown:
            return None

        async def look(ledger: Ledger, store: Store) -> None:
            del ledger
            await index.refresh(store)

        await self._source.read(look)
        self._shown = failed
        return index.kinds(sum(failed))

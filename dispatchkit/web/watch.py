"""The feeds of the pages: the list of runs, and one run with its failures and plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import cast

from dispatchkit.core.fanout.snapshot import RateMeter
from dispatchkit.ledger.ledger import Ledger
from dispatchkit.ledger.run import Counts, Run
from dispatchkit.ledger.series import BUCKET_SECONDS, Bucket
from dispatchkit.ledger.store import Store
from dispatchkit.plots import latency_over_time, outcomes_over_time, rate_over_time, regular
from dispatchkit.web.failures import FAILED, FailureIndex
from dispatchkit.web.feed import Feed, Part
from dispatchkit.web.look import Frame, GoneError, look_at_run, look_at_runs
from dispatchkit.web.source import LedgerSource

__all__ = ["RunFeed", "runs_feed"]

_LIVE_SHARE = 0.03
"""The most of a core that a feed uses to read what changes every second."""
_LATE = timedelta(seconds=60)
"""Outcomes may be written so much later than they came. A read begins so much before the latest known bucket."""
_FIRST = datetime(1970, 1, 2, tzinfo=UTC)
_WIDTH, _HEIGHT = 420, 220
_FAILURES_EVERY = 5.0
"""Seconds between two reads of the failures, at least."""


def runs_feed(source: LedgerSource, page: int) -> Feed:
    """The feed of one page of the list."""

    async def look(ledger: Ledger, store: Store) -> Frame:
        del store
        return await look_at_runs(ledger, page)

    return Feed([Part("runs", lambda: source.read(look), every=1.0, share=_LIVE_SHARE)])


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
                Part("run", self._look, every=1.0, share=_LIVE_SHARE),
                Part("plots", self._draw, every=BUCKET_SECONDS),
                Part("failures", self._look_at_failures, every=_FAILURES_EVERY),
            ]
        )
        self._source = source
        self._name = name
        self._resume_line = resume_line
        self._meter = RateMeter()
        self._identity: tuple[int, object] | None = None
        """Number of the run, and whether a process holds it."""
        self._counts = Counts()
        self._failed: tuple[int, ...] = ()
        self._failures: FailureIndex | None = None
        self._shown: tuple[int, ...] | None = None
        self._is_live = False
        self._drawn: object = None
        self._buckets: dict[datetime, Bucket] = {}

    async def search(self, words: str, *, state: str | None, kind: str | None) -> Mapping[str, object]:
        """Search the failures. A feed that has not read them reads them now.

        Raises:
            AwayError: The ledger cannot be read.
        """
        if self._shown is None:
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
            self._buckets, self._drawn = {}, None
        counts = cast("Mapping[str, int]", frame["counts"])
        self._counts = Counts(**counts)
        self._failed = tuple(counts[state] for state in FAILED)
        self._is_live = not frame["over"] and bool(frame["workers"])
        return frame

    async def _draw(self) -> Frame | None:
        """The charts, drawn by the server. Only the buckets that may still change are read again."""
        identity = self._identity
        if identity is None:
            return None

        async def look(ledger: Ledger, store: Store) -> list[Bucket]:
            del ledger
            since = max(self._buckets) - _LATE if self._buckets else _FIRST
            return await store.series(identity[0], since=since)

        fresh = await self._source.read(look)
        self._buckets |= {bucket.start: bucket for bucket in fresh}
        shown = (fresh, self._is_live, self._counts)
        if not self._buckets or (shown == self._drawn and not self._is_live):
            return None
        self._drawn = shown
        until = datetime.now(UTC) if self._is_live else None
        points = regular([*self._buckets.values()], until=until)
        draw_outcomes = partial(outcomes_over_time, counts=None if self._is_live else self._counts)
        charts = (rate_over_time, latency_over_time, draw_outcomes)
        return {"plots": [draw(points, until=until, width=_WIDTH, height=_HEIGHT) for draw in charts]}

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

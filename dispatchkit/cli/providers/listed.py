"""The dispatches that have a status, listed in windows of their creation time.

The provider documents no paging. So the list is read from the newest dispatches to the oldest ones. Each window is
handed on before the next one is read. Only ids are kept.
"""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from dispatchkit.core.fanout.id_set import IdSet
from dispatchkit.direct.commands import ReadDispatches
from dispatchkit.errors import DispatchkitError

if TYPE_CHECKING:
    from dispatchkit import Dispatch, Listing
    from dispatchkit.core.call.client import Client
    from dispatchkit.direct.commands import DirectAuth

__all__ = ["SHOWN", "Listed", "windows"]

SHOWN = 5
"""Dispatches that are named before the others are counted."""
_FIRST = timedelta(hours=1)
_MAX_SPAN = timedelta(days=4096)


def windows(now: datetime) -> Iterator[tuple[datetime | None, datetime | None]]:
    """Windows of the creation time, the newest first. They overlap by a second, and leave no time out."""
    span, end, now = _FIRST, None, now.replace(microsecond=0)
    while span <= _MAX_SPAN:
        yield now - span, end
        end, span = now - span, 2 * span
    yield None, end


class Listed:
    """The dispatches of one status.

    Args:
        client: Reads them.
        status: The status.
        tell: Called after each window.

    Attributes:
        ids: What was listed so far.
        first: The first ones.
        repeated: The number of dispatches that one answer listed twice.
        later: The number that got the status while the list was read. They are not handed on.
        cut: The provider's count and the number of dispatches, of an answer that was not complete.
        error: Why the list broke off.
        is_whole: Whether the list was read to its end.
    """

    def __init__(self, client: Client[DirectAuth], status: str, tell: Callable[[], None] = lambda: None) -> None:
        self._client = client
        self._status = status
        self.tell = tell
        self.ids = array("q")
        self.first: list[Dispatch] = []
        self.repeated = self.later = 0
        self.cut: tuple[int, int] | None = None
        self.error: DispatchkitError | None = None
        self.is_whole = False
        self._seen = IdSet()

    async def pages(self) -> AsyncGenerator[list[int]]:
        """The new ids of each window, as it is read. An error of a read ends them, and is kept."""
        try:
            for start, end in windows(self._client._clock.now()):
                listing = await self._read(start, end)
                yield self._take([*listing])
            # A window holds no dispatch without a creation time. One that is new with a time got the status since.
            listing = await self._read(None, None)
            self.later = len(IdSet().add_new([
                each.dispatch_id for each in listing if each.created is not None and each.dispatch_id not in self._seen
            ]))  # fmt: skip
            yield self._take([dispatch for dispatch in listing if dispatch.created is None])
            self.is_whole = True
        except DispatchkitError as error:
            self.error = error

    async def _read(self, start: datetime | None, end: datetime | None) -> Listing[Dispatch]:
        listing = await self._client.perform(ReadDispatches(status=self._status, created_from=start, created_to=end))
        if listing.missing:
            self.cut = (listing.total or 0, len(listing))
        return listing

    def _take(self, dispatches: list[Dispatch]) -> list[int]:
        numbers = [dispatch.dispatch_id for dispatch in dispatches]
        self.repeated += len(numbers) - len({*numbers})
        new = [*self._seen.add_new(numbers)]
        if len(self.first) < SHOWN:
            wanted = {*new[: SHOWN - len(self.first)]}
            named = {each.dispatch_id: each for each in dispatches if each.dispatch_id in wanted}
            self.first += named.values()
        self.ids.extend(new)
        self.tell()
        return new

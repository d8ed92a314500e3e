"""One reader for each thing that is watched, whatever the number of viewers.

A feed looks once a second while it has viewers. It keeps the latest event of each name, so a slow viewer misses events
and never makes the feed wait. After a look that cost much, the next one waits: a feed uses a few percent of a core.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress

from dispatchkit.web.source import AwayError

__all__ = ["Feed", "Feeds", "Part", "encode_event"]

_EVERY = 1.0
"""Seconds between two looks."""
_PATIENCE = 2.5
"""Seconds after which a look that has no answer is told as such."""
_LINGER = 10.0
"""Seconds for which a feed without viewers keeps what it has read: a page may be loaded again."""
_EARLY = 0.05
"""Seconds by which a part may be read early: the ticks of a feed are not exact."""
_LONGEST = 20.0
"""How many times longer than usual a part waits at most."""
_SHARE = 0.01
"""The most of a core that a part of a feed uses, by default."""
_TIME_SHARE = 0.2
"""The most of its time that a part reads: the database works meanwhile, also where this process only waits."""


class Part:
    """One thing that a feed reads, in its own rhythm.

    Args:
        name: The name of its events.
        read: Reads it. None means that nothing has changed.
        every: Seconds between two reads, at least.
        share: The most of a core that it uses. After a read that took more, the next one waits longer.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], Awaitable[Mapping[str, object] | None]],
        every: float,
        *,
        share: float = _SHARE,
    ) -> None:
        self.name = name
        self._read = read
        self._every = every
        self._share = share
        self._next = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time to read it again."""
        return time.monotonic() >= self._next

    async def read(self) -> Mapping[str, object] | None:
        """Read it, and wait longer before the next time if it took long."""
        began, used = time.monotonic(), time.process_time()
        self._next = began + self._every - _EARLY
        told = await self._read()
        elapsed, used = time.monotonic() - began, time.process_time() - used
        pause = max(elapsed / _TIME_SHARE, used / self._share)
        self._next = max(self._next, began + min(pause, _LONGEST * self._every))
        return told

    def read_soon(self) -> None:
        """Read it at the next tick: the last read waited for a database that was away."""
        self._next = 0.0


class Feed:
    """Reads its parts while it has viewers, and tells whether the ledger is away.

    Args:
        parts: What it reads, in this order. A part may use what an earlier one has read.
    """

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts
        self._events: dict[str, tuple[int, bytes]] = {}
        self.latest: dict[str, Mapping[str, object]] = {}
        """The latest event of each name."""
        self._version = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._viewers = 0
        self._idle_since = time.monotonic()
        self._away = False
        self._closed = False

    @property
    def is_idle(self) -> bool:
        """Whether it had no viewers for a while."""
        return not self._viewers and time.monotonic() - self._idle_since > _LINGER

    @property
    def _is_reading(self) -> bool:
        return self._task is not None

    async def look_once(self) -> None:
        """Read the first part, unless viewers have it read every second.

        Raises:
            AwayError: The ledger cannot be read.
        """
        if self._is_reading and self.latest:
            return
        first = self._parts[0]
        told = await first.read()
        self._tell_back()
        if told is not None:
            self._put(first.name, told)

    async def follow(self) -> AsyncGenerator[bytes]:
        """The latest event of each name, then each change."""
        self._viewers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._pump())
        seen = 0
        try:
            while True:
                changed = self._changed
                fresh = [event for version, event in self._events.values() if version > seen]
                seen = self._version
                if fresh:
                    yield b"".join(fresh)
                if self._closed or not self._is_reading:
                    return
                await changed.wait()
        finally:
            self._viewers -= 1
            self._idle_since = time.monotonic()

    async def close(self) -> None:
        """End it, and every viewer's stream."""
        self._closed = True
        self._notify()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _pump(self) -> None:
        try:
            while not self.is_idle:
                began, version = time.monotonic(), self._version
                for part in self._parts:
                    if part.is_due:
                        await self._read(part)
                if self._version == version:
                    self._put("tick", {})  # or a page would think that the server is away
                self._notify()
                await asyncio.sleep(max(0.05, began + _EVERY - time.monotonic()))
        finally:
            self._task = None
            self._notify()  # every stream ends, and its page connects again

    async def _read(self, part: Part) -> None:
        reading = asyncio.ensure_future(part.read())
        try:
            while not (await asyncio.wait([reading], timeout=_PATIENCE))[0]:
                self._tell_away("The ledger does not answer.")
            told = reading.result()
        except AwayError as error:
            self._tell_away(str(error))
        else:
            if self._away:
                part.read_soon()
            self._tell_back()
            if told is not None:
                self._put(part.name, told)
        finally:
            if not reading.done():
                reading.cancel()
                with suppress(asyncio.CancelledError, AwayError):
                    await reading

    def _tell_away(self, why: str) -> None:
        self._away = True
        self._put("ledger", {"away": why})
        self._notify()

    def _tell_back(self) -> None:
        if self._away:
            self._away = False
            self._put("ledger", {"away": None})

    def _put(self, name: str, told: Mapping[str, object]) -> None:
        self._version += 1
        self.latest[name] = told
        self._events[name] = self._version, encode_event(name, told)

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Feeds:
    """The feeds of a server, by what they show."""

    def __init__(self) -> None:
        self._feeds: dict[object, Feed] = {}

    def get(self, key: object, make: Callable[[], Feed]) -> Feed:
        """The feed of a key; a new one if it had no viewer lately."""
        for old in [each for each, feed in self._feeds.items() if feed.is_idle and each != key]:
            del self._feeds[old]
        feed = self._feeds.get(key)
        if feed is None or feed.is_idle:
            feed = self._feeds[key] = make()
        return feed

    async def close(self) -> None:
        """End all feeds."""
        feeds, self._feeds = [*self._feeds.values()], {}
        for feed in feeds:
            await feed.close()


def encode_event(name: str, told: Mapping[str, object]) -> bytes:
    """A server-sent event. JSON has no line ends, so no text can begin another event."""
    text = json.dumps(told, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n".encode()

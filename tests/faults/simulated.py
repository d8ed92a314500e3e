"""A provider behind a bad network, in virtual time: no sockets, no waiting, the same numbers for the same seed."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import parse_qsl, urlsplit

import attrs
from multidict import CIMultiDict

from dispatchkit.core.command import Request, Response
from dispatchkit.core.transport.transport import SendTracker, TransportFailure
from dispatchkit.sandbox import AltcraftProvider, Call, DirectProvider, Reply

START = datetime(2026, 1, 1, tzinfo=UTC)


class VirtualClock:
    """A clock that advances only in sleeps, with events at given times."""

    def __init__(self, rng: random.Random) -> None:
        self.time = 0.0
        self._rng = rng
        self._events: list[tuple[float, int, Callable[[], object]]] = []

    def monotonic(self) -> float:
        return self.time

    def boottime(self) -> float:
        return self.time

    def now(self) -> datetime:
        return START + timedelta(seconds=self.time)

    def timestamp(self) -> float:
        """What the provider's clock shows."""
        return self.now().timestamp()

    def random(self) -> float:
        return self._rng.random()

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)  # let the other tasks take a step

    def at(self, moment: float, event: Callable[[], object]) -> None:
        heapq.heappush(self._events, (moment, len(self._events), event))

    def advance(self, seconds: float) -> None:
        end = self.time + seconds
        while self._events and self._events[0][0] <= end:
            moment, _, event = heapq.heappop(self._events)
            self.time = max(self.time, moment)
            event()
        self.time = end


class Cache:
    """Answers questions with what it got some time ago, whatever they say of caches.

    Args:
        clock: Time.
        keep: Seconds for which it keeps an answer.
        fields: The header fields that tell how old an answer is: ``Age``, ``Date``.
    """

    def __init__(self, clock: VirtualClock, *, keep: float, fields: frozenset[str]) -> None:
        self._clock = clock
        self._keep = keep
        self._fields = fields
        self._kept: dict[str, tuple[float, Reply]] = {}
        self.stale = 0
        """How many answers were not new."""

    def response(self, path: str, ask: Callable[[], Reply]) -> Reply:
        now = self._clock.time
        at, reply = self._kept.get(path, (-math.inf, None))
        if reply is None or now - at > self._keep:
            date = format_datetime(self._clock.now(), usegmt=True)
            reply = ask()
            reply = attrs.evolve(reply, headers={"Date": date, **reply.headers})
            at, _ = self._kept[path] = now, reply
        self.stale += now > at
        said = {"Age": str(int(now - at)), **reply.headers}
        return attrs.evolve(
            reply, headers={name: text for name, text in said.items() if name not in {"Age", "Date"} - self._fields}
        )


class BadNetwork:
    """Stands in for the transport: draws the faults of each request.

    Args:
        rng: Decides everything.
        clock: Moves on as requests take their time.
        provider: Answers what arrives whole.
        trouble: The share of acting requests that meet a fault.
        reading_trouble: The share of state readings that do.
        late: Seconds after which a request whose sender has long given up may still be carried out.
        strips: Whether it drops the ids of the requests on their way.
        cache: What answers questions on their way.
    """

    def __init__(
        self,
        rng: random.Random,
        clock: VirtualClock,
        provider: DirectProvider | AltcraftProvider,
        *,
        trouble: float,
        reading_trouble: float,
        late: float,
        strips: bool = False,
        cache: Cache | None = None,
    ) -> None:
        self._rng = rng
        self._clock = clock
        self._provider = provider
        self._trouble = trouble
        self._reading_trouble = reading_trouble
        self._late = late
        self._strips = strips
        self._cache = cache
        self.bytes_arrived: Counter[str | None] = Counter()
        """Of acting requests, by their id."""
        self.acts_by_id: Counter[str | None] = Counter()
        """How often the provider acted, by the id that the request had when it left."""
        self.acting: list[Request] = []

    async def send(self, request: Request, tracker: SendTracker, *, timeout: float) -> Response | TransportFailure:
        reading = _reads(request)
        if not reading:
            self.acting.append(request)
        await asyncio.sleep(0)  # let the other tasks take a step
        reply = self.meet(reading=reading)(self, request, timeout, reading)
        tracker.sent = not isinstance(reply, TransportFailure) or reply.sent
        return reply

    def meet(self, *, reading: bool) -> Fault:
        """What the next request meets on its way."""
        share = self._reading_trouble if reading else self._trouble
        return self._rng.choice(FAULTS) if self._rng.random() < share else answered

    async def close(self) -> None:
        """Nothing is open."""

    def arrive(self, request: Request) -> Reply:
        """The provider reads the whole request and does what it asks."""
        parts, headers = urlsplit(request.target), dict(request.headers)
        if self._strips:
            headers = {name: text for name, text in headers.items() if not name.endswith("Request-ID")}
        before = len(self._provider.acts)
        call = Call(request.method, parts.path, dict(parse_qsl(parts.query)), headers, request.body or b"")
        if self._cache is not None and _reads(request):
            return self._cache.response(parts.path, lambda: self._provider.answer(call))
        reply = self._provider.answer(call)
        self.acts_by_id[request.headers.get("Request-ID")] += len(self._provider.acts) - before
        return reply

    def count(self, request: Request, share: float, *, reading: bool) -> None:
        if not reading:
            size = max(1, int(share * (200 + len(request.body or b""))))
            self.bytes_arrived[request.headers.get("Request-ID")] += size

    def take(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def draw(self, most: float) -> float:
        return self._rng.random() * most

    def pick(self, *things: int) -> int:
        return self._rng.choice(things)

    def later(self, event: Callable[[], object]) -> None:
        self._clock.at(self._clock.time + self.draw(self._late), event)


def _reads(request: Request) -> bool:
    return request.method == "GET" or request.target.endswith(("get_status", "log_v2"))


Fault = Callable[[BadNetwork, Request, float, bool], Response | TransportFailure]


def _answer(reply: Reply) -> Response:
    return Response(reply.status, CIMultiDict(reply.headers), reply.body)


def answered(net: BadNetwork, request: Request, timeout: float, reading: bool) -> Response | TransportFailure:
    net.take(min(net.draw(0.3), timeout))
    net.count(request, 1.0, reading=reading)
    return _answer(net.arrive(request))


def _refused(net: BadNetwork, request: Request, timeout: float, reading: bool) -> Response | TransportFailure:
    del request, reading
    net.take(min(net.draw(1.0), timeout))
    return TransportFailure("connection refused", sent=False)


def _broken_on_the_way_in(
    net: BadNetwork, request: Request, timeout: float, reading: bool
) -> Response | TransportFailure:
    net.take(min(net.draw(1.0), timeout))
    net.count(request, net.draw(0.99), reading=reading)
    return TransportFailure("reset", sent=True)


def _broken_on_the_way_out(
    net: BadNetwork, request: Request, timeout: float, reading: bool
) -> Response | TransportFailure:
    answered(net, request, timeout, reading)
    return TransportFailure("cut", sent=True)


def _silent_and_late(net: BadNetwork, request: Request, timeout: float, reading: bool) -> Response | TransportFailure:
    """The sender gives up; the provider may carry it out all the same, some time later."""
    net.count(request, 1.0, reading=reading)
    net.take(timeout)
    if net.pick(0, 1):
        net.later(lambda: net.arrive(request))
    return TransportFailure("no answer in time", sent=True)


def _server_error(net: BadNetwork, request: Request, timeout: float, reading: bool) -> Response | TransportFailure:
    net.take(min(net.draw(0.3), timeout))
    net.count(request, 1.0, reading=reading)
    body = b""
    if net.pick(0, 1):
        body = net.arrive(request).body
    return Response(net.pick(500, 502, 503, 504), CIMultiDict(), body)


def _foreign(net: BadNetwork, request: Request, timeout: float, reading: bool) -> Response | TransportFailure:
    net.take(min(net.draw(0.3), timeout))
    net.count(request, 1.0, reading=reading)
    if net.pick(0, 1):
        net.arrive(request)
    return Response(net.pick(200, 301, 403, 404, 408), CIMultiDict(), b"<html><body>hello</body></html>")


def _cut_body(net: BadNetwork, request: Request, timeout: float, reading: bool) -> Response | TransportFailure:
    """A proxy that forwards part of a body and calls it whole."""
    response = answered(net, request, timeout, reading)
    assert isinstance(response, Response)
    return Response(response.status, response.headers, response.body[: int(net.draw(len(response.body)))] or b"{")


def _throttled(net: BadNetwork, request: Request, timeout: float, reading: bool) -> Response | TransportFailure:
    net.take(min(net.draw(0.3), timeout))
    net.count(request, 1.0, reading=reading)
    headers = CIMultiDict[str]()
    if net.pick(0, 1):
        headers["Retry-After"] = str(net.pick(0, 1, 5, 30, 4294967))
    return Response(429, headers, b"")


FAULTS: list[Fault] = [
    _refused,
    _broken_on_the_way_in,
    _broken_on_the_way_out,
    _silent_and_late,
    _server_error,
    _foreign,
    _cut_body,
    _throttled,
]

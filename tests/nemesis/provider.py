"""Both providers at their worst, on a raw socket. It imports nothing of dispatchkit, so it shares none of its errors.

Every whole start request acts, a second one for the same dispatch too. An act may be late, also if its connection has
ended, and its answer may never come. It is never later than the state lag that the product tolerates. The state is
honest: ``initiated`` before the act, ``sending`` after it.

Altcraft is played in JSON alone: a broadcast is launched, and its log shows each act. With deduplication, a request id
that was seen acts once, and its repeat is answered as a replay.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
import random
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any, cast

__all__ = ["Act", "Provider"]

_START = re.compile(rb"POST /api/v1/dispatch/(\d+)/start ")
_STATE = re.compile(rb"GET /api/v1/dispatch\?dispatch_id=(\d+) ")
_LAUNCH = re.compile(rb"POST /api/v1.1/campaigns/broadcasts/start ")
_LOG = re.compile(rb"POST /api/v1.1/campaigns/log_v2 ")
_REQUEST_ID = re.compile(rb"(?i)\r\nrequest-id: *([^\r]+)")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_ACCEPTED = {"data": None, "error": 0, "error_text": "Successful operation"}


@dataclasses.dataclass(frozen=True)
class Act:
    """One launch that happened. Times are of the monotonic clock."""

    arrived: float
    """When the last byte of its request arrived."""
    at: float
    """When it acted."""
    connection: int
    """The port of the client."""


class Provider:
    """A server on loopback.

    Args:
        chance: What is random in it.
        latency: Seconds an ordinary answer takes, at least and at most.
        late: The share of the starts that act late, from one second to ``latest`` after they arrived.
        latest: The most that an act may be late.
        silent: The share of the late starts whose connection is cut instead of an answer.
    """

    def __init__(
        self,
        chance: random.Random,
        *,
        latency: tuple[float, float] = (0.001, 0.005),
        late: float = 0.0,
        latest: float = 2.0,
        silent: float = 0.5,
    ) -> None:
        self.chance = chance
        self.latency = latency
        self.late = late
        self.latest = latest
        self.silent = silent
        self.acts: dict[int, list[Act]] = collections.defaultdict(list)
        self.arrived: dict[int, list[float]] = collections.defaultdict(list)
        """When each start arrived, also one that has not acted yet."""
        self.dropped = 0.0
        """The share of the starts that do nothing, as the provider fails and resets the connection."""
        self.deduplicates = False
        """Whether Altcraft deduplicates by request id."""
        self.request_ids: set[bytes] = set()
        self.count = 0
        self.reads = 0
        self.on_act: Callable[[int], None] | None = None
        """Called with the number of acts, after each."""
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """What to give as base URL."""
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more. What still has to act does so."""
        if self._server is not None:
            self._server.close()

    async def acted(self, count: int) -> None:
        """Wait until there were so many acts."""
        if self.count < count:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((count, future))
            await future

    def state(self, dispatch: int) -> str:
        """As the list of dispatches shows it."""
        return "sending" if self.acts.get(dispatch) else "initiated"

    def log(self, asked: dict[str, Any]) -> object:
        """As Altcraft's log shows the acts of a mailing, from a moment on."""
        moments = [time.time() - (time.monotonic() - act.at) for act in self.acts.get(asked["id"], ())]
        shown = [datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z" for moment in moments]
        since = asked.get("from_time", "")
        rows = [{"level": "INFO", "message": "", "state": "start", "time": each} for each in shown if each >= since]
        return {"data": rows or None, "error": 0, "error_text": "Successful operation", "total_count": len(rows)}

    def act(self, dispatch: int, arrived: float, connection: int) -> None:
        """Launch."""
        self.acts[dispatch].append(Act(arrived, time.monotonic(), connection))
        self.count += 1
        if self.on_act is not None:
            self.on_act(self.count)
        if self._waiting:
            for count, future in self._waiting:
                if self.count >= count and not future.done():
                    future.set_result(None)
            self._waiting = [each for each in self._waiting if not each[1].done()]


class _Connection(asyncio.Protocol):
    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._port = (transport.get_extra_info("peername") or ("", 0))[1]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[: end + 2]
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                return  # only a whole request acts
            body = self._buffer[end + 4 : whole]
            self._buffer = self._buffer[whole:]
            self._request(head, body)

    def _request(self, head: bytes, body: bytes) -> None:
        provider, loop = self._provider, asyncio.get_running_loop()
        wait = provider.chance.uniform(*provider.latency)
        if start := _START.match(head):
            self._launch(int(start[1]), {"dispatchId": int(start[1])})
        elif read := _STATE.match(head):
            provider.reads += 1
            dispatch = int(read[1])
            item = {"dispatchId": dispatch, "status": provider.state(dispatch)}
            loop.call_later(wait, self._answer, 200, {"total": 1, "items": [item]})
        elif _LAUNCH.match(head):
            name = _REQUEST_ID.search(head)
            if provider.deduplicates and name is not None and name[1] in provider.request_ids:
                acted = provider.acts.get(json.loads(body)["id"])  # a repeat is answered once the first has acted
                wait += 0 if acted else provider.latest
                loop.call_later(wait, self._answer, 200, _ACCEPTED, "Duplicate-Request: true\r\n")
                return
            if name is not None:
                provider.request_ids.add(name[1])
            self._launch(json.loads(body)["id"], _ACCEPTED)
        elif _LOG.match(head):
            provider.reads += 1
            loop.call_later(wait, self._answer, 200, provider.log(json.loads(body)))
        else:
            self._answer(404, {"error": {"code": 4040, "msg": "no such call"}})

    def _launch(self, target: int, answer: object) -> None:
        provider, loop, arrived = self._provider, asyncio.get_running_loop(), time.monotonic()
        wait = provider.chance.uniform(*provider.latency)
        provider.arrived[target].append(arrived)
        if provider.dropped and provider.chance.random() < provider.dropped:
            self._cut()
            return
        if provider.chance.random() >= provider.late:
            provider.act(target, arrived, self._port)
            loop.call_later(wait, self._answer, 200, answer)
            return
        late = provider.chance.uniform(min(1.0, provider.latest), provider.latest)
        loop.call_later(late, provider.act, target, arrived, self._port)
        if provider.chance.random() < provider.silent:
            loop.call_later(wait, self._cut)
        else:
            loop.call_later(late + wait, self._answer, 200, answer)

    def _answer(self, status: int, answer: object, more: str = "") -> None:
        if self._transport is not None:
            body = json.dumps(answer).encode()
            more += f"Date: {formatdate(usegmt=True)}\r\n"
            head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{more}Content-Length: {len(body)}\r\n\r\n"
            self._transport.write(head.encode() + body)

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()

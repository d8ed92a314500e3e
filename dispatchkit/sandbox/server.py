"""The sandbox: both providers behind one HTTP server on loopback."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
import threading
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Self

from aiohttp import web

from dispatchkit.sandbox.altcraft import ALTCRAFT_TOKEN, AltcraftProvider
from dispatchkit.sandbox.direct import DIRECT_TOKEN, WRONG_KIND_TOKEN, DirectProvider
from dispatchkit.sandbox.faults import Faults
from dispatchkit.sandbox.ids import Ids
from dispatchkit.sandbox.thread import LoopThread
from dispatchkit.sandbox.wire import Call, Reply

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http import RawRequestMessage
    from aiohttp.streams import StreamReader
    from aiohttp.web_protocol import RequestHandler

    from dispatchkit.sandbox.dedup import Generation
    from dispatchkit.sandbox.direct import SecondStart
    from dispatchkit.sandbox.faults import Fault
    from dispatchkit.sandbox.wire import Act

DEFAULT_DISPATCHES = Ids(range(1, 100_001), [10000000125])
"""The default dispatches of a sandbox: 1 to 100,000, and the id of the provider's sample."""

DEFAULT_MAILINGS = Ids(range(1, 100_001))
"""The default mailings of a sandbox: 1 to 100,000."""

# Seconds that requests in flight get when the sandbox closes. aiohttp takes 0 for "without limit".
_GRACE = 0.01
_ACCEPT_TURNS = 4
"""Turns of the loop before the close. A connection that is being accepted then would stay open unnoticed."""


class Sandbox:
    """Both providers on loopback, for tests that must not launch anything.

    Example:
        >>> async with Sandbox() as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...         sandbox.order(Fault.lost_answer())
        ...         started = await direct.start(10000000125)
        ...     started.settled, sandbox.launches[10000000125]
        (True, 1)

    ``with Sandbox() as sandbox:`` runs it in a thread of its own, for blocking programs and for tests:

        >>> with Sandbox() as sandbox, sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     direct.start(7).dispatch_id, sandbox.launches[7]
        (7, 1)

    A provider acts as soon as its request is read. Latency and faults delay or spoil only the answer. A sandbox keeps
    its state when it is closed and opened again.

    Args:
        host: The loopback address to listen on. Default: ``"127.0.0.1"``.
        port: The port. Default: 0, any free one.
        allow_remote: Whether another host than loopback will do: the sandbox is not made for strangers. Default: False.
        dispatches: The ids that Direct knows. Default: 1 to 100,000 and 10000000125.
        mailings: The ids that Altcraft knows. Default: 1 to 100,000.
        active: The mailings that are active from the beginning. Default: none.
        regulars: The mailings that are regular; all others are broadcasts. Default: none.
        dynamic_segments: The segments whose counters need a ``list_id``. Default: none.
        direct_token: The good API key of Direct. Default: Base64 of sandbox:sandbox.
        altcraft_token: The good token of Altcraft. Default: ``"sandbox"``.
        latency: Seconds between a provider's act and its answer; may be changed at any time. Default: 0.
        read_lag: Both providers show their state as it was so many seconds ago. Default: 0. Change it later on
            ``sandbox.direct`` or ``sandbox.altcraft``.
        clock: The time in seconds since the epoch, for both providers and the ``Date`` of every answer. Any thread may
            call it. Default: ``time.time``.
        wrong_kind_token: See :class:`DirectProvider`, as for the next four.
        second_start: Default: ``"acts"``.
        scheduled: Default: 1 second.
        sending: Default: 30 seconds.
        awaiting: Default: 30 seconds.
        run_seconds: See :class:`AltcraftProvider`, as for the next five. Default: 30 seconds.
        tariff_limit: Default: None, no limit.
        deduplicates: Default: True.
        replay_generation: Default: ``"newer"``.
        replays_errors: Default: True.
        sloppy_xml: Default: True.

    Attributes:
        direct: Direct itself, with its acts, launches and settings.
        altcraft: Altcraft itself, likewise.
        requests: How many HTTP requests arrived.

    Raises:
        ValueError: ``host`` is not loopback and ``allow_remote`` is False, or a provider refuses a setting.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        allow_remote: bool = False,
        dispatches: Iterable[int] = DEFAULT_DISPATCHES,
        mailings: Iterable[int] = DEFAULT_MAILINGS,
        active: Iterable[int] = (),
        regulars: Iterable[int] = (),
        dynamic_segments: Iterable[int] = (),
        direct_token: str = DIRECT_TOKEN,
        altcraft_token: str = ALTCRAFT_TOKEN,
        latency: float = 0.0,
        read_lag: float = 0.0,
        clock: Callable[[], float] = time.time,
        wrong_kind_token: str = WRONG_KIND_TOKEN,
        second_start: SecondStart = "acts",
        scheduled: float = 1.0,
        sending: float = 30.0,
        awaiting: float = 30.0,
        run_seconds: float = 30.0,
        tariff_limit: int | None = None,
        deduplicates: bool = True,
        replay_generation: Generation = "newer",
        replays_errors: bool = True,
        sloppy_xml: bool = True,
    ) -> None:
        if not allow_remote and not _is_loopback(host):
            raise ValueError(
                f"the sandbox listens on loopback only, and {host!r} is not: say allow_remote=True to mean it"
            )
        self.direct = DirectProvider(
            dispatches,
            token=direct_token,
            wrong_kind_token=wrong_kind_token,
            second_start=second_start,
            scheduled=scheduled,
            sending=sending,
            awaiting=awaiting,
            read_lag=read_lag,
            clock=clock,
        )
        self.altcraft = AltcraftProvider(
            mailings,
            active=active,
            regulars=regulars,
            dynamic_segments=dynamic_segments,
            token=altcraft_token,
            run_seconds=run_seconds,
            tariff_limit=tariff_limit,
            deduplicates=deduplicates,
            replay_generation=replay_generation,
            replays_errors=replays_errors,
            sloppy_xml=sloppy_xml,
            read_lag=read_lag,
            clock=clock,
        )
        self.direct_token = direct_token
        self.altcraft_token = altcraft_token
        self.latency = latency
        self.requests = 0
        self._host = host
        self._port = port
        self._clock = clock
        self._faults = Faults()
        self._lock = threading.Lock()
        self._runner: web.ServerRunner | None = None
        self._thread: LoopThread | None = None

    def __enter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("the sandbox is open already")
        thread = LoopThread()
        try:
            thread.run(self.open())
        except BaseException:
            thread.stop()
            raise
        self._thread = thread
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        if thread is not None and not thread.is_of_parent():
            try:
                thread.run(self.close())
            finally:
                thread.stop()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Start listening. Entering the context does it.

        Raises:
            RuntimeError: The sandbox is open already, or no event loop of asyncio runs.
            OSError: The address is not available.
        """
        if self._runner is not None:
            raise RuntimeError("the sandbox is open already")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            text = "`async with Sandbox()` needs a running event loop of asyncio: under trio, use `with Sandbox()`"
            raise RuntimeError(text) from None
        # handler_cancellation: a silent or slow answer must not outlive the client that waited for it.
        server = web.Server(
            self._handle, request_factory=_request_without_limit, handler_cancellation=True, access_log=None
        )
        runner = web.ServerRunner(server, shutdown_timeout=_GRACE)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=1024).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner

    async def close(self) -> None:
        """Stop listening and cut every connection. Leaving the context does it. A second call does nothing."""
        runner, self._runner = self._runner, None
        if runner is not None:
            for _ in range(_ACCEPT_TURNS):
                await asyncio.sleep(0)
            await runner.cleanup()

    @property
    def url(self) -> str:
        """Where the sandbox listens, as ``http://127.0.0.1:PORT``.

        Raises:
            RuntimeError: The sandbox is not open.
        """
        if self._runner is None:
            raise RuntimeError("the sandbox is not open: use it as `async with Sandbox() as sandbox`, or `with`")
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def launches(self) -> Counter[int]:
        """How many times each id was really launched, by both providers together; a new counter each time."""
        with self._lock:
            return self.direct.launches + self.altcraft.launches

    @property
    def acts(self) -> list[Act]:
        """The acts of both providers, in the order of their clock, as a new list."""
        with self._lock:
            return sorted([*self.direct.acts, *self.altcraft.acts], key=lambda act: act.at)

    @property
    def faults_left(self) -> int:
        """How many ordered faults have not happened yet."""
        return len(self._faults)

    def order(self, fault: Fault, *, times: int = 1, path_contains: str | None = None) -> None:
        """Spoil coming requests.

        Orders wait in one queue. Each request takes the first that matches its path, and with it one of its times.

        Args:
            fault: What happens.
            times: To how many requests. Default: 1.
            path_contains: Only to requests whose path contains this. Default: to any.

        Raises:
            ValueError: ``times`` is less than 1.
        """
        self._faults.order(fault, times=times, path_contains=path_contains)

    def answer(self, call: Call) -> Reply:
        """What the provider whose path it is replies, without HTTP, latency or faults."""
        with self._lock:
            if call.path.startswith("/api/v1.1/"):
                return self.altcraft.answer(call)
            return self.direct.answer(call)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests += 1
        call = Call(request.method, request.path, request.query, request.headers, await request.read())
        fault = self._faults.take(call.path)
        if fault is not None:
            return await self._spoil(request, call, fault)
        reply = self.answer(call)
        if self.latency:
            await asyncio.sleep(self.latency)
        return self._response(reply)

    async def _spoil(self, request: web.BaseRequest, call: Call, fault: Fault) -> web.StreamResponse:
        reply = self.answer(call) if fault.acts else None
        if fault.reply is not None:
            reply = fault.reply
        await asyncio.sleep(self.latency + fault.delay)
        if fault.ending == "silence":
            await asyncio.get_running_loop().create_future()
        if fault.ending != "answer" and request.transport is not None:
            _break_off(request.transport, fault, reply)
            # The connection is closed, but aiohttp requires a response, which it drops.
            reply = None
        return web.Response() if reply is None else self._response(reply)

    def _response(self, reply: Reply) -> web.Response:
        response = web.Response(status=reply.status, body=reply.body, headers=reply.headers)
        if self._clock is not time.time:  # else aiohttp's own Date is the same
            response.headers.setdefault(
                "Date", format_datetime(datetime.fromtimestamp(self._clock(), UTC), usegmt=True)
            )
        return response


def _break_off(transport: asyncio.Transport, fault: Fault, reply: Reply | None) -> None:
    """End the connection the way the fault says."""
    if fault.ending == "reset":
        # Lingering for zero seconds makes the kernel send RST instead of FIN.
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        return
    if fault.ending == "cut" and reply is not None:
        raw = reply.raw()
        # An empty body has no half: then the head is what breaks off.
        missing = (len(reply.body) or len(raw)) + 1
        transport.write(raw[: -(missing // 2)])
    transport.close()


def _request_without_limit(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    """A request whose body may have any size: how much is too much is the provider's to say."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=0)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

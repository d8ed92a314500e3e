"""The blocking face: the same coroutines for callers that do not run an event loop.

Each client here holds its asynchronous twin and runs that one's methods on a loop in a thread of its own, one for the
whole process. There is no logic here: what a method does, takes and raises is what its twin says.
"""

from __future__ import annotations

import asyncio
import functools
import os
import ssl as ssl_module
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar

from dispatchkit.altcraft.client import AltcraftClient as AsyncAltcraftClient
from dispatchkit.altcraft.codec import WireForm
from dispatchkit.core.client import ATTEMPT_TIMEOUT, TIMEOUT
from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.core.pace import Pace
from dispatchkit.core.retry import DEFAULT_RETRY, RetryPolicy
from dispatchkit.core.secret import Token
from dispatchkit.direct.client import DirectClient as AsyncDirectClient

__all__ = ["AltcraftClient", "DirectClient"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound="_Twin")
C_co = TypeVar("C_co", bound="_Twin", covariant=True)


class _Twin(Protocol):
    """What the asynchronous clients have in common."""

    async def close(self) -> None: ...


class _LoopThread:
    """The event loop of every blocking client of this process, in a thread that is made on the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[object, object, R]) -> R:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._started())
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="dispatchkit", daemon=True).start()
            return self._loop

    def forget(self) -> None:
        """After a fork the child has the loop but not its thread, and would wait for it forever."""
        self._lock = threading.Lock()
        self._loop = None


_loop_thread = _LoopThread()
if hasattr(os, "register_at_fork"):  # there is none on Windows
    os.register_at_fork(after_in_child=_loop_thread.forget)


class _Face(Generic[C_co]):
    """What every blocking client is made of."""

    def __init__(self, client: C_co) -> None:
        self._client = client

    @property
    def twin(self) -> C_co:
        """The asynchronous client that does the work; it belongs to the loop thread, so use it from there only."""
        return self._client

    def close(self) -> None:
        """Close the connections. Afterwards every call raises `RuntimeError`. Closing twice does nothing."""
        _loop_thread.run(self._client.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        client = getattr(self, "_client", None)  # there is none yet while a constructor fails
        return f"sync.{type(self).__name__}()" if client is None else f"sync.{client!r}"


def _blocking(
    method: Callable[Concatenate[C, P], Coroutine[object, object, R]],
) -> Callable[Concatenate[_Face[C], P], R]:
    """A method that runs the twin's, with its name, parameters, defaults and docstring."""

    def call(self: _Face[C], /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            coroutine = method(self.twin, *args, **kwargs)
        finally:
            del args, kwargs  # a traceback shows the locals of this frame, and a message's content may be one
        return _loop_thread.run(coroutine)

    functools.update_wrapper(call, method)
    return call


class DirectClient(_Face[AsyncDirectClient]):
    """Starts and stops dispatches of i-Digital Direct; every method blocks until the outcome is known.

    Use it as ``with DirectClient(token) as direct:``, or call `close` yourself. The arguments are those of
    `dispatchkit.DirectClient`. One client serves any number of threads.
    """

    def __init__(
        self,
        token: Token | None = None,
        *,
        base_url: str = "https://direct.i-dgtl.ru",
        timeout: float = TIMEOUT,
        attempt_timeout: float = ATTEMPT_TIMEOUT,
        retry: RetryPolicy = DEFAULT_RETRY,
        pace: Pace | None = None,
        clock: Clock = SYSTEM,
        insecure: bool = False,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool = True,
    ) -> None:
        try:
            twin = AsyncDirectClient(
                token,
                base_url=base_url,
                timeout=timeout,
                attempt_timeout=attempt_timeout,
                retry=retry,
                pace=pace,
                clock=clock,
                insecure=insecure,
                proxy=proxy,
                ssl=ssl,
            )
        finally:
            del token  # a traceback shows the locals of this frame
        super().__init__(twin)

    start = _blocking(AsyncDirectClient.start)
    stop = _blocking(AsyncDirectClient.stop)
    perform = _blocking(AsyncDirectClient.perform)


class AltcraftClient(_Face[AsyncAltcraftClient]):
    """Activates, launches and deactivates mailings of Altcraft; every method blocks until the outcome is known.

    Use it as ``with AltcraftClient("https://example.com", token) as altcraft:``, or call `close` yourself. The
    arguments are those of `dispatchkit.AltcraftClient`. One client serves any number of threads.
    """

    def __init__(
        self,
        base_url: str | None = None,
        token: Token | None = None,
        *,
        wire: WireForm = "json",
        timeout: float = TIMEOUT,
        attempt_timeout: float = ATTEMPT_TIMEOUT,
        deduplicates: bool = True,
        body_limit: int = 10_000_000,
        attachment_limit: int = 100_000_000,
        retry: RetryPolicy = DEFAULT_RETRY,
        pace: Pace | None = None,
        clock: Clock = SYSTEM,
        insecure: bool = False,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool = True,
    ) -> None:
        try:
            twin = AsyncAltcraftClient(
                base_url,
                token,
                wire=wire,
                timeout=timeout,
                attempt_timeout=attempt_timeout,
                deduplicates=deduplicates,
                body_limit=body_limit,
                attachment_limit=attachment_limit,
                retry=retry,
                pace=pace,
                clock=clock,
                insecure=insecure,
                proxy=proxy,
                ssl=ssl,
            )
        finally:
            del token  # a traceback shows the locals of this frame
        super().__init__(twin)

    activate = _blocking(AsyncAltcraftClient.activate)
    launch_broadcast = _blocking(AsyncAltcraftClient.launch_broadcast)
    deactivate = _blocking(AsyncAltcraftClient.deactivate)
    perform = _blocking(AsyncAltcraftClient.perform)

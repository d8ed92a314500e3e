"""The blocking face: the same coroutines for callers that do not run an event loop.

Each client here holds its asynchronous client and runs that one's methods on a loop in a thread of its own, one for the
whole process (`dispatchkit.sync.portal`). There is no logic here: what a method does, takes and raises is what its
asynchronous client says.
"""

from __future__ import annotations

import functools
import ssl as ssl_module
import weakref
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar

from dispatchkit import FanOut as AsyncFanOut
from dispatchkit.altcraft.client import AltcraftClient as AsyncAltcraftClient
from dispatchkit.altcraft.codec import WireForm
from dispatchkit.core.call.client import ATTEMPT_TIMEOUT, TIMEOUT, Client
from dispatchkit.core.call.retry import DEFAULT_RETRY, RetryPolicy
from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.core.pacing.pace import Pace
from dispatchkit.core.secret import Token
from dispatchkit.direct.client import DirectClient as AsyncDirectClient
from dispatchkit.sync.fan_out import FanOut, StartedFanOut
from dispatchkit.sync.portal import PortalHandle

__all__ = ["AltcraftClient", "DirectClient", "FanOut"]

P = ParamSpec("P")
R = TypeVar("R")
W = TypeVar("W")
C = TypeVar("C", bound=Client[Any])
C_co = TypeVar("C_co", bound=Client[Any], covariant=True)


class _SyncClient(Generic[C_co]):
    """What every blocking client is made of."""

    def __init__(self, client: C_co) -> None:
        self._client = client
        self.handle = PortalHandle(client)
        weakref.finalize(self, self.handle.drop).atexit = False

    @property
    def async_client(self) -> C_co:
        """The asynchronous client that does the work; it belongs to the loop thread, so use it from there only."""
        return self._client

    def lift_pause(self) -> bool:
        """End the account's pause in this process. See `dispatchkit.DirectClient.lift_pause`."""
        return self._client.lift_pause()

    def close(self) -> None:
        """Close the connections. Afterwards every call raises `RuntimeError`. Closing twice does nothing."""
        self.handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a sync.{type(self).__name__} is not pickled: its token and connections stay in this process; "
            "make a client in the process that uses it"
        )

    def __repr__(self) -> str:
        client = getattr(self, "_client", None)  # there is none yet while a constructor fails
        return f"sync.{type(self).__name__}()" if client is None else f"sync.{client!r}"


def _blocking(
    method: Callable[Concatenate[C, P], Coroutine[object, object, R]],
) -> Callable[Concatenate[_SyncClient[C], P], R]:
    """A method that runs the asynchronous client's, with its name, parameters, defaults and docstring."""
    name = method.__name__

    def call(self: _SyncClient[C], /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            coroutine = method(self.async_client, *args, **kwargs)
        finally:
            del args, kwargs  # a traceback shows the locals of this frame, and a message's content may be one
        return self.handle.run(coroutine, name)

    functools.update_wrapper(call, method)
    return call


def _fanning(
    method: Callable[Concatenate[C, P], AsyncFanOut[W, R]],
) -> Callable[Concatenate[_SyncClient[C], P], StartedFanOut[W, R]]:
    """A method that makes the blocking fan-out around the asynchronous client's."""

    def call(self: _SyncClient[C], /, *args: P.args, **kwargs: P.kwargs) -> StartedFanOut[W, R]:
        try:
            fan_out = method(self.async_client, *args, **kwargs)
        finally:
            del args, kwargs
        return StartedFanOut(self, fan_out)

    functools.update_wrapper(call, method)
    return call


class DirectClient(_SyncClient[AsyncDirectClient]):
    """Starts and stops dispatches of i-Digital Direct; every method blocks until the outcome is known.

    Use it as ``with DirectClient(token) as direct:``, or call `close` yourself. The arguments are those of
    `dispatchkit.DirectClient`. One client serves any number of threads.
    """

    def __init__(
        self,
        token: Token | None = None,
        *,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        attempt_timeout: float = ATTEMPT_TIMEOUT,
        retry: RetryPolicy = DEFAULT_RETRY,
        pace: Pace | None = None,
        clock: Clock = SYSTEM,
        insecure: bool = False,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool = True,
        account: str | None = None,
    ) -> None:
        try:
            async_client = AsyncDirectClient(
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
                account=account,
            )
        finally:
            del token  # a traceback shows the locals of this frame
        super().__init__(async_client)

    start = _blocking(AsyncDirectClient.start)
    stop = _blocking(AsyncDirectClient.stop)
    dispatches = _blocking(AsyncDirectClient.dispatches)
    dispatch = _blocking(AsyncDirectClient.dispatch)
    start_many = _fanning(AsyncDirectClient.start_many)
    stop_many = _fanning(AsyncDirectClient.stop_many)
    perform = _blocking(AsyncDirectClient.perform)


class AltcraftClient(_SyncClient[AsyncAltcraftClient]):
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
        deduplicates: bool = False,
        body_limit: int = 10_000_000,
        attachment_limit: int = 100_000_000,
        retry: RetryPolicy = DEFAULT_RETRY,
        pace: Pace | None = None,
        clock: Clock = SYSTEM,
        insecure: bool = False,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool = True,
        account: str | None = None,
    ) -> None:
        try:
            async_client = AsyncAltcraftClient(
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
                account=account,
            )
        finally:
            del token  # a traceback shows the locals of this frame
        super().__init__(async_client)

    activate = _blocking(AsyncAltcraftClient.activate)
    launch_broadcast = _blocking(AsyncAltcraftClient.launch_broadcast)
    deactivate = _blocking(AsyncAltcraftClient.deactivate)
    status = _blocking(AsyncAltcraftClient.status)
    log = _blocking(AsyncAltcraftClient.log)
    activate_many = _fanning(AsyncAltcraftClient.activate_many)
    launch_many = _fanning(AsyncAltcraftClient.launch_many)
    perform = _blocking(AsyncAltcraftClient.perform)

"""The blocking face: the same coroutines for callers that do not run an event loop.

Each client here holds its asynchronous twin and runs that one's methods on a loop in a thread of its own, one for the
whole process (`dispatchkit.core.portal`). There is no logic here: what a method does, takes and raises is what its
twin says.
"""

from __future__ import annotations

import functools
import ssl as ssl_module
import weakref
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar

from dispatchkit.altcraft.client import AltcraftClient as AsyncAltcraftClient
from dispatchkit.altcraft.codec import WireForm
from dispatchkit.core.client import ATTEMPT_TIMEOUT, TIMEOUT, Client
from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.core.command import Command
from dispatchkit.core.pace import Pace
from dispatchkit.core.portal import Lease
from dispatchkit.core.retry import DEFAULT_RETRY, RetryPolicy
from dispatchkit.core.run import Run
from dispatchkit.core.secret import Token
from dispatchkit.direct.client import DirectClient as AsyncDirectClient
from dispatchkit.fanout import FanOut as AsyncFanOut
from dispatchkit.fanout import Outcome, Report

__all__ = ["AltcraftClient", "DirectClient", "FanOut"]

P = ParamSpec("P")
R = TypeVar("R")
W = TypeVar("W")
C = TypeVar("C", bound=Client[Any])
C_co = TypeVar("C_co", bound=Client[Any], covariant=True)


class _Face(Generic[C_co]):
    """What every blocking client is made of."""

    def __init__(self, client: C_co) -> None:
        self._client = client
        self._lease = Lease(client)
        weakref.finalize(self, self._lease.drop).atexit = False

    @property
    def twin(self) -> C_co:
        """The asynchronous client that does the work; it belongs to the loop thread, so use it from there only."""
        return self._client

    def close(self) -> None:
        """Close the connections. Afterwards every call raises `RuntimeError`. Closing twice does nothing."""
        self._lease.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
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
) -> Callable[Concatenate[_Face[C], P], R]:
    """A method that runs the twin's, with its name, parameters, defaults and docstring."""
    name = method.__name__

    def call(self: _Face[C], /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            coroutine = method(self.twin, *args, **kwargs)
        finally:
            del args, kwargs  # a traceback shows the locals of this frame, and a message's content may be one
        return self._lease.run(coroutine, name)  # pyright: ignore[reportPrivateUsage]

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


class FanOut(Generic[W, R]):
    """Many commands through one client: `dispatchkit.FanOut`, for a caller that blocks.

    ``for outcome in run:`` gives each outcome as it comes, `finish` goes to the end. Whoever leaves the loop early, or
    presses Ctrl-C, ends the run: nothing more is sent, what has been sent is awaited, and ``report`` has all of it.

    Args:
        client: Whose commands they are.
        commands: What to do; taken one by one, as workers become free, on the loop thread: it should not block.
        concurrency: How many workers there are. The account's `Pace` may allow fewer to be in flight.
        timeout: Seconds for each call, from its first attempt on; None takes the client's.
        expected: How many commands there must be. A list of another length is refused before the first launch.
        max_launches: How many commands may be begun at most.
        stop_after_failures: Stop the run after so many outcomes that are not done.
        grace: Seconds for which a stopped run waits for what is in flight.

    Raises:
        ValueError: A setting is out of range, or there are not as many commands as ``expected``.
        TypeError: A setting is of another type.
    """

    def __init__(
        self,
        client: _Face[Client[W]],
        commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]],
        *,
        concurrency: int = 64,
        timeout: float | None = None,
        expected: int | None = None,
        max_launches: int | None = None,
        stop_after_failures: int | None = None,
        grace: float = 30.0,
    ) -> None:
        self._client = client
        self._twin = AsyncFanOut(
            client.twin,
            commands,
            concurrency=concurrency,
            timeout=timeout,
            expected=expected,
            max_launches=max_launches,
            stop_after_failures=stop_after_failures,
            grace=grace,
        )
        lease = client._lease  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        self._run: Run[Outcome[R], Report] = Run(lease, self._twin)

    @property
    def report(self) -> Report:
        """What has come out so far. It can be read after the run was ended as well."""
        return self._twin.report

    def __iter__(self) -> Iterator[Outcome[R]]:
        return iter(self._run)

    def finish(self) -> Report:
        """Go to the end and return the report. The outcomes themselves are dropped.

        Raises:
            Exception: What the iterator of commands raised, once everything in flight has come to its outcome.
        """
        return self._run.finish()

    def stop(self) -> None:
        """Start nothing new. What is in flight is awaited, and its outcomes still come."""
        self._run.stop()

    def close(self) -> None:
        """Start nothing new, cancel what is in flight and wait until it is over. Not needed after the end."""
        self._run.close()

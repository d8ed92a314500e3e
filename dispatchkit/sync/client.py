"""The base of the blocking clients, and the functions that make their methods.

A blocking client is a class like this one. It repeats no code of the provider::

    class AcmeClient(SyncClient[acme.AcmeClient]):
        def __init__(self, token: Token | None = None, **options: Unpack[AcmeOptions]) -> None:
            try:
                client = acme.AcmeClient(token, **options)
            finally:
                del token, options  # a traceback shows the locals of this frame
            super().__init__(client)

        launch = blocking(acme.AcmeClient.launch)
        launch_many = blocking_many(acme.AcmeClient.launch_many)
"""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar, cast

from dispatchkit.core.call.client import Client, ClientStatistics
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.context_managers import BlockingOnly
from dispatchkit.core.fanout.fan_out import FanOut as AsyncFanOut
from dispatchkit.sync.caller_items import hand_over
from dispatchkit.sync.fan_out import FanOut
from dispatchkit.sync.portal import PortalHandle
from dispatchkit.sync.portal_call import Work

__all__ = ["SyncClient", "blocking", "blocking_ids", "blocking_many", "blocking_watch"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=Client[Any])
C_co = TypeVar("C_co", bound=Client[Any], covariant=True)

_END = object()
"""The end of an iterator."""


class SyncClient(BlockingOnly, Generic[C_co]):
    """The base of every blocking client.

    Args:
        client: The asynchronous client that does the work.
    """

    def __init__(self, client: C_co) -> None:
        self._client = client
        self._original: SyncClient[C_co] | None = None
        """The client whose connections this one uses; None if it has its own."""
        self._handle = PortalHandle(client)
        weakref.finalize(self, self._handle.drop).atexit = False

    @property
    def _async_client(self) -> C_co:
        """The asynchronous client that does the work; it belongs to the loop thread, so use it from there only."""
        return self._client

    @property
    def provider(self) -> str:
        """The name of the provider, which its commands have."""
        return self._client.provider

    def lift_pause(self) -> bool:
        """End the account's pause in this process: calls start again at once, one first, then more.

        See `dispatchkit.DirectClient.lift_pause`.
        """
        return self._client.lift_pause()

    def statistics(self) -> ClientStatistics:
        """What the client's account is doing, and what its retries and state reads have cost."""
        return self._handle.read(self._client.statistics, "statistics")

    def with_options(self, *, timeout: float | None = None, retry: RetryPolicy | None = None) -> Self:
        """The same client with other defaults for its calls: it shares connections, pace and retry budget.

        See `dispatchkit.DirectClient.with_options`.

        Args:
            timeout: Seconds for a whole call; None takes that of this client.
            retry: When and how a call is repeated; None takes the policy of this client.

        Raises:
            ValueError: ``timeout`` is out of range.
            TypeError: A setting is of another type.
        """
        derived = object.__new__(type(self))
        vars(derived).update(vars(self))
        derived._client = self._client.with_options(timeout=timeout, retry=retry)
        derived._original = self
        return derived

    def close(self) -> None:
        """Close the connections. Afterwards every call raises `RuntimeError`. Closing twice does nothing.

        A client of `with_options` leaves them to its original.
        """
        if self._original is None:
            self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a sync.{type(self).__name__} is not pickled: its token and connections stay in this process. "
            "Make a client in the process that uses it"
        )

    def __repr__(self) -> str:
        client = getattr(self, "_client", None)  # there is none yet while a constructor fails
        return f"sync.{type(self).__name__}()" if client is None else f"sync.{client!r}"


def blocking(
    method: Callable[Concatenate[C, P], Coroutine[object, object, R]],
) -> Callable[Concatenate[SyncClient[C], P], R]:
    """Make a method that runs an asynchronous client's method and waits for its result.

    Args:
        method: The method of the asynchronous client. Name, parameters, defaults and docstring are taken from it.
    """
    name = method.__name__

    def call(self: SyncClient[C], /, *args: P.args, **kwargs: P.kwargs) -> R:
        work = Work(method, self._async_client, *args, **kwargs)
        del args, kwargs  # a traceback shows the locals of this frame, and a message's content may be one
        return self._handle.run(work, name)

    functools.update_wrapper(call, method)
    return call


def blocking_ids(
    method: Callable[Concatenate[C, P], Coroutine[object, object, R]],
) -> Callable[Concatenate[SyncClient[C], P], R]:
    """Make a method like that of `blocking`. The caller's thread reads the ids, which are the first argument.

    Args:
        method: The method of the asynchronous client. Name, parameters, defaults and docstring are taken from it.
    """
    first = list(inspect.signature(method).parameters)[1]
    blocking_call = cast("Callable[..., R]", blocking(method))

    @functools.wraps(method)
    def call(self: SyncClient[C], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return blocking_call(self, *_read_ids(first, args, kwargs), **kwargs)

    return call


def blocking_watch(
    method: Callable[Concatenate[C, P], AsyncIterator[R]],
) -> Callable[Concatenate[SyncClient[C], P], Iterator[R]]:
    """Make a method that returns a plain iterator over what an asynchronous client's method yields.

    Args:
        method: The method of the asynchronous client. Name, parameters, defaults and docstring are taken from it.
    """
    first = list(inspect.signature(method).parameters)[1]
    start = cast("Callable[..., AsyncIterator[R]]", method)

    @functools.wraps(method)
    def call(self: SyncClient[C], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        positional = _read_ids(first, args, kwargs)
        return _iterate(self._handle, start(self._async_client, *positional, **kwargs), method.__name__)

    return call


def _iterate(handle: PortalHandle, items: AsyncIterator[R], method: str) -> Iterator[R]:
    """What an asynchronous iterator yields on the loop thread."""
    try:
        while (item := handle.run(lambda: _next(items), method)) is not _END:
            yield cast("R", item)
    finally:
        if not handle.is_closed():
            handle.run(lambda: _close(items), method)


async def _next(items: AsyncIterator[object]) -> object:
    return await anext(items, _END)


async def _close(items: AsyncIterator[object]) -> None:
    close: Callable[[], Coroutine[object, object, None]] | None = getattr(items, "aclose", None)
    if close is not None:
        await close()


def _read_ids(first: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The positional arguments, with the ids as a list. Ids that were given by name stay there."""
    positional = [*args]
    if positional:
        positional[0] = _as_list(positional[0])
    elif first in kwargs:
        kwargs[first] = _as_list(kwargs[first])
    return positional


def _as_list(ids: object) -> object:
    return [*cast("Iterable[object]", ids)] if isinstance(ids, Iterable) else ids


def blocking_many(
    method: Callable[Concatenate[C, P], AsyncFanOut[R]],
) -> Callable[Concatenate[SyncClient[C], P], FanOut[R]]:
    """Make a method that returns the blocking `FanOut` of an asynchronous client's ``*_many``.

    Args:
        method: The method of the asynchronous client. Name, parameters, defaults and docstring are taken from it.
    """
    first = list(inspect.signature(method).parameters)[1]

    def call(self: SyncClient[C], /, *args: P.args, **kwargs: P.kwargs) -> FanOut[R]:
        positional, named = list[Any](args), dict[str, Any](kwargs)
        del args, kwargs
        held = None
        try:
            if positional:
                positional[0], held = hand_over(positional[0], named)
            elif first in named:
                named[first], held = hand_over(named[first], named)
            async_fan_out = cast("Callable[..., AsyncFanOut[R]]", method)(self._async_client, *positional, **named)
        finally:
            del positional, named  # a traceback shows the locals of this frame
        return FanOut[R]._around(self, async_fan_out, held)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    functools.update_wrapper(call, method)
    return call

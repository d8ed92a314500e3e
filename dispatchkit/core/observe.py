"""Observers: a client tells them of its calls, runs and pauses, as frozen events.

An observer is a callable that takes one event. It sees, and changes nothing. Its result is ignored, and its first
exception is logged.

A client without observers makes none of these values.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from types import BuiltinMethodType, FunctionType, MethodType
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from dispatchkit.core.clock import Clock
from dispatchkit.core.log import log, logger
from dispatchkit.core.validators import shown

if TYPE_CHECKING:
    from dispatchkit.core.events import CallStarted, Event

__all__ = [
    "Observer",
    "Observers",
    "Tracer",
    "add_for_all",
    "observers_of",
    "remove_for_all",
]

# A tracer's bug must not break a request, or split it with a line break.
_TRACE_HEADERS = {
    "traceparent": re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
    "tracestate": re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,510}[\x21-\x7e])?"),
}


class Observer(Protocol):
    """A callable that takes each event of a client: a function, or an object with ``__call__``.

    Events of a call come on the thread of its event loop, in their order. The call waits for the observer. So it
    must be quick, and must not block. Nothing awaits it: a coroutine function is refused. For asynchronous work, put
    the event into an `asyncio.Queue`. A blocking client calls it on its own thread.

    Example:
        >>> class Slowest:
        ...     seconds = 0.0
        ...     def __call__(self, event: Event) -> None:
        ...         if isinstance(event, AttemptEnded):
        ...             self.seconds = max(self.seconds, event.duration)
        >>> slowest = Slowest()
        >>> async with Sandbox() as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[slowest]) as direct:
        ...         report = await direct.start_many([1, 2, 3]).finish()
        >>> slowest.seconds > 0
        True
    """

    def __call__(self, event: Event, /) -> object:
        """Take one event. The result is ignored."""
        ...


@runtime_checkable
class Tracer(Protocol):
    """An observer whose trace the requests of a call carry. It is the one thing that observers add to a request."""

    def trace_headers(self, event: CallStarted) -> Mapping[str, str]:
        """``traceparent`` and ``tracestate`` of a call. Any other header is ignored."""
        ...


class Observers:
    """The observers of one client.

    Args:
        observers: The observers.
        provider: The name of the provider.
        base_url: Its origin.
        clock: The source of `Event.at`.
    """

    __slots__ = ("__weakref__", "_observers", "_reported", "base_url", "clock", "provider")

    def __init__(self, observers: Sequence[Observer], *, provider: str, base_url: str, clock: Clock) -> None:
        self._observers = observers
        self.provider = provider
        self.base_url = base_url
        self.clock = clock
        self._reported: set[int] = set()

    def tell(self, make: Callable[[], Event], told: set[object] | None = None) -> None:
        """Tell every observer of an event. One that cannot be made, as with a failing clock, is dropped.

        Args:
            make: Makes the event.
            told: The identities of the observers that know of it already. Those that are told now are added.
        """
        try:
            event = make()
        except Exception as error:  # noqa: BLE001 - an event must not change the outcome of its call
            self._report(self, "an event could not be made:", error)
            return
        for observer in self._observers:
            if told is not None:
                if (identity := _identity(observer)) in told:
                    continue
                told.add(identity)
            try:
                observer(event)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - also a CancelledError, which would cancel the call
                self._report(observer, f"the observer {_name(observer)} raised on {type(event).__name__}", error)

    def trace_headers(self, event: CallStarted) -> dict[str, str]:
        """The trace headers of a call: those of the first observer that has any."""
        for observer in self._observers:
            try:
                if not isinstance(observer, Tracer):  # its look at an attribute may run code of the observer
                    continue
                given = observer.trace_headers(event)
                headers = {
                    name: given[name]
                    for name, form in _TRACE_HEADERS.items()
                    if name in given and form.fullmatch(given[name])
                }
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - also a CancelledError, which would cancel the call
                self._report(observer, f"the tracer {_name(observer)} raised", error)
            else:
                if "traceparent" in headers:
                    return headers
        return {}

    def _report(self, observer: object, text: str, error: BaseException) -> None:
        """Log an exception of an observer, the first one of each."""
        if id(observer) in self._reported:
            return
        self._reported.add(id(observer))
        what = "%s %s: its further exceptions are not logged"
        log(logger, logging.ERROR, what, text, type(error).__name__, exc_info=error)


def _identity(observer: object) -> object:
    """What tells an observer from others. A bound method is another object at each look.

    It calls no code of the observer, such as an ``__eq__``, which could change the outcome of a call.
    """
    if isinstance(observer, MethodType):
        return id(observer.__self__), id(observer.__func__)
    if isinstance(observer, BuiltinMethodType):
        return id(observer.__self__), observer.__name__
    return id(observer)


def _name(observer: object) -> str:
    if isinstance(observer, FunctionType | MethodType | BuiltinMethodType):
        return observer.__qualname__
    return type(observer).__qualname__


_for_all: list[Observer] = []


def add_for_all(observer: Observer) -> None:
    """Let an observer see every client that is made from now on, unless the client has one of its type."""
    _for_all.append(observer)


def remove_for_all(observer: Observer) -> None:
    """Undo `add_for_all`, for the clients that are made from now on."""
    _for_all.remove(observer)


def observers_of(given: Sequence[Observer], *, provider: str, base_url: str, clock: Clock) -> Observers | None:
    """The observers of a client; None without any.

    Raises:
        TypeError: ``given`` is no list or tuple of callables, or one of them is a coroutine function.
    """
    if not isinstance(given, list | tuple):
        raise TypeError(f"observers must be a list of callables that take an event, not {shown(given)}")
    for observer in given:
        if not callable(observer) or isinstance(observer, type):
            raise TypeError(f"observers must be callables that take an event, not {shown(observer)}")
        called = cast("object", getattr(type(observer), "__call__", None))  # noqa: B004 - it may be asynchronous
        if inspect.iscoroutinefunction(observer) or inspect.iscoroutinefunction(called):
            raise TypeError(f"observers must be plain callables: nothing awaits the coroutine of {_name(observer)}")
    types = {type(observer) for observer in given}
    watching = (*given, *(observer for observer in _for_all if type(observer) not in types))
    return Observers(watching, provider=provider, base_url=base_url, clock=clock) if watching else None

"""Observers: what a client tells of its calls, runs and pauses, as frozen events.

An observer is a callable that takes one event. It sees, and changes nothing: its result is ignored, and an exception of
it is logged once. An event holds no secret, no content and no body.

A client without observers makes none of these values.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol, cast, runtime_checkable

import attrs

from dispatchkit.core.clock import Clock
from dispatchkit.core.log import log, logger
from dispatchkit.core.validators import shown
from dispatchkit.errors import State
from dispatchkit.values import TypedValue

__all__ = [
    "AttemptEnded",
    "BreakerOpened",
    "CallEnded",
    "CallEvent",
    "CallStarted",
    "Event",
    "Observer",
    "Observers",
    "Paused",
    "RunEnded",
    "RunStarted",
    "StateRead",
    "Tracer",
    "Waiting",
    "add_for_all",
    "observers_of",
    "remove_for_all",
]

# A tracer's bug must not break a request, or split it with a line break.
_TRACE_HEADERS = {
    "traceparent": re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
    "tracestate": re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,510}[\x21-\x7e])?"),
}


@attrs.frozen(kw_only=True)
class Event(TypedValue):
    """The base of all events.

    Example:
        >>> def observer(event: Event) -> None:
        ...     print(type(event).__name__, event.provider)
        >>> async with Sandbox() as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[observer]) as direct:
        ...         started = await direct.start(7)
        CallStarted direct
        AttemptEnded direct
        CallEnded direct
    """

    at: datetime
    """When it happened, on the client's wall clock, in UTC."""
    provider: str
    """The name of the provider: ``"direct"`` or ``"altcraft"``."""
    base_url: str
    """``scheme://host[:port]`` of the provider."""


@attrs.frozen(kw_only=True)
class CallEvent(Event):
    """The base of the events of one call.

    Example:
        >>> def observer(event: Event) -> None:
        ...     if isinstance(event, CallEvent):
        ...         print(event.command_type, event.target, event.index)
        >>> async with Sandbox() as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[observer]) as direct:
        ...         started = await direct.start(7)
        StartDispatch 7 None
        StartDispatch 7 None
        StartDispatch 7 None
    """

    call: int
    """The number of the call in this process. All events of one call have the same one."""
    command_type: str
    """The class of the command, such as ``"StartDispatch"``."""
    target: int | None
    """The id that the command acts on; None if it has none."""
    index: int | None
    """The command's place in its fan-out, from 0; None outside of a fan-out."""
    run: str | None
    """The name of the run in the ledger; None without a ledger."""


@attrs.frozen(kw_only=True)
class CallStarted(CallEvent):
    """A call begins. In a fan-out, its turn has come.

    Example:
        >>> def observer(event: Event) -> None:
        ...     if isinstance(event, CallStarted):
        ...         print(event.method, event.url.removeprefix(event.base_url))
        >>> async with Sandbox() as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[observer]) as direct:
        ...         started = await direct.start(7)
        POST /api/v1/dispatch/7/start
    """

    method: str
    """The HTTP method of its requests."""
    url: str
    """The URL of its requests, without the query."""
    request_id: str | None
    """The id by which the provider deduplicates the call; None where the provider has none."""


@attrs.frozen(kw_only=True)
class AttemptEnded(CallEvent):
    """An attempt of a call has ended, with an answer or without.

    Example:
        >>> def observer(event: Event) -> None:
        ...     if isinstance(event, AttemptEnded):
        ...         print(event.number, event.status, event.result, event.outcome.value)
        >>> async with Sandbox() as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[observer]) as direct:
        ...         started = await direct.start(7)
        1 200 HTTP 200 done
    """

    number: int
    """The attempt's number in its call, from 1. Those over 1 are retries."""
    result: str
    """What came of it: ``"HTTP 200"``, ``"cancelled"`` or a failure in words."""
    status: int | None
    """The HTTP status; None without an answer."""
    sent: bool
    """Whether any byte of the request may have left this process."""
    outcome: State
    """What the attempt proves by itself. A later state read may settle an unknown one."""
    duration: float
    """Seconds from its start to ``at``."""


@attrs.frozen(kw_only=True)
class Waiting(CallEvent):
    """A call waits before its next attempt or state read. A stop or a lifted pause ends the wait early.

    Example:
        >>> def observer(event: Event) -> None:
        ...     if isinstance(event, Waiting):
        ...         print(event.attempts, event.seconds < 1)
        >>> retry = RetryPolicy.for_tests()
        >>> async with Sandbox() as sandbox:
        ...     sandbox.order(Fault.dropped())
        ...     token, url = sandbox.direct_token, sandbox.url
        ...     async with DirectClient(token, base_url=url, retry=retry, observers=[observer]) as direct:
        ...         started = await direct.start(7)
        1 True...
    """

    seconds: float
    """The length of the wait."""
    attempts: int
    """The number of attempts so far."""


@attrs.frozen(kw_only=True)
class StateRead(CallEvent):
    """A call has read the provider's state to settle an unclear attempt.

    Example:
        >>> def observer(event: Event) -> None:
        ...     if isinstance(event, StateRead):
        ...         print(event.method, event.status, event.evidence)
        >>> async with Sandbox() as sandbox:
        ...     sandbox.order(Fault.lost_answer())
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[observer]) as direct:
        ...         (await direct.start(7)).settled
        GET 200 applied
        True
    """

    method: str
    """The HTTP method of the read."""
    url: str
    """Its URL, without the query."""
    result: str
    """What came of it: ``"HTTP 200"``, or a failure in words."""
    status: int | None
    """The HTTP status; None without an answer."""
    evidence: str
    """What it proves: ``"applied"``, ``"not_applied"``, ``"never_applied"``, ``"absent"``, ``"inconclusive"`` or
    ``"unavailable"``."""
    duration: float
    """Seconds from its start to ``at``."""


@attrs.frozen(kw_only=True)
class CallEnded(CallEvent):
    """A call has its outcome.

    Example:
        >>> def observer(event: Event) -> None:
        ...     if isinstance(event, CallEnded):
        ...         print(event.target, event.outcome.value, event.error)
        >>> async with Sandbox() as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[observer]) as direct:
        ...         started = await direct.start(7)
        7 done None
    """

    outcome: State
    """The outcome. Of a cancelled call, it is what was known when it was cancelled."""
    attempts: int
    """The number of attempts."""
    state_reads: int
    """The number of state reads."""
    duration: float
    """Seconds from `CallStarted` to ``at``: attempts, waits and state reads together."""
    error: str | None
    """The class of the exception that the call raises, such as ``"ThrottledError"``; None if it returns."""


@attrs.frozen(kw_only=True)
class Paused(Event):
    """The provider paused the account: a pause began, or became at least a second longer.

    It comes once to each observer of the account in this process, on the thread of the call that met the pause.

    Example:
        >>> def observer(event: Event) -> None:
        ...     if isinstance(event, Paused):
        ...         print(round(event.seconds), event.by)
        >>> async with Sandbox() as sandbox:
        ...     sandbox.order(Fault.throttled(retry_after=1))
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[observer]) as direct:
        ...         started = await direct.start(7)
        1 Retry-After
    """

    seconds: float
    """Seconds until the pause ends, at most `Pace.max_pause`."""
    by: str
    """What asked for it, such as ``"Retry-After"``."""


@attrs.frozen(kw_only=True)
class BreakerOpened(Event):
    """Most attempts got no answer, so nothing of the account starts for a while. Then one attempt decides.

    It comes as `Paused` does.

    Example:
        >>> def observer(event: Event) -> None:
        ...     if isinstance(event, BreakerOpened):
        ...         print(f"{event.provider} does not answer: nothing starts for {event.seconds:.0f} s")
        >>> direct = DirectClient("key", observers=[observer])
    """

    seconds: float
    """Seconds until one attempt may start."""


@attrs.frozen(kw_only=True)
class RunStarted(Event):
    """A fan-out begins. With workers, each chunk of a run is a fan-out.

    Example:
        >>> def observer(event: Event) -> None:
        ...     if isinstance(event, RunStarted):
        ...         print(event.total)
        >>> async with Sandbox() as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[observer]) as direct:
        ...         report = await direct.start_many([1, 2, 3]).finish()
        3
    """

    run: str | None
    """The name of the run in the ledger; None without a ledger."""
    total: int | None
    """The number of commands; None if it is not known."""
    previously_finished: int
    """Commands of these that an earlier fan-out of the run finished."""


@attrs.frozen(kw_only=True)
class RunEnded(Event):
    """A fan-out is over.

    Its counts are those of `Report`. They include commands that could not be built, which have no call.

    Example:
        >>> def observer(event: Event) -> None:
        ...     if isinstance(event, RunEnded):
        ...         print(event.done, event.not_sent, event.stop_reason)
        >>> async with Sandbox() as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[observer]) as direct:
        ...         report = await direct.start_many([1, 2, -3]).finish()
        2 1 None
    """

    run: str | None
    """The name of the run in the ledger; None without a ledger."""
    done: int
    rejected: int
    not_sent: int
    unknown: int
    not_started: int | None
    """Commands that were never started; None if their number is not known."""
    stop_reason: str | None
    """`StopReason.kind` of a run that ended before its last command; else None."""
    duration: float
    """Seconds from `RunStarted` to ``at``."""


class Observer(Protocol):
    """A callable that takes each event of a client: a function, or an object with ``__call__``.

    Events of a call come on the thread of its event loop, in their order, and the call waits for the observer. So it
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

    def tell(self, make: Callable[[], Event], told: list[Observer] | None = None) -> None:
        """Tell every observer of an event. One that cannot be made, as with a failing clock, is dropped.

        Args:
            make: Makes the event.
            told: The observers that know of it already. Those that are told now are added. A bound method is another
                object at each look, so they are compared by ``==``.
        """
        try:
            event = make()
        except Exception as error:  # noqa: BLE001 - an event must not change the outcome of its call
            self._report(self, "an event could not be made:", error)
            return
        for observer in self._observers:
            if told is not None:
                if observer in told:
                    continue
                told.append(observer)
            try:
                observer(event)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - also a CancelledError, which would cancel the call
                self._report(observer, f"the observer {_name(observer)} raised on {type(event).__name__}", error)

    def trace_headers(self, event: CallStarted) -> dict[str, str]:
        """The trace headers of a call: those of the first observer that has any."""
        for observer in self._observers:
            if isinstance(observer, Tracer):
                try:
                    given = observer.trace_headers(event)
                    headers = {
                        name: given[name]
                        for name, form in _TRACE_HEADERS.items()
                        if name in given and form.fullmatch(given[name])
                    }
                except Exception as error:  # noqa: BLE001 - it must not change the outcome of its call
                    self._report(observer, f"the tracer {_name(observer)} raised", error)
                else:
                    if "traceparent" in headers:
                        return headers
        return {}

    def _report(self, which: object, text: str, error: BaseException) -> None:
        """Log an exception of an observer, the first one of each."""
        if id(which) in self._reported:
            return
        self._reported.add(id(which))
        what = "%s %s: its further exceptions are not logged"
        log(logger, logging.ERROR, what, text, type(error).__name__, exc_info=error)


def _name(observer: object) -> str:
    return getattr(observer, "__qualname__", None) or type(observer).__qualname__


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

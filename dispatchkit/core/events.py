"""The events that a client tells its observers. They hold no secret, no content and no body."""

from __future__ import annotations

from datetime import datetime

import attrs

from dispatchkit.errors import State
from dispatchkit.values import TypedValue

__all__ = [
    "AttemptEnded",
    "BreakerOpened",
    "CallEnded",
    "CallEvent",
    "CallStarted",
    "Event",
    "Paused",
    "RunEnded",
    "RunStarted",
    "StateRead",
    "Waiting",
]


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

    A run with a canary reads whether each of its first targets goes out. Such reads of a target have a `call` of their
    own, without a `CallStarted`. Targets of one log share a read, and the event names the first of them.

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

    It comes once to each observer of the account in this process. It is on the thread of the call that met the pause.

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

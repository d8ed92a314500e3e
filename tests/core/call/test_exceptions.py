"""Unexpected exceptions: each ends a call with an outcome, and an interrupt carries the outcome as a note."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tenacity import wait_none

from dispatchkit import (
    DirectClient,
    DispatchkitError,
    ExpiringToken,
    FanOut,
    NotSentError,
    OutcomeUnknownError,
    RetryPolicy,
    StartDispatch,
    State,
    ThrottledError,
)
from dispatchkit.core import log as log_module
from dispatchkit.core.call import attempt as attempt_module
from dispatchkit.core.call.gate import PacedGate
from dispatchkit.core.command import Response
from dispatchkit.core.transport.http import Http
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.direct.commands import ReadDispatch
from dispatchkit.errors import ResponseLostError
from dispatchkit.testing import FakeClock
from tests.fake_transport import FakeTransport, throttled
from tests.faults.test_cancel import cancelled_in_flight
from tests.harness import played, refusal
from tests.wire import Listener, http


class Abort(BaseException):
    pass


EXCEPTIONS = [KeyError, MemoryError, RecursionError, TypeError, OSError]
ENDS = [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, Abort]


class Raising(logging.Handler):
    """Raises for each record whose text has the word."""

    def __init__(self, raised: BaseException, word: str = "") -> None:
        super().__init__()
        self.raised = raised
        self.word = word

    def handle(self, record: logging.LogRecord) -> bool:
        if self.word in record.getMessage():
            raise self.raised
        return True


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[logging.Handler], None]]:
    """Adds handlers to the log of the package."""
    monkeypatch.setattr(log_module, "_reported", False)
    logger = logging.getLogger("dispatchkit")
    before, handlers = logger.level, list(logger.handlers)
    logger.setLevel(logging.DEBUG)
    yield logger.addHandler
    logger.handlers[:] = handlers
    logger.setLevel(before)


def in_flight(client: DirectClient) -> int:
    return client.statistics().pace.in_flight


def breaks(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> None:
    """Have a bug in the codec of an answer."""

    def classify(*_: object) -> None:
        raise raised

    monkeypatch.setattr(attempt_module, "classify", classify)


@pytest.mark.parametrize("error_type", EXCEPTIONS)
async def test_bug_after_response_is_unknown(error_type: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    mistake = error_type("mine")
    breaks(monkeypatch, mistake)
    async with Listener(http(200, {"dispatchId": 7})) as listener, DirectClient("t", base_url=listener.url) as client:
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.start(7)
        assert in_flight(client) == 0
    error = caught.value
    assert error.__cause__ is mistake
    assert mistake.__traceback__ is None, "its frames hold the body"
    assert "raised at " in mistake.__notes__[0]
    assert error.command == StartDispatch(7)
    assert [(attempt.result, attempt.sent) for attempt in error.attempts] == [("HTTP 200", True)]
    assert error_type.__name__ in error.summary
    assert len(listener.requests) == 1


async def test_bug_after_later_response(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = attempt_module.classify, itertools.count()  # type: ignore[attr-defined]

    def classify(*values: Any) -> object:
        if next(calls):
            raise KeyError("mine")
        return real(*values)

    monkeypatch.setattr(attempt_module, "classify", classify)
    client, _ = played(says=lambda s, _: TransportFailure("refused", sent=False) if len(s.seen) == 1 else None)
    with pytest.raises(OutcomeUnknownError) as caught:
        await client.start(7)
    assert [attempt.sent for attempt in caught.value.attempts] == [False, True]


async def test_bug_after_read_loses_response(monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, KeyError("mine"))
    async with Listener(http(200, {})) as listener, DirectClient("t", base_url=listener.url) as client:
        with pytest.raises(ResponseLostError) as caught:
            await client.perform(ReadDispatch(7))
    assert isinstance(caught.value.__cause__, KeyError)


class Faulty(FakeClock):
    """A clock that raises once it is told to."""

    broken: BaseException | None = None

    def monotonic(self) -> float:
        if self.broken is not None:
            raise self.broken
        return super().monotonic()

    async def sleep(self, seconds: float) -> None:
        if self.broken is not None:
            raise self.broken
        await super().sleep(seconds)


@pytest.mark.parametrize("after_bytes", [False, True])
async def test_a_clock_that_raises(after_bytes: bool) -> None:
    clock = Faulty()

    def says(scene: FakeTransport, _: int) -> None:
        clock.broken = KeyError("clock")

    client, scene = played(clock, says=says)
    call = client._call(StartDispatch(7))
    if not after_bytes:
        clock.broken = KeyError("clock")
    with pytest.raises(OutcomeUnknownError if after_bytes else NotSentError) as caught:
        await call.run()
    assert isinstance(caught.value.__cause__, KeyError)
    assert len(scene.seen) == len(caught.value.attempts) == after_bytes
    clock.broken = None
    assert in_flight(client) == 0


async def test_early_clock_error_releases_permit() -> None:
    clock = Faulty()
    client, scene = played(clock)
    call = client._call(StartDispatch(7))
    permit = client._pacer.try_acquire()
    clock.broken = KeyError("clock")
    with pytest.raises(NotSentError):
        await call.run(permit=permit)
    clock.broken = None
    assert scene.seen == []
    assert in_flight(client) == 0


async def test_clock_error_while_waiting() -> None:
    clock = Faulty()
    client, scene = played(clock)
    client._pacer.throttle(30)
    clock.sleep = raising(KeyError("clock"))  # type: ignore[method-assign]
    with pytest.raises(NotSentError) as caught:
        await client.start(7)
    assert isinstance(caught.value.__cause__, KeyError)
    assert scene.seen == []
    assert client.statistics().pace.waiting == 0


def raising(raised: BaseException) -> Any:
    async def call(*_: object, **__: object) -> Any:
        raise raised

    return call


async def test_throttled_clock_error_is_harmless() -> None:
    clock = FakeClock()
    client, _ = played(clock, says=lambda *_: throttled(5))
    call = client._call(StartDispatch(7))
    clock.sleep = raising_later(clock, KeyError("clock"))  # type: ignore[method-assign]
    with pytest.raises(ThrottledError) as caught:
        await call.run()
    assert isinstance(caught.value.__cause__, KeyError)


def raising_later(clock: FakeClock, raised: BaseException) -> Any:
    """A sleep that raises from its second time on: the first is the provider's."""
    real, times = clock.sleep, iter([True])

    async def sleep(seconds: float) -> None:
        if next(times, False):
            await real(seconds)
        else:
            raise raised

    return sleep


async def test_token_error_during_probe() -> None:
    asked = iter(["t"])

    def token() -> ExpiringToken:
        for known in asked:
            return ExpiringToken(known, expires_in=0)
        raise OSError("vault")

    clock = FakeClock()
    client, _ = played(clock, token=token, says=lambda *_: TransportFailure("reset", sent=True))  # type: ignore[arg-type]
    with pytest.raises(OutcomeUnknownError, match="OSError"):
        await client.start(7)


@pytest.mark.parametrize("error_type", ENDS)
@pytest.mark.parametrize("repeated", [False, True], ids=["first", "repeat"])
async def test_task_exit_carries_note(error_type: type[BaseException], repeated: bool) -> None:
    raised = error_type("mine")

    def says(scene: FakeTransport, _: int) -> Response:
        if repeated and len(scene.seen) == 1:
            return throttled(1)
        raise raised

    client, _ = played(says=says)
    call = client._call(StartDispatch(7))
    with pytest.raises(error_type) as caught:
        await call.run()
    assert caught.value is raised
    assert "unknown" in raised.__notes__[0]
    assert call.attempts[-1].sent
    assert len(call.attempts) == 1 + repeated
    assert call.known_outcome().state is State.UNKNOWN
    assert in_flight(client) == 0


@pytest.mark.parametrize("error_type", [*EXCEPTIONS, *ENDS])
async def test_attempt_timer_is_removed(error_type: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Http, "exchange", raising(error_type("mine")))
    client = DirectClient("t", base_url="http://127.0.0.1:1", attempt_timeout=0.02, retry=RetryPolicy(attempts=1))
    async with client:
        with pytest.raises((DispatchkitError, error_type)):
            await client.start(7)
        http_ = client._context.transport._http
        assert http_ is not None
        assert http_.timers._live == set()
        await asyncio.sleep(0.05)  # it would ring now
        assert in_flight(client) == 0


async def test_call_on_other_loop_fails() -> None:
    async with Listener(http(200, {"dispatchId": 7})) as listener, DirectClient("t", base_url=listener.url) as client:
        await client.start(7)
        client._context.transport._loop = asyncio.new_event_loop()
        with pytest.raises(RuntimeError, match="a client belongs to the event loop"):
            await client.start(7)
        client._context.transport._loop.close()
        client._context.transport._loop = asyncio.get_running_loop()
        assert in_flight(client) == 0


@pytest.mark.parametrize("retry", [3, "5", {"attempts": 3}])
async def test_invalid_policy_is_refused_first(retry: Any) -> None:
    client, scene = played()
    with pytest.raises(TypeError, match=r"retry must be a RetryPolicy such as .*, not "):
        await client.start(7, retry=retry)
    with pytest.raises(TypeError, match=r"retry must be a RetryPolicy such as .*, not "):
        FanOut(client, [StartDispatch(7)], retry=retry)
    with pytest.raises(TypeError, match=r"retry must be a RetryPolicy such as .*, not "):
        DirectClient("t", retry=retry)
    assert scene.seen == []


# The log


@pytest.mark.parametrize("act", ["filter", "handler", "level"])
async def test_log_error_changes_no_outcome(
    act: str, log: Callable[[logging.Handler], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake = KeyError("mine")
    if act == "handler":
        log(Raising(mistake))
    elif act == "filter":
        monkeypatch.setattr(logging.getLogger("dispatchkit"), "filter", Raising(mistake).handle)
    else:
        monkeypatch.setattr(logging.getLogger("dispatchkit"), "isEnabledFor", Raising(mistake).handle)
    client, _ = played(says=lambda *_: TransportFailure("reset", sent=True), retry=RetryPolicy(attempts=1))
    with pytest.raises(OutcomeUnknownError) as caught:
        await client.start(7)
    assert caught.value.attempts
    client, _ = played(says=lambda s, _: throttled(1) if len(s.seen) == 1 else None)
    assert (await client.start(7)).dispatch_id == 7


async def test_log_error_is_reported_once(
    log: Callable[[logging.Handler], None], caplog: pytest.LogCaptureFixture
) -> None:
    log(Raising(KeyError("mine"), "dispatch"))
    for _ in range(2):
        client, _ = played(says=lambda s, _: throttled(1) if len(s.seen) == 1 else None)
        assert (await client.start(7)).dispatch_id == 7
    [report] = [record for record in caplog.records if "the record was dropped" in record.message]
    assert report.message == "a log filter or handler raised KeyError: the record was dropped"


async def test_log_error_keeps_cancellation(log: Callable[[logging.Handler], None]) -> None:
    log(Raising(KeyError("mine")))
    assert "unknown" in (await cancelled_in_flight()).__notes__[0]


@pytest.mark.parametrize("error_type", ENDS)
@pytest.mark.parametrize(
    ("word", "note"), [("done after all", "the call was done"), ("attempt 2", "rejected"), ("settling", "unknown")]
)
async def test_log_handler_error_carries_outcome(
    error_type: type[BaseException], word: str, note: str, log: Callable[[logging.Handler], None]
) -> None:
    raised = error_type("mine")
    log(Raising(raised, word))
    lost = TransportFailure("reset", sent=True)
    client, scene = played(
        says=lambda s, _: (lost if word == "settling" else throttled(1)) if len(s.seen) == 1 else None
    )
    scene.send = reads_too(scene)  # type: ignore[method-assign]
    with pytest.raises(error_type) as caught:
        await client.start(7)
    assert caught.value is raised
    assert note in "\n".join(raised.__notes__)


def reads_too(scene: FakeTransport) -> Any:
    real = scene.send

    async def send(request: Any, tracker: Any, **settings: Any) -> Any:
        if request.method == "GET":
            return Response(200, {}, b'{"total": 0, "items": []}')
        return await real(request, tracker, **settings)

    return send


async def test_log_interrupt_carries_note(log: Callable[[logging.Handler], None]) -> None:
    raised = Abort("mine")
    log(Raising(raised, "cancelled"))
    client, _ = played(takes=lambda _: 50)
    task = asyncio.ensure_future(client.start(7))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(Abort) as caught:
        await task
    assert "unknown" in caught.value.__notes__[0]


# What is known of a call that is given up


async def given_up(
    says: Callable[[FakeTransport, int], Any], *, until: Callable[[Any, FakeTransport], bool], **more: Any
) -> Any:
    client, scene = played(says=says, **more)
    real = scene.send

    async def send(request: Any, tracker: Any, **settings: Any) -> Any:
        if request.method == "GET":
            await asyncio.Event().wait()
        return await real(request, tracker, **settings)

    scene.send = send  # type: ignore[method-assign]
    call = client._call(StartDispatch(7))
    task = asyncio.ensure_future(call.run())
    for _ in range(2000):
        if until(call, scene):
            break
        await asyncio.sleep(0)
    before = call.known_outcome().state
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.known_outcome().state is before
    assert in_flight(client) == 0
    return before


async def test_early_cancellation_is_not_sent() -> None:
    assert await given_up(lambda *_: None, until=lambda *_: True) is State.NOT_SENT


async def test_written_it_is_unknown() -> None:
    outcome = await given_up(lambda *_: None, until=lambda _, scene: bool(scene.seen), takes=lambda _: 5)
    assert outcome is State.UNKNOWN


async def test_cancelled_throttled_call_is_rejected() -> None:
    says = {"says": lambda *_: throttled(5)}
    assert (
        await given_up(**says, until=lambda call, _: bool(call.context.stop.waiting and call.attempts))
        is State.REJECTED
    )
    written = await given_up(**says, until=lambda _, scene: len(scene.seen) == 2)
    assert written is State.UNKNOWN, "the first attempt was throttled, the second one may have acted"


async def test_during_settling_it_is_unknown() -> None:
    lost = TransportFailure("reset", sent=True)
    assert await given_up(lambda *_: lost, until=lambda call, _: bool(call.attempts)) is State.UNKNOWN


async def test_cancelled_after_refusal_is_rejected() -> None:
    client, _ = played(says=lambda *_: refusal(4031))
    call = client._call(StartDispatch(7))
    with pytest.raises(DispatchkitError):
        await call.run()
    assert call.known_outcome().state is State.REJECTED


async def test_connecting_repeat_keeps_outcome() -> None:
    """The first attempt left nothing, the second one is connecting."""
    client, scene = played(says=lambda *_: TransportFailure("no connection", sent=False))
    connecting = asyncio.Event()

    async def send(request: Any, tracker: Any, **_: Any) -> Any:
        if len(call.attempts) == 1:
            connecting.set()
            await asyncio.Event().wait()
        return TransportFailure("no connection", sent=False)

    scene.send = send  # type: ignore[method-assign]
    call = client._call(StartDispatch(7))
    task = asyncio.ensure_future(call.run())
    await connecting.wait()
    assert call.known_outcome().state is State.NOT_SENT
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.known_outcome().state is State.NOT_SENT
    assert [attempt.result for attempt in call.attempts] == ["no connection", "cancelled"]


# The margin before the deadline


@pytest.mark.parametrize(("pause", "sent"), [(8.9, 2), (9.1, 1)])
async def test_repeat_needs_deadline_margin(pause: float, sent: int) -> None:
    """A tenth of the time, at most a second, is left for the request."""
    policy = RetryPolicy(throttled_wait=wait_none())
    client, scene = played(
        says=lambda s, _: throttled(pause) if len(s.seen) == 1 else None, takes=lambda _: 0.0, retry=policy, timeout=10
    )
    task = asyncio.ensure_future(client.start(7))
    await asyncio.wait([task])
    assert len(scene.seen) == sent
    assert isinstance(task.exception(), ThrottledError if sent == 1 else type(None))


@pytest.mark.parametrize(("pause", "sent"), [(8.9, 1), (9.1, 0)])
async def test_first_attempt_needs_deadline_margin(pause: float, sent: int) -> None:
    client, scene = played(takes=lambda _: 0.0, timeout=10)
    client._pacer.throttle(pause)
    task = asyncio.ensure_future(client.start(7))
    await asyncio.wait([task])
    assert len(scene.seen) == sent
    assert isinstance(task.exception(), type(None) if sent else NotSentError)


async def test_claim_error_releases_permit() -> None:
    client, scene = played()
    call = client._call(StartDispatch(7))

    class Failing(PacedGate):
        acquire = raising(KeyError("ledger"))

    call.gate = Failing(client._pacer, stop=call.stop, closed=call.stop)
    with pytest.raises(NotSentError) as caught:
        await call.run()
    assert isinstance(caught.value.__cause__, KeyError)
    assert scene.seen == []
    assert in_flight(client) == 0

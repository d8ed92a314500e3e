"""How a call settles unclear answers, with scripted answers and a fake clock."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import attrs
import pytest
from multidict import CIMultiDict

from dispatchkit import (
    ActivateMailing,
    AltcraftClient,
    DeactivateMailing,
    DirectClient,
    DispatchkitError,
    ExpiringToken,
    InappropriateStatusError,
    LaunchBroadcast,
    NotSentError,
    OutcomeUnknownError,
    RetryPolicy,
    StartDispatch,
    State,
    StopDispatch,
    ThrottledError,
)
from dispatchkit.core.command import Command, Request, Response
from dispatchkit.core.transport.transport import SendTracker, TransportFailure

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


class Clock:
    """Random numbers are constant. Time passes only in sleeps and requests."""

    def __init__(self, drawn: float = 0.5) -> None:
        self.time = 0.0
        self.drawn = drawn

    def monotonic(self) -> float:
        return self.time

    def boottime(self) -> float:
        return self.time

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.time)

    def random(self) -> float:
        return self.drawn

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)


Reply = Response | TransportFailure


@attrs.define
class ScriptedTransport:
    """A transport with scripted replies, in order. The last reply repeats."""

    clock: Clock
    acts: list[Reply]
    reads: list[Reply]
    takes: float = 1.0
    sent: list[tuple[float, Request]] = attrs.field(factory=list)
    read: list[tuple[float, Request]] = attrs.field(factory=list)
    timeouts: list[float] = attrs.field(factory=list)

    async def send(self, request: Request, tracker: SendTracker, *, timeout: float) -> Response | TransportFailure:
        reading = request.method == "GET" or request.target.endswith(("get_status", "log_v2"))
        (self.read if reading else self.sent).append((self.clock.time, request))
        self.timeouts.append(timeout)
        replies = self.reads if reading else self.acts
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        self.clock.time += min(self.takes, timeout)
        if reading and isinstance(reply, Response) and "Date" not in reply.headers:
            headers = CIMultiDict({**reply.headers, "Date": format_datetime(self.clock.now(), usegmt=True)})
            reply = attrs.evolve(reply, headers=headers)
        tracker.sent = not isinstance(reply, TransportFailure) or reply.sent
        await asyncio.sleep(0)
        return reply

    async def close(self) -> None:
        """Nothing is open."""


def response(status: int, body: object = None, **headers: str) -> Response:
    raw = b"" if body is None else json.dumps(body).encode()
    return Response(status, CIMultiDict({name.replace("_", "-"): text for name, text in headers.items()}), raw)


LOST = TransportFailure("the connection was reset", sent=True)
UNSENT = TransportFailure("no connection: refused", sent=False)
BROKEN = response(500)
THROTTLED = response(429, None, Retry_After="7")
STARTED = response(200, {"dispatchId": 7})
STOPPED = response(200)
YES = response(200, {"data": None, "error": 0, "error_text": "Successful operation"})
REPLAYED = response(200, {"data": None, "error": 0, "error_text": "ok"}, Duplicate_Request="true")
NO = response(200, {"data": None, "error": 400, "error_text": "not active"})


def refused(code: int, status: int = 403) -> Response:
    return response(status, {"error": {"code": code, "msg": "no"}})


def status(*words: str) -> Response:
    return response(200, {"total": len(words), "items": [{"dispatchId": 7, "status": word} for word in words]})


def active(flag: bool) -> Response:
    return response(200, {"data": {"is_active": flag}, "error": 0, "error_text": ""})


def log(*entries: tuple[float, str]) -> Response:
    data = [{"state": state, "time": (NOON + timedelta(seconds=at)).isoformat()} for at, state in entries]
    return response(200, {"data": data, "error": 0, "error_text": ""})


@attrs.define
class CallResult:
    """What came of a performed command."""

    result: object
    error: DispatchkitError | None
    transport: ScriptedTransport
    elapsed: float

    @property
    def state(self) -> State:
        return State.DONE if self.error is None else self.error.state

    @property
    def launches(self) -> int:
        return len(self.transport.sent)


def client_of(
    command: Command[Any, object], clock: Clock, transport: object, *, deduplicates: bool = False
) -> DirectClient | AltcraftClient:
    client: DirectClient | AltcraftClient
    if isinstance(command, StartDispatch | StopDispatch):
        client = DirectClient("key", clock=clock)
    else:
        client = AltcraftClient("https://altcraft.test", "token", clock=clock, deduplicates=deduplicates)
    client._context.transport = transport  # type: ignore[assignment]
    return client


async def play(
    command: Command[Any, object],
    acts: list[Reply],
    reads: Sequence[Reply] | None = None,
    *,
    timeout: float = 240,
    retry: RetryPolicy | None = None,
    deduplicates: bool = False,
    takes: float = 1.0,
    unclear_since: datetime | None = None,
    request_id: str | None = None,
    acting_until: float | None = None,
) -> CallResult:
    clock = Clock()
    transport = ScriptedTransport(clock, list(acts), list(reads or [BROKEN]), takes)
    client = client_of(command, clock, transport, deduplicates=deduplicates)
    result, error = None, None
    try:
        settings: dict[str, Any] = {
            "request_id": request_id,
            "unclear_since": unclear_since,
            "acting_until": acting_until,
        }
        call = client._call(command, timeout=timeout, retry=retry, **settings)  # type: ignore[arg-type]
        result = await call.run()
    except DispatchkitError as raised:
        error = raised
    return CallResult(result, error, transport, clock.time)


START: Command[Any, object] = StartDispatch(7)
STOP: Command[Any, object] = StopDispatch(7)
ACTIVATE: Command[Any, object] = ActivateMailing(7)
RUN: Command[Any, object] = ActivateMailing(7, run_now=True)
LAUNCH: Command[Any, object] = LaunchBroadcast(7)
DEACTIVATE: Command[Any, object] = DeactivateMailing(7)
ABORT: Command[Any, object] = DeactivateMailing(7, abort_if_running=True)


@pytest.mark.parametrize("unclear", [LOST, BROKEN, response(502, {"dispatchId": 7}), response(200, "?"), response(302)])
@pytest.mark.parametrize("word", ["changing", "scheduled", "sending", "awaiting", "paused", "stopped", "done"])
async def test_status_settles_start_as_done(unclear: Response, word: str) -> None:
    result = await play(START, [unclear], [status(word)])
    assert repr(result.result) == "StartedDispatch(dispatch_id=7, settled=True)"
    assert result.launches == 1
    assert result.transport.read[0][1].target == "/api/v1/dispatch?dispatch_id=7"


async def test_start_repeats_after_state_lag() -> None:
    result = await play(START, [LOST, STARTED], [status("initiated")])
    assert repr(result.result) == "StartedDispatch(dispatch_id=7, settled=False)"
    (first, _), (second, _) = result.transport.sent
    assert first == 0
    # The attempt took 1 s; the last look begins no earlier than 60 s after it, and takes another second.
    assert result.transport.read[-1][0] >= 61
    assert result.transport.read[-2][0] < 61
    assert 62 <= second <= 63
    # Asked at once, then with growing pauses.
    probes = [at for at, _ in result.transport.read]
    assert probes[0] == 1
    pauses = [later - at - 1 for at, later in pairwise(probes)]
    assert pauses[:5] == pytest.approx([0.375, 0.75, 1.5, 3, 6])


async def test_late_status_settles_start() -> None:
    result = await play(START, [LOST], [status("initiated")] * 6 + [status("sending")])
    assert result.state is State.DONE
    assert result.launches == 1
    assert result.elapsed < 60


async def test_the_lag_is_a_setting() -> None:
    result = await play(START, [LOST, STARTED], [status("initiated")], retry=RetryPolicy(state_lag=5))
    assert result.transport.sent[1][0] < 10


@pytest.mark.parametrize("reads", [[status("unheard-of")], [status()], [status("initiated", "sending")], [BROKEN]])
async def test_inconclusive_state_leaves_start_unknown(reads: list[Reply]) -> None:
    result = await play(START, [LOST, STARTED], reads, timeout=100)
    assert result.state is State.UNKNOWN
    assert result.launches == 1
    assert result.elapsed <= 100


async def test_refused_probe_is_not_repeated() -> None:
    result = await play(START, [LOST, STARTED], [refused(4012, 401)])
    assert result.state is State.UNKNOWN
    assert (result.launches, len(result.transport.read)) == (1, 1)
    assert str(result.error).startswith(
        "StartDispatch(dispatch_id=7): unknown: the connection was reset; its state could"
    )


async def test_throttled_probe_waits() -> None:
    result = await play(START, [LOST], [THROTTLED, status("sending")])
    assert result.state is State.DONE
    (first, _), (second, _) = result.transport.read
    assert second - first >= 8


async def test_what_was_seen_is_told() -> None:
    result = await play(START, [LOST], [status("initiated")], timeout=20)
    assert result.error is not None
    assert result.error.summary == (
        "the connection was reset; its state reads 'initiated', and the deadline left no time to ask again"
    )
    assert [(attempt.number, attempt.result, attempt.sent) for attempt in result.error.attempts] == [
        (1, "the connection was reset", True)
    ]
    assert result.error.attempts[0].started == NOON
    assert result.error.attempts[0].duration == 1


async def test_status_settles_stop_as_done() -> None:
    result = await play(STOP, [LOST], [status("stopped")])
    assert (result.state, result.launches) == (State.DONE, 1)


@pytest.mark.parametrize("word", ["initiated", "scheduled", "sending", "awaiting", "paused"])
async def test_denied_stop_is_repeated(word: str) -> None:
    result = await play(STOP, [LOST, STOPPED], [status(word)])
    assert (result.state, result.launches) == (State.DONE, 2)
    assert result.transport.sent[1][0] > 60


async def test_transition_may_become_stopped() -> None:
    result = await play(STOP, [LOST, STOPPED], [status("changing")], timeout=100)
    assert (result.state, result.launches) == (State.UNKNOWN, 1)
    assert (await play(STOP, [LOST], [status("changing"), status("stopped")])).state is State.DONE


async def test_refused_repeated_stop_is_settled() -> None:
    seen: list[Reply] = [status("sending")]
    result = await play(STOP, [LOST, refused(4031)], [*seen * 12, status("stopped")])
    assert (result.state, result.launches) == (State.DONE, 2)


async def test_ended_dispatch_was_not_stopped() -> None:
    result = await play(STOP, [LOST, refused(4031)], [status("done")])
    assert isinstance(result.error, InappropriateStatusError)
    assert result.launches == 2
    assert result.elapsed < 10  # a last state does not change any more, so there is nothing to wait for
    assert len(result.error.attempts) == 2


async def test_unexplained_refused_repeat_is_unknown() -> None:
    result = await play(STOP, [LOST, refused(4031)], [status("done"), refused(4030)])
    assert result.state is State.UNKNOWN
    assert "the connection was reset; its state reads 'done'; then no (code 4031, HTTP 403)" in str(result.error)


async def test_first_refusal_needs_no_probe() -> None:
    result = await play(STOP, [refused(4031), STOPPED], [status("stopped")])
    assert isinstance(result.error, InappropriateStatusError)
    assert (result.launches, len(result.transport.read)) == (1, 0)


@pytest.mark.parametrize("command", [RUN, LAUNCH])
async def test_log_settles_launch_as_done(command: Command[Any, object]) -> None:
    result = await play(command, [LOST], [log((0.2, "start"))])
    assert repr(result.result) == "MailingAccepted(mailing_id=7, replayed=False, settled=True, repeated=False)"
    assert result.launches == 1
    body = json.loads(result.transport.read[0][1].body or b"")
    assert (body["id"], body["from_time"]) == (7, "2026-03-01T11:59:45.000Z")


@pytest.mark.parametrize("entries", [[], [(-1.0, "start")], [(0.5, "start")], [(0.5, "end")]])
@pytest.mark.parametrize("command", [RUN, LAUNCH])
async def test_deduplicated_launch_repeats_at_once(
    command: Command[Any, object], entries: list[tuple[float, str]]
) -> None:
    result = await play(command, [LOST, REPLAYED], [log(*entries)], deduplicates=True)
    assert repr(result.result) == "MailingAccepted(mailing_id=7, replayed=True, settled=False, repeated=False)"
    assert result.transport.read == []
    first, second = (request for _, request in result.transport.sent)
    assert first == second
    assert first.headers["Request-ID"] == first.headers["X-Request-ID"]
    assert result.elapsed < 5


@pytest.mark.parametrize("command", [RUN, LAUNCH, ABORT, ActivateMailing(7, limit=3)])
async def test_no_deduplication_no_repeat(
    command: Command[Any, object],
) -> None:
    result = await play(
        command, [LOST, YES], [log() if command in {RUN, LAUNCH} else active(False)], deduplicates=False
    )
    assert (result.state, result.launches) == (State.UNKNOWN, 1)


async def test_log_is_watched_for_lag() -> None:
    result = await play(LAUNCH, [LOST, YES], [log()], deduplicates=False)
    assert result.transport.read[-1][0] >= 61
    assert result.elapsed < 70
    late = [log()] * 5 + [log((0.1, "start"))]
    assert (await play(LAUNCH, [LOST, YES], late, deduplicates=False)).state is State.DONE


async def test_refused_repeated_launch_is_unknown() -> None:
    result = await play(LAUNCH, [LOST, NO], [log((0.1, "start"))], deduplicates=True)
    assert isinstance(result.error, OutcomeUnknownError)
    assert result.error.summary == "the connection was reset; then not active (code 400, HTTP 200)"
    assert result.transport.read == []


@pytest.mark.parametrize(
    ("command", "flag", "state"),
    [(ACTIVATE, True, State.DONE), (DEACTIVATE, False, State.DONE), (ABORT, False, State.UNKNOWN)],
)
async def test_activity_settles_activation(command: Command[Any, object], flag: bool, state: State) -> None:
    result = await play(command, [LOST, YES], [active(flag)], deduplicates=False)
    assert (result.state, result.launches) == (state, 1)


@pytest.mark.parametrize(("command", "flag"), [(ACTIVATE, False), (DEACTIVATE, True), (ABORT, True)])
async def test_denied_activity_allows_repeat(command: Command[Any, object], flag: bool) -> None:
    result = await play(command, [LOST, YES], [active(flag)], deduplicates=False)
    assert (result.state, result.launches) == (State.DONE, 2)
    assert result.transport.sent[1][0] > 60


async def test_not_sent_attempt_is_repeated() -> None:
    result = await play(START, [UNSENT, UNSENT, STARTED])
    assert (result.state, result.launches, len(result.transport.read)) == (State.DONE, 3, 0)
    assert [at for at, _ in result.transport.sent] == [0, 1.25, 2.75]


async def test_five_failed_connections() -> None:
    result = await play(START, [UNSENT])
    assert isinstance(result.error, NotSentError)
    assert result.launches == 5
    assert [attempt.number for attempt in result.error.attempts] == [1, 2, 3, 4, 5]


async def test_unclear_then_not_sent() -> None:
    result = await play(LAUNCH, [LOST, UNSENT], [log()], deduplicates=True)
    assert isinstance(result.error, OutcomeUnknownError)
    assert result.error.summary == "the connection was reset; then no connection: refused"


async def test_throttled_then_not_sent() -> None:
    result = await play(START, [THROTTLED, UNSENT])
    assert isinstance(result.error, ThrottledError)


async def test_earlier_log_start_is_foreign() -> None:
    result = await play(LAUNCH, [THROTTLED, LOST], [log((3.0, "start"))])
    assert (result.state, result.launches) == (State.UNKNOWN, 2)
    result = await play(LAUNCH, [THROTTLED, LOST], [log((3.0, "start"), (10.0, "start"))])
    assert (result.state, result.launches) == (State.DONE, 2)


async def test_token_error_in_probe() -> None:
    clock = Clock()
    tokens = iter(["key"])
    client = DirectClient(lambda: ExpiringToken(next(tokens), expires_in=0), clock=clock)
    transport = ScriptedTransport(clock, [LOST], [status("sending")])
    client._context.transport = transport  # type: ignore[assignment]
    with pytest.raises(OutcomeUnknownError, match=r"its state could not be asked for \(RuntimeError\)") as result:
        await client.start(7)
    assert len(result.value.attempts) == 1
    assert transport.read == []


async def test_altcraft_probes_have_own_ids() -> None:
    result = await play(LAUNCH, [LOST, YES], [log()], deduplicates=False)
    ids = [request.headers["Request-ID"] for _, request in result.transport.read]
    assert len(set(ids)) == len(ids) > 3
    assert result.transport.sent[0][1].headers["Request-ID"] not in ids
    assert all(len(request_id) == 36 for request_id in ids)


async def test_probe_takes_one_attempt_timeout() -> None:
    clock = Clock()
    client = DirectClient("key", clock=clock, attempt_timeout=3)
    transport = ScriptedTransport(clock, [LOST], [status("sending")])
    client._context.transport = transport  # type: ignore[assignment]
    await client.start(7)
    assert transport.timeouts == [3, 3]


async def test_closed_client_refuses_call() -> None:
    client = DirectClient("key", clock=Clock())
    call = client._call(StartDispatch(7))
    await client.close()
    with pytest.raises(RuntimeError, match=r"^the client of this call is closed: make a new one$"):
        await call.run()


async def test_cancelled_call_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "dispatchkit")
    _, known = await cancelled([STARTED], [BROKEN], lambda transport: len(transport.sent) == 1)
    assert str(known).startswith(
        "StartDispatch(dispatch_id=7): unknown: it was cancelled after the request had left\nIt may have happened."
    )
    assert [(record.levelname, vars(record)["outcome"]) for record in caplog.records] == [("WARNING", "unknown")]
    assert caplog.records[0].getMessage().endswith("cancelled: it was cancelled after the request had left")
    caplog.clear()
    _, known = await cancelled([UNSENT], [BROKEN], lambda transport: len(transport.sent) == 2)
    assert "not sent: it was cancelled before the request left" in str(known)
    assert caplog.records[-1].levelname == "INFO"
    assert vars(caplog.records[-1])["outcome"] == "not_sent"


async def test_abandoned_call_keeps_id() -> None:
    call = AltcraftClient("https://altcraft.test", "token", clock=Clock())._call(LaunchBroadcast(7))
    assert call.known_outcome().request_id == call.request_id is not None


async def test_throttled_call_waits() -> None:
    result = await play(START, [THROTTLED, STARTED])
    assert result.state is State.DONE
    assert result.transport.sent[1][0] >= 8


async def test_throttled_unclear_repeat_is_unknown() -> None:
    result = await play(LAUNCH, [LOST, THROTTLED], [log()], timeout=20, deduplicates=True)
    assert result.state is State.UNKNOWN


async def test_long_retry_after_fails_early() -> None:
    result = await play(START, [response(429, None, Retry_After="4294967")], timeout=60)
    assert isinstance(result.error, ThrottledError)
    assert result.elapsed == 1
    assert result.error.retry_after == 4294967
    assert result.error.retry_at == NOON + timedelta(seconds=4294968)
    assert "2026-04-20" in str(result.error)


async def test_short_remaining_time_prevents_repeat() -> None:
    assert (await play(START, [UNSENT], timeout=10)).launches == 5
    result = await play(START, [UNSENT], timeout=9.5, takes=4)
    assert result.launches == 2
    assert result.elapsed == 8.25


async def test_permit_near_deadline_is_refused() -> None:
    clock = Clock()
    transport = ScriptedTransport(clock, [STARTED], [BROKEN])
    client = DirectClient("key", clock=clock)
    client._context.transport = transport  # type: ignore[assignment]
    client._pacer.throttle(9.5)
    with pytest.raises(NotSentError, match="beyond the deadline"):
        await client._call(START, timeout=10).run()  # type: ignore[arg-type]
    assert transport.sent == []


@pytest.mark.parametrize("timeout", [0.5, 5, 50, 100])
async def test_request_timeout_fits_call_deadline(timeout: float) -> None:
    result = await play(START, [LOST], [BROKEN], timeout=timeout, takes=80)
    assert result.elapsed <= timeout
    assert result.transport.timeouts[0] == min(70, timeout)
    assert all(limit <= 15 for limit in result.transport.timeouts[1:])


async def test_one_attempt_policy_still_settles() -> None:
    result = await play(START, [LOST, STARTED], [status("sending")], retry=RetryPolicy(attempts=1))
    assert (result.state, result.launches) == (State.DONE, 1)
    result = await play(START, [LOST, STARTED], [status("initiated")], retry=RetryPolicy(attempts=1))
    assert (result.state, result.launches) == (State.UNKNOWN, 1)


async def test_answered_probes_cost_no_tokens() -> None:
    clock = Clock()
    client = DirectClient("key", clock=clock)
    client._context.transport = ScriptedTransport(clock, [LOST], [status("initiated")])  # type: ignore[assignment]
    before = client._context.budget.statistics().tokens
    with pytest.raises(OutcomeUnknownError):
        await client.start(7, retry=RetryPolicy(attempts=1))
    assert client._context.budget.statistics().tokens >= before
    assert client._context.budget.statistics().spent > 5
    client._context.transport = ScriptedTransport(clock, [UNSENT, STARTED], [BROKEN])  # type: ignore[assignment]
    before = client._context.budget.statistics().tokens
    await client.start(7)
    assert client._context.budget.statistics().tokens >= before


async def cancelled(
    acts: list[Reply], reads: list[Reply], when: Callable[[ScriptedTransport], bool]
) -> tuple[ScriptedTransport, object]:
    clock = Clock()
    client = DirectClient("key", clock=clock)
    transport = ScriptedTransport(clock, acts, reads)
    client._context.transport = transport  # type: ignore[assignment]
    call = client._call(StartDispatch(7))
    task = asyncio.create_task(call.run())
    while not when(transport):  # noqa: ASYNC110 - the script has no event to wait for
        await asyncio.sleep(0)
    task.cancel()
    sent = len(transport.sent)
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(transport.sent) == sent
    known = call.known_outcome()
    assert str(known) in caught.value.__notes__
    assert known.attempts == call.attempts
    return transport, known


async def test_cancelled_wait_reports_history() -> None:
    _, known = await cancelled([UNSENT], [BROKEN], lambda transport: len(transport.sent) == 2)
    assert isinstance(known, NotSentError)
    _, known = await cancelled([THROTTLED], [BROKEN], lambda transport: transport.clock.time > 1)
    assert isinstance(known, ThrottledError)
    _, known = await cancelled([LOST], [status("initiated")], lambda transport: len(transport.read) == 3)
    assert isinstance(known, OutcomeUnknownError)


async def test_each_step_logs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "dispatchkit")
    await play(ABORT, [UNSENT, LOST, REPLAYED], [active(False)], deduplicates=True)
    result = [(record.levelname, record.getMessage().partition(": ")[2]) for record in caplog.records]
    assert result == [
        ("INFO", "attempt 2 in 0.25 s (not_sent)"),
        ("INFO", "settling: absent, its state reads not active"),
        ("INFO", "attempt 3 in 0.50 s (unknown)"),
        ("INFO", "done after all"),
    ]
    record = caplog.records[0]
    assert vars(record)["command"] == repr(ABORT)
    assert (vars(record)["attempt"], vars(record)["outcome"], vars(record)["delay"]) == (1, "not_sent", 0.25)
    assert len(vars(record)["request_id"]) == 36


async def test_unknown_outcome_logs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "dispatchkit")
    await play(START, [STARTED])
    assert caplog.records == []
    await play(START, [refused(4030)])
    assert [record.levelname for record in caplog.records] == ["INFO"]
    await play(START, [LOST], [refused(4030)])
    assert caplog.records[-1].levelname == "WARNING"


AN_HOUR_AGO = NOON - timedelta(hours=1)
OLD_ID = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize("word", ["sending", "done", "stopped"])
async def test_status_settles_orphan_as_done(word: str) -> None:
    result = await play(START, [STARTED], [status(word)], unclear_since=AN_HOUR_AGO)
    assert repr(result.result) == "StartedDispatch(dispatch_id=7, settled=True)"
    assert result.launches == 0


async def test_denied_orphan_waits_for_lag() -> None:
    result = await play(START, [STARTED], [status("initiated")], unclear_since=AN_HOUR_AGO)
    assert (result.state, result.launches) == (State.DONE, 1)
    # The process that sent it may have ended a moment ago.
    assert result.transport.sent[0][0] >= 60


@pytest.mark.parametrize(("acting_until", "believed_from"), [(75.0, 135.0), (-30.0, 30.0), (-3600.0, 0.0)])
async def test_orphan_lag_starts_at_end(acting_until: float, believed_from: float) -> None:
    result = await play(START, [STARTED], [status("initiated")], unclear_since=AN_HOUR_AGO, acting_until=acting_until)
    assert (result.state, result.launches) == (State.DONE, 1)
    assert believed_from <= result.transport.sent[0][0] <= believed_from + 31


async def test_denial_is_read_when_due() -> None:
    result = await play(START, [LOST, STARTED], [status("initiated")], takes=9.0)
    under_way, last = (at for at, _ in result.transport.read[-2:])
    assert under_way < 9 + 60 < under_way + 9, "asked too early to be believed, and answered later"
    assert last == under_way + 9


@pytest.mark.parametrize("unclear_since", [None, AN_HOUR_AGO])
async def test_unrepeatable_orphan_is_only_read(unclear_since: datetime | None) -> None:
    retry = RetryPolicy(repeat_unclear=False)
    result = await play(START, [LOST], [status("initiated")], retry=retry, unclear_since=unclear_since)
    assert (result.state, result.launches) == (State.UNKNOWN, 0 if unclear_since else 1)
    result = await play(START, [LOST], [status("sending")], retry=retry, unclear_since=unclear_since)
    assert result.state is State.DONE
    result = await play(LAUNCH, [LOST, REPLAYED], [log()], retry=retry, deduplicates=True)
    assert (result.state, result.launches) == (State.UNKNOWN, 1)


@pytest.mark.parametrize("value", [None, 1, "no"])
async def test_repeat_unclear_is_a_flag(value: object) -> None:
    with pytest.raises(TypeError, match="repeat_unclear"):
        RetryPolicy(repeat_unclear=value)  # type: ignore[arg-type]


async def test_unsettled_orphan_stays_unknown() -> None:
    result = await play(START, [STARTED], [BROKEN], timeout=100, unclear_since=AN_HOUR_AGO)
    assert (result.state, result.launches) == (State.UNKNOWN, 0)
    assert "the process that sent it ended before an answer came; its state could not be read" in str(result.error)


@pytest.mark.parametrize("command", [RUN, LAUNCH, ACTIVATE, DEACTIVATE])
async def test_orphan_repeats_under_own_id(command: Command[Any, object]) -> None:
    reads: list[Reply] = [log()] if command in {RUN, LAUNCH} else [active(command is DEACTIVATE)]
    result = await play(command, [REPLAYED], reads, unclear_since=AN_HOUR_AGO, request_id=OLD_ID, deduplicates=True)
    assert (result.state, result.launches) == (State.DONE, 1)
    assert result.transport.sent[0][1].headers["Request-ID"] == OLD_ID
    assert len(result.transport.read) == (0 if command in {RUN, LAUNCH} else 1)


async def test_orphan_log_starts_at_claim() -> None:
    result = await play(LAUNCH, [YES], [log((-3599.0, "start"))], unclear_since=AN_HOUR_AGO, request_id=OLD_ID)
    assert (result.state, result.launches) == (State.DONE, 0)
    assert json.loads(result.transport.read[0][1].body or b"")["from_time"] == "2026-03-01T10:59:45.000Z"


@pytest.mark.parametrize("hours", [23, 24, 48, -23])
async def test_expired_id_allows_no_repeat(hours: int) -> None:
    ours: dict[str, Any] = {"request_id": OLD_ID, "deduplicates": True}
    result = await play(LAUNCH, [YES], [log()], unclear_since=NOON - timedelta(hours=hours), **ours)
    assert (result.state, result.launches) == (State.UNKNOWN, 0)
    result = await play(LAUNCH, [YES], [log()], unclear_since=NOON - timedelta(hours=22), **ours)
    assert (result.state, result.launches) == (State.DONE, 1)


async def test_cancelled_orphan_is_unknown() -> None:
    client = DirectClient("key", clock=Clock())
    assert client._call(StartDispatch(7), unclear_since=AN_HOUR_AGO).known_outcome().state is State.UNKNOWN
    assert client._call(StartDispatch(7)).known_outcome().state is State.NOT_SENT


async def test_other_id_is_not_deduplicated() -> None:
    result = await play(LAUNCH, [YES], [log()], unclear_since=AN_HOUR_AGO, deduplicates=True)
    assert (result.state, result.launches) == (State.UNKNOWN, 0)


async def test_overlong_wait_starts_nothing() -> None:
    clock = Clock()
    transport = ScriptedTransport(clock, [UNSENT], [BROKEN])
    client = DirectClient("key", clock=clock)
    client._context.transport = transport  # type: ignore[assignment]

    async def oversleep(seconds: float) -> None:
        clock.time += seconds + 3600

    clock.sleep = oversleep  # type: ignore[method-assign]
    with pytest.raises(NotSentError):
        await client.start(7)
    assert len(transport.sent) == 1

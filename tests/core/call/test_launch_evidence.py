"""When a log, or a replay, proves a launch, and when it may be another launch's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import attrs
import pytest
from multidict import CIMultiDict

from dispatchkit import (
    ActivateMailing,
    AltcraftClient,
    DeactivateMailing,
    DispatchkitError,
    LaunchBroadcast,
    OutcomeUnknownError,
    RetryPolicy,
    State,
)
from dispatchkit.altcraft.models import MailingAccepted
from dispatchkit.core.call.launches import KEEP, MAX_KEYS, Launches
from dispatchkit.core.call.provider_time import clock_offset
from dispatchkit.core.call.replays import replays_of
from dispatchkit.core.command import Evidence, LogProbe, Response, Settlement
from dispatchkit.errors import LedgerError
from tests.core.call.test_settling import (
    LAUNCH,
    LOST,
    NO,
    NOON,
    OLD_ID,
    REPLAYED,
    START,
    THROTTLED,
    UNSENT,
    YES,
    Clock,
    Reply,
    ScriptedTransport,
    active,
    log,
    play,
    response,
    status,
)

HOST = "https://altcraft.test"
AN_HOUR_AGO = NOON - timedelta(hours=1)


@attrs.define
class Stage:
    """A clock, and any number of clients of one platform that use it."""

    clock: Clock = attrs.field(factory=Clock)

    async def play(
        self, acts: list[Reply], reads: list[Reply], mailing: int = 7, *, host: str = HOST, **settings: Any
    ) -> tuple[State, Any, ScriptedTransport]:
        names = ("unclear_since", "request_id", "acting_until", "acted_by", "timeout", "retry", "repeats")
        given = {name: settings.pop(name) for name in names if name in settings}
        client = AltcraftClient(host, settings.pop("token", "token"), clock=self.clock, **settings)
        script = ScriptedTransport(self.clock, list(acts), list(reads))
        client._context.transport = script  # type: ignore[assignment]
        try:
            result = await client._call(LaunchBroadcast(mailing), **given).run()
        except DispatchkitError as error:
            return error.state, error, script
        return State.DONE, result, script


def started(clock: Clock, *ages: float) -> Response:
    return log(*((clock.time - age, "start") for age in ages))


@pytest.mark.parametrize("before", [LOST, YES])
async def test_launch_after_sibling_stays_unknown(before: Reply) -> None:
    stage = Stage()
    await stage.play([before], [log()], timeout=5)
    stage.clock.time += 30
    state, error, script = await stage.play([LOST], [started(stage.clock, -0.5)])
    assert state is State.UNKNOWN
    assert "another launch of the same at this time" in error.summary
    assert script.read == [], "nothing that the log could show would help"


@pytest.mark.parametrize(
    ("before", "mailing", "host"), [(NO, 7, HOST), (UNSENT, 7, HOST), (YES, 8, HOST), (YES, 7, "https://other.test")]
)
async def test_impossible_sibling_does_not_count(before: Reply, mailing: int, host: str) -> None:
    stage = Stage()
    await stage.play([before], [log()], mailing, host=host)
    state, result, _ = await stage.play([LOST], [started(stage.clock, -0.5)])
    assert state is State.DONE
    assert result.settled


async def test_old_launch_does_not_count() -> None:
    stage = Stage()
    await stage.play([YES], [log()])
    stage.clock.time += 61.5
    assert (await stage.play([LOST], [started(stage.clock, -0.5)]))[0] is State.DONE


async def test_launch_in_flight_counts() -> None:
    stage = Stage()
    launches = AltcraftClient(HOST, "another", clock=stage.clock)._context.launches
    launches.begin("another", 7)
    state, _, script = await stage.play([LOST], [started(stage.clock, -0.5)])
    assert state is State.UNKNOWN
    assert 61 <= script.read[-1][0] < 70, "it is waited for as long as state may lag"

    class Rejecting(ScriptedTransport):
        async def send(self, *values: Any, **more: Any) -> Reply:
            if len(self.read) == 3:
                launches.end("another", 7, "id", self.clock.time, acted=False)
            return await super().send(*values, **more)

    stage = Stage()
    client = AltcraftClient(HOST, "token", clock=stage.clock)
    launches = client._context.launches
    launches.begin("another", 7)
    client._context.transport = Rejecting(stage.clock, [LOST], [started(stage.clock, -0.5)])  # type: ignore[assignment]
    assert (await client.perform(LaunchBroadcast(7))).settled


@pytest.mark.parametrize(("mailing", "state"), [(7, State.UNKNOWN), (8, State.DONE)])
async def test_active_call_counts_for_mailing(mailing: int, state: State) -> None:
    class Hanging(ScriptedTransport):
        async def send(self, *_: Any, **__: Any) -> Reply:
            return await asyncio.Future[Reply]()

    stage = Stage()
    client = AltcraftClient(HOST, "another", clock=stage.clock)
    client._context.transport = Hanging(stage.clock, [], [])  # type: ignore[assignment]
    hanging = asyncio.ensure_future(client.perform(LaunchBroadcast(mailing)))
    await asyncio.sleep(0)
    assert (await stage.play([LOST], [started(stage.clock, -0.5)]))[0] is state
    hanging.cancel()
    await asyncio.wait([hanging])


async def test_two_starts_are_ambiguous() -> None:
    told = await play(LAUNCH, [LOST], [log((0.2, "start"), (0.3, "start"))])
    assert told.state is State.UNKNOWN
    assert "its log shows 2 starts" in str(told.error)
    assert len(told.transport.read) == 1, "they do not become fewer"


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (LedgerError("away"), "the ledger did not say"),
        (TimeoutError(), "the ledger did not say"),
        (True, "another launch of the same"),
        (False, None),
    ],
)
async def test_ledger_is_asked_before_start(says: object, why: str | None) -> None:
    clock, asked = Clock(), list[float]()
    client = AltcraftClient(HOST, "token", clock=clock)
    client._context.transport = ScriptedTransport(clock, [LOST], [log((0.5, "start"))])  # type: ignore[assignment]
    call = client._call(LaunchBroadcast(7))

    async def has_rival(within: float) -> bool:
        asked.append(within)
        if isinstance(says, Exception):
            raise says
        return bool(says)

    call.has_rival = has_rival
    if why is None:
        assert (await call.run()).settled
    else:
        with pytest.raises(OutcomeUnknownError, match=why):
            await call.run()
    assert asked[0] == 62, "from a minute before the launch began; attempt and question took 1 s each"


async def test_resumed_launch_keeps_start_time() -> None:
    clock, asked = Clock(), list[float]()
    client = AltcraftClient(HOST, "token", clock=clock)
    client._context.transport = ScriptedTransport(clock, [YES], [log((-3599.0, "start"))])  # type: ignore[assignment]
    call = client._call(LaunchBroadcast(7), unclear_since=AN_HOUR_AGO, request_id=OLD_ID)

    async def has_rival(within: float) -> bool:
        asked.append(within)
        return False

    call.has_rival = has_rival
    assert (await call.run()).settled
    assert asked == [3661.0]


def dated(date: object, *entries: tuple[float, str], **headers: str) -> Response:
    said = log(*entries)
    text = format_datetime(date, usegmt=True) if isinstance(date, datetime) else str(date)
    return attrs.evolve(said, headers=CIMultiDict({"Date": text, **headers}))


@pytest.mark.parametrize("ahead", [-3600, -90, -8, 8, 90, 3600])
async def test_wrong_platform_clock_is_inconclusive(ahead: int) -> None:
    reply = dated(NOON + timedelta(seconds=ahead + 2), (ahead + 0.5, "start"))
    told = await play(LAUNCH, [LOST], [reply])
    assert told.state is State.UNKNOWN
    assert "off this machine's" in str(told.error)


@pytest.mark.parametrize("ahead", [-4, 4])
async def test_times_use_platform_clock(ahead: int) -> None:
    date = NOON + timedelta(seconds=ahead + 2)
    assert (await play(LAUNCH, [LOST], [dated(date, (ahead + 0.5, "start"))])).state is State.DONE
    assert (await play(LAUNCH, [LOST], [dated(date, (ahead - 3.0, "start"))], timeout=3)).state is State.UNKNOWN


@pytest.mark.parametrize("date", ["", "soon", "Wed, 99 Feb 2099 99:99:99 GMT", "x" * 200])
async def test_undated_platform_is_inconclusive(date: str) -> None:
    told = await play(LAUNCH, [LOST], [dated(date, (0.5, "start"))])
    assert told.state is State.UNKNOWN
    assert "does not tell the provider's time" in str(told.error)


async def test_window_starts_at_sent_attempt() -> None:
    """The one before it took long to connect, and another launch began meanwhile."""

    class Slow(ScriptedTransport):
        async def send(self, *values: Any, **more: Any) -> Reply:
            self.takes = 1.0 if self.sent else 10.0
            return await super().send(*values, **more)

    clock = Clock()
    client = AltcraftClient(HOST, "token", clock=clock)
    client._context.transport = script = Slow(clock, [UNSENT, LOST], [log((5, "start"))])  # type: ignore[assignment]
    with pytest.raises(OutcomeUnknownError, match="its log shows no start"):
        await client.perform(LaunchBroadcast(7))
    assert [at for at, _ in script.sent] == [0, 10.25]


async def test_clock_step_moves_no_window() -> None:
    clock = Clock()
    client = AltcraftClient(HOST, "token", clock=clock)

    class Setting(ScriptedTransport):
        async def send(self, request: Any, *values: Any, **more: Any) -> Reply:
            said = await super().send(request, *values, **more)
            if not self.read:
                ahead = timedelta(hours=1)
                clock.now = lambda: NOON + ahead + timedelta(seconds=clock.time)  # type: ignore[method-assign]
                self.reads = [log((600.0, "start"))]
            return said

    client._context.transport = Setting(clock, [LOST], [log()])  # type: ignore[assignment]
    with pytest.raises(OutcomeUnknownError, match="its log shows no start"):
        await client.perform(LaunchBroadcast(7))


def test_offset_lies_between_two_bounds() -> None:
    sent, received = NOON, NOON + timedelta(seconds=2)
    date = format_datetime(NOON + timedelta(seconds=61), usegmt=True)
    offset = clock_offset({"Date": date}, sent, received)
    assert offset is not None
    assert (offset.least, offset.most) == (timedelta(seconds=59), timedelta(seconds=62))
    aged = clock_offset({"Date": date, "Age": "60"}, sent, received)
    assert aged is not None
    assert (aged.least, aged.most) == (timedelta(seconds=119), timedelta(seconds=123))
    assert clock_offset({"Date": date, "Age": "old"}, sent, received) is None
    assert clock_offset({"Date": date, "Age": "60, 0"}, sent, received) is None, "of which clock is the Date?"
    assert clock_offset(CIMultiDict([("Date", date), ("Age", "60"), ("Age", "60")]), sent, received) == aged
    slow = clock_offset({"Date": date}, sent, NOON + timedelta(seconds=10))
    assert slow is not None
    assert not slow.is_narrow


async def test_new_id_replay_is_foreign() -> None:
    stage = Stage()
    state, error, script = await stage.play([REPLAYED], [started(stage.clock, -0.5)])
    assert state is State.UNKNOWN
    assert "answer to another request" in error.summary
    assert (len(script.sent), script.read) == (1, []), "it was swallowed: a start is another launch's"


@pytest.mark.parametrize("first", [THROTTLED, UNSENT])
async def test_harmless_attempts_replay_is_foreign(first: Reply) -> None:
    state, error, _ = await Stage().play([first, REPLAYED], [log()], deduplicates=True)
    assert state is State.UNKNOWN
    assert "answer to another request" in error.summary


async def test_foreign_replay_invalidates_ids() -> None:
    stage = Stage()
    await stage.play([REPLAYED], [log()], 9)
    state, _, script = await stage.play([LOST, YES], [log()], deduplicates=True)
    assert (state, len(script.sent)) == (State.UNKNOWN, 1), "no repeat"
    state, error, _ = await stage.play([REPLAYED], [log()], 8, request_id=OLD_ID, deduplicates=True)
    assert state is State.UNKNOWN
    assert "may be the answer to another request" in error.summary
    state, _, script = await stage.play([LOST, REPLAYED], [log()], token="another-account", deduplicates=True)
    assert (state, len(script.sent)) == (State.DONE, 2)


async def test_former_process_replay_is_ours() -> None:
    state, result, _ = await Stage().play(
        [REPLAYED], [log()], unclear_since=AN_HOUR_AGO, request_id=OLD_ID, deduplicates=True
    )
    assert state is State.DONE
    assert result.replayed


@pytest.mark.parametrize(
    ("command", "flag"), [(ActivateMailing(7), True), (DeactivateMailing(7), False)], ids=["activate", "deactivate"]
)
async def test_status_settles_foreign_replay(command: Any, flag: bool) -> None:
    told = await play(command, [REPLAYED], [active(flag)])
    assert (told.state, told.launches, len(told.transport.read)) == (State.DONE, 1, 1)
    assert told.result == MailingAccepted(7, settled=True)


async def test_unclear_repeat_is_the_last() -> None:
    stage = Stage()
    state, error, script = await stage.play([LOST], [started(stage.clock, -0.5)], deduplicates=True)
    assert (state, len(script.sent), script.read) == (State.UNKNOWN, 2, [])
    assert "no replay was ever seen" in error.summary
    assert "deduplicates" not in str(error), "the user has vouched already"
    await stage.play([LOST, REPLAYED], [log()], 8, deduplicates=True)
    state, _, script = await stage.play([LOST], [log()], 9, deduplicates=True)
    assert (state, len(script.sent)) == (State.UNKNOWN, 5)


async def test_unsettleable_outcome_is_final() -> None:
    stage = Stage()
    _, error, _ = await stage.play([LOST], [log()], timeout=5)
    assert not error.is_final, "its log may show it later"
    _, error, _ = await stage.play([LOST], [started(stage.clock, -0.5)])
    assert error.is_final, "a later process knows of no other launch"
    assert "a resume leaves it alone" in str(error)
    _, error, _ = await stage.play([LOST, NO], [log()], 8, deduplicates=True)
    assert not error.is_final
    _, error, _ = await stage.play([LOST], [log()], 9, deduplicates=True)
    assert error.is_final, "its repeat was unclear too"
    _, error, _ = await stage.play([REPLAYED], [log()], 10)
    assert error.is_final, "a later process would believe the replay"
    _, error, _ = await stage.play([REPLAYED], [log()], 11, unclear_since=AN_HOUR_AGO, request_id=OLD_ID, timeout=5)
    assert not error.is_final, "it was not sent"
    _, error, _ = await stage.play([LOST], [log()], 12, deduplicates=True, timeout=5)
    assert not error.is_final, "it was not repeated"


@pytest.mark.parametrize("is_final", [True, False])
@pytest.mark.parametrize("evidence", [Evidence.UNAVAILABLE, Evidence.INCONCLUSIVE])
async def test_settlement_decides_finality(evidence: Evidence, is_final: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    settlement: Settlement[Any] = Settlement(evidence, "another launch of the same at this time", is_final=is_final)
    log_command = LaunchBroadcast(7).probe(AN_HOUR_AGO).command
    monkeypatch.setattr(LaunchBroadcast, "probe", lambda *_: LogProbe(log_command, lambda *_: settlement))
    _, error, _ = await Stage().play([LOST], [log()], timeout=5)
    assert error.is_final is is_final


@pytest.mark.parametrize("read", [log(), response(500), response(403, {"error": 403, "error_text": "no"})])
async def test_disbelieved_replay_stays_disbelieved(read: Reply) -> None:
    stage = Stage()
    await stage.play([REPLAYED], [log()], 9)
    _, error, _ = await stage.play([REPLAYED], [read], 8, request_id=OLD_ID, timeout=5)
    assert "may be the answer to another request" in error.summary
    assert error.is_final


async def test_former_repeat_is_the_last() -> None:
    stage = Stage()
    given: dict[str, Any] = {"unclear_since": AN_HOUR_AGO, "request_id": OLD_ID, "deduplicates": True}
    state, error, script = await stage.play([REPLAYED], [log()], repeats=1, **given)
    assert (state, script.sent, script.read, error.is_final) == (State.UNKNOWN, [], [], True)
    await stage.play([LOST, REPLAYED], [log()], 8, deduplicates=True)
    state, _, script = await stage.play([REPLAYED], [log()], repeats=1, **given)
    assert (state, len(script.sent)) == (State.DONE, 1), "repeats are recognised"


@pytest.mark.parametrize(("replies", "is_final"), [([LOST], False), ([LOST, YES], True), ([LOST, THROTTLED], False)])
async def test_cancelled_repeat_is_the_last(replies: list[Reply], is_final: bool) -> None:
    clock = Clock()
    client = AltcraftClient(HOST, "token", clock=clock, deduplicates=True)
    script = ScriptedTransport(clock, [*replies, YES], [log()])
    client._context.transport = script  # type: ignore[assignment]
    call = client._call(LaunchBroadcast(7))
    task = asyncio.create_task(call.run())
    while len(script.sent if is_final else call.attempts) < len(replies):  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, OutcomeUnknownError):
        await task
    for error in (call.known_outcome(), pickle.loads(pickle.dumps(call.known_outcome()))):
        assert isinstance(error, OutcomeUnknownError)
        assert error.is_final is is_final


async def test_former_unclear_repeat_is_last() -> None:
    state, _, script = await Stage().play(
        [LOST], [log()], unclear_since=AN_HOUR_AGO, request_id=OLD_ID, deduplicates=True
    )
    assert (state, len(script.sent), script.read) == (State.UNKNOWN, 1, [])


async def test_deactivation_replay_proves_no_launch() -> None:
    clock = Clock()
    client = AltcraftClient(HOST, "token", clock=clock, deduplicates=True)
    script = ScriptedTransport(clock, [LOST, REPLAYED, LOST], [active(True)])
    client._context.transport = script  # type: ignore[assignment]
    await client.deactivate(7)
    with pytest.raises(OutcomeUnknownError):
        await client.launch_broadcast(7)
    assert len(script.sent) == 4


async def test_repeat_without_replay_warns(caplog: pytest.LogCaptureFixture) -> None:
    state, result, script = await Stage().play([LOST, YES], [log()], deduplicates=True)
    assert (state, len(script.sent)) == (State.DONE, 2)
    assert result == MailingAccepted(7, repeated=True)
    assert [record.levelno for record in caplog.records if "may have launched twice" in record.getMessage()] == [
        logging.WARNING
    ]
    assert (await play(DeactivateMailing(7), [LOST, YES], [active(True)], deduplicates=True)).result == MailingAccepted(
        7
    )


@pytest.mark.parametrize("retry", [RetryPolicy(attempts=1), RetryPolicy(retry_on=frozenset({"throttled"}))])
async def test_log_settles_unrepeated_launch(retry: RetryPolicy) -> None:
    stage = Stage()
    state, result, _ = await stage.play([LOST], [started(stage.clock, -0.5)], retry=retry, deduplicates=True)
    assert state is State.DONE
    assert result.settled


async def test_hint_says_what_to_ask() -> None:
    told = await play(LAUNCH, [LOST], [log()])
    assert told.error is not None
    for text in ("administrator", "deduplicates=True", "--deduplicates"):
        assert text in str(told.error)
    activation = await play(ActivateMailing(7, limit=3), [LOST], [active(True)])
    assert "deduplicates" not in str(activation.error)


async def test_cancelled_launch_has_its_hint() -> None:
    call = AltcraftClient(HOST, "token", clock=Clock())._call(LaunchBroadcast(7), unclear_since=AN_HOUR_AGO)
    assert "deduplicates=True" in str(call.known_outcome())


async def test_cancelled_launch_may_have_acted() -> None:
    stage = Stage()
    client = AltcraftClient(HOST, "token", clock=stage.clock)
    script = ScriptedTransport(stage.clock, [YES], [log()])
    client._context.transport = script  # type: ignore[assignment]
    task = asyncio.create_task(client.perform(LaunchBroadcast(7)))
    while not script.sent:  # noqa: ASYNC110 - the script has no event to wait for
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await stage.play([LOST], [started(stage.clock, -0.5)]))[0] is State.UNKNOWN


async def test_cancellation_reports_latest_attempt() -> None:
    clock = Clock()
    client = AltcraftClient(HOST, "token", clock=clock)
    script = ScriptedTransport(clock, [UNSENT, YES], [log()])
    client._context.transport = script  # type: ignore[assignment]
    call = client._call(LaunchBroadcast(7))
    task = asyncio.create_task(call.run())
    while len(script.sent) < 2:  # noqa: ASYNC110 - the script has no event to wait for
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [attempt.result for attempt in call.attempts] == ["no connection: refused", "cancelled"]
    assert call.known_outcome().state is State.UNKNOWN


def test_deduplication_is_off_by_default() -> None:
    assert AltcraftClient(HOST, "token")._settings()["deduplicates"] == "no"
    assert AltcraftClient(HOST, "token", deduplicates=True)._settings()["deduplicates"] == "yes"


def test_launch_record_forgets_oldest() -> None:
    launches = Launches()
    for key in range(3 * MAX_KEYS):
        launches.end(None, key, "id", key / 100, acted=True)
        assert len(launches._ended) + len(launches._older) < 2 * MAX_KEYS + 1
    unheard_of, latest = 3 * MAX_KEYS, (3 * MAX_KEYS - 1) / 100
    assert launches.another_ended(3 * MAX_KEYS - 1, "new", latest)
    assert launches.another_ended(2 * MAX_KEYS + 1, "new", (2 * MAX_KEYS + 1) / 100)
    assert not launches.another_ended(unheard_of, "new", latest)
    assert launches.another_ended(unheard_of, "new", 0.0), "one was forgotten that ended then"


def test_expired_launches_are_forgotten() -> None:
    launches = Launches()
    for at in (0.0, 1.0, KEEP + 2, 2 * KEEP + 4):
        launches.end(None, int(at), "id", at, acted=True)
    assert launches.another_ended(5, "new", KEEP + 2), "that may be an end which was forgotten"
    assert not launches.another_ended(5, "new", KEEP + 3)
    assert launches.another_ended(int(2 * KEEP + 4), "new", 2 * KEEP + 4)
    assert len(launches._ended) + len(launches._older) == 1


def test_launch_with_same_id_matches() -> None:
    launches = Launches()
    launches.end(None, 7, "a", 5.0, acted=True)
    assert not launches.another_ended(7, "a", 5.0)
    assert launches.another_ended(7, "b", 5.0)
    launches.end(None, 7, "b", 6.0, acted=True)
    launches.end(None, 7, "b", 7.0, acted=True)
    assert launches.another_ended(7, "b", 5.0)
    assert not launches.another_ended(7, "b", 5.5)
    assert launches.another_ended(7, "a", 7.0)
    launches.end(None, 7, "a", 8.0, acted=False)
    assert not launches.another_ended(7, "b", 5.5)


def test_parent_launch_counts_after_fork() -> None:
    launches = Launches()
    launches.begin("one", 7)
    launches.leave_to_parent(5.0)
    assert launches.another_ended(7, "id", 5.0)
    assert not launches.others_in_flight("two", 7)


def test_accounts_are_told_apart() -> None:
    clock = Clock()
    assert replays_of(("a",), clock) is replays_of(("a",), clock)
    assert replays_of(("a",), clock) is not replays_of(("b",), clock)
    assert replays_of(("a",), clock) is not replays_of(("a",), Clock())


async def test_incomplete_log_is_read_again() -> None:
    part = {"data": [{"state": "start", "time": NOON.isoformat()}], "error": 0, "error_text": "", "total_count": 2}
    told = await play(LAUNCH, [LOST], [response(200, part), log((0.5, "start"))])
    assert told.state is State.DONE
    assert len(told.transport.read) == 2


async def test_log_window_precedes_launch() -> None:
    told = await play(LAUNCH, [LOST], [log((0.5, "start"))])
    said = json.loads(told.transport.read[0][1].body or b"")["from_time"]
    assert datetime.fromisoformat(said) == datetime(2026, 3, 1, 11, 59, 45, tzinfo=UTC)


async def test_late_start_is_not_ours() -> None:
    stage = Stage()
    state, _, _ = await stage.play(
        [], [started(stage.clock, 3000)], unclear_since=AN_HOUR_AGO, request_id=OLD_ID, acting_until=-3590.0
    )
    assert state is State.UNKNOWN
    stage = Stage()
    state, _, _ = await stage.play(
        [], [started(stage.clock, 3570)], unclear_since=AN_HOUR_AGO, request_id=OLD_ID, acting_until=-3590.0
    )
    assert state is State.DONE


async def test_takeover_excludes_later_starts() -> None:
    more: dict[str, Any] = {
        "unclear_since": AN_HOUR_AGO,
        "request_id": OLD_ID,
        "acting_until": 0.0,
        "acted_by": -3590.0,
    }
    for age, expected in ((3000, State.UNKNOWN), (3570, State.DONE)):
        stage = Stage()
        assert (await stage.play([], [started(stage.clock, age)], **more))[0] is expected


async def test_untrusted_ids_end_repeats() -> None:
    stage = Stage()
    client = AltcraftClient(HOST, "token", clock=stage.clock, deduplicates=True)

    class Meanwhile(ScriptedTransport):
        async def send(self, *values: Any, **more: Any) -> Reply:
            client._context.replays.foreign = True  # another call was answered by a foreign replay
            return await super().send(*values, **more)

    script = client._context.transport = Meanwhile(stage.clock, [LOST, YES], [log()])  # type: ignore[assignment]
    with pytest.raises(OutcomeUnknownError):
        await client.perform(LaunchBroadcast(7))
    assert len(script.sent) == 1


async def test_final_probe_at_deadline() -> None:
    reads: list[Reply] = [response(502)] * 4
    result = await play(START, [LOST], [*reads, status("sending")], timeout=10)
    assert result.state is State.DONE
    assert result.transport.read[-1][0] == pytest.approx(9.0, abs=2.0)


async def test_overflowing_date_is_ignored() -> None:
    far = response(200, {"data": [], "error": 0, "error_text": ""})
    far = attrs.evolve(far, headers=CIMultiDict({**far.headers, "Date": "Fri, 31 Dec 9999 23:59:59 GMT"}))
    state, error, _ = await Stage().play([LOST], [far])
    assert state is State.UNKNOWN
    assert error.__cause__ is None

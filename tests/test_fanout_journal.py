"""What a fan-out asks of a journal, and what it does with each answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, ClassVar

import attrs
import pytest

from dispatchkit import DirectClient, FanOut, NotSentError, Pace, Report, RetryPolicy, StartDispatch, State
from dispatchkit.core.command import Answer
from dispatchkit.core.fanout.journal import Entry, Leave, Planned
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.core.transport.transport import Failure
from dispatchkit.errors import LedgerError
from tests.stage import played, starts, until
from tests.virtual import Manual, Played, throttled

EARLIER = datetime(2025, 12, 31, tzinfo=UTC)


@attrs.define
class Notes:
    """A journal on paper: it does what it is told and writes down, in order, what it was asked."""

    scene: Played
    leaves: Callable[[int], Leave] = lambda _: Leave.GRANTED
    final: dict[State, int] = attrs.field(factory=dict)
    since: dict[int, datetime] = attrs.field(factory=dict)
    broken: str = ""
    asked: list[tuple[str, object]] = attrs.field(factory=list)
    claimed_since: list[datetime | None] = attrs.field(factory=list)
    entries: list[Entry[Any, Any]] = attrs.field(factory=list)
    stop: Callable[[], None] = lambda: None
    settings: object = None
    recorded: list[Outcome[Any]] = attrs.field(factory=list)
    gate: asyncio.Event | None = None
    at_the_gate: int = 0

    def journal(self, run: str, settings: object) -> Notes:
        self.asked.append(("run", run))
        self.settings = settings
        return self

    async def open(self, commands: Iterable[Any] | AsyncIterable[Any] | None, stop: Callable[[], None]) -> Planned:
        if self.broken == "open":
            raise LedgerError("no such disk")
        self.stop = stop
        if isinstance(commands, AsyncIterable):
            planned = [command async for command in commands]
        else:
            planned = list(commands or starts(range(1, 4)))
        self.entries = [
            Entry(index, command, since=self.since.get(command.dispatch_id)) for index, command in enumerate(planned)
        ]
        return Planned(len(planned) + sum(self.final.values()), self.final)

    async def take(self) -> Entry[Any, Any] | None:
        await asyncio.sleep(0)
        return self.entries.pop(0) if self.entries else None

    async def claim(self, entry: Entry[Any, Any], request_id: str | None) -> Leave:
        number = entry.command.dispatch_id
        # An entry that says since when it is unclear is asked for again.
        assert entry.since or number not in [seen for _, seen in self.scene.seen], "it left before it was claimed"
        if self.broken == ("repeat" if entry.since else "claim") and number == 5:
            raise LedgerError("the disk is full")
        self.at_the_gate += 1
        if self.gate is not None:
            await self.gate.wait()
        self.asked.append(("claim", number))
        self.claimed_since.append(entry.since)
        await asyncio.sleep(0)
        return self.leaves(number)

    async def has_rival(self, entry: Entry[Any, Any], within: float) -> bool:
        return False

    def halt(self) -> None:
        self.asked.append(("halt", None))

    def record(self, entry: Entry[Any, Any], outcome: Outcome[Any]) -> None:
        self.recorded.append(outcome)

    async def close(self) -> None:
        self.asked.append(("close", None))
        if self.broken == "close":
            raise LedgerError("the last page was not written")


def noted(**settings: Any) -> tuple[DirectClient, Notes]:
    names = {field.name for field in attrs.fields(Notes)}
    client, scene = played(**{name: value for name, value in settings.items() if name not in names})
    return client, Notes(scene, **{name: value for name, value in settings.items() if name in names})


async def test_each_launch_is_claimed_before_it_leaves_and_recorded_after() -> None:
    client, notes = noted()
    run = FanOut(client, starts(range(1, 101)), concurrency=8, ledger=notes, run="friday")
    assert await run.finish() == Report(done=100, not_started=0)
    assert notes.settings.settings == {"provider": "direct", "base_url": "https://direct.i-dgtl.ru"}
    assert (notes.settings.account, notes.settings.attempt_timeout) == (None, 70)
    assert notes.asked[0] == ("run", "friday")
    assert notes.asked[-1] == ("close", None)
    assert sorted(outcome.index for outcome in notes.recorded) == list(range(100))
    assert len(notes.scene.seen) == 100


async def test_what_came_to_its_outcome_earlier_is_counted_and_is_no_failure_of_this_run() -> None:
    client, notes = noted(final={State.DONE: 5, State.REJECTED: 2})
    run = FanOut(client, starts(range(1, 4)), ledger=notes, run="friday", stop_after_failures=1)
    assert await run.finish() == Report(done=8, rejected=2, not_started=0, earlier=7)


async def test_commands_that_the_ledger_holds_need_not_be_given() -> None:
    client, notes = noted()
    assert await FanOut(client, None, ledger=notes, run="friday").finish() == Report(done=3, not_started=0)


async def test_what_somebody_else_has_is_left_alone() -> None:
    client, notes = noted(leaves=lambda number: Leave.GONE if number % 2 else Leave.GRANTED)
    report = await FanOut(client, starts(range(1, 11)), concurrency=3, ledger=notes, run="friday").finish()
    assert report == Report(done=5, not_started=5)
    assert client.statistics().pace.in_flight == 0
    assert client.statistics().pace.started == 5


async def test_a_run_that_was_stopped_elsewhere_starts_nothing_more() -> None:
    client, notes = noted(leaves=lambda number: Leave.STOPPED if number == 4 else Leave.GRANTED)
    report = await FanOut(client, starts(range(1, 101)), concurrency=1, ledger=notes, run="friday").finish()
    assert report == Report(done=3, not_started=97)
    assert ("halt", None) in notes.asked


async def test_a_stop_from_elsewhere_needs_no_claim_to_be_seen() -> None:
    client, notes = noted()
    run = FanOut(client, starts(range(1, 101)), concurrency=2, ledger=notes, run="friday")
    async for _ in run:
        notes.stop()
    assert 98 >= (run.report.not_started or 0) >= 90


async def test_later_is_asked_again() -> None:
    refusals = iter([Leave.LATER, Leave.LATER, Leave.GRANTED])
    client, notes = noted(leaves=lambda _: next(refusals))
    assert await FanOut(client, starts([1]), ledger=notes, run="friday").finish() == Report(done=1, not_started=0)
    assert [what for what, _ in notes.asked].count("claim") == 3
    assert client.statistics().pace.started == 1


@pytest.mark.usefixtures("no_ramp")
async def test_whoever_has_leave_already_keeps_to_a_pause_that_begins_meanwhile() -> None:
    client, notes = noted(
        pace=Pace(concurrency=8), takes=lambda _: 1.0, says=lambda _, number: throttled(30) if number == 1 else None
    )
    retry = RetryPolicy(attempts=1)
    run = FanOut(client, starts(range(1, 11)), concurrency=4, retry=retry, ledger=notes, run="friday")
    assert await run.finish() == Report(done=9, rejected=1, not_started=0)
    times = [at for at, _ in notes.scene.seen]
    assert times[:4] == [0.0] * 4
    assert min(times[4:]) >= 31.0
    assert client.statistics().pace.in_flight == 0


@pytest.mark.usefixtures("no_ramp")
async def test_whoever_has_leave_already_and_is_stopped_in_a_pause_is_recorded_as_not_sent() -> None:
    clock = Manual()
    client, notes = noted(
        clock=clock, pace=Pace(concurrency=8), takes=lambda _: 1.0, says=lambda _, number: throttled(30)
    )
    retry = RetryPolicy(attempts=1)
    run = FanOut(client, starts(range(1, 11)), concurrency=4, retry=retry, ledger=notes, run="friday")
    finishing = asyncio.create_task(run.finish())
    await until(lambda: notes.scene.in_flight == 4 and ("claim", 5) in notes.asked)
    clock.advance(1.0)
    await until(lambda: client.statistics().pace.in_flight == 0)
    run.stop()
    assert await finishing == Report(rejected=4, not_started=6)
    assert sorted(outcome.index for outcome in notes.recorded) == [0, 1, 2, 3, 4]
    assert {outcome.index for outcome in notes.recorded if outcome.state is State.NOT_SENT} == {4}


async def test_a_provider_that_stalls_is_not_met_with_a_burst_afterwards() -> None:
    client, notes = noted(pace=Pace(rate=10), takes=lambda scene: 100.0 if len(scene.seen) <= 16 else 0.01)
    run = FanOut(client, starts(range(1, 101)), concurrency=16, ledger=notes, run="friday")
    assert await run.finish() == Report(done=100, not_started=0)
    moments = [moment for moment, _ in notes.scene.seen]
    assert min(later - earlier for earlier, later in itertools.pairwise(moments)) >= 0.1 - 1e-9


async def test_a_disk_that_stalls_does_not_let_a_burst_go() -> None:
    gate = asyncio.Event()
    client, notes = noted(pace=Pace(rate=10), takes=lambda _: 0.01, gate=gate)
    run = FanOut(client, starts(range(1, 101)), concurrency=16, ledger=notes, run="friday")
    finishing = asyncio.create_task(run.finish())
    await notes.scene.clock.sleep(5.0)
    gate.set()
    assert await finishing == Report(done=100, not_started=0)
    moments = [moment for moment, _ in notes.scene.seen]
    assert moments[0] >= 5.0
    assert min(later - earlier for earlier, later in itertools.pairwise(moments)) >= 0.1 - 1e-9


async def test_each_repeat_asks_for_leave_again_and_is_not_made_without() -> None:
    leaves = iter([Leave.GRANTED, Leave.GRANTED, Leave.LATER, Leave.GRANTED, Leave.STOPPED])
    client, notes = noted(leaves=lambda _: next(leaves), says=lambda *_: Failure("no connection", sent=False))
    run = FanOut(client, starts([1]), ledger=notes, run="friday")
    assert await run.finish() == Report(not_sent=1, not_started=0)
    assert len(notes.scene.seen) == 3
    assert client.statistics().pace.in_flight == 0
    assert client.statistics().pace.started == 3


async def test_claim_of_a_repeat_says_when_the_first_request_began() -> None:
    client, notes = noted(says=lambda scene, _: throttled(5) if len(scene.seen) < 4 else None)
    run = FanOut(client, starts([1]), ledger=notes, run="friday")
    assert await run.finish() == Report(done=1, not_started=0)
    [outcome] = notes.recorded
    first = outcome.attempts[0].started
    assert notes.claimed_since == [None, first, first, first]
    assert outcome.attempts[1].started > first


async def test_claim_of_a_repeat_keeps_when_an_earlier_process_began() -> None:
    answers = [Answer(200, {}, b'{"total": 1, "items": [{"dispatchId": 1, "status": "initiated"}]}'), throttled(5)]
    client, notes = noted(since={1: EARLIER})
    scene = notes.scene

    async def send(request: Any, witness: Any, **_: object) -> Answer | Failure:
        witness.sent = True
        await scene.clock.sleep(0.1)
        acts = request.method == "POST"
        return answers[0] if not acts else answers.pop() if len(answers) > 1 else Answer(200, {}, b'{"dispatchId": 1}')

    scene.send = send  # type: ignore[method-assign]
    run = FanOut(client, starts([1]), ledger=notes, run="friday")
    assert await run.finish() == Report(done=1, not_started=0)
    assert notes.claimed_since == [EARLIER, EARLIER, EARLIER]


async def test_a_ledger_that_breaks_before_a_repeat_ends_the_run() -> None:
    client, notes = noted(broken="repeat", says=lambda *_: Failure("no connection", sent=False))
    run = FanOut(client, starts([5]), ledger=notes, run="friday")
    with pytest.raises(LedgerError, match="the disk is full"):
        await run.finish()
    assert run.report == Report(not_sent=1, not_started=0)
    assert len(notes.scene.seen) == 1


@pytest.mark.usefixtures("no_ramp")
async def test_what_is_stopped_while_it_asks_is_recorded_as_not_sent() -> None:
    client, notes = noted(gate=asyncio.Event())
    run = FanOut(client, starts(range(1, 11)), concurrency=4, ledger=notes, run="friday")
    finishing = asyncio.create_task(run.finish())
    await until(lambda: notes.at_the_gate == 5)  # one more than may be in flight
    run.stop()
    assert notes.gate is not None
    notes.gate.set()
    assert await finishing == Report(not_started=10)
    assert {type(outcome.error) for outcome in notes.recorded} == {NotSentError}
    assert notes.scene.seen == []
    assert client.statistics().pace.in_flight == 0


async def test_what_was_left_unclear_is_settled_and_not_sent_blindly() -> None:
    sending = Answer(200, {}, b'{"total": 1, "items": [{"dispatchId": 2, "status": "sending"}]}')
    client, notes = noted(since={2: EARLIER})
    send = notes.scene.send

    async def answers_reads(request: Any, witness: object, **settings: object) -> Any:
        return sending if request.method == "GET" else await send(request, witness, **settings)

    notes.scene.send = answers_reads  # type: ignore[method-assign]
    outcomes = [outcome async for outcome in FanOut(client, starts(range(1, 4)), ledger=notes, run="friday")]
    assert {outcome.state for outcome in outcomes} == {State.DONE}
    assert [outcome.result.settled for outcome in sorted(outcomes, key=lambda each: each.index) if outcome.result] == [
        False,
        True,
        False,
    ]
    assert sorted(number for _, number in notes.scene.seen) == [1, 3]
    assert client.statistics().pace.in_flight == 0


async def test_what_was_left_unclear_and_cannot_even_be_asked_about_stays_unknown() -> None:
    def no_token() -> str:
        raise OSError("the vault is sealed")

    client = DirectClient(no_token)
    scene = played()[1]
    notes = Notes(scene, since={1: EARLIER})
    run = FanOut(client, starts([1, 2]), ledger=notes, run="friday", retry=RetryPolicy(attempts=1))
    assert await run.finish() == Report(unknown=1, not_sent=1, not_started=0)


@pytest.mark.parametrize("how", [list, iter])
async def test_a_ledger_that_cannot_be_opened_starts_nothing(how: Any) -> None:
    client, notes = noted(broken="open")
    run = FanOut(client, how(list(starts(range(1, 4)))), ledger=notes, run="friday")
    with pytest.raises(LedgerError, match="no such disk"):
        await run.finish()
    await run.close()
    assert notes.scene.seen == []
    assert ("close", None) not in notes.asked


@pytest.mark.usefixtures("no_ramp")
async def test_a_ledger_that_breaks_ends_the_run_and_what_is_in_flight_is_recorded() -> None:
    client, notes = noted(broken="claim")
    run = FanOut(client, starts(range(1, 101)), concurrency=3, ledger=notes, run="friday")
    with pytest.raises(LedgerError, match="the disk is full"):
        await run.finish()
    assert 5 not in [number for _, number in notes.scene.seen]
    assert len(notes.recorded) == len(notes.scene.seen) == run.report.done < 10
    assert notes.asked[-1] == ("close", None)
    assert client.statistics().pace.in_flight == 0


async def test_a_ledger_that_cannot_write_the_end_says_so() -> None:
    client, notes = noted(broken="close")
    run = FanOut(client, starts(range(1, 4)), ledger=notes, run="friday")
    with pytest.raises(LedgerError, match="the last page was not written"):
        await run.finish()
    assert run.report == Report(done=3, not_started=0)


async def test_a_ledger_and_a_run_belong_together() -> None:
    client, notes = noted()
    with pytest.raises(ValueError, match="ledger= and run= belong together"):
        FanOut(client, starts([1]), ledger=notes)
    with pytest.raises(ValueError, match="ledger= and run= belong together"):
        FanOut(client, starts([1]), run="friday")
    with pytest.raises(TypeError, match=r"ledger must be a Ledger, such as Ledger\('launch.db'\), not str"):
        FanOut(client, starts([1]), ledger="launch.db", run="friday")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(ValueError, match="commands=None stands for what a ledger holds"):
        FanOut(client, None)


async def test_the_shortcuts_take_a_ledger() -> None:
    client, notes = noted()
    assert (await client.start_many(range(1, 4), ledger=notes, run="friday").finish()).done == 3
    assert {type(outcome.command) for outcome in notes.recorded} == {StartDispatch}


async def test_a_mistake_at_the_end_of_the_commands_does_not_keep_the_journal_open() -> None:
    class Odd:
        def __iter__(self) -> Odd:
            return self

        def __next__(self) -> StartDispatch:
            raise StopIteration

        def close(self) -> None:
            raise OSError("the file is gone")

    client, notes = noted()
    with pytest.raises(OSError, match="the file is gone"):
        await FanOut(client, Odd(), ledger=notes, run="friday").finish()  # type: ignore[arg-type]
    assert notes.asked[-1] == ("close", None)


async def test_a_client_that_is_closed_while_a_claim_is_written_sends_nothing_and_keeps_nothing() -> None:
    scene = played()[1]
    client = DirectClient("t", clock=scene.clock)
    notes = Notes(scene, gate=asyncio.Event())
    finishing = asyncio.create_task(FanOut(client, starts([1, 2]), ledger=notes, run="friday", concurrency=2).finish())
    await until(lambda: client.statistics().pace.in_flight == 2)
    await client.close()
    assert notes.gate is not None
    notes.gate.set()
    assert await finishing == Report(not_sent=2, not_started=0)
    assert len(notes.recorded) == 2
    assert client.statistics().pace.in_flight == 0


class Late(Notes):
    """A journal whose answers take as long as they are told to."""

    answers: ClassVar[list[float]] = []
    otherwise: float = 0.001

    async def claim(self, entry: Entry[Any, Any], request_id: str | None) -> Leave:
        await self.scene.clock.sleep(self.answers.pop(0) if self.answers else self.otherwise)
        self.asked.append(("claim", entry.command.dispatch_id))
        return Leave.GRANTED


def claims(notes: Notes) -> list[object]:
    return [number for what, number in notes.asked if what == "claim"]


def answering_in(*seconds: float, **settings: Any) -> tuple[DirectClient, Late]:
    client, scene = played(**settings)
    late = Late(scene)
    late.answers = list(seconds)  # type: ignore[misc]
    return client, late


async def test_a_claim_that_was_granted_too_late_is_requested_again() -> None:
    client, notes = answering_in(7.0)
    report = await FanOut(client, starts([1]), concurrency=1, ledger=notes, run="friday").finish()
    assert report == Report(done=1, not_started=0)
    assert claims(notes) == [1, 1]
    [outcome] = notes.recorded
    assert [attempt.number for attempt in outcome.attempts] == [1]
    assert client.statistics().budget.spent == 0


async def test_three_late_claims_in_a_row_pause_the_run(caplog: pytest.LogCaptureFixture) -> None:
    client, notes = answering_in(7.0, 7.0, 7.0, 7.0)
    report = await FanOut(client, starts([1]), concurrency=1, ledger=notes, run="friday").finish()
    assert report == Report(done=1, not_started=0)
    assert [record.message for record in caplog.records] == [
        "the run pauses for 5 s: the database answers in 7 s; the limit is 5 s",
        "the run pauses for 10 s: the database answers in 7 s; the limit is 5 s",
    ]
    assert 4 * 7 + 5 + 10 <= notes.scene.seen[0][0] <= 4 * 7 + 5 + 10 + 1
    assert len(claims(notes)) == 5


@pytest.mark.usefixtures("no_ramp")
async def test_one_stall_of_the_database_pauses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    client, notes = answering_in(*[7.0] * 20)
    report = await FanOut(client, starts(range(1, 21)), concurrency=20, ledger=notes, run="friday").finish()
    assert report == Report(done=20, not_started=0)
    assert caplog.records == []
    assert notes.scene.seen[-1][0] < 10


class Sleepy(Played):
    """A transport that checks claims as the real one does, after what delays it."""

    delays: ClassVar[list[float]] = []
    steps: ClassVar[list[float]] = []
    """By how much the wall clock is ahead from each request on."""
    parts: bool = False
    """Whether a part of each request leaves before its claim expires."""

    async def send(self, request: Any, witness: Any, **settings: Any) -> Answer | Failure:
        if self.delays:
            await self.clock.sleep(self.delays.pop(0))
        if self.steps:
            self.clock.set_wall(self.steps.pop(0))
        if self.parts and witness.claim.is_expired():
            return Failure("its claim expired", sent=True, claim_expired=True)
        if witness.claim is not None and witness.claim.is_expired():
            return Failure("its claim expired", sent=False, claim_expired=True)
        return await super().send(request, witness, **settings)


@pytest.mark.parametrize("delays", [[6.0], [6.0, 6.0], [86400.0]])
async def test_an_expired_claim_is_no_attempt(delays: list[float]) -> None:
    client, notes = noted()
    notes.scene.__class__ = Sleepy
    notes.scene.delays = list(delays)  # type: ignore[attr-defined]
    run = FanOut(client, starts([1]), concurrency=1, timeout=200_000, ledger=notes, run="friday")
    assert await run.finish() == Report(done=1, not_started=0)
    assert claims(notes) == [1] * (len(delays) + 1)
    [outcome] = notes.recorded
    assert [attempt.number for attempt in outcome.attempts] == [1]
    assert client.statistics().budget.spent == 0
    assert client.statistics().pace.in_flight == 0


async def test_a_repeat_has_a_claim_of_its_own() -> None:
    client, notes = noted(says=lambda scene, _: throttled(10) if len(scene.seen) == 1 else None)
    notes.scene.__class__ = Sleepy
    run = FanOut(client, starts([1]), concurrency=1, ledger=notes, run="friday")
    assert await run.finish() == Report(done=1, not_started=0)
    assert claims(notes) == [1, 1]


async def test_connections_that_always_take_too_long_pause_the_run(caplog: pytest.LogCaptureFixture) -> None:
    client, notes = noted()
    notes.scene.__class__ = Sleepy
    notes.scene.delays = [9.0] * 4  # type: ignore[attr-defined]
    run = FanOut(client, starts([1]), concurrency=1, ledger=notes, run="friday")
    assert await run.finish() == Report(done=1, not_started=0)
    told = [record.message for record in caplog.records if "pauses" in record.message]
    assert len(told) == 2
    assert all(
        "a request waited 9 s for its connection or for the event loop; the limit is 5 s" in each for each in told
    )


async def test_no_time_for_another_claim_is_not_sent() -> None:
    client, notes = noted()
    notes.scene.__class__ = Sleepy
    notes.scene.delays = [9.0] * 100  # type: ignore[attr-defined]
    run = FanOut(client, starts([1]), concurrency=1, timeout=30, ledger=notes, run="friday")
    [outcome] = [each async for each in run]
    assert outcome.state is State.NOT_SENT
    assert "claims expired before the request could leave" in str(outcome.error)
    assert notes.scene.seen == []


async def test_a_stop_ends_the_pause_of_late_claims() -> None:
    client, notes = answering_in(*[7.0] * 100)
    run = FanOut(client, starts(range(1, 4)), concurrency=1, ledger=notes, run="friday")
    finishing = asyncio.create_task(run.finish())
    await until(lambda: len(claims(notes)) >= 3)
    run.stop()
    assert await finishing == Report(not_started=3)


async def test_a_claim_ages_from_its_request() -> None:
    client, notes = answering_in(3.0)
    notes.scene.__class__ = Sleepy
    notes.scene.delays = [3.0]  # type: ignore[attr-defined]
    assert await FanOut(client, starts([1]), concurrency=1, ledger=notes, run="friday").finish() == Report(
        done=1, not_started=0
    )
    assert claims(notes) == [1, 1]


async def test_expiries_are_counted_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    client, notes = noted(says=lambda scene, _: throttled(10) if len(scene.seen) == 1 else None)
    notes.scene.__class__ = Sleepy
    notes.scene.delays = [6.0, 6.0, 0.0, 6.0, 6.0]  # type: ignore[attr-defined]
    run = FanOut(client, starts([1]), concurrency=1, ledger=notes, run="friday")
    assert await run.finish() == Report(done=1, not_started=0)
    assert [record.message for record in caplog.records if "pauses" in record.message] == []


async def test_a_part_of_a_request_is_not_called_unsent() -> None:
    client, notes = noted()
    notes.scene.__class__ = Sleepy
    notes.scene.delays = [9.0] * 100  # type: ignore[attr-defined]
    notes.scene.parts = True  # type: ignore[attr-defined]
    run = FanOut(client, starts([1]), concurrency=1, timeout=30, ledger=notes, run="friday")
    [outcome] = [each async for each in run]
    assert outcome.state is State.UNKNOWN
    assert "a part of the request had left when its claim expired" in str(outcome.error)


async def test_a_pause_is_short_again_after_a_good_claim(caplog: pytest.LogCaptureFixture) -> None:
    client, notes = answering_in(7.0, 7.0, 7.0, 7.0, 0.0, 7.0, 7.0, 7.0)
    report = await FanOut(client, starts([1, 2]), concurrency=1, ledger=notes, run="friday").finish()
    assert report == Report(done=2, not_started=0)
    assert [record.args[0] for record in caplog.records] == [5, 10, 5]  # type: ignore[index]


async def test_a_step_of_the_clock_is_named(caplog: pytest.LogCaptureFixture) -> None:
    client, notes = noted()
    notes.scene.__class__ = Sleepy
    notes.scene.steps = [7200.0, 0.0, 7200.0]  # type: ignore[attr-defined]
    await FanOut(client, starts([1]), concurrency=1, ledger=notes, run="friday").finish()
    told = [record.message for record in caplog.records if "pauses" in record.message]
    assert told == ["the run pauses for 5 s: the wall clock was set; the limit is 5 s"]


@pytest.mark.parametrize(("rate", "seconds"), [(20, 0.2), (20, 0.5), (20, 2.0), (5, 0.5), (5, 2.0), (1, 1.0)])
async def test_a_slow_database_does_not_stop_a_rate(rate: float, seconds: float) -> None:
    client, notes = answering_in(pace=Pace(rate=rate))
    notes.otherwise = seconds
    report = await FanOut(client, starts(range(1, 101)), concurrency=64, ledger=notes, run="friday").finish()
    assert report == Report(done=100, not_started=0)
    times = [at for at, _ in notes.scene.seen]
    assert min(after - before for before, after in itertools.pairwise(times)) >= 1 / rate - 0.01, "no burst"
    assert times[-1] <= 2.5 * 100 / rate + 10 * seconds
    assert client.statistics().pace.in_flight == 0

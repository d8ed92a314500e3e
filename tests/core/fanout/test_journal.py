"""What a fan-out asks of a journal, and what it does with each answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, ClassVar

import attrs
import pytest

from dispatchkit import DirectClient, Done, FanOut, NotSentError, Pace, Report, RetryPolicy, StartDispatch, State
from dispatchkit.core.claim import ClaimResult
from dispatchkit.core.command import Response
from dispatchkit.core.fanout.journal import PlanSummary, WorkItem
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.errors import LedgerError
from dispatchkit.testing import FakeClock
from tests.fake_transport import FakeTransport, throttled
from tests.harness import played, starts, until

EARLIER = datetime(2025, 12, 31, tzinfo=UTC)


@attrs.define
class FakeJournal:
    """A journal on paper: it does what it is told and writes down, in order, what it was asked."""

    transport: FakeTransport
    claim_results: Callable[[int], ClaimResult] = lambda _: ClaimResult.GRANTED
    final: dict[State, int] = attrs.field(factory=dict)
    since: dict[int, datetime] = attrs.field(factory=dict)
    broken: str = ""
    asked: list[tuple[str, object]] = attrs.field(factory=list)
    claimed_since: list[datetime | None] = attrs.field(factory=list)
    items: list[WorkItem[Any, Any]] = attrs.field(factory=list)
    stop_run: Callable[[], None] = lambda: None
    settings: Any = None
    recorded: list[Outcome[Any]] = attrs.field(factory=list)
    gate: asyncio.Event | None = None
    at_the_gate: int = 0

    def journal(self, run: str, settings: object) -> FakeJournal:
        self.asked.append(("run", run))
        self.settings = settings
        return self

    async def open(self, commands: Iterable[Any] | AsyncIterable[Any] | None, stop: Callable[[], None]) -> PlanSummary:
        if self.broken == "open":
            raise LedgerError("no such disk")
        self.stop_run = stop
        if isinstance(commands, AsyncIterable):
            planned = [command async for command in commands]
        else:
            planned = list(commands or starts(range(1, 4)))
        self.items = [
            WorkItem(index, command, unclear_since=self.since.get(command.dispatch_id))
            for index, command in enumerate(planned)
        ]
        return PlanSummary(len(planned) + sum(self.final.values()), self.final)

    async def next_item(self) -> WorkItem[Any, Any] | None:
        await asyncio.sleep(0)
        return self.items.pop(0) if self.items else None

    def next_at_once(self) -> WorkItem[Any, Any] | None:
        return None

    async def claim(self, item: WorkItem[Any, Any], request_id: str | None) -> ClaimResult:
        number = item.command.dispatch_id  # type: ignore[attr-defined]
        # An entry that says unclear_since is asked for again.
        assert item.unclear_since or number not in [seen for _, seen in self.transport.seen], (
            "it left before it was claimed"
        )
        if self.broken == ("repeat" if item.unclear_since else "claim") and number == 5:
            raise LedgerError("the disk is full")
        self.at_the_gate += 1
        if self.gate is not None:
            await self.gate.wait()
        self.asked.append(("claim", number))
        self.claimed_since.append(item.unclear_since)
        await asyncio.sleep(0)
        return self.claim_results(number)

    async def has_rival(self, item: WorkItem[Any, Any], within: float) -> bool:
        return False

    def stop(self) -> None:
        self.asked.append(("stop", None))

    def record(self, item: WorkItem[Any, Any], outcome: Outcome[Any]) -> None:
        self.recorded.append(outcome)

    async def close(self) -> None:
        self.asked.append(("close", None))
        if self.broken == "close":
            raise LedgerError("the last page was not written")


def with_journal(**settings: Any) -> tuple[DirectClient, FakeJournal]:
    names = {field.name for field in attrs.fields(FakeJournal)}
    client, transport = played(**{name: value for name, value in settings.items() if name not in names})
    return client, FakeJournal(transport, **{name: value for name, value in settings.items() if name in names})


async def test_launch_is_claimed_then_recorded() -> None:
    client, journal = with_journal()
    run = FanOut(client, starts(range(1, 101)), concurrency=8, ledger=journal, run="friday")
    assert await run.finish() == Report(done=100, not_started=0)
    assert journal.settings.settings == {"provider": "direct", "base_url": "https://direct.i-dgtl.ru"}
    assert (journal.settings.account, journal.settings.attempt_timeout) == (None, 70)
    assert journal.asked[0] == ("run", "friday")
    assert journal.asked[-1] == ("close", None)
    assert sorted(outcome.index for outcome in journal.recorded) == list(range(100))
    assert len(journal.transport.seen) == 100


async def test_previous_outcomes_are_no_failures() -> None:
    client, journal = with_journal(final={State.DONE: 5, State.REJECTED: 2})
    run = FanOut(client, starts(range(1, 4)), ledger=journal, run="friday", stop_after_failures=1)
    assert await run.finish() == Report(done=8, rejected=2, not_started=0, previously_finished=7)


async def test_stored_commands_are_enough() -> None:
    client, journal = with_journal()
    assert await FanOut(client, None, ledger=journal, run="friday").finish() == Report(done=3, not_started=0)


async def test_taken_targets_are_left_alone() -> None:
    client, journal = with_journal(
        claim_results=lambda number: ClaimResult.TAKEN if number % 2 else ClaimResult.GRANTED
    )
    report = await FanOut(client, starts(range(1, 11)), concurrency=3, ledger=journal, run="friday").finish()
    assert report == Report(done=5, not_started=5)
    assert client.statistics().pace.in_flight == 0
    assert client.statistics().pace.started == 5


async def test_externally_stopped_run_starts_nothing() -> None:
    client, journal = with_journal(
        claim_results=lambda number: ClaimResult.STOPPED if number == 4 else ClaimResult.GRANTED
    )
    report = await FanOut(client, starts(range(1, 101)), concurrency=1, ledger=journal, run="friday").finish()
    assert report == Report(done=3, not_started=97)
    assert ("stop", None) in journal.asked


async def test_external_stop_needs_no_claim() -> None:
    client, journal = with_journal()
    run = FanOut(client, starts(range(1, 101)), concurrency=2, ledger=journal, run="friday")
    async for _ in run:
        journal.stop_run()
    assert 98 >= (run.report.not_started or 0) >= 90


async def test_later_is_asked_again() -> None:
    refusals = iter([ClaimResult.DEFERRED, ClaimResult.DEFERRED, ClaimResult.GRANTED])
    client, journal = with_journal(claim_results=lambda _: next(refusals))
    assert await FanOut(client, starts([1]), ledger=journal, run="friday").finish() == Report(done=1, not_started=0)
    assert [what for what, _ in journal.asked].count("claim") == 3
    assert client.statistics().pace.started == 1


@pytest.mark.usefixtures("no_ramp")
async def test_granted_claim_respects_pause() -> None:
    client, journal = with_journal(
        pace=Pace(concurrency=8), takes=lambda _: 1.0, says=lambda _, number: throttled(30) if number == 1 else None
    )
    retry = RetryPolicy(attempts=1)
    run = FanOut(client, starts(range(1, 11)), concurrency=4, retry=retry, ledger=journal, run="friday")
    assert await run.finish() == Report(done=9, rejected=1, not_started=0)
    times = [at for at, _ in journal.transport.seen]
    assert times[:4] == [0.0] * 4
    assert min(times[4:]) >= 31.0
    assert client.statistics().pace.in_flight == 0


@pytest.mark.usefixtures("no_ramp")
async def test_stopped_paused_claim_is_unsent() -> None:
    clock = FakeClock(jumps=False)
    client, journal = with_journal(
        clock=clock, pace=Pace(concurrency=8), takes=lambda _: 1.0, says=lambda _, number: throttled(30)
    )
    retry = RetryPolicy(attempts=1)
    run = FanOut(client, starts(range(1, 11)), concurrency=4, retry=retry, ledger=journal, run="friday")
    finishing = asyncio.create_task(run.finish())
    await until(lambda: journal.transport.in_flight == 4 and ("claim", 5) in journal.asked)
    clock.advance(1.0)
    await until(lambda: client.statistics().pace.in_flight == 0)
    run.stop()
    assert await finishing == Report(rejected=4, not_started=6)
    assert sorted(outcome.index for outcome in journal.recorded) == [0, 1, 2, 3, 4]
    assert {outcome.index for outcome in journal.recorded if outcome.state is State.NOT_SENT} == {4}


async def test_stalled_provider_gets_no_burst() -> None:
    client, journal = with_journal(
        pace=Pace(rate=10), takes=lambda transport: 100.0 if len(transport.seen) <= 16 else 0.01
    )
    run = FanOut(client, starts(range(1, 101)), concurrency=16, ledger=journal, run="friday")
    assert await run.finish() == Report(done=100, not_started=0)
    moments = [moment for moment, _ in journal.transport.seen]
    assert min(later - earlier for earlier, later in itertools.pairwise(moments)) >= 0.1 - 1e-9


async def test_stalled_disk_causes_no_burst() -> None:
    gate = asyncio.Event()
    client, journal = with_journal(pace=Pace(rate=10), takes=lambda _: 0.01, gate=gate)
    run = FanOut(client, starts(range(1, 101)), concurrency=16, ledger=journal, run="friday")
    finishing = asyncio.create_task(run.finish())
    await journal.transport.clock.sleep(5.0)
    gate.set()
    assert await finishing == Report(done=100, not_started=0)
    moments = [moment for moment, _ in journal.transport.seen]
    assert moments[0] >= 5.0
    assert min(later - earlier for earlier, later in itertools.pairwise(moments)) >= 0.1 - 1e-9


async def test_each_repeat_is_claimed() -> None:
    claim_results = iter(
        [ClaimResult.GRANTED, ClaimResult.GRANTED, ClaimResult.DEFERRED, ClaimResult.GRANTED, ClaimResult.STOPPED]
    )
    client, journal = with_journal(
        claim_results=lambda _: next(claim_results), says=lambda *_: TransportFailure("no connection", sent=False)
    )
    run = FanOut(client, starts([1]), ledger=journal, run="friday")
    assert await run.finish() == Report(not_sent=1, not_started=0)
    assert len(journal.transport.seen) == 3
    assert client.statistics().pace.in_flight == 0
    assert client.statistics().pace.started == 3


async def test_repeat_claim_keeps_first_start() -> None:
    client, journal = with_journal(says=lambda transport, _: throttled(5) if len(transport.seen) < 4 else None)
    run = FanOut(client, starts([1]), ledger=journal, run="friday")
    assert await run.finish() == Report(done=1, not_started=0)
    [outcome] = journal.recorded
    first = outcome.attempts[0].started
    assert journal.claimed_since == [None, first, first, first]
    assert outcome.attempts[1].started > first


async def test_repeat_claim_keeps_former_start() -> None:
    answers = [Response(200, {}, b'{"total": 1, "items": [{"dispatchId": 1, "status": "initiated"}]}'), throttled(5)]
    client, journal = with_journal(since={1: EARLIER})
    transport = journal.transport

    async def send(request: Any, tracker: Any, **_: object) -> Response | TransportFailure:
        tracker.sent = True
        await transport.clock.sleep(0.1)
        acts = request.method == "POST"
        return (
            answers[0] if not acts else answers.pop() if len(answers) > 1 else Response(200, {}, b'{"dispatchId": 1}')
        )

    transport.send = send  # type: ignore[method-assign]
    run = FanOut(client, starts([1]), ledger=journal, run="friday")
    assert await run.finish() == Report(done=1, not_started=0)
    assert journal.claimed_since == [EARLIER, EARLIER, EARLIER]


async def test_ledger_error_prevents_repeat() -> None:
    client, journal = with_journal(broken="repeat", says=lambda *_: TransportFailure("no connection", sent=False))
    run = FanOut(client, starts([5]), ledger=journal, run="friday")
    with pytest.raises(LedgerError, match="the disk is full"):
        await run.finish()
    assert run.report == Report(not_sent=1, not_started=0)
    assert len(journal.transport.seen) == 1


@pytest.mark.usefixtures("no_ramp")
async def test_stopped_pending_claim_is_unsent() -> None:
    client, journal = with_journal(gate=asyncio.Event())
    run = FanOut(client, starts(range(1, 11)), concurrency=4, ledger=journal, run="friday")
    finishing = asyncio.create_task(run.finish())
    await until(lambda: journal.at_the_gate == 5)  # one more than may be in flight
    run.stop()
    assert journal.gate is not None
    journal.gate.set()
    assert await finishing == Report(not_started=10)
    assert {type(outcome.error) for outcome in journal.recorded} == {NotSentError}
    assert journal.transport.seen == []
    assert client.statistics().pace.in_flight == 0


async def test_orphan_is_settled_before_sending() -> None:
    sending = Response(200, {}, b'{"total": 1, "items": [{"dispatchId": 2, "status": "sending"}]}')
    client, journal = with_journal(since={2: EARLIER})
    send = journal.transport.send

    async def answers_reads(request: Any, tracker: object, **settings: object) -> Any:
        return sending if request.method == "GET" else await send(request, tracker, **settings)

    journal.transport.send = answers_reads  # type: ignore[method-assign]
    outcomes = [outcome async for outcome in FanOut(client, starts(range(1, 4)), ledger=journal, run="friday")]
    assert {outcome.state for outcome in outcomes} == {State.DONE}
    assert [
        outcome.result.settled for outcome in sorted(outcomes, key=lambda each: each.index) if isinstance(outcome, Done)
    ] == [
        False,
        True,
        False,
    ]
    assert sorted(number for _, number in journal.transport.seen) == [1, 3]
    assert client.statistics().pace.in_flight == 0


async def test_orphan_without_evidence_is_unknown() -> None:
    def no_token() -> str:
        raise OSError("the vault is sealed")

    client = DirectClient(no_token)
    transport = played()[1]
    journal = FakeJournal(transport, since={1: EARLIER})
    run = FanOut(client, starts([1, 2]), ledger=journal, run="friday", retry=RetryPolicy(attempts=1))
    assert await run.finish() == Report(unknown=1, not_sent=1, not_started=0)


@pytest.mark.parametrize("how", [list, iter])
async def test_unopenable_ledger_starts_nothing(how: Any) -> None:
    client, journal = with_journal(broken="open")
    run = FanOut(client, how(list(starts(range(1, 4)))), ledger=journal, run="friday")
    with pytest.raises(LedgerError, match="no such disk"):
        await run.finish()
    await run.close()
    assert journal.transport.seen == []
    assert ("close", None) not in journal.asked


@pytest.mark.usefixtures("no_ramp")
async def test_ledger_error_records_calls() -> None:
    client, journal = with_journal(broken="claim")
    run = FanOut(client, starts(range(1, 101)), concurrency=3, ledger=journal, run="friday")
    with pytest.raises(LedgerError, match="the disk is full"):
        await run.finish()
    assert 5 not in [number for _, number in journal.transport.seen]
    assert len(journal.recorded) == len(journal.transport.seen) == run.report.done < 10
    assert journal.asked[-1] == ("close", None)
    assert client.statistics().pace.in_flight == 0


async def test_unrecorded_end_is_reported() -> None:
    client, journal = with_journal(broken="close")
    run = FanOut(client, starts(range(1, 4)), ledger=journal, run="friday")
    with pytest.raises(LedgerError, match="the last page was not written"):
        await run.finish()
    assert run.report == Report(done=3, not_started=0)


async def test_ledger_requires_run_name() -> None:
    client, journal = with_journal()
    with pytest.raises(ValueError, match="ledger= and run= belong together"):
        FanOut(client, starts([1]), ledger=journal)
    with pytest.raises(ValueError, match="ledger= and run= belong together"):
        FanOut(client, starts([1]), run="friday")
    with pytest.raises(TypeError, match=r"ledger must be a Ledger, such as Ledger\('launch.db'\), not str"):
        FanOut(client, starts([1]), ledger="launch.db", run="friday")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(ValueError, match="commands=None stands for what a ledger holds"):
        FanOut(client, None)


async def test_the_shortcuts_take_a_ledger() -> None:
    client, journal = with_journal()
    assert (await client.start_many(range(1, 4), ledger=journal, run="friday").finish()).done == 3
    assert {type(outcome.command) for outcome in journal.recorded} == {StartDispatch}


async def test_source_error_closes_journal() -> None:
    class Odd:
        def __iter__(self) -> Odd:
            return self

        def __next__(self) -> StartDispatch:
            raise StopIteration

        def close(self) -> None:
            raise OSError("the file is gone")

    client, journal = with_journal()
    with pytest.raises(OSError, match="the file is gone"):
        await FanOut(client, Odd(), ledger=journal, run="friday").finish()  # type: ignore[arg-type]
    assert journal.asked[-1] == ("close", None)


async def test_closed_client_sends_no_claim() -> None:
    transport = played()[1]
    client = DirectClient("t", clock=transport.clock)
    journal = FakeJournal(transport, gate=asyncio.Event())
    finishing = asyncio.create_task(
        FanOut(client, starts([1, 2]), ledger=journal, run="friday", concurrency=2).finish()
    )
    await until(lambda: client.statistics().pace.in_flight == 2)
    await client.close()
    assert journal.gate is not None
    journal.gate.set()
    assert await finishing == Report(not_sent=2, not_started=0)
    assert len(journal.recorded) == 2
    assert client.statistics().pace.in_flight == 0


class Late(FakeJournal):
    """A journal whose answers take as long as they are told to."""

    answers: ClassVar[list[float]] = []
    otherwise: float = 0.001

    async def claim(self, item: WorkItem[Any, Any], request_id: str | None) -> ClaimResult:
        await self.transport.clock.sleep(self.answers.pop(0) if self.answers else self.otherwise)
        self.asked.append(("claim", item.command.dispatch_id))  # type: ignore[attr-defined]
        return ClaimResult.GRANTED


def claims(journal: FakeJournal) -> list[object]:
    return [number for what, number in journal.asked if what == "claim"]


def answering_in(*seconds: float, **settings: Any) -> tuple[DirectClient, Late]:
    client, transport = played(**settings)
    late = Late(transport)
    late.answers = list(seconds)  # type: ignore[misc]
    return client, late


async def test_late_claim_is_requested_again() -> None:
    client, journal = answering_in(7.0)
    report = await FanOut(client, starts([1]), concurrency=1, ledger=journal, run="friday").finish()
    assert report == Report(done=1, not_started=0)
    assert claims(journal) == [1, 1]
    [outcome] = journal.recorded
    assert [attempt.number for attempt in outcome.attempts] == [1]
    assert client.statistics().budget.spent == 0


async def test_three_late_claims_pause_run(caplog: pytest.LogCaptureFixture) -> None:
    client, journal = answering_in(7.0, 7.0, 7.0, 7.0)
    report = await FanOut(client, starts([1]), concurrency=1, ledger=journal, run="friday").finish()
    assert report == Report(done=1, not_started=0)
    assert [record.message for record in caplog.records] == [
        "the run pauses for 5 s: the database answers in 7 s; the limit is 5 s",
        "the run pauses for 10 s: the database answers in 7 s; the limit is 5 s",
    ]
    assert 4 * 7 + 5 + 10 <= journal.transport.seen[0][0] <= 4 * 7 + 5 + 10 + 1
    assert len(claims(journal)) == 5


@pytest.mark.usefixtures("no_ramp")
async def test_one_late_claim_pauses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    client, journal = answering_in(*[7.0] * 20)
    report = await FanOut(client, starts(range(1, 21)), concurrency=20, ledger=journal, run="friday").finish()
    assert report == Report(done=20, not_started=0)
    assert caplog.records == []
    assert journal.transport.seen[-1][0] < 10


class Sleepy(FakeTransport):
    """A transport that checks claims as the real one does, after what delays it."""

    delays: ClassVar[list[float]] = []
    steps: ClassVar[list[float]] = []
    """By how much the wall clock is ahead from each request on."""
    parts: bool = False
    """Whether a part of each request leaves before its claim expires."""

    async def send(self, request: Any, tracker: Any, **settings: Any) -> Response | TransportFailure:
        if self.delays:
            await self.clock.sleep(self.delays.pop(0))
        if self.steps:
            self.clock.set_wall(self.steps.pop(0))
        if self.parts and tracker.claim.is_expired():
            return TransportFailure("its claim expired", sent=True, claim_expired=True)
        if tracker.claim is not None and tracker.claim.is_expired():
            return TransportFailure("its claim expired", sent=False, claim_expired=True)
        return await super().send(request, tracker, **settings)


@pytest.mark.parametrize("delays", [[6.0], [6.0, 6.0], [86400.0]])
async def test_expired_claim_is_no_attempt(delays: list[float]) -> None:
    client, journal = with_journal()
    journal.transport.__class__ = Sleepy
    journal.transport.delays = list(delays)  # type: ignore[attr-defined]
    run = FanOut(client, starts([1]), concurrency=1, timeout=200_000, ledger=journal, run="friday")
    assert await run.finish() == Report(done=1, not_started=0)
    assert claims(journal) == [1] * (len(delays) + 1)
    [outcome] = journal.recorded
    assert [attempt.number for attempt in outcome.attempts] == [1]
    assert client.statistics().budget.spent == 0
    assert client.statistics().pace.in_flight == 0


async def test_repeat_has_own_claim() -> None:
    client, journal = with_journal(says=lambda transport, _: throttled(10) if len(transport.seen) == 1 else None)
    journal.transport.__class__ = Sleepy
    run = FanOut(client, starts([1]), concurrency=1, ledger=journal, run="friday")
    assert await run.finish() == Report(done=1, not_started=0)
    assert claims(journal) == [1, 1]


async def test_slow_connections_pause_run(caplog: pytest.LogCaptureFixture) -> None:
    client, journal = with_journal()
    journal.transport.__class__ = Sleepy
    journal.transport.delays = [9.0] * 4  # type: ignore[attr-defined]
    run = FanOut(client, starts([1]), concurrency=1, ledger=journal, run="friday")
    assert await run.finish() == Report(done=1, not_started=0)
    told = [record.message for record in caplog.records if "pauses" in record.message]
    assert len(told) == 2
    assert all(
        "a request waited 9 s for its connection or for the event loop; the limit is 5 s" in entry for entry in told
    )


async def test_no_time_for_another_claim() -> None:
    client, journal = with_journal()
    journal.transport.__class__ = Sleepy
    journal.transport.delays = [9.0] * 100  # type: ignore[attr-defined]
    run = FanOut(client, starts([1]), concurrency=1, timeout=30, ledger=journal, run="friday")
    [outcome] = [outcome async for outcome in run]
    assert outcome.state is State.NOT_SENT
    assert "claims expired before the request could leave" in str(outcome.error)
    assert journal.transport.seen == []


async def test_stop_ends_late_claim_pause() -> None:
    client, journal = answering_in(*[7.0] * 100)
    run = FanOut(client, starts(range(1, 4)), concurrency=1, ledger=journal, run="friday")
    finishing = asyncio.create_task(run.finish())
    await until(lambda: len(claims(journal)) >= 3)
    run.stop()
    assert await finishing == Report(not_started=3)


async def test_claim_ages_from_its_request() -> None:
    client, journal = answering_in(3.0)
    journal.transport.__class__ = Sleepy
    journal.transport.delays = [3.0]  # type: ignore[attr-defined]
    assert await FanOut(client, starts([1]), concurrency=1, ledger=journal, run="friday").finish() == Report(
        done=1, not_started=0
    )
    assert claims(journal) == [1, 1]


async def test_consecutive_expiries_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    client, journal = with_journal(says=lambda transport, _: throttled(10) if len(transport.seen) == 1 else None)
    journal.transport.__class__ = Sleepy
    journal.transport.delays = [6.0, 6.0, 0.0, 6.0, 6.0]  # type: ignore[attr-defined]
    run = FanOut(client, starts([1]), concurrency=1, ledger=journal, run="friday")
    assert await run.finish() == Report(done=1, not_started=0)
    assert [record.message for record in caplog.records if "pauses" in record.message] == []


async def test_partial_request_is_not_unsent() -> None:
    client, journal = with_journal()
    journal.transport.__class__ = Sleepy
    journal.transport.delays = [9.0] * 100  # type: ignore[attr-defined]
    journal.transport.parts = True  # type: ignore[attr-defined]
    run = FanOut(client, starts([1]), concurrency=1, timeout=30, ledger=journal, run="friday")
    [outcome] = [outcome async for outcome in run]
    assert outcome.state is State.UNKNOWN
    assert "a part of the request had left when its claim expired" in str(outcome.error)


async def test_good_claim_resets_pause(caplog: pytest.LogCaptureFixture) -> None:
    client, journal = answering_in(7.0, 7.0, 7.0, 7.0, 0.0, 7.0, 7.0, 7.0)
    report = await FanOut(client, starts([1, 2]), concurrency=1, ledger=journal, run="friday").finish()
    assert report == Report(done=2, not_started=0)
    assert [record.args[0] for record in caplog.records] == [5, 10, 5]  # type: ignore[index]


async def test_clock_step_is_named(caplog: pytest.LogCaptureFixture) -> None:
    client, journal = with_journal()
    journal.transport.__class__ = Sleepy
    journal.transport.steps = [7200.0, 0.0, 7200.0]  # type: ignore[attr-defined]
    await FanOut(client, starts([1]), concurrency=1, ledger=journal, run="friday").finish()
    told = [record.message for record in caplog.records if "pauses" in record.message]
    assert told == ["the run pauses for 5 s: the wall clock was set; the limit is 5 s"]


@pytest.mark.parametrize(("rate", "seconds"), [(20, 0.2), (20, 0.5), (20, 2.0), (5, 0.5), (5, 2.0), (1, 1.0)])
async def test_slow_database_keeps_rate(rate: float, seconds: float) -> None:
    client, journal = answering_in(pace=Pace(rate=rate))
    journal.otherwise = seconds
    report = await FanOut(client, starts(range(1, 101)), concurrency=64, ledger=journal, run="friday").finish()
    assert report == Report(done=100, not_started=0)
    times = [at for at, _ in journal.transport.seen]
    assert min(after - before for before, after in itertools.pairwise(times)) >= 1 / rate - 0.01, "no burst"
    assert times[-1] <= 2.5 * 100 / rate + 10 * seconds
    assert client.statistics().pace.in_flight == 0

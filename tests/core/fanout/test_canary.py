"""A few targets go first, and the rest only once the provider's state shows that these go out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest

from dispatchkit import (
    ActivateMailing,
    AltcraftClient,
    CallStarted,
    DirectClient,
    Event,
    FanOut,
    LaunchBroadcast,
    Ledger,
    LedgerError,
    Report,
    RetryPolicy,
    StateRead,
    StopDispatch,
    sync,
)
from dispatchkit.altcraft.models import Audience, LogEntry
from dispatchkit.core.command import Command, Evidence, LogProbe, TimeWindow
from dispatchkit.core.listing import Listing
from dispatchkit.sandbox import Fault, Sandbox
from dispatchkit.testing import FakeClock
from tests.core.fanout.test_journal import with_journal
from tests.harness import played, starts, until

MINUTE = 60.0


class Stage:
    """A sandbox and both clients on one fake clock."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.sandbox = Sandbox(clock=self.clock.timestamp, active=range(1, 100), **settings)

    async def __aenter__(self) -> Self:
        await self.sandbox.open()
        self.direct = DirectClient(self.sandbox.direct_token, base_url=self.sandbox.url, clock=self.clock)
        self.altcraft = AltcraftClient(self.sandbox.url, self.sandbox.altcraft_token, clock=self.clock)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.direct.close()
        await self.altcraft.close()
        await self.sandbox.close()

    def launched(self) -> list[int]:
        return sorted(self.sandbox.launches)


def reason(run: FanOut[Any]) -> tuple[str, str]:
    assert run.stop_reason is not None
    return run.stop_reason.kind, str(run.stop_reason)


async def test_rest_follows_canary() -> None:
    async with Stage() as stage:
        run = stage.direct.start_many(range(1, 51), canary=3)
        assert await run.finish() == Report(done=50, not_started=0)
        assert run.stop_reason is None
        assert {act.target for act in stage.sandbox.acts[:3]} == {1, 2, 3}  # each on a connection of its own


async def test_reads_are_observed() -> None:
    async with Stage() as stage:
        events: list[Event] = []
        key, url = stage.sandbox.direct_token, stage.sandbox.url
        async with DirectClient(key, base_url=url, clock=stage.clock, observers=[events.append]) as direct:
            stage.sandbox.direct.stuck[2] = "initiated"
            run = direct.start_many(range(1, 51), canary=2, canary_timeout=1)
            assert (await run.finish()).done == 2
        reads = [event for event in events if isinstance(event, StateRead)]
        assert {(read.target, read.index) for read in reads} == {(1, 0), (2, 1)}
        assert {read.evidence for read in reads if read.target == 1} == {"applied"}
        assert (reads[0].status, reads[0].command_type, reads[0].run) == (200, "StartDispatch", None)
        calls = {event.call for event in events if isinstance(event, CallStarted)}
        assert len({read.call for read in reads} - calls) == 2, "each target has a number of its own"


@pytest.mark.parametrize("stuck", ["initiated", "paused", "changing", "new word"])
async def test_rest_waits_for_state(stuck: str) -> None:
    async with Stage() as stage:
        stage.sandbox.direct.stuck[2] = stuck
        run = stage.direct.start_many(range(1, 51), canary=3, canary_timeout=10 * MINUTE)
        assert await run.finish() == Report(done=3, not_started=47)
        assert stage.launched() == [1, 2, 3]
        shown = "what is no status" if " " in stuck else repr(stuck)
        kind, text = reason(run)
        assert (kind, text) == ("canary", f"2: its state reads {shown}, after 10 min (canary=3)")
        assert 10 * MINUTE <= stage.clock.time < 11 * MINUTE


async def test_late_state_releases_rest() -> None:
    async with Stage(read_lag=5 * MINUTE) as stage:
        run = stage.direct.start_many(range(1, 51), canary=3, canary_timeout=10 * MINUTE)
        assert await run.finish() == Report(done=50, not_started=0)
        fourth = sorted(act.at for act in stage.sandbox.acts)[3]
        assert fourth - stage.sandbox.acts[0].at >= 5 * MINUTE


async def test_scheduled_counts_and_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dispatchkit.guards")
    async with Stage(scheduled=1e6) as stage:
        assert (await stage.direct.start_many(range(1, 9), canary=1).finish()).done == 8
    assert "canary: all go out (1: its state reads 'scheduled'); the rest is launched" in caplog.messages


async def test_stopped_canary_ends_run() -> None:
    async with Stage() as stage:
        stage.sandbox.direct.stuck[1] = "stopped"
        run = stage.direct.start_many(range(1, 51), canary=2)
        assert await run.finish() == Report(done=2, not_started=48)
        assert reason(run) == ("canary", "1: its state reads 'stopped' (canary=2)")
        assert stage.clock.time < MINUTE


async def test_rejected_canary_ends_run() -> None:
    async with Stage(dispatches=range(2, 100)) as stage:
        run = stage.direct.start_many([2, 1, *range(3, 50)], canary=2)
        report = await run.finish()
        assert (report.done, report.rejected, report.not_started) == (1, 1, 47)
        kind, text = reason(run)
        assert kind == "canary"
        assert text.startswith("1 is rejected: Dispatch 1 not found")


async def test_unknown_canary_ends_run() -> None:
    async with Stage() as stage:
        stage.sandbox.order(Fault.lost_answer())
        stage.sandbox.altcraft.unstarted.add(1)
        run = stage.altcraft.activate_many(range(1, 30), canary=1, run_now=True)
        report = await run.finish()
        assert (report.unknown, report.not_started) == (1, 28)
        assert reason(run)[0] == "canary"


async def test_refused_token_comes_first() -> None:
    async with Stage(direct_token="b3RoZXI6b3RoZXI=") as stage:
        stage.direct = DirectClient("d3Jvbmc6d3Jvbmc=", base_url=stage.sandbox.url, clock=stage.clock)
        run = stage.direct.start_many(range(1, 51), canary=2)
        with pytest.raises(Exception, match="Bad credentials"):
            await run.finish()
        assert reason(run)[0] == "refused"


async def test_failure_guard_wins() -> None:
    async with Stage(dispatches=range(2, 100)) as stage:
        run = stage.direct.start_many([2, 1, *range(3, 50)], canary=2, stop_after_failures=1)
        await run.finish()
        assert reason(run)[0] == "stop_after_failures"


async def test_log_start_releases_rest() -> None:
    async with Stage() as stage:
        commands: list[Command[Any, Any]] = [
            LaunchBroadcast(1),
            ActivateMailing(2, run_now=True),
            *map(LaunchBroadcast, range(3, 30)),
        ]
        run = FanOut(stage.altcraft, commands, canary=2)
        assert await run.finish() == Report(done=29, not_started=0)


async def test_log_without_start_ends_run() -> None:
    async with Stage() as stage:
        stage.sandbox.altcraft.unstarted.add(1)
        run = stage.altcraft.launch_many(range(1, 30), canary=1, canary_timeout=MINUTE)
        assert await run.finish() == Report(done=1, not_started=28)
        assert reason(run) == ("canary", "1: its log shows no start, after 1 min (canary=1)")


async def test_log_error_ends_run() -> None:
    async with Stage() as stage:
        stage.sandbox.altcraft.errors[1] = "hunter2 could not be rendered"
        run = stage.altcraft.launch_many(range(1, 30), canary=1)
        assert await run.finish() == Report(done=1, not_started=28)
        assert reason(run) == ("canary", "1: its log shows an ERROR entry (canary=1)")


async def test_earlier_entries_are_ignored() -> None:
    async with Stage() as stage:
        await stage.altcraft.launch_broadcast(1)
        stage.clock.advance(10)
        stage.sandbox.altcraft.unstarted.add(2)
        commands = [LaunchBroadcast(1, audience=Audience("segment", 5)), LaunchBroadcast(3)]
        before = stage.sandbox.altcraft.launches[1]
        run = FanOut(stage.altcraft, commands, canary=1)
        assert (await run.finish()).done == 2
        assert stage.sandbox.altcraft.launches[1] == before + 1


@pytest.mark.parametrize(
    ("levels", "evidence"),
    [
        (["INFO"] * 2, Evidence.INCONCLUSIVE),
        (["INFO"] * 3, Evidence.APPLIED),
        (["INFO"] * 3 + ["error"], Evidence.NEVER_APPLIED),
    ],
)
def test_each_launch_needs_its_start(levels: list[str], evidence: Evidence) -> None:
    """Three segments of one mailing share its log."""
    now = FakeClock().now()
    probe = LaunchBroadcast(1).goes_out(now, launches=3)
    assert isinstance(probe, LogProbe)
    entries = Listing(tuple(LogEntry(now, "start", level) for level in levels), len(levels))
    assert probe.settle(entries, TimeWindow(now, now)).evidence is evidence


async def test_segments_share_a_log() -> None:
    async with Stage() as stage:
        segments = [LaunchBroadcast(1, audience=Audience("segment", number)) for number in range(1, 9)]
        assert (await FanOut(stage.altcraft, segments, canary=3).finish()).done == 8


@pytest.mark.parametrize("command", [StopDispatch(1)])
async def test_command_without_state_is_refused(command: StopDispatch) -> None:
    client, transport = played()
    run = FanOut(client, [*starts([2]), command, *starts([3])], canary=2)
    with pytest.raises(ValueError, match="and StopDispatch has none: nothing was sent"):
        await run.finish()
    assert transport.seen == []


async def test_bare_activation_is_refused() -> None:
    async with Stage() as stage:
        with pytest.raises(ValueError, match="ActivateMailing has none: nothing was sent"):
            await stage.altcraft.activate_many(range(1, 9), canary=1).finish()
        assert stage.sandbox.requests == 0


async def test_short_iterator_is_verified_too() -> None:
    async with Stage() as stage:
        stage.sandbox.direct.stuck[2] = "initiated"
        run = stage.direct.start_many(iter([1, 2]), canary=5, canary_timeout=MINUTE)
        assert await run.finish() == Report(done=2)
        assert reason(run)[0] == "canary"


@pytest.mark.parametrize(
    ("canary", "ids", "advice"),
    [(5, [7, 8], "Give a smaller one, 1 at most"), (2, [7, 8], "there are 2 commands"), (1, [7], "Launch it without")],
)
@pytest.mark.parametrize("run", [None, "a"])
async def test_short_list_is_refused(canary: int, ids: list[int], advice: str, run: str | None, tmp_path: Path) -> None:
    async with Stage() as stage, Ledger(tmp_path / "a.db") as ledger:
        with pytest.raises(ValueError, match=f"canary={canary} holds nothing back: .*{advice}"):
            stage.direct.start_many(ids, canary=canary, ledger=ledger if run else None, run=run)
        with pytest.raises(ValueError, match=advice):
            stage.direct.start_many(iter(ids), canary=canary, expected=len(ids))
        assert not stage.sandbox.requests


async def test_needed_canaries_are_allowed() -> None:
    async with Stage() as stage:
        assert (await stage.direct.start_many([7, 8], canary=1).finish()).done == 2
        assert (await stage.direct.start_many([9, 10], canary=0).finish()).done == 2
        assert await stage.direct.start_many([], canary=3).finish() == Report(not_started=0)


async def test_asynchronous_source_has_canary() -> None:
    async def ids() -> AsyncIterator[int]:
        for number in range(1, 20):
            yield number

    async with Stage() as stage:
        assert (await stage.direct.start_many(ids(), canary=2).finish()).done == 19
        stage.sandbox.direct.stuck[2] = "initiated"
        run = stage.direct.start_many(ids(), canary=2, canary_timeout=MINUTE)
        assert (await run.finish()).done == 2


@pytest.mark.parametrize("bad", [-1, True, "3", 1.5, 1001])
def test_canary_is_a_number(bad: Any) -> None:
    client, _ = played()
    with pytest.raises((TypeError, ValueError), match="canary must be an integer from 0 to 1000"):
        FanOut(client, [], canary=bad)


Ending = Callable[[FanOut[Any]], Any]
ENDINGS: dict[str, Ending] = {"stop": lambda run: run.stop(), "close": lambda run: run.close()}


@pytest.mark.parametrize("how", ENDINGS)
async def test_stop_ends_wait_at_once(how: str) -> None:
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        sandbox.direct.stuck[1] = "initiated"
        run = direct.start_many(range(1, 51), canary=1)
        finishing = asyncio.create_task(run.finish())
        await until(lambda: sandbox.requests >= 2)
        async with asyncio.timeout(1):
            ending = ENDINGS[how](run)
            if ending is not None:
                await ending
            assert (await finishing).not_started == 49
        assert reason(run)[0] == "stopped"


async def test_stopped_run_reads_nothing() -> None:
    """The outcomes of the run are not taken any more."""
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        sandbox.direct.stuck[1] = "initiated"
        async with direct.start_many(range(1, 51), canary=1) as run:
            assert len(await run.batch()) == 1
            await until(lambda: sandbox.requests >= 2)
            run.stop()
            await until(run._tasks[0].done)


async def test_cancellation_ends_wait_at_once() -> None:
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        sandbox.direct.stuck[1] = "initiated"
        run = direct.start_many(range(1, 51), canary=1)
        finishing = asyncio.create_task(run.finish())
        await until(lambda: sandbox.requests >= 2)
        finishing.cancel()
        async with asyncio.timeout(1):
            await asyncio.wait([finishing])
        assert finishing.cancelled()
        assert sandbox.launches.total() == 1


async def test_silent_provider_ends_wait() -> None:
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        sandbox.direct.stuck[1] = "initiated"
        run = direct.start_many(range(1, 51), canary=1, give_up_after=0.3)
        finishing = asyncio.create_task(run.finish())
        await until(lambda: sandbox.requests >= 2)
        sandbox.order(Fault.silent(), times=1000)
        await finishing
        assert reason(run)[0] == "gave_up"


# With a ledger


async def test_resume_verifies_again(tmp_path: Path) -> None:
    """A process that dies during the wait leaves a run whose first targets are done."""
    async with (
        Sandbox() as sandbox,
        DirectClient(sandbox.direct_token, base_url=sandbox.url, retry=RetryPolicy.for_tests()) as direct,
        Ledger(tmp_path / "l.db") as ledger,
    ):
        sandbox.direct.stuck[2] = "initiated"
        run = direct.start_many(range(1, 51), canary=3, ledger=ledger, run="a", canary_timeout=0.2)
        assert (await run.finish()).done == 3
        assert (await ledger.run("a")).canary == 3
        for _ in range(2):
            again: FanOut[Any] = FanOut(direct, None, ledger=ledger, run="a", canary_timeout=0.2)
            assert await again.finish() == Report(done=3, not_started=47, previously_finished=3)
            assert reason(again)[0] == "canary"
        assert sandbox.launches == {1: 1, 2: 1, 3: 1}
        sandbox.direct.stuck.clear()
        again = FanOut(direct, None, ledger=ledger, run="a")
        assert await again.finish() == Report(done=50, not_started=0, previously_finished=3)
        assert set(sandbox.launches.values()) == {1}


async def test_half_launched_canary_goes_on(tmp_path: Path) -> None:
    async with (
        Sandbox() as sandbox,
        DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct,
        Ledger(tmp_path / "l.db") as ledger,
    ):
        await direct.start_many(range(1, 51), canary=4, ledger=ledger, run="a", max_launches=2).finish()
        assert sorted(sandbox.launches) == [1, 2]
        sandbox.direct.stuck[1] = "initiated"
        run = direct.start_many(range(1, 51), ledger=ledger, run="a", canary_timeout=0.2)
        await run.finish()
        assert reason(run)[0] == "canary"
        assert sorted(sandbox.launches) == [1, 2, 3, 4]


async def test_resume_without_canary_launches_rest(tmp_path: Path) -> None:
    async with (
        Sandbox(dispatches=range(2, 100)) as sandbox,
        DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct,
        Ledger(tmp_path / "l.db") as ledger,
    ):
        ids = [2, 1, *range(3, 51)]
        await direct.start_many(ids, canary=2, ledger=ledger, run="a").finish()
        run = direct.start_many(ids, ledger=ledger, run="a")
        assert (await run.finish()).not_started == 48
        assert reason(run)[0] == "canary"
        assert "1 is rejected: Dispatch 1 not found" in reason(run)[1]
        report = await direct.start_many(ids, canary=0, ledger=ledger, run="a").finish()
        assert (report.done, report.rejected) == (49, 1)


async def test_verified_canary_stays_unread(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dispatchkit.guards")
    async with (
        Sandbox() as sandbox,
        DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct,
        Ledger(tmp_path / "l.db") as ledger,
    ):
        await direct.start_many(range(1, 51), canary=2, ledger=ledger, run="a", max_launches=10).finish()
        sandbox.direct.stuck[1] = "stopped"
        await direct.start_many(range(1, 51), ledger=ledger, run="a", max_launches=5).finish()
        assert (await direct.start_many(range(1, 51), ledger=ledger, run="a", canary=2).finish()).done == 50
        told = "canary: other targets were begun before, so nothing is held back"
        assert caplog.messages.count(told) == 1


async def test_taken_target_is_no_canary(tmp_path: Path) -> None:
    """Another run launched one of the first targets, so others went first. A second resume holds the rest back, too."""
    async with (
        Sandbox() as sandbox,
        DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct,
        Ledger(tmp_path / "l.db") as ledger,
    ):
        await direct.start_many(range(1, 21), canary=2, ledger=ledger, run="a", max_launches=1).finish()
        await direct.start_many([2, 3], ledger=ledger, run="b").finish()
        sandbox.direct.stuck[4] = "initiated"
        for window in (3600, 3600, None):  # without a window, the targets of the other run are no longer left out
            run = direct.start_many(
                range(1, 21), ledger=ledger, run="a", canary_timeout=0.2, repeat_window=window, max_launches=10
            )
            await run.finish()
            assert reason(run) == ("canary", "4: its state reads 'initiated', after 0.2 s (canary=2)")
            assert sandbox.launches == {1: 1, 2: 1, 3: 1, 4: 1}


async def test_smaller_canary_reads_all_begun(tmp_path: Path) -> None:
    async with (
        Sandbox() as sandbox,
        DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct,
        Ledger(tmp_path / "l.db") as ledger,
    ):
        sandbox.direct.stuck[2] = "initiated"
        for canary in (3, 1, None):
            options: Any = {} if canary is None else {"canary": canary}
            run = direct.start_many(range(1, 21), ledger=ledger, run="a", canary_timeout=0.2, **options)
            assert (await run.finish()).done == 3
            assert reason(run)[0] == "canary"
        sandbox.direct.stuck.clear()
        again = direct.start_many(range(1, 21), ledger=ledger, run="a", canary=1)
        assert (await again.finish()).done == 17 + 3


async def test_resume_reads_earlier_log(tmp_path: Path) -> None:
    async with (
        Sandbox(active=range(1, 50)) as sandbox,
        AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft,
        Ledger(tmp_path / "l.db") as ledger,
    ):
        sandbox.altcraft.unstarted.add(1)
        run = altcraft.launch_many(range(1, 20), canary=1, ledger=ledger, run="a", canary_timeout=0.2)
        assert (await run.finish()).done == 1
        sandbox.altcraft.unstarted.clear()
        again = altcraft.launch_many(range(1, 20), ledger=ledger, run="a")
        assert (await again.finish()).done == 19
        assert set(sandbox.launches.values()) == {1}


async def test_worker_refuses_canary(tmp_path: Path) -> None:
    async with (
        Sandbox() as sandbox,
        DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct,
        Ledger(tmp_path / "l.db") as ledger,
    ):
        await direct.start_many(range(1, 51), canary=4, ledger=ledger, run="a", max_launches=1).finish()
        chunk: FanOut[Any] = FanOut(direct, None, ledger=ledger.chunk("a", 0), run="a")
        with pytest.raises(LedgerError, match="has a canary of 4, so one process launches it"):
            await chunk.finish()
        assert sandbox.launches == {1: 1}
        assert (await direct.start_many(range(1, 51), ledger=ledger, run="a").finish()).done == 50


async def test_journal_is_told_of_canary() -> None:
    client, journal = with_journal()
    await FanOut(client, starts([]), ledger=journal, run="a", canary=0).finish()
    assert journal.settings.canary == 0


# In a thread


def test_blocking_run_refuses_canary() -> None:
    with Sandbox() as sandbox, sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        for ids in ([7, 8], {7: "a", 8: "b"}.keys()):  # the second is read in the caller's thread
            with pytest.raises(ValueError, match="canary=2 holds nothing back: there are 2 commands"):
                direct.start_many(ids, canary=2)
        assert not sandbox.requests
        assert direct.start_many(iter([7, 8]), canary=2).finish().done == 2


def test_blocking_run_has_canary() -> None:
    with Sandbox() as sandbox, sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        assert direct.start_many(iter(range(1, 20)), canary=8, concurrency=2).finish().done == 19
        sandbox.direct.stuck[20] = "initiated"
        run = direct.start_many(range(20, 40), canary=1, canary_timeout=0.2)
        assert run.finish().done == 1
        assert run.stop_reason is not None
        assert run.stop_reason.kind == "canary"

"""A blocking fan-out gives each outcome as it comes, and is ended in good order however it is left."""

from __future__ import annotations

import pytest

from dispatchkit.sandbox import Fault, Sandbox
from tests.sync.conftest import Play

pytestmark = pytest.mark.second_stage


def test_outcomes_are_counted_in_report(play: Play, sandbox: Sandbox) -> None:
    lines = play("""
        commands = [dispatchkit.StartDispatch(number) for number in range(1, 201)]
        with client() as direct:
            run = sync.FanOut(direct, commands, concurrency=16)
            print(sorted(outcome.index for outcome in run) == list(range(200)))
            print(run.report)
            print(sync.FanOut(direct, commands[:3]).finish())
            run.close(); run.stop()
    """)
    assert lines == [
        "True",
        "Report(done=200, rejected=0, not_sent=0, unknown=0, not_started=0, previously_finished=0, repeats=0)",
        "Report(done=3, rejected=0, not_sent=0, unknown=0, not_started=0, previously_finished=0, repeats=0)",
    ]
    assert len(sandbox.launches) == 200


def test_break_awaits_calls_in_flight(play: Play, sandbox: Sandbox) -> None:
    sandbox.latency = 0.15
    lines = play("""
        start_all_at_once()
        with client() as direct:
            run = sync.FanOut(direct, map(dispatchkit.StartDispatch, range(1, 10**9)), concurrency=8)
            for outcome in run:
                break
            report = run.report
            print(report.done, report.total)
            time.sleep(0.25)
            print(run.report == report)
            run = sync.FanOut(direct, map(dispatchkit.StartDispatch, range(101, 10**9)), concurrency=8)
            try:
                for outcome in run:
                    raise KeyError
            except KeyError:
                print(run.report.done == run.report.total >= 8)
    """)
    mine = {number for number in sandbox.launches if number <= 100}
    done, total = map(int, lines[0].split())
    assert done == total == len(mine)
    assert 8 <= done <= 16
    assert lines[1:] == ["True", "True"]


@pytest.mark.second_stage
def test_silent_provider_ends_fan_out(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.http(503), times=10**6, path_contains="/start")
    lines = play("""
        with client() as direct:
            run = direct.start_many(range(1, 1001), give_up_after=0.3)
            print(run.stop_reason)
            report = run.finish()
            print(report.done, report.not_started > 0, run.stop_reason.kind)
            run = sync.FanOut(direct, [dispatchkit.StartDispatch(1)], give_up_after=0.3)
            run.finish()
            print(run.stop_reason.kind)
    """)
    assert lines == ["None", "0 True gave_up", "gave_up"]
    assert sandbox.launches == {}


INTERRUPTED = """
    with client() as direct:
        run = sync.FanOut(direct, map(dispatchkit.StartDispatch, range(1, 10**9)), concurrency=4)
        press_ctrl_c(0.3)
        try:
            for outcome in run:
                WORK
        except KeyboardInterrupt:
            took = since_pressed()
        report = run.report
        print(took, report.done, report.total, flush=True)
        time.sleep(0.3)
        print(run.report == report)
"""


@pytest.mark.second_stage
@pytest.mark.parametrize("work", ["pass", "time.sleep(0.05)"])
def test_ctrl_c_keeps_report_readable(play: Play, sandbox: Sandbox, work: str) -> None:
    sandbox.latency = 0.1
    lines = play(INTERRUPTED.replace("WORK", work))
    words = lines[0].split()
    assert words[:2] == ["at", "once"]
    assert words[2] == words[3] == str(len(sandbox.launches)) == str(sandbox.requests)
    assert lines[1:] == ["True"]


@pytest.mark.second_stage
def test_ctrl_c_drops_waiting_repeats(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.throttled(0.5), times=99)
    lines = play("    start_all_at_once()" + INTERRUPTED.replace("WORK", "pass"))
    assert lines[0].startswith("at once 0 ")
    assert lines[1:] == ["True"]
    assert sandbox.requests == 4
    assert sandbox.launches == {}


@pytest.mark.second_stage
def test_ctrl_c_waits_within_bounds(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.slow(0.6), times=2)
    sandbox.order(Fault.silent(), times=2)
    lines = play("    start_all_at_once(); set_cancel_timeout(1.5)" + INTERRUPTED.replace("WORK", "pass"))
    after, elapsed, _, done, _ = lines[0].split()
    assert (after, done) == ("after", "2")
    assert 1.5 <= float(elapsed) < 15
    assert sandbox.requests == 4


@pytest.mark.second_stage
def test_second_ctrl_c_ends_wait(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.silent(), times=4)
    lines = play(
        "    start_all_at_once(); set_cancel_timeout(20)"
        + INTERRUPTED.replace("WORK", "pass").replace(
            "press_ctrl_c(0.3)",
            """press_ctrl_c(0.3)
        again = threading.Timer(1.8, os.kill, (os.getpid(), signal.SIGINT))
        again.start()""",
        )
    )
    after, elapsed, _, done, _ = lines[0].split()
    assert (after, done) == ("after", "0")
    assert float(elapsed) < 15, "sooner than it would have been by itself"
    assert sandbox.requests == 4


@pytest.mark.second_stage
def test_ctrl_c_interrupts_finish(play: Play, sandbox: Sandbox) -> None:
    sandbox.latency = 0.1
    lines = play("""
        start_all_at_once()
        with client() as direct:
            run = sync.FanOut(direct, map(dispatchkit.StartDispatch, range(1, 10**9)), concurrency=4)
            press_ctrl_c(0.4)
            try:
                run.finish()
            except KeyboardInterrupt:
                print(since_pressed(), run.report.done == run.report.total > 4)
            print(run.report.done)
    """)
    assert lines == ["at once True", str(len(sandbox.launches))]


def test_stop_from_anywhere_ends_starts(play: Play, sandbox: Sandbox) -> None:
    sandbox.latency = 0.05
    lines = play("""
        start_all_at_once()
        def commands():
            for number in range(1, 10**9):
                if number == 9:
                    run.stop()
                yield dispatchkit.StartDispatch(number)
        with client() as direct:
            run = sync.FanOut(direct, commands(), concurrency=4)
            print(len(list(run)))
            run = sync.FanOut(direct, map(dispatchkit.StartDispatch, range(101, 10**9)), concurrency=4)
            threading.Timer(0.2, run.stop).start()
            print(run.finish().total < 100)
    """)
    assert lines == ["8", "True"]


def test_iterator_error_is_raised(play: Play) -> None:
    lines = play("""
        def commands():
            yield dispatchkit.StartDispatch(1)
            raise KeyError("mine")
        with client() as direct:
            run = sync.FanOut(direct, commands())
            try:
                for outcome in run:
                    print(outcome.state.value)
            except KeyError as error:
                print(repr(error), run.report.done)
    """)
    assert lines == ["done", "KeyError('mine') 1"]


def test_a_run_keeps_its_client(play: Play) -> None:
    lines = play("""
        run = sync.FanOut(client(), [dispatchkit.StartDispatch(number) for number in (1, 2)])
        print([outcome.state.value for outcome in run])
    """)
    assert lines == ["['done', 'done']"]


def test_handler_takes_no_outcome(play: Play, sandbox: Sandbox) -> None:
    sandbox.latency = 0.1
    lines = play("""
        def handler(number, frame):
            try:
                run.batch()
            except RuntimeError as error:
                print(error)
        signal.signal(signal.SIGALRM, handler)
        with client() as direct:
            run = direct.start_many(number for number in range(1, 9))
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            print(run.finish().done)
    """)
    assert lines == ["a signal handler called sync.FanOut.batch inside another call of the same run", "8"]

"""Ctrl-C ends a call before it ends the wait: nothing is sent afterwards, and a note says what is known."""

from __future__ import annotations

import pytest

from dispatchkit.sandbox import Fault, Sandbox
from dispatchkit.sync.portal import CANCEL_TIMEOUT
from tests.sync.conftest import Play

pytestmark = pytest.mark.second_stage  # real processes, sockets and databases

INTERRUPTED = """
    with client() as direct:
        press_ctrl_c(0.3)
        try:
            direct.start(1)
        except KeyboardInterrupt as interrupt:
            print(since_pressed(), interrupt.__notes__)
        time.sleep(0.4)  # what would be sent now, would be seen
"""


def test_in_flight(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.silent(acts=False))
    (line,) = play(INTERRUPTED)
    assert line.startswith("at once [")
    assert "cancelled after the request had left" in line
    assert sandbox.requests == 1
    assert sandbox.launches == {}


@pytest.mark.parametrize("ids", ["range(1, 100_000)", "(each for each in range(1, 100_000))"])
def test_note_tells_run(play: Play, sandbox: Sandbox, ids: str) -> None:
    (note,) = play(f"""
        with client() as direct:
            press_ctrl_c(0.5)
            try:
                direct.start_many({ids}).finish()
            except KeyboardInterrupt as interrupt:
                print(*interrupt.__notes__)
    """)
    assert note.startswith("<sync.FanOut of DirectClient(")
    assert " done, " in note
    assert note.endswith(", over (it was told to stop)>")


def test_in_a_back_off(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.throttled(0.5), times=5)
    (line,) = play(INTERRUPTED)
    assert line.startswith("at once [")
    assert sandbox.requests == 1
    assert sandbox.launches == {}


def test_in_settling(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.dropped())
    (line,) = play(INTERRUPTED.replace("client()", "client(retry=RetryPolicy(wait=tenacity.wait_fixed(2)))"))
    assert line.startswith("at once [")
    assert "unknown" in line or "may have" in line
    assert sandbox.requests == 2  # the start, and one look at its status
    assert sandbox.launches == {}


def test_stubborn_call_is_bounded(play: Play) -> None:
    assert CANCEL_TIMEOUT == 2.0
    elapsed, note, *others = play("""
        import asyncio
        class Stubborn:
            async def send(self, request, tracker, *, timeout):
                while True:
                    try:
                        await asyncio.sleep(30)
                    except asyncio.CancelledError:
                        pass
            async def close(self):
                pass
        direct = sync.DirectClient(TOKEN, base_url="http://127.0.0.1:1")
        direct._async_client._context.transport = Stubborn()
        set_cancel_timeout(0.5)
        press_ctrl_c(0.2)
        try:
            direct.start(1)
        except KeyboardInterrupt as interrupt:
            print(time.monotonic() - pressed, *interrupt.__notes__, sep=chr(10))
        set_cancel_timeout(20)
        press_ctrl_c(0.2)
        press_again = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        press_again.start()
        try:
            direct.start(1)
        except KeyboardInterrupt as interrupt:
            print(time.monotonic() - pressed < 15)
        set_cancel_timeout(0.2)
        print("exit", flush=True)
    """)
    assert 0.5 <= float(elapsed) < 15
    assert [note, *others] == ["the call did not end within 0.5 s: its outcome is unknown", "True", "exit"]


def test_signal_handler_error_interrupts(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.silent(acts=False))
    lines = play("""
        def handler(number, frame):
            raise TimeoutError("mine")
        signal.signal(signal.SIGALRM, handler)
        with client() as direct:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            try:
                direct.start(1)
            except TimeoutError as raised:
                print(raised.args, len(raised.__notes__))
    """)
    assert lines == ["('mine',) 1"]
    assert sandbox.requests == 1


def test_while_the_loop_thread_starts(play: Play) -> None:
    lines = play("""
        import _thread
        start = threading.Thread.start
        def interrupted(self):
            if self.name != "dispatchkit":
                return start(self)
            threading.Thread.start = start
            threading._limbo[self] = self
            _thread.start_new_thread(lambda: (time.sleep(0.1), self._bootstrap()), ())
            raise KeyboardInterrupt
        threading.Thread.start = interrupted
        with client() as direct:
            try:
                direct.start(1)
            except KeyboardInterrupt:
                time.sleep(0.2)
            print(direct.start(2).dispatch_id, threading.active_count())
    """)
    assert lines == ["2 2"]


def test_uncaught_interrupt_ends_process(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.silent(acts=False))
    lines = play(
        """
        sys.excepthook = lambda kind, error, traceback: print(kind.__name__, len(error.__notes__))
        direct = client()
        press_ctrl_c(0.3)
        direct.start(1)
    """,
        status=-2,
    )
    assert lines == ["KeyboardInterrupt 1"]

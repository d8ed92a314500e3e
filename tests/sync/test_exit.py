"""An interpreter that exits neither hangs on an unclosed client nor prints anything."""

from __future__ import annotations

import time

import pytest

from dispatchkit.sandbox import Fault, Sandbox
from tests.sync.conftest import Play

pytestmark = pytest.mark.second_stage  # real processes, sockets and databases


def test_a_client_that_nobody_closed(play: Play) -> None:
    assert play("direct = client(); direct.start(1); print('end')", "-X", "dev") == ["end"]


def test_forgotten_client_lets_process_exit(play: Play) -> None:
    assert play("client().start(1); print('end')", "-X", "dev") == ["end"]


def test_exit_cancels_other_threads_call(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.silent(acts=False))
    started = time.monotonic()
    lines = play(
        """
        import atexit
        from dispatchkit.sync import portal
        direct = client()
        def work():
            try:
                direct.start(1)
            except BaseException as error:
                print(type(error).__name__, error, len(error.__notes__), flush=True)
                raise
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        atexit.unregister(portal._portal.exit)
        atexit.register(worker.join, 5)  # comes after it: otherwise the interpreter may be gone before the line
        atexit.register(portal._portal.exit)
        time.sleep(0.4)
        print("end", flush=True)
        """,
        "-X",
        "dev",
    )
    assert lines == ["end", "SystemExit the interpreter is exiting: nothing is sent any more 1"]
    assert time.monotonic() - started < 15
    assert sandbox.requests == 1


def test_awaited_threads_finish_calls(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.slow(0))
    sandbox.order(Fault.slow(0.4))
    lines = play("""
        direct = client()
        direct.start(3)  # the first call makes a thread: Python 3.12 does not let it once the main thread has ended
        threading.Thread(target=lambda: print(direct.start(1)) or print(direct.start(2))).start()
        print("end", flush=True)
    """)
    assert lines == [
        "end",
        "StartedDispatch(dispatch_id=1, settled=False)",
        "StartedDispatch(dispatch_id=2, settled=False)",
    ]


def test_daemon_thread_ends_silently(play: Play) -> None:
    lines = play("""
        direct = client()
        def work():
            while True:
                direct.start(1)
        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(0.3)
        print("end", flush=True)
    """)
    assert lines == ["end"]


def test_exit_handler_may_close(play: Play) -> None:
    lines = play("""
        import atexit
        direct = client()
        @atexit.register
        def later():
            print(direct.start(2))
            direct.close()
        direct.start(1)
    """)
    assert lines == ["StartedDispatch(dispatch_id=2, settled=False)"]


def test_call_after_exit_is_refused(play: Play) -> None:
    lines = play("""
        import atexit
        from dispatchkit.sync import portal
        atexit.unregister(portal._portal.exit)
        direct = client()
        @atexit.register
        def too_late():
            try:
                direct.start(2)
            except RuntimeError as error:
                print(error)
            direct.close()
            direct.close()
        atexit.register(portal._portal.exit)
        direct.start(1)
    """)
    assert lines == ["the interpreter is exiting: nothing is sent any more"]


def test_an_exit_status_is_kept(play: Play) -> None:
    assert play("direct = client(); direct.start(1); sys.exit(3)", status=3) == []


def test_open_fan_out_allows_exit(play: Play, sandbox: Sandbox) -> None:
    sandbox.latency = 0.05
    lines = play(
        """
        direct = client()
        run = sync.FanOut(direct, (dispatchkit.StartDispatch(number) for number in range(1, 10**6)), concurrency=8)
        outcomes = iter(run)
        print(next(outcomes).state.value)
        """,
        "-X",
        "dev",
    )
    assert lines == ["done"]

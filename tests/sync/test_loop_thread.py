"""There is one loop thread. The first call starts it, all clients with a call share it, and the last one ends it."""

from __future__ import annotations

import pytest

from dispatchkit.sandbox import Sandbox
from tests.sync.conftest import Play


def test_loop_thread_lifetime(play: Play) -> None:
    lines = play("""
        def threads():
            return [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]

        one, two, idle = client(), client(), client()
        print("made", threads())
        one.start(1); two.start(2); one.start(3)
        print("called", threads())
        one.close()
        print("one closed", threads())
        two.close()
        print("two closed", threads())
        idle.start(4)
        print("again", threads())
        idle.close()
        print("end", threads())
    """)
    assert lines == [
        "made []",
        "called ['dispatchkit']",
        "one closed ['dispatchkit']",
        "two closed []",
        "again ['dispatchkit']",
        "end []",
    ]


def test_loop_thread_prefers_uvloop(play: Play, world: tuple[str, str]) -> None:
    lines = play("""
        import asyncio
        async def token():
            print(type(asyncio.get_running_loop()).__module__.partition(".")[0])
            return TOKEN
        with client(token=token) as direct:
            direct.start(1)
    """)
    assert lines == [world[1]]


def test_forgotten_client_ends_loop_thread(play: Play) -> None:
    lines = play("""
        direct = client()
        direct.start(1)
        del direct
        for thread in threading.enumerate():
            if thread is not threading.main_thread():
                thread.join(5)
        print(threading.active_count())
    """)
    assert lines == ["1"]


def test_threads_share_one_client(play: Play) -> None:
    lines = play("""
        from concurrent.futures import ThreadPoolExecutor
        with client() as direct, ThreadPoolExecutor(32) as pool:
            started = list(pool.map(direct.start, range(1, 401)))
        print([start.dispatch_id for start in started] == list(range(1, 401)))
    """)
    assert lines == ["True"]


@pytest.mark.second_stage
@pytest.mark.parametrize("inner", ["print(direct.start(2).dispatch_id)", "direct.close()"])
def test_handler_acts_while_thread_starts(play: Play, inner: str) -> None:
    lines = play(f"""
        start = threading.Thread.start
        def handler():
            {inner}
        def interrupted(self):
            start(self)
            if self.name == "dispatchkit":
                threading.Thread.start = start
                handler()
        threading.Thread.start = interrupted
        with client() as direct:
            try:
                print(direct.start(1).dispatch_id)
            except RuntimeError as error:
                print(error)
            for thread in threading.enumerate():
                if thread.name == "dispatchkit" and thread is not getattr(direct._handle._thread, "_thread", None):
                    thread.join(5)
        print(threading.active_count())
    """)
    assert lines == (["2", "1", "1"] if "start" in inner else ["this sync.DirectClient is closed: make a new one", "1"])


@pytest.mark.second_stage
def test_close_while_another_thread_registers(play: Play) -> None:
    lines = play("""
        from dispatchkit.sync import portal
        register = portal._portal.register
        def slowly(handle):
            closer.start()
            time.sleep(0.1)
            return register(handle)
        portal._portal.register = slowly
        direct = client()
        closer = threading.Thread(target=direct.close)
        try:
            direct.start(1)
        except RuntimeError as error:
            print(error)
        closer.join()
        print(threading.active_count())
    """)
    assert lines in (["1"], ["this sync.DirectClient is closed: make a new one", "1"])


def test_loop_thread_refuses_calls(play: Play) -> None:
    lines = play("""
        async def token():
            for call in (lambda: direct.start(2), direct.close):
                try:
                    call()
                except RuntimeError as error:
                    print(error)
            return TOKEN
        with client(token=token) as direct:
            print(direct.start(1))
    """)
    assert lines == [
        (
            "sync.DirectClient.start was called on the thread that it would wait for: "
            "await dispatchkit.DirectClient.start there"
        ),
        (
            "sync.DirectClient.close was called on the thread that it would wait for: "
            "await dispatchkit.DirectClient.close there"
        ),
        "StartedDispatch(dispatch_id=1, settled=False)",
    ]


@pytest.mark.second_stage
def test_call_outlasts_handlers_call(play: Play, sandbox: Sandbox) -> None:
    sandbox.latency = 0.2
    lines = play("""
        signal.signal(signal.SIGALRM, lambda number, frame: print(direct.start(2).dispatch_id))
        with client() as direct:
            for _ in range(2):
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                print(direct.start(1).dispatch_id)
    """)
    assert lines == ["2", "1"] * 2

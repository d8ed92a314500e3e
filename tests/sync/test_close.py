"""A blocking client is closed once, by ``with`` or `close`; what comes afterwards is told so."""

from __future__ import annotations

import pytest

from dispatchkit.sandbox import Fault, Sandbox
from tests.sync.conftest import Play

pytestmark = pytest.mark.second_stage


def test_use_after_close_is_refused(play: Play, sandbox: Sandbox) -> None:
    lines = play("""
        with client() as direct:
            direct.start(1)
        direct.close()
        never_called = client()
        never_called.close()
        never_called.close()
        for closed in (direct, never_called):
            for use in (lambda: closed.start(2), lambda: list(sync.FanOut(closed, [dispatchkit.StartDispatch(3)]))):
                try:
                    use()
                except RuntimeError as error:
                    print(error)
    """)
    assert lines == ["this sync.DirectClient is closed: make a new one"] * 4
    assert sandbox.launches == {1: 1}


def test_close_ends_calls_across_threads(play: Play, sandbox: Sandbox) -> None:
    sandbox.order(Fault.silent(acts=False))
    sandbox.order(Fault.throttled(30))
    lines = play(
        """
        from concurrent.futures import ThreadPoolExecutor
        from dispatchkit.core.clock import SYSTEM
        # With a clock of its own it is paced on its own: the other's 429 does not pause it.
        direct, other = client(), client(clock=type(SYSTEM)())
        def call(number):
            try:
                direct.start(number)
            except RuntimeError as error:
                return f"{error}; {len(error.__notes__)} note"
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(call, number) for number in (2, 3)]
            time.sleep(0.4)
            direct.close()
            print(*[call.result() for call in calls], sep=chr(10))
        print(other.start(4))
    """
    )
    assert lines == [
        "this sync.DirectClient is closed: make a new one; 1 note",
        "this sync.DirectClient is closed: make a new one; 1 note",
        "StartedDispatch(dispatch_id=4, settled=False)",
    ]
    assert sandbox.requests == 3


def test_close_tells_of_runs(play: Play) -> None:
    (note,) = play("""
        from concurrent.futures import ThreadPoolExecutor
        direct = client(pace=dispatchkit.Pace(rate=100))
        def launch():
            try:
                direct.start_many(range(1, 10_000)).finish()
            except RuntimeError as error:
                return error.__notes__
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(launch)
            time.sleep(0.4)
            direct.close()
            print(*run.result())
    """)
    assert note.startswith("<sync.FanOut of DirectClient(")
    assert " done, " in note


def test_close_during_calls_never_hangs(play: Play) -> None:
    lines = play("""
        from concurrent.futures import ThreadPoolExecutor
        def call(direct, number):
            try:
                direct.start(number)
            except RuntimeError as error:
                return str(error)
        texts = set()
        for turn in range(40):
            direct = client()
            with ThreadPoolExecutor(4) as pool:
                calls = [pool.submit(call, direct, turn * 100 + number + 1) for number in range(12)]
                time.sleep(turn / 5000)
                direct.close()
                texts |= {call.result(10) for call in calls}
        print(texts - {None})
    """)
    assert lines == ["{'this sync.DirectClient is closed: make a new one'}"]


def test_call_after_the_loop_ended(play: Play, sandbox: Sandbox) -> None:
    lines = play("""
        class Late(set):
            def add(self, call):
                thread.calls = calls
                closer = threading.Thread(target=direct.close)
                closer.start()
                closer.join()
                calls.add(call)
        direct = client()
        direct.start(1)
        thread = direct._handle._thread
        calls, thread.calls = thread.calls, Late()
        try:
            direct.start(2)
        except RuntimeError as error:
            print(error, threading.active_count())
    """)
    assert lines == ["this sync.DirectClient is closed: make a new one 1"]
    assert sandbox.launches == {1: 1}


def test_client_cannot_be_pickled(play: Play) -> None:
    lines = play("""
        import copy, pickle
        direct = sync.AltcraftClient(URL, "key")
        for way in (pickle.dumps, copy.copy, copy.deepcopy):
            try:
                way(direct)
            except TypeError as error:
                print(error)
    """)
    assert (
        lines
        == [
            (
                "a sync.AltcraftClient is not pickled: its token and connections stay in this process. "
                "Make a client in the process that uses it"
            )
        ]
        * 3
    )

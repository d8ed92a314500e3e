"""There is one loop thread. The first call starts it, all clients with a call share it, and the last one ends it."""

from __future__ import annotations

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

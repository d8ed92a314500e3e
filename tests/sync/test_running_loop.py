"""Blocking calls work where a loop is running already, as in a notebook, and say once that they block it."""

from __future__ import annotations

from tests.sync.conftest import Play


def test_running_loop_warns_once(play: Play) -> None:
    lines = play("""
        import asyncio
        async def handler():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                with client() as direct:
                    print(direct.start(1))
                    print(direct.start(2))
                    print([outcome.state.value for outcome in sync.FanOut(direct, [dispatchkit.StartDispatch(3)])])
            for each in caught:
                print(each.category.__name__, os.path.basename(each.filename), each.message)
        asyncio.run(handler())
    """)
    assert lines == [
        "StartedDispatch(dispatch_id=1, settled=False)",
        "StartedDispatch(dispatch_id=2, settled=False)",
        "['done']",
        (
            "RuntimeWarning script.py sync.DirectClient.start blocks the event loop that runs in this thread: "
            "await dispatchkit.DirectClient.start there"
        ),
    ]


def test_async_client_serves_one_loop(play: Play) -> None:
    lines = play("""
        import asyncio
        direct = dispatchkit.DirectClient(TOKEN, base_url=URL)
        async def first():
            print(await direct.start(1))
        async def second():
            try:
                await direct.start(2)
            except RuntimeError as error:
                print(error)
        with asyncio.Runner() as one, asyncio.Runner() as two:
            one.run(first())
            two.run(second())
            one.run(direct.close())
    """)
    assert lines == [
        "StartedDispatch(dispatch_id=1, settled=False)",
        "a client belongs to the event loop of its first call: make one client per loop",
    ]

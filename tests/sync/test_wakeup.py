"""Wake-ups between threads: none is lost, and each wait has one of its own."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import cast
from weakref import WeakSet

import pytest

from dispatchkit.sync import wakeup
from dispatchkit.sync.portal_call import PortalCall, forked_error
from tests.sync.conftest import Play

KINDS: list[Callable[[], wakeup.Wakeup]] = [wakeup._LockWakeup]
if sys.platform == "linux":
    KINDS.append(wakeup._EventWakeup)


@pytest.fixture(autouse=True)
def _none_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeup, "_free", [])
    monkeypatch.setattr(wakeup, "_of_events", WeakSet())


@pytest.fixture(params=[False, True], ids=["descriptors", "no descriptor"])
def _descriptors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:

        def fail(*_: object) -> int:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(os, "eventfd", fail, raising=False)


@pytest.mark.parametrize("make", KINDS)
def test_sent_before_the_wait(make: Callable[[], wakeup.Wakeup]) -> None:
    made = make()
    made.send()
    made.send()
    made.wait()
    began = time.monotonic()
    made.wait_at_most(0.002)
    assert time.monotonic() - began >= 0.002
    made.send()
    made.wait_at_most(5)


@pytest.mark.parametrize("make", KINDS)
def test_sent_during_the_wait(make: Callable[[], wakeup.Wakeup]) -> None:
    made = make()
    waiting = threading.Thread(target=made.wait)
    waiting.start()
    made.send()
    waiting.join(5)
    assert not waiting.is_alive()


@pytest.mark.usefixtures("_descriptors")
def test_each_wait_has_its_own() -> None:
    outer, inner = wakeup.take(), wakeup.take()
    assert outer is not inner
    wakeup.give_back(inner)
    assert wakeup.take() is inner
    for _ in range(100):
        wakeup.give_back(wakeup._LockWakeup())
    assert len(wakeup._free) == wakeup._MAX_FREE


@pytest.mark.usefixtures("_descriptors")
def test_loop_calls_the_function() -> None:
    loop = asyncio.new_event_loop()
    woken = wakeup.LoopWakeup(loop, loop.stop)
    threading.Thread(target=woken.send).start()
    loop.run_forever()
    loop.close()
    woken.send()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has eventfds")
@pytest.mark.parametrize("is_full", [False, True])
def test_child_shares_no_wakeup(monkeypatch: pytest.MonkeyPatch, *, is_full: bool) -> None:
    """Not even one of a call that has not begun, or without free descriptors."""
    made = wakeup._EventWakeup()
    of_parent = os.dup(made._descriptor)
    eventfd, room = os.eventfd, [not is_full, True]

    def fail_first(*given: int) -> int:
        if not room.pop(0):
            raise OSError(24, "Too many open files")
        return eventfd(*given)

    monkeypatch.setattr(os, "eventfd", fail_first)
    try:
        number = made._descriptor
        wakeup.give_back(wakeup._LockWakeup())
        wakeup.reset_after_fork()
        assert wakeup._free == []
        made.send()
        assert select.select([of_parent], [], [], 0)[0] == []
        assert made._descriptor == number
        assert select.select([number], [], [], 0)[0] == [number]
    finally:
        os.close(of_parent)


@pytest.mark.usefixtures("_descriptors")
@pytest.mark.parametrize("has_ended", [False, True])
def test_child_wakes_its_wait(*, has_ended: bool) -> None:
    """A signal handler forks inside of the wait, and meanwhile the call may have ended."""

    async def work() -> int:
        return 1

    call = PortalCall(work)
    if has_ended:
        asyncio.run(call._run())
    wakeup.reset_after_fork()
    call.detach_after_fork()
    began = time.monotonic()
    call._wakeup.wait_at_most(30)
    assert time.monotonic() - began < 20
    call.wait()
    assert (call.result if has_ended else str(call.failure())) == (1 if has_ended else str(forked_error()))


def test_loop_watches_no_more() -> None:
    loop = asyncio.new_event_loop()

    class Full:
        call_soon_threadsafe = loop.call_soon_threadsafe

        def add_reader(self, *_: object) -> None:
            raise OSError(28, "No space left on device")

    woken = wakeup.LoopWakeup(cast("asyncio.AbstractEventLoop", Full()), loop.stop)
    threading.Thread(target=woken.send).start()
    loop.call_later(30, loop.stop)
    began = time.monotonic()
    loop.run_forever()
    loop.close()
    assert time.monotonic() - began < 20


@pytest.mark.second_stage
def test_calls_without_descriptors(play: Play) -> None:
    lines = play("""
        from concurrent.futures import ThreadPoolExecutor
        def fail(*args):
            raise OSError(24, "Too many open files")
        os.eventfd = fail
        inner = []
        signal.signal(signal.SIGALRM, lambda number, frame: inner.append(direct.start(500).dispatch_id))
        with client() as direct, ThreadPoolExecutor(8) as pool:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            print([start.dispatch_id for start in pool.map(direct.start, range(1, 101))] == list(range(1, 101)))
            while not inner:
                direct.start(501)
            print(inner)
    """)
    assert lines == ["True", "[500]"]

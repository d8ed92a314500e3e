"""`StopSignal`: what waits ends at once, what does not wait goes on."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dispatchkit.core.stop import StopSignal
from tests.harness import turns


async def wait(stop: StopSignal, log: list[str] | None = None) -> str:
    with stop.interruptible():
        await asyncio.Event().wait()
    if log is not None:
        log.append("after")
    await asyncio.sleep(0)  # no cancellation is left over
    return "stopped" if stop.is_set else "woken"


async def test_set_ends_all_waits() -> None:
    stop = StopSignal()
    waiting = [asyncio.ensure_future(wait(stop)) for _ in range(3)]
    await turns(2)
    assert stop.waiting == set(waiting)
    stop.set()
    stop.set()
    assert await asyncio.gather(*waiting) == ["stopped"] * 3
    assert not any(task.cancelling() for task in waiting)
    assert stop.waiting == set()


async def test_later_wait_ends_at_once() -> None:
    stop = StopSignal()
    stop.set()
    async with asyncio.timeout(5):
        assert await wait(stop) == "stopped"


async def test_task_in_flight_goes_on() -> None:
    stop, answered = StopSignal(), asyncio.Event()

    async def call() -> str:
        with stop.interruptible():
            await asyncio.sleep(0)
        await answered.wait()
        return "answered"

    calling = asyncio.ensure_future(call())
    await turns(5)
    stop.set()
    await turns(5)
    assert not calling.done()
    answered.set()
    assert await calling == "answered"


async def test_ready_block_is_not_interrupted() -> None:
    stop = StopSignal()
    stop.set()
    got = ""
    with stop.interruptible():
        got = "a value"
    await asyncio.sleep(0)
    assert got == "a value"


@pytest.mark.parametrize("first", ["stop", "cancel"])
async def test_cancellation_outranks_stop(first: str) -> None:
    stop = StopSignal()
    waiting = asyncio.ensure_future(wait(stop))
    await turns(2)
    if first == "stop":
        stop.set()
    waiting.cancel()
    stop.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_other_errors_pass() -> None:
    stop = StopSignal()

    async def fail() -> None:
        with stop.interruptible():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise KeyError("mine") from None

    failing = asyncio.ensure_future(fail())
    await turns(2)
    stop.set()
    with pytest.raises(KeyError):
        await failing
    assert not failing.cancelling()


async def test_task_stops_itself() -> None:
    stop = StopSignal()

    async def source() -> str:
        with stop.interruptible():
            stop.set()
            await asyncio.Event().wait()
        return "left"

    async with asyncio.timeout(5):
        assert await asyncio.ensure_future(source()) == "left"


async def test_two_signals_end_one_wait() -> None:
    run, client = StopSignal(), StopSignal()

    async def call() -> str:
        with run.interruptible(), client.interruptible():
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return "stopped"

    calling = asyncio.ensure_future(call())
    await turns(2)
    client.set()
    run.set()
    assert await calling == "stopped"
    assert not calling.cancelling()


@pytest.mark.parametrize("which", [0, 1])
async def test_one_block_has_two_signals(which: int) -> None:
    signals = StopSignal(), StopSignal()

    async def call() -> str:
        with signals[0].interruptible(signals[1]):
            await asyncio.Event().wait()
        await asyncio.sleep(0)  # no cancellation is left over
        return "stopped"

    calling = asyncio.ensure_future(call())
    await turns(2)
    assert signals[0].waiting == signals[1].waiting == {calling}
    signals[which].set()
    assert await calling == "stopped"
    assert not calling.cancelling()
    assert signals[0].waiting == signals[1].waiting == set()
    async with asyncio.timeout(5):
        assert await call() == "stopped"  # one of them is set before


async def test_thread_may_set() -> None:
    stop = StopSignal()
    waiting = asyncio.ensure_future(wait(stop))
    await turns(2)
    thread = threading.Thread(target=stop.set)
    thread.start()
    async with asyncio.timeout(5):
        assert await waiting == "stopped"
    thread.join()


async def test_one_object_enters_again() -> None:
    stop = StopSignal()
    block = stop.interruptible()

    async def worker() -> int:
        rounds = 0
        while not stop.is_set:
            with block:
                await asyncio.sleep(0)
                rounds += 1
        return rounds

    working = asyncio.ensure_future(worker())
    await turns(20)
    stop.set()
    assert await working > 1
    for _ in range(2):
        async with asyncio.timeout(5):
            with block:
                await asyncio.Event().wait()

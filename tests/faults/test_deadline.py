"""A call ends within 0.1 s of its deadline whatever the server does, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dispatchkit import DispatchkitError, LaunchBroadcast, State
from tests.faults.actions import LAUNCH, QUICK, START, STOP, TARGET, Action, AnyClient
from tests.faults.cases import Ending, forever, hang, raw, says
from tests.faults.hostile_server import Hostile, Stage, Strike

PUNCTUAL = 0.1
SLACK = 0.25
"""Seconds for a busy machine."""

TIMEOUT = 0.4


async def elapsed_of(client: AnyClient, command: Any) -> tuple[float, State]:
    call = client._call(command)
    began = time.monotonic()
    try:
        await call.run()
    except DispatchkitError as error:
        return time.monotonic() - began, error.state
    return time.monotonic() - began, State.DONE


SILENCES: dict[str, Ending] = {
    "silent": hang,
    "drips a head": forever(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "drips a body": forever(raw("200 OK", b"", "Content-Length: 5000", length=False), b" "),
    "floods a body": forever(raw("200 OK", length=False), b"x" * 2**16, pause=0.0),
    "informs for ever": forever(b"", raw("103 Early Hints", length=False)),
    "comes back in 2^32 s": says(raw("429 Slow", b"", "Retry-After: 4294967296"), stays=True),
}


@pytest.mark.second_stage
@pytest.mark.parametrize("name", SILENCES)
async def test_call_meets_deadline(name: str) -> None:
    async def play(stage: Stage) -> bool | None:
        return await SILENCES[name](stage, stage.server.provider.answer(stage.call))  # type: ignore[arg-type]

    async def perform(action: Action, *, hides: bool) -> None:
        async with Hostile(action.provider(), forever=Strike(play)) as server:
            server.hides = hides  # whether state is told either
            async with action.client(server.url, timeout=TIMEOUT, retry=QUICK) as client:
                elapsed, outcome = await elapsed_of(client, action.command)
        assert elapsed < TIMEOUT + PUNCTUAL + SLACK
        assert outcome in ({State.REJECTED} if "comes back" in name else {State.DONE, State.UNKNOWN})

    await asyncio.gather(*(perform(action, hides=hides) for action in (START, STOP, LAUNCH) for hides in (False, True)))


@asynccontextmanager
async def deaf() -> AsyncIterator[tuple[str, Callable[[], int]]]:
    """A server that takes connections and never reads. Also: how many bytes had come, once everybody has left."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

        def drained() -> int:
            total = 0
            server.setblocking(False)
            while True:
                try:
                    guest, _ = server.accept()
                except BlockingIOError:
                    return total
                with guest:
                    guest.settimeout(1.0)
                    try:
                        while data := guest.recv(2**20):
                            total += len(data)
                    except ConnectionError:
                        pass

        yield f"http://127.0.0.1:{server.getsockname()[1]}", drained


BIG = LaunchBroadcast(TARGET, content={"text": "x" * 9_900_000})


async def test_deaf_server_holds_no_call() -> None:
    async with deaf() as (url, drained):
        async with LAUNCH.client(url, timeout=TIMEOUT, retry=QUICK) as client:
            elapsed, outcome = await elapsed_of(client, BIG)
            assert elapsed < TIMEOUT + PUNCTUAL + SLACK
            assert outcome is State.UNKNOWN
            await asyncio.sleep(0.05)
            # Were the rest still sent, the provider would act on a call that had already been given up.
            received = await asyncio.to_thread(drained)
        assert 0 < received < 9_900_000


async def test_a_cancelled_upload_stops() -> None:
    async with deaf() as (url, drained):
        async with LAUNCH.client(url, timeout=5.0, retry=QUICK) as client:
            call = client._call(BIG)  # type: ignore[arg-type]
            task = asyncio.ensure_future(call.run())
            while call.tracker is None or not call.tracker.sent:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert call.known_outcome().state is State.UNKNOWN
            await asyncio.sleep(0.05)
            received = await asyncio.to_thread(drained)
        assert 0 < received < 9_900_000


async def test_close_cuts_calls_in_flight() -> None:
    async with Hostile(START.provider(), forever=Strike(_hang)) as server:
        client = START.client(server.url, timeout=5.0, retry=QUICK)
        came = asyncio.Event()
        server.on_request = lambda _: came.set()
        task = asyncio.ensure_future(elapsed_of(client, START.command))
        await asyncio.wait_for(came.wait(), 5.0)
        await client.close()
        elapsed, outcome = await asyncio.wait_for(task, 6.0)

    assert outcome is State.UNKNOWN
    assert elapsed < 5.0 + PUNCTUAL


async def _hang(stage: Stage) -> None:
    await stage.peer.hang()

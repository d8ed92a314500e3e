"""Faults of a connection: cut at every byte, closed while it is reused, unexpected answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest

from dispatchkit import DispatchkitError, RetryPolicy, State
from dispatchkit.core.command import Command
from dispatchkit.sandbox import Reply
from tests.faults.actions import ACTIONS, ACTIVATE, LAUNCH, LAUNCH_XML, QUICK, START, STOP, Action, AnyClient
from tests.faults.cases import raw
from tests.faults.hostile_server import Hostile, Stage, Strike, share

ONCE = RetryPolicy(attempts=1)
ONCE_QUICKLY = attrs.evolve(QUICK, attempts=1)
TIMEOUT = 5.0
EVERY_NTH_BYTE = pytest.mark.parametrize("nth", [7, pytest.param(2, marks=pytest.mark.second_stage)])


@asynccontextmanager
async def playing(action: Action, *strikes: Strike, warm: bool = False) -> AsyncIterator[tuple[Hostile, AnyClient]]:
    settings = action.vouched | {"timeout": TIMEOUT, "retry": QUICK}
    async with Hostile(action.provider()) as server, action.client(server.url, **settings) as client:
        if warm:
            await client.perform(action.reads)
        server.order(*strikes)
        yield server, client


async def outcome_of(client: AnyClient, command: Command[Any, Any], **settings: Any) -> State:
    try:
        await client.perform(command, **settings)
    except DispatchkitError as error:
        return error.state
    return State.DONE


async def in_batches(plays: list[Any], *, together: int = 16) -> None:
    source = iter(plays)

    async def work() -> None:
        for coroutine in source:
            await coroutine

    async with asyncio.TaskGroup() as group:
        for _ in range(together):
            group.create_task(work())


async def leave(stage: Stage) -> None:
    del stage


async def leave_with_reset(stage: Stage) -> None:
    stage.peer.reset()


@EVERY_NTH_BYTE
@pytest.mark.parametrize("action", [START, STOP, LAUNCH, ACTIVATE], ids=lambda action: action.name)
async def test_truncated_request_is_repeated(action: Action, nth: int) -> None:
    async def cut_at(byte: int, *, warm: bool) -> None:
        ending = leave_with_reset if byte % 2 else leave
        async with playing(action, Strike(ending, at=byte), warm=warm) as (server, client):
            assert await outcome_of(client, action.command) is State.DONE, byte
            assert action.acts(server.provider) == 1, byte
            assert len(server.acting) == 1, byte

    await in_batches([cut_at(byte, warm=byte % 3 == 0) for byte in range(1 + share(nth), 120, nth)])


@pytest.mark.second_stage
@EVERY_NTH_BYTE
@pytest.mark.parametrize("action", [START, LAUNCH], ids=lambda action: action.name)
async def test_truncated_request_is_never_unsent(action: Action, nth: int) -> None:
    async def cut_at(byte: int) -> None:
        async with playing(action, Strike(leave, at=byte)) as (server, client):
            server.dark = lambda call: Reply.of_web_server(503)
            outcome = await outcome_of(client, action.command, retry=ONCE_QUICKLY, timeout=0.5)
            assert (outcome, server.bytes_seen > 0) == (State.UNKNOWN, True), byte

    await in_batches([cut_at(byte) for byte in range(1 + share(nth), 120, nth)], together=40)


async def length_of_answer(action: Action) -> int:
    lengths: list[int] = []

    async def play(stage: Stage) -> bool:
        answer = stage.act().raw()
        lengths.append(len(answer))
        await stage.peer.send(answer)
        return True

    async with playing(action, Strike(play)) as (_, client):
        await client.perform(action.command)
    return lengths[0]


@pytest.mark.second_stage
@EVERY_NTH_BYTE
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
async def test_truncated_response_is_settled(action: Action, nth: int) -> None:
    longest = await length_of_answer(action) + 4

    async def cut_at(byte: int, *, reset: bool, acts: bool) -> None:
        async def ending(stage: Stage) -> bool | None:
            assert stage.call is not None
            reply = stage.act() if acts else action.provider().answer(stage.call)
            answer = reply.raw()
            if byte >= len(answer):
                await stage.peer.send((reply if acts else stage.act()).raw())
                return True
            await stage.peer.send(answer[:byte])
            if reset:
                stage.peer.reset()
            return None

        async with playing(action, Strike(ending), warm=byte % 2 == 0) as (server, client):
            call = client._call(action.command)
            await call.run()
            assert action.acts(server.provider) == 1, (byte, call.attempts)

    plays = [cut_at(byte, reset=byte % 3 == 0, acts=True) for byte in range(share(nth), longest, nth)]
    # Where it did not act, every prefix that were believed would be a lie.
    step = nth if action is STOP else 3 * nth
    plays += [cut_at(byte, reset=byte % 3 == 1, acts=False) for byte in range(share(nth), longest, step)]
    await in_batches(plays)


@pytest.mark.parametrize("action", [START, STOP, LAUNCH, LAUNCH_XML], ids=lambda action: action.name)
async def test_closed_idle_connection_is_unused(action: Action) -> None:
    async with playing(action, warm=True) as (server, client):
        server.peers[0].close()
        await asyncio.sleep(0.01)
        call = client._call(action.command)
        await call.run()
    assert len(call.attempts) == 1
    assert server.connections == 2
    assert action.acts(server.provider) == 1


@pytest.mark.parametrize("action", [START, STOP, LAUNCH, LAUNCH_XML], ids=lambda action: action.name)
@pytest.mark.parametrize("turns", range(4))
async def test_simultaneous_close_costs_no_attempt(action: Action, turns: int) -> None:
    async with playing(action, warm=True) as (server, client):
        call = client._call(action.command)
        with server.peers[0].raw() as sock:
            sock.shutdown(socket.SHUT_RDWR)  # the loop has not seen it yet
        for _ in range(turns):
            await asyncio.sleep(0)
        await call.run()
    assert [attempt.sent for attempt in call.attempts] == [True]
    assert len(server.acting) == 1
    assert action.acts(server.provider) == 1


@pytest.mark.parametrize("action", [START, STOP, LAUNCH, LAUNCH_XML], ids=lambda action: action.name)
async def test_first_byte_close_is_settled(action: Action) -> None:
    for ending in (leave, leave_with_reset):
        async with playing(action, Strike(ending, at=1), warm=True) as (server, client):
            assert await outcome_of(client, action.command) is State.DONE
            assert action.acts(server.provider) == 1


STALE = (
    raw("200 OK"),
    raw("200 OK", b'{"dispatchId": 10000000125}'),
    raw("200 OK", b'{"data": null, "error": 0, "error_text": "Successful operation"}'),
    raw("200 OK", b"<xml><data/><error>0</error><error_text>ok</error_text></xml>"),
    raw("408 Request Timeout", b"", "Connection: close"),
    b"HTTP/1.1 200",
    b"x",
)


@pytest.mark.second_stage
@pytest.mark.parametrize("action", [START, STOP, LAUNCH, LAUNCH_XML], ids=lambda action: action.name)
@pytest.mark.parametrize("turns", [0, 1, 2, 20])
async def test_unsolicited_response_is_discarded(action: Action, turns: int) -> None:
    async def send_unasked(stale: bytes) -> None:
        async with playing(action, warm=True) as (server, client):
            server.forever = Strike(leave)  # so a call that is done has believed the stale answer
            server.dark = lambda call: Reply.of_web_server(503)
            with server.peers[0].raw() as sock:
                sock.send(stale)
            for _ in range(turns):
                await asyncio.sleep(0)
            outcome = await outcome_of(client, action.command, retry=ONCE, timeout=0.3)
            assert outcome is State.UNKNOWN, stale
            assert action.acts(server.provider) == 0

    await asyncio.gather(*map(send_unasked, STALE))


@pytest.mark.parametrize("action", [START, STOP, LAUNCH], ids=lambda action: action.name)
async def test_second_response_is_discarded(action: Action) -> None:
    async def twice(stage: Stage) -> bool:
        await stage.peer.send(stage.act().raw() * 2)
        return True

    async with playing(action, Strike(twice), warm=True) as (server, client):
        assert await outcome_of(client, action.command) is State.DONE
        server.forever = Strike(leave)
        server.dark = lambda call: Reply.of_web_server(503)
        assert await outcome_of(client, action.command, retry=ONCE, timeout=0.3) is State.UNKNOWN


@pytest.mark.parametrize("action", [START, STOP, LAUNCH], ids=lambda action: action.name)
async def test_early_response_is_discarded(action: Action) -> None:
    async def early(stage: Stage) -> bool:
        await stage.peer.send(raw("408 Request Timeout", b"", "Connection: close"))
        return False

    async with playing(action, Strike(early, at=-1)) as (server, client):
        assert await outcome_of(client, action.command) is State.DONE
        assert action.acts(server.provider) == 1


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
async def test_close_on_accept_is_retried(action: Action) -> None:
    for ending in (leave, leave_with_reset):
        times = 1 if action.state == "log" else 2  # a launch is repeated once, unless a replay was seen
        async with playing(action, *[Strike(ending, at=-1)] * times) as (server, client):
            assert await outcome_of(client, action.command) is State.DONE
            assert action.acts(server.provider) == 1


@pytest.mark.parametrize("action", [START, LAUNCH], ids=lambda action: action.name)
async def test_read_is_sent_once(action: Action) -> None:
    async with playing(action, warm=True) as (server, client):
        read = len(server.reading)
        server.order(Strike(leave, at=20), Strike(leave, at=20))
        assert await outcome_of(client, action.reads, retry=ONCE) is State.UNKNOWN
        await asyncio.sleep(0.03)
        assert len(server.strikes) == 1  # the second was never met
        assert len(server.reading) == read

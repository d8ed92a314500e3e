"""``start_many`` and its siblings: ids in, outcomes out, each command built when it is taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dispatchkit import (
    ActivateMailing,
    AltcraftClient,
    Audience,
    DirectClient,
    FanOut,
    LaunchBroadcast,
    NotSentError,
    Report,
    RetryPolicy,
    StopDispatch,
)
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.sandbox import Sandbox
from tests.harness import played


async def aids(*ids: Any) -> AsyncIterator[int]:
    for each in ids:
        yield each


async def test_direct_starts_and_stops_many() -> None:
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        assert await direct.start_many(range(1, 21)).finish() == Report(done=20, not_started=0)
        assert sum(sandbox.launches.values()) == 20
        outcomes = [outcome async for outcome in direct.stop_many(aids(1, 2, 3))]
    assert {outcome.command for outcome in outcomes} == {StopDispatch(1), StopDispatch(2), StopDispatch(3)}
    assert {outcome.state for outcome in outcomes} == {"done"}


async def test_altcraft_many_share_settings() -> None:
    async with Sandbox() as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        run = altcraft.activate_many(range(1, 6), run_now=True, audience=Audience("list", 1), content={"a": 1})
        commands = {outcome.command async for outcome in run}
        assert {command.mailing_id for command in commands if isinstance(command, ActivateMailing)} == {1, 2, 3, 4, 5}
        assert all(
            isinstance(command, ActivateMailing) and command.run_now and command.content == {"a": 1}
            for command in commands
        )
        await altcraft.activate_many([7, 8]).finish()
        outcomes = [outcome async for outcome in altcraft.launch_many(iter([7, 8]), limit=3)]
    assert {outcome.command for outcome in outcomes} == {LaunchBroadcast(7, limit=3), LaunchBroadcast(8, limit=3)}
    assert {outcome.state for outcome in outcomes} == {"done"}


@pytest.mark.parametrize("bad", [0, -7, "12", 1.5, True, None, 2**63])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_invalid_id_is_one_outcome(bad: Any, asynchronous: bool) -> None:
    client, transport = played()
    ids = [1, 2, bad, 4]
    run = client.start_many(aids(*ids) if asynchronous else ids)
    outcomes = sorted([outcome async for outcome in run], key=lambda outcome: outcome.index)
    assert [outcome.state for outcome in outcomes] == ["done", "done", "not_sent", "done"]
    error = outcomes[2].error
    assert isinstance(error, NotSentError)
    assert "dispatch_id must be a positive integer" in str(error)
    assert repr(bad) in str(error)
    assert sorted(number for _, number in transport.seen) == [1, 2, 4]
    assert run.report == Report(done=3, not_sent=1, not_started=None if asynchronous else 0)


@pytest.mark.parametrize("name", ["activate_many", "launch_many"])
async def test_shared_mistake_is_raised_first(name: str) -> None:
    async with AltcraftClient("https://example.com", "t") as altcraft:
        with pytest.raises(ValueError, match="limit must be an integer from 0 up"):
            getattr(altcraft, name)([1], limit=-1)
        with pytest.raises(ValueError, match="must go with run_now=True"):
            altcraft.activate_many([1], audience=Audience("list", 1))


def test_sized_ids_are_counted() -> None:
    client, _ = played()
    assert client.start_many(range(10**9)).report == Report(not_started=10**9)
    assert client.start_many({1, 2}).report.not_started == 2
    assert client.start_many(iter([1])).report.not_started is None
    assert client.start_many(aids(1)).report.not_started is None
    with pytest.raises(ValueError, match="there are 3 commands, but expected=4"):
        client.start_many([1, 2, 3], expected=4)
    assert isinstance(client.stop_many([1]), FanOut)


async def test_settings_reach_the_calls() -> None:
    client, transport = played(says=lambda *_: TransportFailure("no connection", sent=False))
    run = client.start_many([1], retry=RetryPolicy(attempts=2), timeout=9.0)
    assert await run.finish() == Report(not_sent=1, not_started=0)
    assert len(transport.seen) == 2
    run = client.start_many(range(1, 100), max_launches=2, concurrency=1, retry=RetryPolicy(attempts=1))
    assert (await run.finish()).total == 2
    run = client.start_many(range(1, 100), stop_after_failures=1, concurrency=1, retry=RetryPolicy(attempts=1))
    assert (await run.finish()).total == 1


async def test_stop_closes_id_generator() -> None:
    closed = []

    def ids() -> Iterator[int]:
        try:
            yield from range(1, 1000)
        finally:
            closed.append("sync")

    async def later() -> AsyncIterator[int]:
        try:
            for number in range(1, 1000):
                yield number
        finally:
            closed.append("async")

    client, _ = played()
    for source in (ids(), later()):
        run = client.start_many(source, concurrency=2)
        await anext(run)
        await run.close()
    assert closed == ["sync", "async"]


class Both:
    """Has a length, and can be iterated both ways, as a QuerySet of Django."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[int]:
        return iter((1, 2, 2))

    async def __aiter__(self) -> AsyncIterator[int]:
        pytest.fail("it was read asynchronously")
        yield 1


class CountedAsync:
    """Has a length, and can be iterated asynchronously only."""

    def __len__(self) -> int:
        return 3

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in (1, 2, 2):
            yield number


@pytest.mark.parametrize("ids", [Both(), CountedAsync()])
async def test_length_makes_a_list(ids: Any) -> None:
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        report = await direct.start_many(ids).finish()
    assert (report.done, report.repeats, report.not_started) == (2, 1, 0)

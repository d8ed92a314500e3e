"""Watching dispatches to their end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dispatchkit import DirectClient, RetryPolicy, WatchEnd, sync
from dispatchkit.errors import BadCredentialsError
from dispatchkit.sandbox import Fault, Sandbox
from dispatchkit.testing.clock import FakeClock


async def test_dispatches_are_watched() -> None:
    clock = FakeClock()
    async with (
        Sandbox(clock=clock.timestamp) as sandbox,
        DirectClient(sandbox.direct_token, base_url=sandbox.url, clock=clock) as direct,
    ):
        for number in (6, 7):
            await direct.start(number)
        await direct.stop(6)
        seen = [each async for each in direct.watch([7, 6, 8, 10**9], every=5, stalled_after=40)]
        assert [each.status for each in seen if each.target == 7] == ["scheduled", "sending", "awaiting", "done"]
        ends = {each.target: (each.end, each.is_well) for each in seen if each.end is not None}
        assert ends == {
            6: (WatchEnd.FINAL, False),
            7: (WatchEnd.FINAL, True),
            8: (WatchEnd.STALLED, False),
            10**9: (WatchEnd.UNKNOWN_TARGET, False),
        }
        last = [each for each in seen if each.target == 7][-1]
        assert last.messages is not None
        assert (last.messages.delivered, last.name) == (1235, "рассылка 7")
        assert len(sandbox.acts) == 3


async def test_failed_read_is_shown() -> None:
    clock = FakeClock()
    async with (
        Sandbox(clock=clock.timestamp, scheduled=0) as sandbox,
        DirectClient(sandbox.direct_token, base_url=sandbox.url, clock=clock, retry=RetryPolicy(attempts=1)) as direct,
    ):
        await direct.start(7)
        seen: list[tuple[str | None, bool]] = []
        async for each in direct.watch(7, every=30):
            seen.append((each.status, each.unread is not None))
            if len(seen) == 1:
                sandbox.order(Fault.http(500, b"oops"))
        assert seen == [("sending", False), ("sending", True), ("done", False)]


async def test_watch_left_early_ends() -> None:
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        watching = direct.watch(range(1, 100))
        async for _ in watching:
            break
        await watching.aclose()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


async def test_refused_token_ends_watch() -> None:
    async with Sandbox() as sandbox, DirectClient("d3Jvbmc=", base_url=sandbox.url) as direct:
        with pytest.raises(BadCredentialsError):
            [_ async for _ in direct.watch([7, 8])]
        assert sandbox.requests == 1


@pytest.mark.parametrize("options", [{"every": 0}, {"timeout": -1}, {"stalled_after": 0}])
def test_times_are_checked_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="positive"):
        sync.DirectClient("a2V5", base_url="http://127.0.0.1:1").watch(7, **options)


def test_blocking_watch_is_plain() -> None:
    with (
        Sandbox(scheduled=0.05, sending=0.05, awaiting=0.05) as sandbox,
        sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct,
    ):
        direct.start(7)
        seen = [each.status for each in direct.watch(7, every=0.01)]
        assert (seen[-1], len(seen) == len({*seen})) == ("done", True)
        for each in direct.watch(ids=iter([7, 8]), every=0.01):
            assert each.target in {7, 8}
            break


async def test_deadline_ends_pause() -> None:
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        sandbox.order(Fault.http(429, b"", {"Retry-After": "3600"}))
        async with asyncio.timeout(10):
            seen = [each async for each in direct.watch([7, 8], timeout=0.3)]
        assert {each.target: each.end for each in seen} == dict.fromkeys((7, 8), WatchEnd.TIMED_OUT)

"""Watching mailings to their end: cycles, errors in the log, and earlier launches."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import pytest

from dispatchkit import AltcraftClient, WatchEnd
from dispatchkit.sandbox import Fault, Sandbox
from dispatchkit.testing.clock import FakeClock


@pytest.mark.parametrize("wire", ["json", "xml"])
async def test_cycles_and_errors_are_counted(wire: Literal["json", "xml"]) -> None:
    clock = FakeClock()
    async with (
        Sandbox(active=[90], clock=clock.timestamp) as sandbox,
        AltcraftClient(sandbox.url, sandbox.altcraft_token, clock=clock, wire=wire) as altcraft,
    ):
        since = clock.now()
        await altcraft.launch_broadcast(90)
        clock.advance(10)
        await altcraft.launch_broadcast(90)
        seen = []
        async for each in altcraft.watch(90, since=since):
            seen.append((each.starts, each.ends, each.errors, each.end))
            if len(seen) == 1:
                sandbox.altcraft.log_error(90)
        assert seen == [(2, 0, 0, None), (2, 0, 1, None), (2, 1, 1, None), (2, 2, 1, WatchEnd.FINAL)]
        assert each.last_error == "Messages could not be handed over"
        assert not each.is_well


async def test_earlier_launch_is_not_final() -> None:
    clock = FakeClock()
    async with (
        Sandbox(active=[90], clock=clock.timestamp) as sandbox,
        AltcraftClient(sandbox.url, sandbox.altcraft_token, clock=clock) as altcraft,
    ):
        await altcraft.launch_broadcast(90)
        clock.advance(60)
        now = clock.now()
        [whole] = [each async for each in altcraft.watch(90)]
        assert (whole.end, whole.is_well) == (WatchEnd.FINAL, True)
        ends = [each.end async for each in altcraft.watch(90, since=now, timeout=60)]
        assert ends == [None, WatchEnd.TIMED_OUT]


async def test_unknown_mailing_is_refused() -> None:
    clock = FakeClock()
    async with (
        Sandbox(mailings=[90], clock=clock.timestamp) as sandbox,
        AltcraftClient(sandbox.url, sandbox.altcraft_token, clock=clock) as altcraft,
    ):
        [seen] = [each async for each in altcraft.watch([91])]
        assert (seen.end, seen.is_active) == (WatchEnd.REFUSED, None)
        assert "mailing not found" in (seen.unread or "")


async def test_time_without_zone_is_refused() -> None:
    async with Sandbox() as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        with pytest.raises(ValueError, match="zone"):
            altcraft.watch(90, since=datetime(2026, 1, 1))


async def test_cut_log_is_not_final() -> None:
    clock = FakeClock()
    async with (
        Sandbox(active=[90], clock=clock.timestamp, run_seconds=0) as sandbox,
        AltcraftClient(sandbox.url, sandbox.altcraft_token, clock=clock) as altcraft,
    ):
        await altcraft.launch_broadcast(90)
        sandbox.order(
            Fault.http(200, b'{"data": [], "error": 0, "error_text": "", "total_count": 3000}'),
            path_contains="log_v2",
        )
        seen = [(each.log_missing, each.end) async for each in altcraft.watch(90)]
        assert seen == [(3000, None), (0, WatchEnd.FINAL)]


async def test_inactive_mailing_ends_with_log() -> None:
    clock = FakeClock()
    async with (
        Sandbox(active=[90], clock=clock.timestamp) as sandbox,
        AltcraftClient(sandbox.url, sandbox.altcraft_token, clock=clock) as altcraft,
    ):
        await altcraft.launch_broadcast(90)
        await altcraft.deactivate(90)
        seen = [(each.is_active, each.ends, each.end) async for each in altcraft.watch(90)]
        assert seen == [(False, 0, None), (False, 1, WatchEnd.FINAL)]

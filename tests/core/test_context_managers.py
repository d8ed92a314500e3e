"""The wrong kind of ``with`` names the right one."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import AltcraftClient, DirectClient, FanOut, Ledger, StartDispatch, sync


def asynchronous(folder: Path) -> list[Any]:
    direct = DirectClient("key")
    return [
        direct,
        AltcraftClient("https://x.example", "key"),
        Ledger(folder / "launch.db"),
        FanOut(direct, [StartDispatch(7)]),
    ]


@pytest.mark.parametrize("number", range(4))
async def test_with_names_async_with(tmp_path: Path, number: int) -> None:
    value = asynchronous(tmp_path)[number]
    name = type(value).__name__
    with pytest.raises(TypeError, match=f"^{name} is asynchronous: use `async with`"), value:
        pass
    with pytest.raises(TypeError, match=f"^{name} is asynchronous"), ExitStack() as stack:
        stack.enter_context(value)


def blocking(folder: Path) -> list[Any]:
    direct = sync.DirectClient("key")
    return [
        direct,
        sync.AltcraftClient("https://x.example", "key"),
        sync.Ledger(folder / "launch.db"),
        sync.FanOut(direct, [StartDispatch(7)]),
    ]


@pytest.mark.parametrize("number", range(4))
def test_async_with_names_with(tmp_path: Path, number: int) -> None:
    value = blocking(tmp_path)[number]

    async def enter() -> None:
        async with value:
            pass

    with pytest.raises(TypeError, match=f"^sync.{type(value).__name__} blocks the event loop: use `with`"):
        asyncio.run(enter())
    value.close()

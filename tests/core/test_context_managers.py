"""The wrong kind of ``with`` names the right one."""

from __future__ import annotations

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


@pytest.mark.parametrize("cls", [sync.DirectClient, sync.AltcraftClient])
async def test_async_with_names_with(cls: Any) -> None:
    client: Any = cls("https://x.example", "key") if cls is sync.AltcraftClient else cls("key")
    with pytest.raises(TypeError, match=f"^sync.{cls.__name__} blocks the event loop: use `with`"):
        async with client:
            pass
    client.close()

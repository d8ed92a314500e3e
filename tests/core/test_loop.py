"""Without an event loop of asyncio, such as under trio, everything asynchronous refuses in words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.to_thread

from dispatchkit import DirectClient, Ledger, Report, sync
from dispatchkit.core.loop import ForeignLoopError
from dispatchkit.sandbox import Sandbox


async def call(_: Path) -> None:
    await DirectClient("key").start(7)


async def enter(_: Path) -> None:
    async with DirectClient("key"):
        pass


async def fan_out(_: Path) -> None:
    await DirectClient("key").start_many([7]).finish()


async def watch(_: Path) -> None:
    await anext(DirectClient("key").start_many([7]).watch())


async def renew_token(_: Path) -> None:
    async def token() -> str:
        raise AssertionError

    await DirectClient(token).start(7)


async def read_ledger(folder: Path) -> None:
    await Ledger(folder / "launch.db").runs()


async def enter_ledger(folder: Path) -> None:
    async with Ledger(folder / "launch.db"):
        pass


@pytest.mark.parametrize("use", [call, enter, fan_out, watch, renew_token, read_ledger, enter_ledger])
def test_trio_is_refused(tmp_path: Path, use: Callable[[Path], Awaitable[None]]) -> None:
    with pytest.raises(ForeignLoopError, match=r"of asyncio or uvloop.*trio\.to_thread\.run_sync") as raised:
        trio.run(use, tmp_path)
    assert raised.value.__cause__ is None
    assert not (tmp_path / "launch.db").exists()


def test_sandbox_names_its_thread() -> None:
    async def enter_sandbox() -> None:
        async with Sandbox():
            pass

    with pytest.raises(RuntimeError, match="use `with Sandbox"):
        trio.run(enter_sandbox)


def test_advice_for_trio_works() -> None:
    async def main(direct: sync.DirectClient) -> Any:
        return await trio.to_thread.run_sync(direct.start_many(range(1, 11)).finish)

    with Sandbox() as sandbox, sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        assert trio.run(main, direct) == Report(done=10, not_started=0)


@pytest.mark.second_stage  # another process imports trio and aiohttp
def test_refusal_leaves_no_coroutine() -> None:
    script = (
        "import trio\nfrom dispatchkit import DirectClient\n"
        "async def main():\n"
        "    try:\n        await DirectClient('key').start_many([7]).finish()\n"
        "    except RuntimeError as error:\n        print(type(error).__name__)\n"
        "trio.run(main)"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert (done.stdout, done.stderr) == ("ForeignLoopError\n", "")

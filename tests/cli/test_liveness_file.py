"""The liveness file of a worker: touched once a second by the event loop."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dispatchkit.cli.run.liveness_file import keep_touching
from dispatchkit.testing import FakeClock
from tests.harness import turns
from tests.launcher import COMMAND, complete


def make_old(path: Path) -> None:
    os.utime(path, (0, 0))


def is_old(path: Path) -> bool:
    return path.stat().st_mtime == 0


async def test_file_is_touched(tmp_path: Path) -> None:
    clock, alive, told = FakeClock(jumps=False), tmp_path / "alive", list[str]()
    alive.write_text("kept")
    make_old(alive)
    async with keep_touching(alive, told.append, clock=clock):
        assert not is_old(alive)
        for _ in range(2):
            await turns()
            make_old(alive)
            clock.advance(0.9)
            await turns()
            assert is_old(alive)
            clock.advance(0.1)
            await turns()
            assert not is_old(alive)
        make_old(alive)
    clock.advance(5)
    await turns()
    assert is_old(alive)
    assert alive.read_text() == "kept"
    assert told == []


async def test_lost_folder_is_told_once(tmp_path: Path) -> None:
    clock, folder, told = FakeClock(jumps=False), tmp_path / "run", list[str]()
    folder.mkdir()
    async with keep_touching(folder / "alive", told.append, clock=clock):
        for _ in range(2):
            shutil.rmtree(folder)
            for _ in range(3):
                await turns()
                clock.advance(1)
            await turns()
            folder.mkdir()
            clock.advance(1)
            await turns()
            assert (folder / "alive").exists()
    line = f"{folder}/alive: No such file or directory. A liveness probe of this file may end the worker."
    assert told == [line] * 2


@pytest.mark.parametrize("name", ["missing/alive", "file/alive"])
def test_unwritable_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    # Nothing listens there: the file is checked before the ledger is opened.
    command = [*COMMAND, "worker", "--ledger", "postgresql://127.0.0.1:1/x", "--liveness-file", name]
    ended = complete(command, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"dispatchkit: {name}: ")
    assert ended.stderr.count("\n") == 1

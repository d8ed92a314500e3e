"""Processes under test, as the harness sees them: started, suspended, killed, awaited."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Command"]

_ROOT = Path(__file__).resolve().parents[2]


class Command:
    """A process. Its output goes to files, since a busy harness empties no pipe."""

    def __init__(self, name: str, words: Sequence[str]) -> None:
        self.name = name
        self.words = list(words)
        self.began = time.monotonic()
        self.ended: float | None = None
        self.pid = 0
        """Of the Python process itself, also where a program that makes namespaces stands before it."""
        self.status: int | None = None
        self.killed = False
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 - for as long as it lives
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, name: str, words: Sequence[str], environment: Mapping[str, str], *, before: Sequence[str] = ()
    ) -> Command:
        """Start ``python -m tests.nemesis.process`` with these words.

        Args:
            name: What it is called in reports.
            words: The command.
            environment: What it finds in its environment besides ours.
            before: A program that starts it, such as ``unshare``; one that forks must be given with ``--fork``.
        """
        command = cls(name, words)
        line = [*before, sys.executable, "-m", "tests.nemesis.process", *words]
        process = await asyncio.create_subprocess_exec(
            *line,
            cwd=_ROOT,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=command._files[0],
            stderr=command._files[1],
            start_new_session=True,
        )
        command._process = process
        command.pid = process.pid
        command._watching = asyncio.create_task(command._watch())
        if "--fork" in before:
            command.pid = await _child(process.pid)
        return command

    async def _watch(self) -> None:
        assert self._process is not None
        self.status = await self._process.wait()
        self.ended = time.monotonic()

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.ended is None

    @property
    def suspended(self) -> bool:
        """Whether the kernel says that it is stopped by a signal."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except OSError:
            return False

    def signal(self, number: int) -> None:
        """Send a signal to the Python process."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
        self.killed = self.killed or number == signal.SIGKILL

    async def suspend(self) -> bool:
        """SIGSTOP, and wait until it is stopped. False: it had ended."""
        self.signal(signal.SIGSTOP)
        for _ in range(400):
            if self.suspended:
                return True
            if not self.alive:
                return False
            await asyncio.sleep(0.002)
        return False

    def wake(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        await self.wait(20)

    async def wait(self, timeout: float) -> int | None:
        """Wait for its end. None: it has not ended in this time."""
        if self._watching is not None and self.alive:
            await asyncio.wait([self._watching], timeout=timeout)
        return self.status if not self.alive else None

    async def end(self) -> None:
        """Make sure that it is gone."""
        if self.alive:
            self.wake()
            await self.kill()
            if self.alive and self._process is not None:
                self._process.kill()
                await self.wait(10)
        for file in self._files:
            if not file.closed:
                file.close()

    def text(self, *, errors: bool = False) -> str:
        """What it has written to standard output, or to standard error."""
        file = self._files[errors]
        return os.pread(file.fileno(), 2**26, 0).decode(errors="replace")

    def told(self) -> dict[int, str]:
        """The outcomes that it has reported as JSON, by id: the last word on each."""
        told = {}
        for line in self.text().splitlines():
            if line.startswith("{"):
                with contextlib.suppress(ValueError):  # the last line of a killed process may be cut
                    outcome: dict[str, Any] = json.loads(line)
                    if isinstance(outcome.get("target"), int) and isinstance(outcome.get("state"), str):
                        told[outcome["target"]] = outcome["state"]
        return told

    def last_words(self) -> str:
        """The end of what it wrote, for reports."""
        lines = [line for line in (self.text(errors=True) + self.text()).splitlines() if line and line[0] != "{"]
        return " / ".join(lines[-6:])[-600:]


async def _child(parent: int) -> int:
    """The Python process below programs that fork, such as `unshare` and a shell."""
    for _ in range(1000):
        if (found := _python_below(parent)) is not None:
            return found
        await asyncio.sleep(0.01)
    return parent


def _python_below(pid: int) -> int | None:
    with contextlib.suppress(OSError, IndexError):
        while not Path(f"/proc/{pid}/exe").readlink().name.startswith("python"):
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[-1])
        return pid
    return None

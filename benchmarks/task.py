"""The task of a contestant in its process, the ids that it starts, and its result."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from benchmarks.machine import cpu_seconds

TOKEN = "a2V5OmtleQ=="
FIRST = 10_000_000_000
LIMIT = 30.0
"""Seconds that one contestant may take for one task."""


@dataclass(frozen=True)
class Task:
    """The task of a contestant in its process: warm up, then send for some seconds."""

    peer: str
    loop: str
    url: str
    server: int
    workers: int
    seconds: float


@dataclass(frozen=True)
class Sample:
    """The result of a contestant in its process."""

    requests: int
    seconds: float
    cpu: float
    """Seconds of this process alone, on all of its threads."""
    server_cpu: float | None


class Starts:
    """The ids to start, until the time is up. The contestant fails if a taken id gets no answer.

    The measurement starts when every worker has had some answers, and ends before the last answers. So it includes
    neither the connects nor the end of the run.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self.taken = 0
        self.sample: Sample | None = None

    def __iter__(self) -> Iterator[int]:
        for _ in range(max(200, 4 * self._task.workers)):
            self.taken += 1
            yield FIRST + self.taken
        warm, server, cpu = self.taken, cpu_seconds(self._task.server), time.process_time()
        began = time.perf_counter()
        end = began + self._task.seconds
        while (now := time.perf_counter()) < end:
            self.taken += 1
            yield FIRST + self.taken
        used = time.process_time() - cpu
        self.sample = Sample(self.taken - warm, now - began, used, less(cpu_seconds(self._task.server), server))


Run = Callable[[Starts], Awaitable[None]]
Contestant = Callable[[str, int], AbstractAsyncContextManager[Run]]


def headers() -> dict[str, str]:
    """The headers that dispatchkit sends."""
    from dispatchkit.core.command import USER_AGENT

    return {
        "Authorization": f"Basic {TOKEN}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": USER_AGENT,
    }


def less(after: float | None, before: float | None) -> float | None:
    """The difference; None if one is not known."""
    return None if after is None or before is None else after - before

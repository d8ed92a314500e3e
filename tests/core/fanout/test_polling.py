"""The rounds of a watch: changes, stalls, failed reads and the deadline, without a provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

import attrs
import pytest

from dispatchkit import NotFoundError, NotSentError, RejectedError, ThrottledError, WatchEnd
from dispatchkit.core.fanout.polling import Found, TargetProgress, Watching, poll
from dispatchkit.errors import DispatchkitError
from dispatchkit.testing.clock import FakeClock


@attrs.frozen(kw_only=True)
class Progress(TargetProgress):
    word: str = ""


Script: TypeAlias = Mapping[int, Sequence[str | DispatchkitError]]
Seen: TypeAlias = tuple[float, int, str, WatchEnd | None]


async def watch(script: Script, watching: Watching, *, cost: float = 0.0) -> list[Seen]:
    """What a watch says of targets whose reads answer as the script says, again and again the last answer."""
    clock, rounds = FakeClock(), 0

    async def read(targets: list[int], within: float | None) -> AsyncGenerator[Found[Progress]]:
        nonlocal rounds
        del within
        for target in targets:
            clock.time += cost
            answer = script[target][min(rounds, len(script[target]) - 1)]
            if isinstance(answer, DispatchkitError):
                yield target, answer
            else:
                end = WatchEnd.FINAL if answer == "done" else None
                yield target, Progress(target=target, at=clock.now(), word=answer, end=end)
        rounds += 1

    def blank(target: int, at: datetime) -> Progress:
        return Progress(target=target, at=at)

    seen: list[Seen] = []
    async for each in poll(script, read, blank, watching, clock):
        seen.append((clock.time, each.target, each.word, each.end))  # noqa: PERF401 - the time is that of the yield
    return seen


async def test_only_changes_are_told() -> None:
    script = {7: ["new", "new", "sending", "sending", "done"], 8: ["done"]}
    assert await watch(script, Watching(5, None, None)) == [
        (0, 7, "new", None),
        (0, 8, "done", WatchEnd.FINAL),
        (10, 7, "sending", None),
        (20, 7, "done", WatchEnd.FINAL),
    ]


async def test_stall_ends_one_target() -> None:
    script = {7: ["new", "sending"], 8: ["new"] * 5 + ["sending", "done"]}
    assert await watch(script, Watching(5, None, 30)) == [
        (0, 7, "new", None),
        (0, 8, "new", None),
        (5, 7, "sending", None),
        (25, 8, "sending", None),
        (30, 8, "done", WatchEnd.FINAL),
        (35, 7, "sending", WatchEnd.STALLED),
    ]


async def test_deadline_ends_all() -> None:
    assert await watch({7: ["new"], 8: ["done"]}, Watching(5, 12, None)) == [
        (0, 7, "new", None),
        (0, 8, "done", WatchEnd.FINAL),
        (12, 7, "new", WatchEnd.TIMED_OUT),
    ]


async def test_slow_round_ends_at_deadline() -> None:
    assert await watch({7: ["new"], 8: ["new"]}, Watching(5, 12, None), cost=10) == [
        (10, 7, "new", None),
        (20, 8, "new", None),
        (20, 7, "new", WatchEnd.TIMED_OUT),
        (20, 8, "new", WatchEnd.TIMED_OUT),
    ]


async def test_failed_reads_are_no_change() -> None:
    lost = NotSentError("connection refused")
    assert await watch({7: ["new", lost, "new", lost]}, Watching(5, None, 20)) == [
        (0, 7, "new", None),
        (5, 7, "new", None),
        (10, 7, "new", None),
        (15, 7, "new", None),
        (20, 7, "new", WatchEnd.STALLED),
    ]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (NotFoundError("none", status=200, code=None), WatchEnd.UNKNOWN_TARGET),
        (RejectedError("no", status=200, code=400), WatchEnd.REFUSED),
        (ThrottledError("slowly", retry_after=1), WatchEnd.TIMED_OUT),
        (NotSentError("connection refused"), WatchEnd.TIMED_OUT),
    ],
)
async def test_refusals_end_watch(error: DispatchkitError, end: WatchEnd) -> None:
    seen = await watch({7: [error]}, Watching(5, 12, None))
    assert [each[3] for each in seen if each[3] is not None] == [end]


async def test_nothing_to_watch_ends() -> None:
    assert await watch({}, Watching(5, 12, None)) == []


@pytest.mark.parametrize("times", [(0, None, None), (5, 0, None), (5, None, -1), (float("inf"), None, None)])
def test_times_are_positive(times: tuple[float, float | None, float | None]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Watching(*times)

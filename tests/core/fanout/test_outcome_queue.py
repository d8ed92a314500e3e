"""The queue of outcomes when its consumer is slow."""

from __future__ import annotations

import asyncio

import pytest

from dispatchkit import StartDispatch
from dispatchkit.core.fanout.outcome import Done
from dispatchkit.core.fanout.outcome_queue import OutcomeQueue
from dispatchkit.direct.models import StartedDispatch
from tests.harness import turns


@pytest.mark.parametrize("most", [1, 3, 100])
@pytest.mark.parametrize("producers", [2, 3, 7])
async def test_blocked_producers_all_go_on(producers: int, most: int) -> None:
    queue: OutcomeQueue[StartedDispatch] = OutcomeQueue(2)

    async def produce(number: int) -> None:
        queue.put(Done(number, StartDispatch(number), StartedDispatch(number)))
        while queue.is_full:
            await queue.wait_not_full()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for number in range(1, producers + 1):
            group.create_task(produce(number))
        taken = 0
        while taken < producers:
            await turns(3)
            taken += len(queue.get_many(most))
    assert not queue.is_full
    assert queue.get_nowait() is None

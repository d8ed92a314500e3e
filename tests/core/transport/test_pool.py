"""The free list of idle connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

from dispatchkit.core.transport.pool import _IDLE_TIMEOUT, Pool


class Loop:
    """An event loop's clock, and its timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None], Mock]] = []

    def time(self) -> float:
        return self.now

    def is_closed(self) -> bool:
        return False

    def call_later(self, delay: float, call: Callable[..., None], *args: object) -> Mock:
        self.timers.append((self.now + delay, lambda: call(*args), Mock()))
        return self.timers[-1][2]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer not in due]
        for _, call, _ in due:
            call()


def lane(*, is_open: bool = True) -> Mock:
    made = Mock()
    made.is_open.return_value = is_open
    return made


def closed(made: Mock) -> bool:
    return bool(made.end.called)


@pytest.fixture
def loop() -> Any:
    return Loop()


@pytest.fixture
def pool(loop: Any) -> Pool:
    return Pool(loop)


def test_last_used_is_taken_first(pool: Pool) -> None:
    first, second = lane(), lane()
    pool.give(first)
    pool.give(second)
    assert [pool.take(), pool.take(), pool.take()] == [second, first, None]


def test_unusable_lane_is_closed(pool: Pool) -> None:
    unusable = lane(is_open=False)
    pool.give(unusable)
    assert closed(unusable)
    assert pool.take() is None


def test_expired_lane_is_not_taken(pool: Pool, loop: Loop) -> None:
    made = lane()
    pool.give(made)
    loop.now = _IDLE_TIMEOUT + 0.1
    assert pool.take() is None
    assert closed(made)


def test_idle_lanes_expire(pool: Pool, loop: Loop) -> None:
    early, late = lane(), lane()
    pool.give(early)
    loop.advance(_IDLE_TIMEOUT / 2)
    pool.give(late)
    loop.advance(_IDLE_TIMEOUT / 2 + 0.1)
    assert [closed(early), closed(late)] == [True, False]
    loop.advance(_IDLE_TIMEOUT)
    assert closed(late)
    assert loop.timers == []


def test_timer_begins_again(pool: Pool, loop: Loop) -> None:
    for _ in range(2):
        made = lane()
        pool.give(made)
        loop.advance(2 * _IDLE_TIMEOUT)
        assert closed(made)


def test_close_releases_idle_lanes(pool: Pool, loop: Loop) -> None:
    made, late = lane(), lane()
    pool.give(made)
    pool.close()
    assert made.give_back.called
    [(_, _, handle)] = loop.timers
    assert handle.cancel.called
    pool.give(late)
    assert closed(late)
    assert pool.take() is None

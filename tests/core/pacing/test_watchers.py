"""The observers of an account hear of each pause once, and of those that become longer."""

from __future__ import annotations

from typing import Any

import pytest

from dispatchkit import Event, Paused
from dispatchkit.core.observe import Observers, observers_of
from dispatchkit.core.pacing.watchers import Watchers
from dispatchkit.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(jumps=False)


def made(clock: FakeClock, heard: list[Event], **client: Any) -> Observers:
    observers = observers_of([heard.append], clock=clock, **{"provider": "direct", "base_url": "https://x", **client})
    assert observers is not None
    return observers


def test_pauses_are_told_once(clock: FakeClock) -> None:
    heard: list[Any] = []
    watchers, group = Watchers(clock), made(clock, heard)
    watchers.add(group)
    watchers.paused(5.0, "Retry-After")
    watchers.paused(5.9, "Retry-After")  # too little longer
    watchers.paused(7.0, "HTTP 429")
    assert [(event.seconds, event.by) for event in heard] == [(5.0, "Retry-After"), (7.0, "HTTP 429")]


def test_short_pauses_are_told(clock: FakeClock) -> None:
    heard: list[Any] = []
    watchers, group = Watchers(clock), made(clock, heard)
    watchers.add(group)
    watchers.paused(0.0, "Retry-After")
    for _ in range(3):
        watchers.paused(0.2, "Retry-After")
        clock.advance(0.3)
    assert [event.seconds for event in heard] == [0.2] * 3


def test_lifted_pause_is_forgotten(clock: FakeClock) -> None:
    heard: list[Any] = []
    watchers, group = Watchers(clock), made(clock, heard)
    watchers.add(group)
    watchers.paused(5.0, "Retry-After")
    watchers.lifted()
    watchers.paused(5.0, "Retry-After")
    assert len(heard) == 2


def test_groups_are_held_weakly(clock: FakeClock) -> None:
    heard: list[Any] = []
    watchers, first = Watchers(clock), made(clock, heard)
    second = made(clock, heard, provider="altcraft")
    watchers.add(first)
    watchers.add(second)
    watchers.breaker_opened(5.0)
    assert len(heard) == 1, "the same observer of two clients"
    del first, second
    watchers.breaker_opened(5.0)
    watchers.paused(5.0, "Retry-After")
    assert len(heard) == 1
    assert not any(isinstance(event, Paused) for event in heard)

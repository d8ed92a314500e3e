"""Outages of a provider: since when, and what they cost."""

from __future__ import annotations

import math

import pytest

from dispatchkit.cli.output.outages import LEAST, Outages
from dispatchkit.core.durations import in_words
from dispatchkit.testing import FakeClock


class Run:
    """A run whose provider answers when it is told to."""

    def __init__(self) -> None:
        self.clock = FakeClock(jumps=False)
        self.began = self.clock.now()
        self.answered = -math.inf
        self.outages = Outages(lambda: self.answered, clock=self.clock)

    def look(self, seconds: float = 0.0, *, is_trying: bool = True, breaker: str = "closed") -> str:
        self.clock.advance(seconds)
        outage = self.outages.look(is_trying=is_trying, breaker=breaker)
        return "" if outage is None else str(outage)

    def answer(self) -> None:
        self.answered = self.clock.monotonic()

    def at(self, seconds: float) -> str:
        return f"{self.began.fromtimestamp(self.began.timestamp() + seconds, self.began.tzinfo):%H:%M:%S} UTC"


@pytest.fixture
def asked() -> Run:
    return Run()


def test_silence_is_an_outage(asked: Run) -> None:
    assert asked.look() == ""
    asked.clock.advance(10)
    asked.answer()
    assert asked.look() == ""
    assert asked.look(LEAST - 1) == ""
    assert asked.look(1) == f"no answer since {asked.at(10)}; 35 s lost"
    assert asked.look(165) == f"no answer since {asked.at(10)}; 3 min 20 s lost"
    asked.answer()
    assert asked.look() == ""
    assert asked.outages.summary() == f"No answer from {asked.at(10)[:8]} to {asked.at(210)}; 3 min 20 s lost."


def test_open_breaker_counts_at_once(asked: Run) -> None:
    asked.answer()
    asked.look()
    assert asked.look(2, breaker="open", is_trying=False) == f"no answer since {asked.at(0)}; 2 s lost"
    assert asked.look(3, breaker="half-open") == f"no answer since {asked.at(0)}; 5 s lost"
    assert asked.outages.summary().endswith("; 5 s lost.")


def test_idle_wait_is_no_outage(asked: Run) -> None:
    """A run that waits for a pause of the provider's, or has nothing to do, waits for no answer."""
    asked.answer()
    asked.look()
    assert asked.look(100, is_trying=False) == ""
    assert asked.look(1) == ""
    assert asked.look(LEAST - 1) == ""
    assert asked.look(1) != ""


def test_outages_are_added(asked: Run) -> None:
    asked.look()
    for _ in range(2):
        assert asked.look(60) == f"no answer since {asked.at(0 if not asked.outages._past else 60)}; 1 min lost"
        asked.answer()
        asked.look()
    assert asked.outages.summary() == f"The provider fell silent 2 times, first at {asked.at(0)}; 2 min lost."


def test_no_outage_says_nothing(asked: Run) -> None:
    asked.look()
    asked.look(5)
    assert asked.outages.summary() == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0.4 s"), (59.4, "59 s"), (59.6, "1 min"), (3600, "1 h"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_seconds_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words

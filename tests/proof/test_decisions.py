"""No sequence of events makes a call act twice, miss its deadline, or name an outcome that is not true."""

from __future__ import annotations

import pytest

from tests.proof.explore import ViolationError, explore
from tests.proof.planted import FAULTS, Fault, mutated
from tests.proof.provider import DISTINCT_KINDS, KINDS

SETTINGS = [(names, repeats) for names in DISTINCT_KINDS for repeats in (True, False)]
# Each command once: the second stage plays both settings, with longer calls.
SHORT = [setting for index, setting in enumerate(SETTINGS) if index % 4 in {0, 3}]


@pytest.mark.parametrize(("names", "repeats"), SHORT)
def test_every_short_call(names: str, repeats: bool) -> None:
    assert explore(DISTINCT_KINDS[names], attempts=3, probes=2, surprises=0, repeat_unclear=repeats) > 30


@pytest.mark.parametrize("name", ["start", "deduplicated launch"])
def test_every_short_surprise(name: str) -> None:
    assert explore(KINDS[name], attempts=2, probes=2, surprises=1) > 1000


@pytest.mark.second_stage
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("names", "repeats"), SETTINGS)
def test_every_call(names: str, repeats: bool) -> None:
    assert explore(DISTINCT_KINDS[names], attempts=3, probes=4, repeat_unclear=repeats) > 100


@pytest.mark.second_stage
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_planted_fault_is_found(fault: Fault) -> None:
    with pytest.raises(ViolationError):
        explore_with(fault)


def explore_with(fault: Fault) -> None:
    decide, kind = mutated(fault), KINDS[fault.kind]
    for surprises in (0, 1):
        for repeats in (False, True):
            explore(kind, attempts=fault.attempts, probes=2, surprises=surprises, repeat_unclear=repeats, decide=decide)

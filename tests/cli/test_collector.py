"""The garbage collector while a command starts."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator

import pytest

from dispatchkit.cli import collector
from dispatchkit.cli.collector import postpone_collections, resume_collections


@pytest.fixture(autouse=True)
def at_exit(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What is called at the exit."""
    called: list[object] = []
    monkeypatch.setattr(atexit, "register", called.append)
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield called
    monkeypatch.setattr(collector, "_before", None)
    gc.set_threshold(*before)
    gc.unfreeze()


def test_imports_are_collected_rarely(at_exit: list[object]) -> None:
    postpone_collections()
    postpone_collections()
    assert gc.get_threshold() == (500_000, 10, 10)
    assert at_exit == [gc.freeze]
    resume_collections()
    assert gc.get_threshold() == (700, 10, 10)


def test_imports_are_frozen_once() -> None:
    postpone_collections()
    resume_collections()
    frozen = gc.get_freeze_count()
    assert frozen
    kept = [[] for _ in range(1000)]  # type: ignore[var-annotated]
    resume_collections()
    assert gc.get_freeze_count() <= frozen
    assert len(kept) == 1000


@pytest.mark.parametrize("threshold", [0, 1_000_000])
def test_own_threshold_stays(threshold: int) -> None:
    gc.set_threshold(threshold)
    postpone_collections()
    resume_collections()
    assert gc.get_threshold()[0] == threshold
    assert gc.get_freeze_count() == 0

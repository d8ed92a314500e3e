"""The garbage collector has room while a wide run is under way, and is left as it was."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from dispatchkit import FanOut
from dispatchkit.core.fanout.gc_tuning import raise_gc_threshold, restore_gc_threshold
from tests.harness import played, starts


@pytest.fixture(autouse=True)
def threshold() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


async def test_run_raises_gc_threshold() -> None:
    client, _ = played()
    run = FanOut(client, list(starts(range(1, 301))), concurrency=100)
    seen = {gc.get_threshold() async for _ in run}
    assert (2000, 10, 10) in seen
    assert gc.get_threshold() == (700, 10, 10)


async def test_a_narrow_run_changes_nothing() -> None:
    client, _ = played()
    run = FanOut(client, list(starts(range(1, 301))), concurrency=32)
    assert {gc.get_threshold() async for _ in run} == {(700, 10, 10)}


async def test_aborted_run_restores_gc_threshold() -> None:
    client, _ = played()
    run = FanOut(client, list(starts(range(1, 301))), concurrency=100)
    async for _ in run:
        break
    await run.close()
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("theirs", [0, 900, 10**6])
def test_foreign_gc_threshold_is_kept(theirs: int) -> None:
    for _ in range(100):
        raise_gc_threshold()
    gc.set_threshold(theirs, 10, 10)
    for _ in range(100):
        raise_gc_threshold()
    assert gc.get_threshold()[0] == theirs
    for _ in range(200):
        restore_gc_threshold()
    assert gc.get_threshold()[0] == theirs


@pytest.mark.parametrize("before", [0, 10**6])
def test_disabled_gc_stays_disabled(before: int) -> None:
    gc.set_threshold(before, 10, 10)
    for _ in range(100):
        raise_gc_threshold()
    assert gc.get_threshold()[0] == before
    for _ in range(100):
        restore_gc_threshold()
    assert gc.get_threshold()[0] == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_inherits_no_runs() -> None:
    for _ in range(100):
        raise_gc_threshold()
    child = os.fork()
    if child == 0:
        inherited = gc.get_threshold()[0]
        restore_gc_threshold()  # as if a worker that it inherited were dropped
        for _ in range(50):
            raise_gc_threshold()
        own = gc.get_threshold()[0]
        for _ in range(50):
            restore_gc_threshold()
        os._exit(0 if (inherited, own, gc.get_threshold()[0]) == (700, 1000, 700) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert gc.get_threshold()[0] == 2000
    for _ in range(100):
        restore_gc_threshold()
    assert gc.get_threshold()[0] == 700

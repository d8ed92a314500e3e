"""A plain iterator is read in the thread that iterates the fan-out, a bounded slice at a time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import StartDispatch, sync
from dispatchkit.sandbox import Sandbox
from dispatchkit.sync.caller_items import CallerItems
from tests.sync.conftest import Play


@pytest.fixture
def direct(sandbox: Sandbox) -> Iterator[sync.DirectClient]:
    with sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as client:
        yield client


def test_sqlite_cursor_is_read_here(direct: sync.DirectClient) -> None:
    connection = sqlite3.connect(":memory:")  # check_same_thread is the default
    connection.execute("CREATE TABLE mailings (id INTEGER)")
    connection.executemany("INSERT INTO mailings VALUES (?)", [(number,) for number in range(1, 301)])
    ids = (row[0] for row in connection.execute("SELECT id FROM mailings"))
    assert direct.start_many(ids, concurrency=16).finish().done == 300
    connection.close()


def test_commands_are_read_here(direct: sync.DirectClient) -> None:
    threads: set[int] = set()

    def commands() -> Iterator[StartDispatch]:
        for number in range(1, 11):
            threads.add(threading.get_ident())
            yield StartDispatch(number)

    fan_out = sync.FanOut(direct, commands(), concurrency=4)
    assert sorted(outcome.index for outcome in fan_out) == list(range(10))
    assert threads == {threading.get_ident()}


def test_iterator_is_not_read_ahead(direct: sync.DirectClient) -> None:
    taken: list[int] = []

    def ids() -> Iterator[int]:
        for number in range(1, 10**9):
            taken.append(number)
            yield number

    assert direct.start_many(ids(), concurrency=4, max_launches=10).finish().done == 10
    assert len(taken) <= 10 + 2 * 4


def test_error_comes_after_earlier_items(direct: sync.DirectClient) -> None:
    def ids() -> Iterator[int]:
        yield from range(1, 21)
        raise KeyError("mine")

    fan_out = direct.start_many(ids(), concurrency=8)
    outcomes = []
    with pytest.raises(KeyError, match="mine"):
        outcomes += fan_out
    assert fan_out.report.done == 20
    assert fan_out.stop_reason is not None
    assert fan_out.stop_reason.kind == "failed"


@pytest.mark.parametrize("stray", [StopAsyncIteration, StopIteration])
def test_stray_stop_is_no_end(direct: sync.DirectClient, stray: type[Exception]) -> None:
    class Ids:
        def __init__(self) -> None:
            self.left = 3

        def __iter__(self) -> Ids:
            return self

        def __next__(self) -> int:
            self.left -= 1
            if self.left < 0:
                raise stray
            return self.left + 1

    fan_out = direct.start_many(Ids())
    if stray is StopIteration:
        assert fan_out.finish().done == 3
    else:
        with pytest.raises(RuntimeError, match="StopAsyncIteration"):
            fan_out.finish()


def test_generator_is_closed_here(direct: sync.DirectClient) -> None:
    closed: list[int] = []

    def ids() -> Iterator[int]:
        try:
            yield from range(1, 10**9)
        finally:
            closed.append(threading.get_ident())

    for _ in direct.start_many(ids(), concurrency=2):
        break
    direct.start_many(ids(), max_launches=2).finish()
    with direct.start_many(ids(), concurrency=2) as run:
        assert next(iter(run)).error is None
    assert closed == [threading.get_ident()] * 3
    assert run.stop_reason is not None
    assert run.stop_reason.kind == "stopped"


def test_error_of_close_is_raised(direct: sync.DirectClient) -> None:
    class Ids:
        def __init__(self) -> None:
            self.ids = iter([1, 2])

        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            return next(self.ids)

        def close(self) -> None:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        direct.start_many(Ids()).finish()


def test_length_is_kept(direct: sync.DirectClient) -> None:
    both = Both([1, 2, 2, 3])
    run = direct.start_many(both, concurrency=1)
    assert run.report.not_started == 4
    report = run.finish()
    assert (report.done, report.repeats) == (3, 1)
    assert both.threads == {threading.get_ident()}


@pytest.mark.parametrize("options", [{"expected": 4}, {"repeats": "refuse"}])
def test_whole_list_is_read(direct: sync.DirectClient, options: dict[str, Any]) -> None:
    both = Both([1, 2, 3, 4])
    run = direct.start_many(both, **options)
    assert both.threads == {threading.get_ident()}
    assert run.finish().done == 4
    with pytest.raises(ValueError, match="nothing was started"):
        direct.start_many((number for number in (1, 1, 2)), **options)


def test_iterator_may_use_the_client(direct: sync.DirectClient) -> None:
    def ids() -> Iterator[int]:
        for number in (1, 2):
            direct.start(100 + number)
            yield number

    assert direct.start_many(ids()).finish().done == 2


def test_iterator_must_not_take_outcomes(direct: sync.DirectClient) -> None:
    def ids() -> Iterator[int]:
        yield 1
        next(iter(run))

    run = direct.start_many(ids())
    with pytest.raises(RuntimeError, match="of its own run"):
        run.finish()


def test_ledger_plans_iterator_of_caller(direct: sync.DirectClient, tmp_path: Path) -> None:
    def ids() -> Iterator[int]:
        yield from range(1, 201)

    with sync.Ledger(tmp_path / "launch.db") as ledger:
        assert direct.start_many(ids(), ledger=ledger, run="all", concurrency=8).finish().done == 200
        assert direct.start_many(ids(), ledger=ledger, run="all").finish().previously_finished == 200


def test_left_plan_stays_incomplete(direct: sync.DirectClient, tmp_path: Path) -> None:
    def ids() -> Iterator[int]:
        yield from range(1, 21)
        raise KeyboardInterrupt

    with sync.Ledger(tmp_path / "launch.db") as ledger:
        with pytest.raises(KeyboardInterrupt):
            direct.start_many(ids(), ledger=ledger, run="all", concurrency=8).finish()
        assert not ledger.run("all").plan_complete
        assert not ledger.run("all").stopped


async def test_slow_iterator_hands_over_early() -> None:
    time, letters = iter(range(100)), iter("abc")
    items = CallerItems(letters, 64, monotonic=lambda: float(next(time)))
    items.read()
    assert await anext(items) == "a"
    assert list(letters) == ["b", "c"]


class Both:
    """Has a length, and can be iterated both ways, as a QuerySet of Django."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids
        self.threads: set[int] = set()

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[int]:
        for number in self.ids:
            self.threads.add(threading.get_ident())
            yield number

    async def __aiter__(self) -> AsyncIterator[int]:
        pytest.fail("it was read asynchronously")
        yield 1


def test_iterator_is_interrupted(play: Play) -> None:
    lines = play("""
        def ids():
            yield from range(1, 5)
            press_ctrl_c(0.1)
            time.sleep(5)
            yield 5
        with client() as direct:
            run = direct.start_many(ids(), concurrency=8)
            try:
                run.finish()
            except KeyboardInterrupt:
                print(since_pressed(), run.stop_reason.kind)
            print(run.batch() == [])
    """)
    assert lines == ["at once stopped", "True"]

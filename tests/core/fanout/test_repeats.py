"""What becomes of a command that a list names twice."""

from __future__ import annotations

import asyncio
import logging
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatchkit import (
    ActivateMailing,
    AltcraftClient,
    Attachment,
    Audience,
    DeactivateMailing,
    FanOut,
    LaunchBroadcast,
    Ledger,
    Report,
    StartDispatch,
    StopDispatch,
)
from dispatchkit.altcraft.reads import ReadStatus
from dispatchkit.core.fanout import repeats as repeats_module
from dispatchkit.core.fanout.id_set import IdSet
from dispatchkit.core.fanout.repeats import _LARGE, Repeats
from dispatchkit.core.fanout.source import IterableSource
from tests.harness import played, starts
from tests.wire import Listener, http


async def aids(*ids: int) -> AsyncIterator[int]:
    for each in ids:
        yield each


@pytest.mark.parametrize("form", [list, tuple])
async def test_a_list_skips_repeats(form: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    client, transport = played()
    run = client.start_many(form([7, 8, 7, 9, 7, 8]), concurrency=1)
    outcomes = [outcome async for outcome in run]
    assert [(outcome.index, outcome.command) for outcome in outcomes] == [
        (0, StartDispatch(7)),
        (1, StartDispatch(8)),
        (3, StartDispatch(9)),
    ]
    assert sorted(number for _, number in transport.seen) == [7, 8, 9]
    assert run.report == Report(done=3, not_started=0, repeats=3)
    assert repr(run.report).endswith("previously_finished=0, repeats=3)")
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "names StartDispatch(dispatch_id=7) more than once" in record.getMessage()


@pytest.mark.parametrize("form", [iter, lambda ids: aids(*ids)])
async def test_a_stream_launches_repeats(form: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    client, transport = played()
    assert await client.start_many(form([7, 8, 7])).finish() == Report(done=3)
    assert sorted(number for _, number in transport.seen) == [7, 7, 8]
    assert not caplog.records


async def test_the_mode_may_be_chosen() -> None:
    client, transport = played()
    assert await FanOut(client, [*starts([7, 7])], repeats="launch").finish() == Report(done=2, not_started=0)
    assert await FanOut(client, starts([7, 8, 7]), repeats="skip").finish() == Report(done=2, repeats=1)
    commands = (StartDispatch(number) async for number in aids(7, 7))
    assert await FanOut(client, commands, repeats="skip").finish() == Report(done=1, repeats=1)
    assert len(transport.seen) == 5


@pytest.mark.parametrize("form", [list, iter, tuple])
async def test_repeats_may_be_refused(form: Callable[..., Any]) -> None:
    client, transport = played()
    with pytest.raises(
        ValueError, match=r"names 2 commands more than once, .* commands\[2\], StartDispatch.*=7\): noth"
    ):
        FanOut(client, form([*starts([7, 8, 7, 8])]), repeats="refuse")
    assert transport.seen == []
    assert (await FanOut(client, form([*starts([7, 8])]), repeats="refuse").finish()).done == 2


def test_impossible_mode_is_refused(tmp_path: Path) -> None:
    client, _ = played()
    commands = [StartDispatch(1)]
    with pytest.raises(ValueError, match="repeats must be 'skip', 'launch' or 'refuse', not 'Skip'"):
        FanOut(client, commands, repeats="Skip")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="repeats must be 'skip', 'launch' or 'refuse', not bool True"):
        FanOut(client, commands, repeats=True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="repeats='refuse' needs commands that can be counted"):
        FanOut(client, (StartDispatch(number) async for number in aids(1)), repeats="refuse")
    with pytest.raises(ValueError, match="repeats='launch' does not go with ledger="):
        FanOut(client, commands, repeats="launch", ledger=Ledger(str(tmp_path / "l.db")), run="a")


async def test_ledger_counts_repeats_and_resumes(tmp_path: Path) -> None:
    client, transport = played()
    async with Ledger(str(tmp_path / "l.db")) as ledger:
        for earlier in (0, 2):
            run = client.start_many([7, 8, 7], ledger=ledger, run="a")
            assert await run.finish() == Report(done=2, not_started=0, previously_finished=earlier, repeats=1)
        with pytest.raises(ValueError, match="names 1 command more than once"):
            FanOut(client, [*starts([7, 7])], repeats="refuse", ledger=ledger, run="b")
        run = client.start_many([7, 8, 7, 9], ledger=ledger, run="c", max_launches=1)
        assert await run.finish() == Report(done=1, not_started=2, repeats=1)
    assert len(transport.seen) == 3


async def test_reads_are_no_repeats() -> None:
    client, _ = played()
    assert await client.start_many([0, 0, 5]).finish() == Report(done=1, not_sent=2, not_started=0)
    repeats = Repeats()
    assert not any(repeats.skips(ReadStatus(5)) for _ in range(2))


async def test_guards_count_what_is_launched() -> None:
    client, _ = played()
    run = client.start_many([7, 7, 7, 8], max_launches=2)
    assert await run.finish() == Report(done=2, not_started=0, repeats=2)
    assert run.stop_reason is None


FILE = Attachment("a.txt", b"x", "text/plain")
DIFFERENT = [
    StartDispatch(5),
    StopDispatch(5),
    LaunchBroadcast(5),
    DeactivateMailing(5),
    DeactivateMailing(5, abort_if_running=False),
    ActivateMailing(5),
    ActivateMailing(5, run_now=True),
    ActivateMailing(5, run_now=True, audience=Audience("list", 1)),
    ActivateMailing(5, run_now=True, audience=Audience("segment", 1)),
    LaunchBroadcast(5, limit=1),
    LaunchBroadcast(5, content={}),
    LaunchBroadcast(5, content={"a": 1}),
    LaunchBroadcast(5, content={"a": 1.0}),
    LaunchBroadcast(5, content={"a": True}),
    LaunchBroadcast(5, content={"a": "1"}),
    LaunchBroadcast(5, content={"a": None}),
    LaunchBroadcast(5, content={"a": ["b", "c"]}),
    LaunchBroadcast(5, content={"a": [["b"], "c"]}),
    LaunchBroadcast(5, content={"a": {"b": "c"}}),
    LaunchBroadcast(5, content={"ab": "c"}),
    LaunchBroadcast(5, content={"a": "bc"}),
    LaunchBroadcast(5, attachments=[FILE]),
    LaunchBroadcast(5, attachments=[FILE, FILE]),
    LaunchBroadcast(5, attachments=[Attachment("a.txt", b"y", "text/plain")]),
]


def test_all_fields_distinguish_commands() -> None:
    repeats = Repeats()
    assert not any(repeats.has(command) for command in DIFFERENT)  # type: ignore[arg-type]
    assert all(repeats.has(command) for command in DIFFERENT)  # type: ignore[arg-type]
    assert not repeats.has(LaunchBroadcast(6, content={"a": 1}))


def test_content_order_does_not_count() -> None:
    repeats = Repeats()
    assert not repeats.has(LaunchBroadcast(5, content={"a": 1, "b": 2}))
    assert repeats.has(LaunchBroadcast(5, content={"b": 2, "a": 1}))


@given(st.lists(st.integers(0, 3000) | st.integers(0, 2**63 - 1), max_size=60), st.integers(0, 3000))
def test_id_set_is_set(numbers: list[int], low: int) -> None:
    ids, expected = IdSet(), set[int]()
    for number in numbers[::2]:
        assert ids.add(number) == (number not in expected)
        expected.add(number)
    assert ids.add_new(numbers) == [*dict.fromkeys(number for number in numbers if number not in expected)]
    assert all(number in ids for number in numbers)
    assert low not in ids or low in numbers
    assert [*ids.between(low, 2**62)] == sorted({number for number in numbers if low <= number <= 2**62})


@pytest.mark.second_stage
@pytest.mark.parametrize("command", [StartDispatch, lambda number: LaunchBroadcast(number, limit=3)])
def test_dense_ids_are_cheap(command: Callable[[int], Any]) -> None:
    count = 100_000
    repeats = Repeats()
    commands = map(command, range(10**10, 10**10 + count))
    tracemalloc.start()
    try:
        assert not any(map(repeats.has, commands))
        assert tracemalloc.get_traced_memory()[0] < count
    finally:
        tracemalloc.stop()


def test_shared_settings_need_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    files, repeats = (Attachment.from_bytes(b"1", name="a"),), Repeats()
    with monkeypatch.context() as patched:
        patched.setattr("dispatchkit.core.fanout.repeats._digest", lambda *_: pytest.fail("it was digested"))
        taken = [repeats.has(LaunchBroadcast(number, attachments=files)) for number in (1, 2, 1)]
    assert taken == [False, False, True]
    equal = (Attachment.from_bytes(b"1", name="a"),)
    other = (Attachment.from_bytes(b"2", name="a"),)
    taken = [repeats.has(LaunchBroadcast(2, attachments=given)) for given in (other, equal, files)]
    assert taken == [False, True, True]


LARGE_LIST = [(1, b"1"), (2, b"2"), (1, b"1"), (2, b"1"), (2, b"2")]
"""Ids and the first bytes of their files. The third and the last one are repeats."""


def with_files(*given: tuple[int, bytes]) -> list[LaunchBroadcast]:
    """Launches with a large file each, of which no two share one."""
    return [
        LaunchBroadcast(number, attachments=[Attachment.from_bytes(first + bytes(_LARGE), name="a")])
        for number, first in given
    ]


async def a_stream(commands: list[LaunchBroadcast]) -> AsyncIterator[LaunchBroadcast]:
    for command in commands:
        yield command


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that read a large value."""
    threads: list[int] = []
    real = repeats_module._digest_of

    def noted(value: bytes) -> bytes:
        threads.append(threading.get_ident())
        return real(value)

    monkeypatch.setattr(repeats_module, "_digest_of", noted)
    return threads


@pytest.mark.parametrize("form", [list, a_stream])
async def test_thread_reads_large_values(form: Callable[..., Any], readers: list[int]) -> None:
    source = IterableSource(None, Repeats(blocks=False))
    await source.open(form(with_files(*LARGE_LIST)), lambda: None)
    items: list[tuple[int, int]] = []
    while (item := source.next_at_once() or await source.next_item()) is not None:
        items.append((item.index, item.command.mailing_id))  # type: ignore[attr-defined]
    assert items == [(0, 1), (1, 2), (3, 2)]
    assert len(readers) == 5
    assert threading.get_ident() not in readers
    assert source._repeats is not None
    assert source._repeats.count == 2
    assert not source._repeats._digests._known


async def test_workers_wait_for_large_value() -> None:
    source = IterableSource(None, Repeats(blocks=False))
    await source.open(with_files(*LARGE_LIST), lambda: None)
    assert source.next_at_once() is not None
    assert source.next_at_once() is None
    assert source._held is not None
    assert source.next_at_once() is None, "the held command comes first"
    items = await asyncio.gather(*(source.next_item() for _ in range(4)))
    assert {item.index for item in items if item is not None} == {1, 3}
    assert source._held is None


async def test_cancelled_read_loses_no_command() -> None:
    source = IterableSource(None, Repeats(blocks=False))
    await source.open(with_files((1, b"1"), (2, b"2")), lambda: None)
    assert source.next_at_once() is not None
    taking = asyncio.ensure_future(source.next_item())
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    item = await source.next_item()
    assert item is not None
    assert item.index == 1
    assert await source.next_item() is None


def test_refusal_reads_no_digest(readers: list[int]) -> None:
    client = AltcraftClient("http://127.0.0.1:1", "token")
    distinct = with_files(*((number, bytes([number])) for number in range(1, 9)))
    FanOut(client, distinct, repeats="refuse")
    with pytest.raises(ValueError, match=r"names 2 commands more than once, .* commands\[2\]"):
        FanOut(client, with_files(*LARGE_LIST), repeats="refuse")
    FanOut(client, with_files((1, b"1"), (1, b"2"), (2, b"1")), repeats="refuse")
    assert readers == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeats_module._Comparisons, "of", None)  # only files of an id that is named twice are compared
        FanOut(client, [*distinct, LaunchBroadcast(9), LaunchBroadcast(9, limit=1)], repeats="refuse")


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_equal_large_files_are_skipped(readers: list[int], concurrency: int) -> None:
    async with (
        Listener(http(200, b'{"error": 0}')) as listener,
        AltcraftClient(listener.url, "token") as altcraft,
    ):
        report = await FanOut(altcraft, with_files(*LARGE_LIST), concurrency=concurrency).finish()
    assert report == Report(done=3, not_started=0, repeats=2)
    assert len(listener.requests) == 3
    assert threading.get_ident() not in readers


def test_unknown_values_are_never_repeats() -> None:
    @attrs.frozen
    class Odd(StartDispatch):
        odd: object = None

    repeats, value = Repeats(), object()
    assert not any(repeats.has(Odd(1, value)) for _ in range(2))


def test_many_files_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = repeats_module._Comparisons()
    few = repeats_module._MAX_COMPARED
    values = [b"%4d" % number * (_LARGE // 4) for number in range(2 * few)]
    digested: list[bytes] = []

    def digest(value: bytes) -> bytes:
        digested.append(value)
        return b"digest of %b" % value[:4]

    monkeypatch.setattr(repeats_module, "_digest_of", digest)
    first = [compared.of(value) for value in values]
    assert len({*first}) == len(values)
    assert digested == values[few:]
    assert [compared.of(bytes([*value])) for value in values] == first

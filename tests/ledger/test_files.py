"""Large files are stored in pieces and read back when their command is launched. A damaged one is never sent."""

from __future__ import annotations

import asyncio
import gc
import pickle
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from dispatchkit import ActivateMailing, AltcraftClient, Attachment, FanOut, LaunchBroadcast, Ledger, Report
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.core.fanout.repeats import Repeats, without_repeats
from dispatchkit.core.invalid_command import InvalidCommand
from dispatchkit.errors import LedgerError, NotSentError, OutcomeUnknownError
from dispatchkit.ledger import codec, converter, files
from dispatchkit.ledger.codec import decode, encode, encode_in_thread, encode_text
from dispatchkit.ledger.contents import LONG, CommandText, hash_of
from dispatchkit.ledger.converter import LargeCommandError
from dispatchkit.ledger.files import FILE_BYTES, File, batches, file_of, find
from dispatchkit.ledger.postgres import connect
from dispatchkit.ledger.sqlite.store import SqliteStore
from dispatchkit.ledger.template import is_constant
from tests.harness import run_settings
from tests.wire import Listener, http

pytestmark = pytest.mark.second_stage

PIECE = 1000
"""Bytes of a piece in these tests."""
DATA = bytes(range(251)) * 300


def large(number: int, data: bytes = DATA, name: str = "Полис.pdf") -> ActivateMailing:
    return ActivateMailing(number, run_now=True, attachments=[Attachment.from_bytes(data, name=name)])


@pytest.fixture(autouse=True)
def _short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE_BYTES", PIECE)


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget all files and templates, as a new process would."""

    def forget() -> None:
        monkeypatch.setattr(files, "_by_name", weakref.WeakValueDictionary())
        monkeypatch.setattr(files, "_by_id", weakref.WeakValueDictionary())
        monkeypatch.setattr(codec, "_templates", codec._Templates())  # pyright: ignore[reportPrivateUsage]

    return forget


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "l.db") if request.param == "sqlite" else str(request.getfixturevalue("dsn"))


async def execute(where: str, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a statement, on either database."""
    if "://" not in where:
        with closing(sqlite3.connect(where, isolation_level=None)) as db:
            return db.execute(statement).fetchall()
    connection = await asyncpg.connect(where)
    try:
        return [
            tuple(row)
            for row in await connection.fetch(re.sub(r"\bcontent\b|\brun(?= SET)", r"dispatchkit.\g<0>", statement))
        ]
    finally:
        await connection.close()


async def plan(where: str, *planned: Any, run: str = "a") -> None:
    async with Ledger(where) as ledger:
        await ledger.journal(run, run_settings()).plan_chunks(list(planned), size=1000)


async def resume(where: str, run: str = "a") -> list[Any]:
    """The commands that a resume of the run takes."""
    async with Ledger(where) as ledger:
        journal = ledger.journal(run, run_settings())
        await journal.open(None, lambda: None)
        commands: list[Any] = []
        while (item := await journal.next_item()) is not None:
            commands.append(item.command)
        await journal.close()
        return commands


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1])
async def test_pieces_meet_their_bounds(
    where: str, size: int, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converter, "FILE_BYTES", 0)
    planned = [large(1, DATA[:size]), LaunchBroadcast(2, content={"a": "é" * size})]
    await plan(where, *planned)
    forget()
    assert await resume(where) == planned
    name = sha256(DATA[:size]).hexdigest()[:40]
    rows = await execute(where, f"SELECT number, length(piece) FROM content WHERE hash = '{name}' ORDER BY number")
    assert rows == [(number, min(PIECE, size - start)) for number, start in enumerate(range(0, max(size, 1), PIECE))]
    assert (await execute(where, "SELECT max(length(piece)) FROM content"))[0][0] <= PIECE


def test_batches_are_bounded() -> None:
    contents: dict[str, str | File] = {"a": "x" * 400, "b": "y" * 400, "c": File("c", DATA[:2500]), "d": "z" * 501}
    found = [*batches(contents)]
    assert all(sum(len(piece) for *_, piece in batch) <= PIECE for batch in found)
    assert [[(name, number) for name, number, _ in batch] for batch in found] == [
        [("a", 0), ("b", 0)],
        [("c", 0)],
        [("c", 1)],
        [("c", 2)],
        [("d", 0)],
    ]
    assert [*batches({})] == []


async def test_no_statement_is_large(dsn: str, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    cls = connect._Connection  # pyright: ignore[reportPrivateUsage]

    def size_of(value: object) -> int:
        if isinstance(value, (list, tuple, asyncpg.Record)):
            return sum(map(size_of, value))
        return len(value) if isinstance(value, (bytes, str)) else 0

    def measured(call: Any) -> Any:
        async def measure(self: Any, *values: Any, **options: Any) -> Any:
            answer = await call(self, *values, **options)
            sizes.extend((size_of(values[1:]), size_of(answer)))
            return answer

        return measure

    for method in ("execute", "fetch", "fetchrow", "fetchval"):
        monkeypatch.setattr(cls, method, measured(getattr(cls, method)))
    planned = [large(1), large(2, DATA[1:])]
    await plan(dsn, *planned)
    forget()
    assert await resume(dsn) == planned
    assert sum(sizes) > 4 * (len(DATA) - 1)
    assert max(sizes) <= PIECE + 200


async def test_equal_files_are_shared(where: str, forget: Callable[[], None]) -> None:
    planned = [large(1, DATA, "a.pdf"), large(2, bytes([*DATA]), "b.pdf"), large(3, DATA[1:])]
    await plan(where, *planned)
    assert len(await execute(where, "SELECT DISTINCT hash FROM content")) == 2
    for tries in (1000, 0):
        forget()
        codec._templates.tries = tries  # pyright: ignore[reportPrivateUsage]
        back = await resume(where)
        assert back == planned
        assert back[0].attachments[0].data is back[1].attachments[0].data


async def test_planned_file_is_not_read(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that planned it has it in memory."""
    planned = [large(1), large(2, DATA[1:])]
    await plan(where, *planned)
    monkeypatch.setattr(SqliteStore, "read_file", None)
    monkeypatch.setattr("dispatchkit.ledger.postgres.store.PostgresStore.read_file", None)
    back = await resume(where)
    assert [command.attachments[0].data for command in back] == [DATA, DATA[1:]]
    assert back[1].attachments[0].data is planned[1].attachments[0].data


async def test_file_ends_with_its_command(forget: Callable[[], None]) -> None:
    command = large(1, DATA + b"1")
    file = file_of(command.attachments[0].data)
    name = file.name
    assert encode(command)
    forget_writer = large(2, DATA + b"2")
    del file
    assert find(name) is not None
    encode(forget_writer)  # the encoder keeps the files of the latest command
    forget()
    assert find(name) is None
    again = file_of(command.attachments[0].data)
    assert known(again)
    del again
    assert not known(command.attachments[0].data)


def known(value: Any) -> bool:
    return files.known_file(value.data if isinstance(value, File) else value) is not None


async def test_plan_keeps_few_files(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator makes each command once the one before is planned, or all files of a list were in memory at once."""
    monkeypatch.setattr("dispatchkit.ledger.plan._PLAN_TEXT", FILE_BYTES)
    alive: weakref.WeakSet[ActivateMailing] = weakref.WeakSet()
    most = 0

    def made() -> Iterator[ActivateMailing]:
        nonlocal most
        for number in range(1, 41):
            command = large(number, DATA[number:])
            alive.add(command)
            most = max(most, len(alive))
            yield command

    async with Ledger(where) as ledger:
        await ledger.journal("a", run_settings()).plan_chunks(made(), size=1000)
    assert most <= 6


async def test_lists_read_no_file(where: str, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    await plan(where, large(1), large(2, DATA[1:]))
    forget()
    monkeypatch.setattr(SqliteStore, "read_file", None)
    monkeypatch.setattr("dispatchkit.ledger.postgres.store.PostgresStore.read_file", None)
    async with Ledger(where) as ledger:
        shown = [target.to_dict()["command"] async for target in ledger.targets("a")]
    assert [one["attachments"][0]["size"] for one in shown] == [len(DATA), len(DATA) - 1]  # type: ignore[index, call-overload]


NAME = sha256(DATA[1:]).hexdigest()[:40]
DAMAGE = {
    "missing": "DELETE FROM content WHERE hash = '{0}'",
    "cut": "DELETE FROM content WHERE hash = '{0}' AND number = (SELECT max(number) FROM content WHERE hash = '{0}')",
    "without its first": "DELETE FROM content WHERE hash = '{0}' AND number = 0",
    "swapped": "UPDATE content SET number = 1000 - number WHERE hash = '{0}'",
    "of another file": "UPDATE content SET piece = (SELECT max(piece) FROM content) WHERE hash = '{0}' AND number = 1",
    "shorter": "UPDATE content SET piece = substr(piece, 2) WHERE hash = '{0}' AND number = 2",
    "longer": "INSERT INTO content (run, hash, number, piece) SELECT run, hash, 76, piece FROM content "
    "WHERE hash = '{0}' AND number = 0",
}


async def send(where: str, url: str) -> tuple[list[Outcome[Any]], Report]:
    async with Ledger(where) as ledger, AltcraftClient(url, "token") as altcraft:
        fan_out = FanOut(altcraft, None, concurrency=2, ledger=ledger, run="a")
        outcomes = [outcome async for outcome in fan_out]
        return sorted(outcomes, key=lambda outcome: outcome.index), fan_out.report


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damaged_file_is_not_sent(where: str, damage: str, forget: Callable[[], None]) -> None:
    async with Listener(http(200, b'{"error": 0}')) as listener:
        async with Ledger(where) as ledger, AltcraftClient(listener.url, "token") as altcraft:
            planned = [large(1), large(2, DATA[1:]), large(3, DATA[2:])]
            await ledger.journal("a", altcraft._run_settings()).plan_chunks(planned, size=3)
        await execute(where, DAMAGE[damage].format(NAME))
        forget()
        outcomes, report = await send(where, listener.url)
        assert report == Report(done=2, not_sent=1, not_started=0)
        error = outcomes[1].error
        assert isinstance(error, NotSentError)
        assert "missing or damaged in the ledger" in str(error)
        assert outcomes[1].target == 2
        assert len(listener.requests) == 2
        async with Ledger(where) as ledger:
            states = [(target.state, target.summary) async for target in ledger.targets("a")]
        assert [state for state, _ in states] == ["done", "not_sent", "done"]
        assert "missing or damaged in the ledger" in states[1][1]


async def test_pruned_file_is_told(where: str, forget: Callable[[], None]) -> None:
    async with Listener(http(200, b'{"error": 0}')) as listener:
        async with Ledger(where) as ledger, AltcraftClient(listener.url, "token") as altcraft:
            await ledger.journal("a", altcraft._run_settings()).plan_chunks([large(1)], size=3)
        # As a release did that pruned runs with targets left.
        await execute(where, "DELETE FROM content")
        await execute(where, "UPDATE run SET contents_pruned = '2026-01-02T03:04:05+00:00'")
        forget()
        outcomes, report = await send(where, listener.url)
    assert report == Report(not_sent=1, not_started=0)
    assert "the files of the run were pruned" in str(outcomes[0].error)


async def test_file_needs_no_collector(where: str, forget: Callable[[], None]) -> None:
    """A command and its file end with its outcome. The collector would free many files at once, on the event loop."""
    async with (
        Listener(http(200, b'{"error": 0}')) as listener,
        Ledger(where) as ledger,
        AltcraftClient(listener.url, "token") as altcraft,
    ):
        planned = [large(number, DATA[number:]) for number in range(1, 7)]
        await ledger.journal("a", altcraft._run_settings()).plan_chunks(planned, size=6)
        del planned
        forget()
        alive: list[weakref.ref[Any]] = []
        gc.collect()
        gc.disable()
        try:
            fan_out = FanOut(altcraft, None, concurrency=2, ledger=ledger, run="a")
            async for outcome in fan_out:
                alive.append(weakref.ref(outcome.command))
                del outcome
            assert [command() for command in alive] == [None] * 6
        finally:
            gc.enable()


async def test_unclear_target_stays_unknown(where: str, forget: Callable[[], None]) -> None:
    async with Listener(http(200, b'{"error": 0}')) as listener:
        async with Ledger(where) as ledger, AltcraftClient(listener.url, "token") as altcraft:
            journal = ledger.journal("a", altcraft._run_settings())
            await journal.open([large(2, DATA[1:])], lambda: None)
            item = await journal.next_item()
            assert item is not None
            await journal.claim(item, "id")
            await journal.close()
        await execute(where, DAMAGE["cut"].format(NAME))
        forget()
        [outcome], _ = await send(where, listener.url)
        assert isinstance(outcome.error, OutcomeUnknownError)
        assert listener.requests == []


KILLED = """
import asyncio, os, signal, sys
from dispatchkit import ActivateMailing, Attachment, Ledger
from dispatchkit.ledger import files
from dispatchkit.ledger.postgres import plan as postgres
from dispatchkit.ledger.sqlite import plan as sqlite
from tests.harness import run_settings

files.PIECE_BYTES = 1000

def dying(make):
    def die(contents):
        for number, made in enumerate(make(contents)):
            if number == 20:
                os.kill(os.getpid(), signal.SIGKILL)
            yield made
    return die

sqlite.pieces, postgres.batches = dying(files.pieces), dying(files.batches)

async def main():
    async with Ledger(sys.argv[1]) as ledger:
        file = Attachment.from_bytes(bytes(range(251)) * 300, name="a.pdf")
        await ledger.journal("a", run_settings()).plan_chunks([ActivateMailing(1, attachments=[file])], size=1)

asyncio.run(main())
"""


async def test_killed_writer_leaves_nothing(where: str, forget: Callable[[], None]) -> None:
    root = Path(__file__).parents[2]
    killed = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", KILLED, where], cwd=root, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert await execute(where, "SELECT count(*) FROM content") == [(0,)]
    command = ActivateMailing(1, attachments=[Attachment.from_bytes(DATA, name="a.pdf")])
    await plan(where, command)
    forget()
    assert await resume(where) == [command]


FINISHED = "UPDATE run SET total = 0 WHERE number = {}"


async def test_all_pieces_are_deleted(where: str) -> None:
    for run in ("a", "b"):
        await plan(where, large(1), large(2, DATA[1:]), run=run)
    async with Ledger(where) as ledger:
        store = await ledger._open_store()  # pyright: ignore[reportPrivateUsage]
        numbers = [run.number for run in await store.runs()]
        assert all([await store.has_contents(number) for number in numbers])
        await execute(where, FINISHED.format(numbers[0]))
        assert await store.prune_contents(numbers[0])
        assert not await store.has_contents(numbers[0])
        assert await store.has_contents(numbers[1])
        await store.stop(numbers[1])
        assert await store.delete(numbers[1])
    assert await execute(where, "SELECT count(*) FROM content") == [(0,)]


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[threading.Thread, int]]:
    """The thread and the bytes of each hash of a file."""
    calls: list[tuple[threading.Thread, int]] = []

    def counted(data: bytes) -> Any:
        calls.append((threading.current_thread(), len(data)))
        return sha256(data)

    monkeypatch.setattr(files, "sha256", counted)
    return calls


async def test_threads_hash_each_file_once(
    where: str, hashes: list[tuple[threading.Thread, int]], forget: Callable[[], None]
) -> None:
    forget()
    planned = [large(1), large(2, DATA[1:]), large(3, DATA[2:], "a.pdf")]
    async with Ledger(where) as ledger:
        journal = ledger.journal("a", run_settings())
        await journal.open(without_repeats(iter([*planned, planned[0]]), Repeats(blocks=False)), lambda: None)
        await journal.close()
    assert len(hashes) == 3
    forget()
    assert await resume(where) == planned
    assert len(hashes) == 6, "a file that is read back is not hashed again for a template"
    assert threading.current_thread() not in {thread for thread, _ in hashes}


async def test_large_command_needs_thread(hashes: list[tuple[threading.Thread, int]]) -> None:
    for command in (large(1, DATA * 2), LaunchBroadcast(2, content={"a": "é" * LONG})):
        with pytest.raises(LargeCommandError):
            encode_text(command, may_wait=False)
        key, text = await encode_in_thread(command)
        assert (key, text) == encode(command)
        assert isinstance(text, CommandText)
        assert threading.current_thread() not in {thread for thread, _ in hashes}
        assert decode(pickle.loads(pickle.dumps(text))) == command
        assert all(hash_of(content) == name for name, content in text.contents.items() if isinstance(content, str))
        hashes.clear()  # a copy is hashed again
    assert encode_text(large(3, b"small"), may_wait=False)


def test_file_is_compared_by_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> int:
        raise AssertionError

    monkeypatch.setattr(Attachment, "__hash__", refuse)
    assert encode_text(large(1))
    assert not is_constant((large(1).attachments, [1]))


def test_each_text_names_its_files() -> None:
    shared = large(1, name="p" * 200).attachments  # a content of its own
    commands = [ActivateMailing(number, run_now=True, limit=number, attachments=shared) for number in range(1, 4)]
    for command, (_, text) in [(command, encode(command)) for command in commands]:
        assert isinstance(text, CommandText)
        assert [content for content in text.contents.values() if isinstance(content, File)]
        assert decode(text) == command
    (_, text), name = encode(commands[2]), file_of(shared[0].data).name
    assert isinstance(text, CommandText)
    with pytest.raises(LedgerError, match="cannot be read"):
        decode(CommandText(text.replace(f',":0":"{name}"', "").replace('"limit":3', '"limit":4'), text.contents))


async def test_unread_file_is_refused(tmp_path: Path, forget: Callable[[], None]) -> None:
    where = str(tmp_path / "l.db")
    await plan(where, large(1))
    forget()
    async with Ledger(where) as ledger:
        [target] = [target async for target in ledger.targets("a")]
    with pytest.raises(LedgerError, match="was not read"):
        decode(target.command)
    shown: Any = decode(target.command, partial=True)
    assert shown.attachments[0].data == bytes(len(DATA))
    with pytest.raises(LedgerError, match="was not read"):
        decode(target.command)


async def test_damaged_item_has_target(tmp_path: Path, forget: Callable[[], None]) -> None:
    where = str(tmp_path / "l.db")
    await plan(where, large(7))
    await execute(where, "UPDATE content SET piece = substr(piece, 1, 9) || substr(piece, 9, 1) || substr(piece, 11)")
    forget()
    [command] = await resume(where)
    assert isinstance(command, InvalidCommand)
    assert command.target == 7


async def test_stored_rows_are_the_same(dsn: str, tmp_path: Path) -> None:
    rows: list[Sequence[tuple[Any, ...]]] = []
    for where in (dsn, str(tmp_path / "l.db")):
        await plan(where, large(1, DATA + b"1", "p" * 200))
        rows.append(await execute(where, "SELECT hash, number, piece FROM content ORDER BY hash, number"))
    assert rows[0] == rows[1]
    name = sha256(DATA + b"1").hexdigest()[:40]
    assert b"".join(piece for hashed, _, piece in rows[0] if hashed == name) == DATA + b"1"
    [json_piece] = [piece for hashed, _, piece in rows[0] if hashed != name]
    assert f'"data":{{"file":"{name}","size":{len(DATA) + 1}}}'.encode() in json_piece


def test_size_decides_what_is_file() -> None:
    for size, is_file in ((FILE_BYTES - 1, False), (FILE_BYTES, True)):
        text = encode(large(1, bytes(size)))[1]
        assert isinstance(text, CommandText)
        assert any(isinstance(content, File) for content in text.contents.values()) == is_file
        assert decode(text) == large(1, bytes(size))

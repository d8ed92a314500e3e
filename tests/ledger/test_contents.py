"""Contents: the long fields of commands are stored once a run, and read back exactly."""

from __future__ import annotations

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatchkit import ActivateMailing, Attachment, LaunchBroadcast, Ledger, LedgerError, StartDispatch
from dispatchkit.ledger.codec import decode, encode
from dispatchkit.ledger.contents import MIN_LENGTH, CommandText, hash_of, unique_length
from dispatchkit.ledger.keys import is_intact
from dispatchkit.ledger.sqlite.store import SqliteStore
from tests.harness import run_settings

FILE = Attachment.from_bytes(b"\x00\xff%PDF" * 100, name="Полис.pdf")
LONG = {"z": "y" * 300, "a": [1, None, 2.5, {"shared": {"b": "0" * 40}}]}


def commands(count: int) -> list[ActivateMailing]:
    return [ActivateMailing(n, run_now=True, attachments=[FILE]) for n in range(1, count + 1)]


async def plan(path: Path, *planned: Any) -> None:
    async with Ledger(path) as ledger:
        journal = ledger.journal("a", run_settings())
        await journal.open(list(planned), lambda: None)
        await journal.close()


async def read(path: Path) -> list[Any]:
    async with Ledger(path) as ledger:
        return [decode(target.command) async for target in ledger.targets("a")]


def rows(path: Path, statement: str) -> list[Any]:
    with sqlite3.connect(path) as db:
        found = db.execute(statement).fetchall()
    db.close()
    return found


async def test_file_is_stored_once(tmp_path: Path) -> None:
    planned = commands(20)
    await plan(tmp_path / "l.db", *planned)
    assert rows(tmp_path / "l.db", "SELECT count(*) FROM content") == [(1,)]
    assert rows(tmp_path / "l.db", "SELECT max(length(command)) FROM target")[0][0] < 200
    assert await read(tmp_path / "l.db") == planned


async def test_contents_of_each_are_read(tmp_path: Path) -> None:
    planned = [
        StartDispatch(7),
        ActivateMailing(1, content=LONG, attachments=[FILE]),
        ActivateMailing(1, content=LONG),
        LaunchBroadcast(2, content={"shared": {"b": "0" * 40}}),
        LaunchBroadcast(3, content={**LONG, "more": "x" * 1000}, attachments=[FILE]),
    ]
    path = tmp_path / "l.db"
    await plan(path, *planned)
    back = await read(path)
    assert back == planned
    assert list(back[1].content) == ["z", "a"]  # a repeat must send the same bytes
    assert rows(path, "SELECT count(*) FROM content") == [(3,)]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=MIN_LENGTH * 2), st.integers(0, 2))
def test_text_round_trip(text: str, files: int) -> None:
    command = ActivateMailing(5, content={"shared": {text: "0" * 40}}, attachments=[FILE] * files)
    key, encoded = encode(command)
    assert decode(encoded) == command
    assert is_intact(encoded, key)
    assert decode(pickle.loads(pickle.dumps(encoded))) == command
    if isinstance(encoded, CommandText):
        assert encoded.is_complete
        assert not is_intact(CommandText(encoded, {}), key)


def test_key_order_is_ignored() -> None:
    one, other = (LaunchBroadcast(1, content=dict(pairs)) for pairs in (LONG.items(), reversed(LONG.items())))
    assert encode(one) == encode(other)


def test_template_keeps_contents() -> None:
    files = (FILE,)  # the same object: the text of the first command is the template of the others
    for number in range(1, 4):
        text = encode(ActivateMailing(number, run_now=True, attachments=files))[1]
        assert isinstance(text, CommandText)
        assert text.is_complete


@pytest.mark.parametrize("change", ["DELETE FROM content", "UPDATE content SET piece = replace(piece, 'A', 'B')"])
async def test_damage_is_found(tmp_path: Path, change: str) -> None:
    path = tmp_path / "l.db"
    await plan(path, *commands(3))
    rows(path, change)
    async with Ledger(path) as ledger:
        with pytest.raises(LedgerError, match="not what was planned"):
            await ledger.journal("a", run_settings()).open(None, lambda: None)


async def test_pruned_run_is_told(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    await plan(path, *commands(3))
    with closing(sqlite3.connect(path)) as db, db:  # as a release did that pruned runs with targets left
        db.execute("DELETE FROM content")
        db.execute("UPDATE run SET contents_pruned = '2026-01-02T03:04:05+00:00'")
    async with Ledger(path) as ledger:
        with pytest.raises(
            LedgerError, match=r"the contents of the run .a. were pruned at .* Launch it with its contents"
        ):
            await ledger.journal("a", run_settings()).open(None, lambda: None)


async def test_missing_content_is_refused() -> None:
    text = encode(commands(1)[0])[1]
    with pytest.raises(LedgerError, match="were pruned"):
        decode(CommandText(text.replace('"mailing_id":1', '"mailing_id":1,"limit":4'), {}))
    shown = decode(CommandText(text, {}), partial=True)
    assert shown.target == 1


async def test_second_plan_adds_contents(tmp_path: Path) -> None:
    """A template of an earlier run must not leave the contents out of this one."""
    for name in ("l.db", "m.db"):
        await plan(tmp_path / name, *commands(3))
        assert await read(tmp_path / name) == commands(3)


def test_only_unique_contents_are_long() -> None:
    contents = {hash_of(text): text for text in (f'"{"x" * 300}"', f'"{"y" * 400}"')}
    first, second = (f'{{"a":1,"shared":{{"b":"{name}"}}}}' for name in contents)
    texts = [CommandText(text, contents) for text in (first, first, second)]
    assert unique_length(texts) == 402
    assert unique_length(["{}", first]) == 0


async def test_shared_contents_are_read(dsn: str) -> None:
    async with Ledger(dsn) as ledger:
        planned = [*commands(5), LaunchBroadcast(9, content=LONG)]
        journal = ledger.journal("a", run_settings())
        await journal.open(planned, lambda: None)
        item = await journal.next_item()
        assert item is not None
        assert item.command == planned[0]
        await journal.close()
        assert [decode(target.command) async for target in ledger.targets("a")] == planned


async def test_store_reads_missing_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await plan(tmp_path / "l.db", *commands(3))
    reads: list[list[str]] = []
    read = SqliteStore._read_contents  # pyright: ignore[reportPrivateUsage]

    async def counted(self: SqliteStore, run: int, hashes: list[str]) -> Any:
        reads.append(hashes)
        return await read(self, run, hashes)

    monkeypatch.setattr(SqliteStore, "_read_contents", counted)
    async with Ledger(tmp_path / "l.db") as ledger:
        for _ in range(3):
            assert len([target async for target in ledger.targets("a")]) == 3
    assert len(reads) == 1

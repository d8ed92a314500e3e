"""Large fields are encoded outside of the loop's thread, in pieces, and with the results of the JSON library."""

from __future__ import annotations

import base64
import json
import sqlite3
import threading
from binascii import a2b_base64, b2a_base64
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatchkit import ActivateMailing, Attachment, LaunchBroadcast, Ledger
from dispatchkit.core.body import PIECE
from dispatchkit.core.decode import read_json
from dispatchkit.core.fanout.repeats import Repeats, without_repeats
from dispatchkit.ledger import contents, long_json
from dispatchkit.ledger.codec import LargeCommandError, decode, encode, encode_text
from dispatchkit.ledger.contents import CommandText, hash_of
from dispatchkit.ledger.long_json import LONG, Base64Text, decode_base64, encode_base64, read_long, write_long
from dispatchkit.ledger.template import is_constant
from tests.harness import run_settings

pytestmark = pytest.mark.second_stage

DATA = bytes(range(251)) * 1600
LETTERS = base64.b64encode(DATA).decode()


def large(number: int, data: bytes = DATA, name: str = "Полис.pdf") -> ActivateMailing:
    return ActivateMailing(number, run_now=True, attachments=[Attachment.from_bytes(data, name=name)])


def plain_hash(text: str) -> str:
    ordered = json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return sha256(ordered.encode()).hexdigest()[:40]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 49_151, 49_152, 49_153, 98_304, 300_000])
def test_base64_is_the_same(size: int) -> None:
    data = (DATA * 2)[:size]
    text = encode_base64(data)
    assert text == base64.b64encode(data).decode()
    assert decode_base64(text) == data


@pytest.mark.parametrize(
    "text", ["A", "AAA", "AA=A", "A\nAA", "é" * 4, "A" * (PIECE - 2) + "==" + "AAAA", "A" * PIECE + "="]
)
def test_bad_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_base64(text)


def test_long_json_is_the_same() -> None:
    value = [{"z": Base64Text(LETTERS), "é": "é", "a": (1, None, Base64Text(LETTERS[4:]))}]
    assert write_long(value) == json.dumps(value, separators=(",", ":"))


LONG_STRINGS = [text.format("abcd" * 20) for text in ("{}", '"{}', "\\{}\\", ",{}", "{}\n", "é{}é", 'x"{}"y', "{}:")]


@settings(deadline=None)
@given(
    st.recursive(
        st.one_of(st.sampled_from(LONG_STRINGS), st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from([*LONG_STRINGS, "a", ":", ""]), inner, max_size=3),
        ),
        max_leaves=4,
    ),
    st.booleans(),
)
def test_reading_is_the_same(value: Any, is_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(long_json, "LONG", 64)
        assert read_long(text, json.loads) == value
        assert hash_of(text) == plain_hash(text)


def test_numbers_between_strings_stay() -> None:
    text = f'["a",{"1," * LONG}"b"]'
    assert read_long(text, json.loads) == json.loads(text)
    assert hash_of(text) == plain_hash(text)


@pytest.mark.parametrize("text", [f'["{LETTERS}"', f'["{LETTERS}]', f'"{LETTERS}" 1', f"[{'1,' * LONG}]", "[" * LONG])
def test_no_json_is_refused(text: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        hash_of(text)


def test_file_is_not_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> int:
        raise AssertionError

    monkeypatch.setattr(Attachment, "__hash__", refuse)
    assert encode_text(large(1))
    assert not is_constant((large(1).attachments, [1]))


def test_large_command_needs_thread() -> None:
    for command in (large(1), LaunchBroadcast(2, content={"a": "é" * LONG})):
        with pytest.raises(LargeCommandError):
            encode_text(command, may_wait=False)
        text = encode(command)[1]
        assert isinstance(text, CommandText)
        assert decode(text) == command
        assert all(plain_hash(content) == name for name, content in text.contents.items())
    assert encode_text(large(3, b"small"), may_wait=False)


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[threading.Thread, int]]:
    """The thread and the bytes of each call that encodes, decodes or hashes."""
    calls: list[tuple[threading.Thread, int]] = []

    def counted(call: Any) -> Any:
        def count(data: Any, **options: Any) -> Any:
            calls.append((threading.current_thread(), len(data)))
            return call(data, **options)

        return count

    class Digest:
        def __init__(self, data: bytes = b"") -> None:
            self._digest = sha256()
            self.update(data)

        def update(self, data: bytes) -> None:
            calls.append((threading.current_thread(), len(data)))
            self._digest.update(data)

        def hexdigest(self) -> str:
            return self._digest.hexdigest()

    monkeypatch.setattr(long_json, "b2a_base64", counted(b2a_base64))
    monkeypatch.setattr(long_json, "a2b_base64", counted(a2b_base64))
    monkeypatch.setattr(long_json, "sha256", Digest)
    monkeypatch.setattr(long_json, "_write", counted(long_json._write))  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(contents, "_sort", counted(contents._sort))  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr("dispatchkit.ledger.codec.read_json", counted(read_json))
    return calls


async def check(where: Any, calls: list[tuple[threading.Thread, int]]) -> None:
    planned = [large(1), large(2, DATA[1:]), large(3, DATA[2:], "a.pdf")]
    async with Ledger(where) as ledger:
        journal = ledger.journal("a", run_settings())
        await journal.open(without_repeats(iter([*planned, planned[0]]), Repeats(blocks=False)), lambda: None)
        first = await journal.next_item()
        await journal.close()
    async with Ledger(where) as ledger:
        journal = ledger.journal("a", run_settings())
        await journal.open(None, lambda: None)
        items = [await journal.next_item() for _ in planned]
        assert await journal.next_item() is None
        await journal.close()
    assert first is not None
    assert first.command == planned[0]
    assert [item and item.command for item in items] == planned
    loop = threading.current_thread()
    assert calls
    assert max(size for _, size in calls) <= PIECE
    assert sum(size for thread, size in calls if thread is loop) < LONG


async def test_threads_encode_pieces(tmp_path: Any, encodings: list[tuple[threading.Thread, int]]) -> None:
    await check(tmp_path / "l.db", encodings)


async def test_threads_encode_pieces_for_postgres(dsn: str, encodings: list[tuple[threading.Thread, int]]) -> None:
    await check(dsn, encodings)


async def test_stored_rows_are_the_same(dsn: str, tmp_path: Path) -> None:
    for where in (dsn, tmp_path / "l.db"):
        async with Ledger(where) as ledger:
            journal = ledger.journal("a", run_settings())
            await journal.open([large(1)], lambda: None)
            await journal.close()
    connection = await asyncpg.connect(dsn)
    (row,) = await connection.fetch("SELECT hash, content FROM dispatchkit.content")
    await connection.close()
    with closing(sqlite3.connect(tmp_path / "l.db")) as db:
        assert db.execute("SELECT hash, content FROM content").fetchall() == [tuple(row)]
    file = [{"name": "Полис.pdf", "data": LETTERS, "media_type": "application/pdf"}]
    assert row["content"] == json.dumps(file, separators=(",", ":"))
    assert row["hash"] == plain_hash(row["content"])

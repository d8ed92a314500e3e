"""A large JSON object that is parsed item by item is what it is when parsed at once."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from dispatchkit.core import json_slices
from dispatchkit.core.command import Request, Response, UnexpectedResponseError
from dispatchkit.core.decode import read_json
from dispatchkit.core.json_slices import read_json_slices
from dispatchkit.core.transport import slices
from dispatchkit.core.transport.slices import parsed_in_slices
from dispatchkit.core.transport.transport import SendTracker, Transport

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)
OBJECTS = st.dictionaries(st.sampled_from(["items", "total", "a"]) | st.text(), VALUES)


def parsed(body: bytes, content_type: str = "", *, chunk: int = 3) -> object:
    before, json_slices._CHUNK = json_slices._CHUNK, chunk
    try:
        parsing = read_json_slices(body, content_type, "items", lambda item: item)
        while True:
            try:
                next(parsing)
            except StopIteration as end:
                return end.value
            except UnexpectedResponseError as error:
                return str(error)
    finally:
        json_slices._CHUNK = before


def at_once(body: bytes, content_type: str = "") -> object:
    try:
        return read_json(body, content_type)
    except UnexpectedResponseError as error:
        return str(error)


@pytest.mark.second_stage
@settings(deadline=None)
@given(OBJECTS | VALUES, st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
def test_valid_json_is_parsed_same(value: Any, indent: int | None, ascii_only: bool, chunk: int) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert repr(parsed(body, chunk=chunk)) == repr(at_once(body))


@pytest.mark.second_stage
@settings(deadline=None)
@given(OBJECTS, st.data())
def test_damaged_json_is_refused_same(value: Any, data: st.DataObject) -> None:
    body = bytearray(json.dumps(value).encode())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + data.draw(st.integers(0, 3))] = data.draw(
        st.sampled_from([b"", b"{", b"}", b",", b'"', b"\xff", b"1"])
    )
    assert repr(parsed(bytes(body))) == repr(at_once(bytes(body)))


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"{}", b" {} ", b"{}x", b'{"items": [1, 2]', b'{"items": [1,]}', b'{"items": [1 2]}',
        b'{"items": []}', b'{"items": [], "items": []}', b'{"a": NaN}', b'{"items": [NaN]}',
        b'{"items": [{"a": 1, "a": 2}]}',
        b'{"a": 1,}', b'{,}', b'{1: 2}', b'{"a" 1}', b"12345678901234567890", b'"\\ud83d', b'{"items": null}', b"[1]",
        b'{"items": [12345], "total": 1.5e10}', b'\xef\xbb\xbf{"items": [1]}', b"\xff\xfe{\x00}\x00", b'{"a":"\xd0"}',
        b"[" * 100_000, b'{"items": ' + b"[" * 100_000,
    ],
)  # fmt: skip
def test_odd_body_is_read_same(body: bytes) -> None:
    for chunk in (1, 2, 7, 10**6):
        assert repr(parsed(body, chunk=chunk)) == repr(at_once(body))


@pytest.mark.parametrize("charset", ["cp1251", "utf-16", "utf-16-le", "latin-1", "nonsense"])
def test_charset_of_content_type_counts(charset: str) -> None:
    text = json.dumps({"items": [{"a": "имя" if charset != "latin-1" else "n\xe9"}]}, ensure_ascii=False)
    body = text.encode("utf-8" if charset == "nonsense" else charset)
    content_type = f"application/json; charset={charset}"
    assert repr(parsed(body, content_type)) == repr(at_once(body, content_type))


def test_endless_value_is_refused_soon() -> None:
    body = b'{"items": ["' + b"x" * 50_000_000
    assert parsed(body, chunk=64 * 1024) == "not JSON (50000012 bytes)"


def test_endless_blanks_are_refused_soon() -> None:
    for body in (b'{"items": [' + b" " * 50_000_000, b" " * 50_000_000 + b"{}"):
        assert parsed(body, chunk=64 * 1024) == f"not JSON ({len(body)} bytes)"


def test_fields_and_items_are_slices() -> None:
    body = json.dumps({**{str(number): number for number in range(50)}, "items": [*range(70)]}).encode()
    assert sum(1 for _ in read_json_slices(body, "", "items", lambda item: item)) == 50 + 70


async def test_large_body_is_not_copied() -> None:
    body = b" " * (slices.LARGE_BODY + 1)
    taken: list[type] = []

    def parse(response: Response) -> Generator[None, None, object]:
        taken.append(type(response.body))
        yield
        return "parsed"

    async with serving(body) as url:
        http = Transport(url, connect_timeout=5)
        try:
            for slicing in (parse, None):
                request = Request("GET", "/", max_response_bytes=2**20, slices=slicing)
                response = await http.send(request, SendTracker(), timeout=5)
                assert isinstance(response, Response)
                taken.append(type(response.body))
                assert (response.parsed, response.body) == (("parsed", b"") if slicing else (None, body))
        finally:
            await http.close()
    assert taken == [bytearray, bytes, bytes]


@asynccontextmanager
async def serving(body: bytes) -> AsyncGenerator[URL]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def test_the_collector_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "_SLICE", 0.0)
    before, seen = gc.get_threshold(), set[tuple[int, int, int]]()

    def parse(response: Response) -> Generator[None, None, object]:
        for _ in range(3):
            seen.add(gc.get_threshold())
            yield
        if response.body:
            raise UnexpectedResponseError("odd")
        return [1]

    assert (await parsed_in_slices(Response(200, {}, b""), parse)).parsed == [1]
    assert (await parsed_in_slices(Response(200, {}, b"x"), parse)).undecoded == "odd"
    assert gc.get_threshold() == before
    assert seen == {(*before[:2], slices._NEVER)}

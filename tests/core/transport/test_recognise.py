# pyright: reportPrivateUsage=false
"""The recogniser of plain responses: it may be stricter than aiohttp's parser, and never laxer."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from itertools import islice
from random import Random
from types import ModuleType
from typing import Any

import pytest
from aiohttp.http_parser import HttpResponseParserPy

from dispatchkit.core.transport import recognise as module
from dispatchkit.core.transport import shape as shape_module
from dispatchkit.core.transport.recognise import PlainHeaders, Recogniser
from dispatchkit.core.transport.shape import FIRST, Shape
from tests.core.transport.compare import Recognises, Reference, compare, compare_servers, parser_in_c
from tests.core.transport.servers import LEARNED_AFTER, PLAIN, steady
from tests.wire import http

HEAD = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type:\t a/b; c=d \r\nX-Empty:\r\nContent-Length: 2\r\n\r\n"


@pytest.fixture
def reference() -> Iterator[Reference]:
    made = Reference(parser_in_c())
    yield made
    made.close()


def weakened(changed: ModuleType, changes: list[tuple[str, str]]) -> dict[str, Any]:
    """The names of a module with some of its text replaced."""
    source = inspect.getsource(changed)
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    scope: dict[str, Any] = {"__name__": changed.__name__}
    exec(source, scope)
    return scope


def learned() -> tuple[Recogniser, Shape]:
    """A recogniser that has a pattern."""
    shape = Shape(first=4)
    recogniser = Recogniser(shape)
    values = (b"Server: x\r\n", b"Content-Type: a/b\r\n", b"Content-Length: 0\r\n", b"ETag: 1\r\n")
    for absent in (b"", values[0], values[1], values[3]):
        fields = b"".join(value for value in values if value != absent)
        assert recogniser(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n") is not None
    assert shape.pattern is not None
    return recogniser, shape


def test_a_plain_response_is_recognised() -> None:
    response = Recogniser()(HEAD + b"{}")
    assert response is not None
    assert (response.status, response.body) == (200, b"{}")
    assert dict(response.headers) == {"Server": "x", "Content-Type": "a/b; c=d", "X-Empty": "", "Content-Length": "2"}


def test_headers_ignore_case() -> None:
    headers: Mapping[str, str] = PlainHeaders(HEAD, 2)
    assert headers["content-TYPE"] == headers.get("Content-Type") == "a/b; c=d"
    assert headers["x-empty"] == ""
    assert "SERVER" in headers
    assert len(headers) == 4


@pytest.mark.parametrize(
    "name", ["", "X", "Type", "Server: x\r\nContent-Type", "Content-Type:\t a/b; c", "HTTP/1.1 200 OK"]
)
def test_absent_header_is_absent(name: str) -> None:
    headers = PlainHeaders(HEAD, 2)
    assert name not in headers
    assert headers.get(name, "no") == "no"


@pytest.mark.parametrize(
    "data",
    [
        http(204), http(100), http(429, b"no"), http(200, b"x", Connection="close"), http(200, b"x") + b"x",
        http(200, b"x")[:-1], http(200, b"x") * 2, http(200, b"x", Content_Encoding="gzip"), http(200, b"x", X="\xe9"),
        http(200, b"x", X="x" * 8190), http(200, b"x", **{f"X-{number}": "x" for number in range(100)}), b"", b"x",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)  # fmt: skip
def test_parser_reads_other_responses(data: bytes) -> None:
    assert Recogniser()(data) is None


SIZES = [3_000, pytest.param(120_000, marks=pytest.mark.second_stage)]


@pytest.mark.parametrize("size", SIZES)
def test_recogniser_agrees_with_parser(size: int, reference: Reference) -> None:
    found = compare(size, seed=size, reference=reference, recogniser=Recogniser())
    assert found.wrong is None
    assert found.recognised > size / 4


@pytest.mark.parametrize("size", SIZES)
def test_learned_shapes_agree_with_parser(size: int, reference: Reference) -> None:
    found = compare_servers(size, seed=size, reference=reference)
    assert found.wrong is None
    assert found.learned > size / 4


def test_recogniser_agrees_with_python_parser() -> None:
    reference = Reference(HttpResponseParserPy)
    found = compare(2_000, seed=1, reference=reference, recogniser=Recogniser())
    reference.close()
    assert found.wrong is None
    assert found.recognised > 500


WEAKENINGS: dict[str, list[tuple[str, str]]] = {
    "two lengths": [("len(unique) != len(names) or ", "")],
    "too many headers": [("{1,100}+", "{1,1000}+")],
    "a bare LF": [('++:" + ANY_VALUE +', r'++:[\t\n -~]*+" +')],
    "a NUL": [('++:" + ANY_VALUE +', r'++:[\t\0 -~]*+" +')],
    "a space in a name": [("[A-Za-z0-9_-]++:", "[A-Za-z0-9_ -]++:"), (r"\n([a-z0-9_-]+):", r"\n([a-z0-9_ -]+):")],
    "a closing connection": [("_KEEP_ALIVE not in lower", "False")],
    "unusual fields": [("not _UNUSUAL.isdisjoint(unique)", "False")],
    "any status": [("STATUS_LINE +", r'rb"HTTP/1\.1 [0-9]{3} [\t -~]*+\r\n" +')],
    "any version": [("STATUS_LINE +", r'rb"HTTP/1\.[0-9] 200 [\t -~]*+\r\n" +')],
    "another length": [("headers.length != len(data) - end", "headers.length > len(data) - end")],
    "a signed length": [('length:" + LENGTH', 'length: ?(?P<length>[+]?[0-9]{1,5})"')],
}


SHAPE_WEAKENINGS: dict[str, list[tuple[str, str]]] = {
    "a learned closing connection": [(r'rb" (?i:keep-alive)"', r'rb"[\t -~]*+"')],
    "a learned field twice": [(r'\r\n)?+"', r'\r\n)*+"')],
    "a learned length twice": [
        ('b":" + LENGTH', 'b":" + LENGTH + rb"(?:\\r\\nContent-Length:" + ANY_VALUE + rb")?+"'),
    ],
    "a learned bare LF": [(r'ANY_VALUE = rb"[ -~\t]*+"', r'ANY_VALUE = rb"[ -~\t\n]*+"')],
    "a learned NUL": [(r'ANY_VALUE = rb"[ -~\t]*+"', r'ANY_VALUE = rb"[ -~\t\0]*+"')],
    "a learned signed length": [("0|[1-9]", "[+]?0|[+]?[1-9]")],
    "a learned status": [("HTTP/1\\.1 200 ", "HTTP/1\\.1 [0-9]{3} ")],
    "no learned length": [('b":" + LENGTH + rb"', 'b":(?:" + LENGTH + rb")?')],
    "two learned spellings": [("!= name:", "is None:")],
    "all learned fields twice": [
        ('b"".join(map(_field, order))', 'b"(?:" + b"".join(map(_field, order)) + b"){1,2}+"'),
    ],
}
"""Changes of what `Shape` learns."""


LEARNED_WEAKENINGS: dict[str, list[tuple[str, str]]] = {
    "another length after a learned head": [("if length != len(data) - end:", "if length > len(data) - end:")],
    "a long learned head": [("match(data, 0, _MAX_HEAD)", "match(data)")],
    "a type that is not stripped": [('else value.strip(b" \\t").decode', "else value.decode")],
}
"""Changes of how `Recogniser` reads what the pattern matches."""


@pytest.mark.second_stage
@pytest.mark.parametrize("name", WEAKENINGS)
def test_comparison_finds_weakening(name: str, reference: Reference) -> None:
    recogniser: Recognises = weakened(module, WEAKENINGS[name])["Recogniser"]()
    assert compare(30_000, seed=1, reference=reference, recogniser=recogniser).wrong is not None


@pytest.mark.second_stage
@pytest.mark.parametrize("name", SHAPE_WEAKENINGS)
def test_comparison_finds_weak_pattern(name: str, reference: Reference) -> None:
    shape = weakened(shape_module, SHAPE_WEAKENINGS[name])["Shape"]
    assert compare_servers(60_000, 1, reference, shape=shape).wrong is not None


@pytest.mark.parametrize("name", LEARNED_WEAKENINGS)
def test_comparison_finds_weak_match(name: str, reference: Reference) -> None:
    make = weakened(module, LEARNED_WEAKENINGS[name])["Recogniser"]
    assert compare_servers(60_000, 1, reference, make=make).wrong is not None


def test_pattern_reads_other_values() -> None:
    recogniser, shape = learned()
    names = {name.title() for name in shape._names}
    head = b"HTTP/1.1 200 OK\r\nServer: y\r\nContent-Type:\t a/b \r\nContent-Length: 2\r\nETag: 9\r\n\r\n"
    assert {b"Server", b"Content-Type", b"Etag"} <= names
    assert shape.pattern is not None
    assert shape.pattern.match(head) is not None
    response = recogniser(head + b"{}")
    assert response is not None
    assert response.body == b"{}"
    assert dict(response.headers) == {"Server": "y", "Content-Type": "a/b", "Content-Length": "2", "ETag": "9"}
    assert recogniser(head + b"{}x") is None
    assert recogniser(head + b"{") is None


def test_servers_are_plain_first() -> None:
    recogniser = Recogniser(Shape(LEARNED_AFTER))
    assert all(recogniser(data) is not None for data in islice(steady(Random(1)), PLAIN))


def test_order_is_learned_from_all() -> None:
    shape = Shape(first=3)
    for fields in (b"A: 1\r\n", b"B: 1\r\n", b"A: 2\r\nB: 2\r\n"):
        shape.learn(b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 0\r\n\r\n")
    assert shape.pattern is not None
    assert shape.pattern.match(b"HTTP/1.1 200 OK\r\nA: 3\r\nB: 3\r\nContent-Length: 0\r\n\r\n") is not None
    assert shape.pattern.match(b"HTTP/1.1 200 OK\r\nB: 3\r\nA: 3\r\nContent-Length: 0\r\n\r\n") is None


@pytest.mark.parametrize(
    "second",
    [b"B: 1\r\nA: 1\r\n", b"a: 1\r\n", b"".join(b"X-%d: 1\r\n" % number for number in range(65))],
    ids=["no order", "two spellings", "too many fields"],
)
def test_learning_ends(second: bytes) -> None:
    shape = Shape(first=2)
    for fields in (b"A: 1\r\nB: 1\r\n", second, b"", b"", b"", b""):
        shape.learn(b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 0\r\n\r\n")
    assert shape.pattern is None
    assert shape._edges is None


def test_learning_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_module, "_LAST", FIRST * 4)
    compiled = []
    monkeypatch.setattr(Shape, "_compile", lambda _self, _edges: compiled.append(1))
    shape = Shape()
    for _ in range(FIRST * 8):
        shape.learn(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert len(compiled) == 3
    assert shape._edges is None

"""The recogniser of plain responses: it may be stricter than aiohttp's parser, and never laxer."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from aiohttp.http_parser import HttpResponseParserPy

from dispatchkit.core.transport import recognise as module
from dispatchkit.core.transport.recognise import PlainHeaders, recognise
from tests.core.transport.responses import Recogniser, Reference, compare
from tests.wire import http

HEAD = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type:\t a/b; c=d \r\nX-Empty:\r\nContent-Length: 2\r\n\r\n"


@pytest.fixture
def reference() -> Iterator[Reference]:
    made = Reference()
    yield made
    made.close()


def weakened(*changes: tuple[str, str]) -> Recogniser:
    """The recogniser with some of its text replaced."""
    source = inspect.getsource(module)
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    scope: dict[str, Any] = {"__name__": module.__name__}
    exec(source, scope)
    found: Recogniser = scope["recognise"]
    return found


def test_a_plain_response_is_recognised() -> None:
    response = recognise(HEAD + b"{}")
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
    assert recognise(data) is None


@pytest.mark.parametrize("size", [3_000, pytest.param(120_000, marks=pytest.mark.second_stage)])
def test_recogniser_agrees_with_parser(size: int, reference: Reference) -> None:
    recognised, wrong = compare(size, seed=size, reference=reference)
    assert wrong is None
    assert recognised > size / 4


def test_recogniser_agrees_with_python_parser() -> None:
    reference = Reference(HttpResponseParserPy)
    recognised, wrong = compare(2_000, seed=1, reference=reference)
    reference.close()
    assert wrong is None
    assert recognised > 500


WEAKENINGS: dict[str, list[tuple[str, str]]] = {
    "two lengths": [("len(unique) != len(names) or ", "")],
    "too many headers": [("{1,100}+", "{1,1000}+")],
    "a bare LF": [(r"[A-Za-z0-9_-]++:[\t -~]*+", r"[A-Za-z0-9_-]++:[\t\n -~]*+")],
    "a NUL": [(r"[A-Za-z0-9_-]++:[\t -~]*+", r"[A-Za-z0-9_-]++:[\t\0 -~]*+")],
    "a space in a name": [("[A-Za-z0-9_-]++:", "[A-Za-z0-9_ -]++:"), (r"\n([a-z0-9_-]+):", r"\n([a-z0-9_ -]+):")],
    "a closing connection": [("_KEEP_ALIVE not in lower", "False")],
    "unusual fields": [("not _UNUSUAL.isdisjoint(unique)", "False")],
    "any status": [("HTTP/1\\.1 200 ", "HTTP/1\\.1 [0-9]{3} ")],
    "any version": [("HTTP/1\\.1 200 ", "HTTP/1\\.[0-9] 200 ")],
    "another length": [("headers.length != len(data) - end", "headers.length > len(data) - end")],
    "a signed length": [("(0|[1-9]", "([+]?0|[+]?[1-9]")],
}


@pytest.mark.parametrize("name", WEAKENINGS)
def test_comparison_finds_weakening(name: str, reference: Reference) -> None:
    _, wrong = compare(30_000, seed=1, reference=reference, recogniser=weakened(*WEAKENINGS[name]))
    assert wrong is not None

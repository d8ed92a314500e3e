"""Answers as people's servers send them: compressed, in any charset, with many and long header fields."""

from __future__ import annotations

import asyncio
import functools
import json
import time
import tracemalloc
import zlib
from collections.abc import Sequence
from typing import Any

import pytest

from dispatchkit import AltcraftClient, DirectClient, DispatchkitError, State
from dispatchkit.altcraft.codec import WireForm
from dispatchkit.core.command import MAX_RESPONSE_BYTES, Request, Response
from dispatchkit.core.transport import http as http_module
from dispatchkit.core.transport.transport import TransportFailure
from tests.core.transport.test_http import send, transport
from tests.wire import Listener, http, once

DONE, REJECTED, UNKNOWN = State.DONE, State.REJECTED, State.UNKNOWN
YES = b'{"dispatchId": 7}'
NO = json.dumps({"error": {"code": 4031, "msg": "Отказано"}}, ensure_ascii=False)


def zipped(data: bytes, window: int) -> bytes:
    packer = zlib.compressobj(wbits=window)
    return packer.compress(data) + packer.flush()


GZIP, ZLIB, RAW = zipped(YES, 31), zipped(YES, 15), zipped(YES, -15)
JSON = "application/json"

ANSWERS: list[tuple[bytes, State]] = [
    (http(200, YES, Content_Encoding="identity"), DONE),
    (http(200, YES, Content_Encoding=""), DONE),
    (http(200, GZIP, Content_Encoding="gzip"), DONE),
    (http(200, GZIP, Content_Encoding="GZip "), DONE),
    (http(200, GZIP, Content_Encoding="x-gzip"), DONE),
    (http(200, zipped(YES[:5], 31) + zipped(YES[5:], 31), Content_Encoding="gzip"), DONE),
    (http(200, ZLIB, Content_Encoding="deflate"), DONE),
    (http(200, RAW, Content_Encoding="deflate"), DONE),
    (http(403, zipped(NO.encode(), 31), Content_Encoding="gzip"), REJECTED),
    (http(403, zipped(NO.encode("cp1251"), 31), Content_Encoding="gzip", Content_Type=f"{JSON}; charset=cp1251"), REJECTED),  # noqa: E501
    (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
     + b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (9, GZIP[:9], len(GZIP) - 9, GZIP[9:]), DONE),
    # Without a length, only the stream itself says where it ends.
    (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + GZIP, DONE),
    (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + GZIP[:-1], UNKNOWN),
    (http(200, GZIP[:-9], Content_Encoding="gzip"), UNKNOWN),
    (http(200, RAW[:-1], Content_Encoding="deflate"), UNKNOWN),
    (http(200, GZIP[:-8] + b"\0" * 8, Content_Encoding="gzip"), UNKNOWN),
    (http(200, GZIP + b"x", Content_Encoding="gzip"), UNKNOWN),
    (http(200, ZLIB + ZLIB, Content_Encoding="deflate"), UNKNOWN),
    (http(200, zipped(b"", 31) * 1000 + GZIP, Content_Encoding="gzip"), UNKNOWN),
    (http(200, YES, Content_Encoding="gzip"), UNKNOWN),
    (http(200, GZIP), UNKNOWN),
    (http(200, YES, Content_Encoding="br"), UNKNOWN),
    (http(200, YES, Content_Encoding="rot13"), UNKNOWN),
    (http(200, YES, Content_Encoding="gzip, identity"), UNKNOWN),
    (http(200, zipped(GZIP, 31), Content_Encoding="gzip, gzip"), UNKNOWN),
    (http(403, NO, Content_Encoding="br"), UNKNOWN),
    (http(429, YES, Content_Encoding="br"), REJECTED),
    (http(429, GZIP, Content_Encoding="gzip"), UNKNOWN),
    (http(500, GZIP, Content_Encoding="gzip"), UNKNOWN),
    # Charsets.
    (http(200, b"\xef\xbb\xbf" + YES), DONE),
    *((http(200, YES.decode().encode(charset)), DONE) for charset in ("utf-16", "utf-32", "utf-8-sig")),
    *((http(200, b"\xfe\xff" + YES.decode().encode("utf-16-be"), Content_Type=JSON), DONE),),
    *(
        (http(403, NO.encode(charset), Content_Type=f"{JSON}; charset={charset}"), REJECTED)
        for charset in ("utf-8", "UTF8", "utf-16", "utf-16le", "utf-16be", "windows-1251", "koi8-r", "iso-8859-5")
    ),
    (http(403, NO.encode("utf-16-be"), Content_Type=f"{JSON};charset=utf-16"), REJECTED),
    (http(403, NO.encode("utf-16-le"), Content_Type=f"{JSON};charset=utf-16"), REJECTED),
    (http(200, YES, Content_Type=f'{JSON} ; Charset="latin-1"; x=y'), DONE),
    (http(200, YES, Content_Type=f"{JSON}; charset="), DONE),
    (http(200, YES, Content_Type="text/html"), DONE),
    # The mark wins.
    (http(403, b"\xef\xbb\xbf" + NO.encode(), Content_Type=f"{JSON}; charset=utf-16"), REJECTED),
    (http(403, NO.encode("utf-16"), Content_Type=f"{JSON}; charset=utf-8"), REJECTED),
    *(
        (http(200, YES, Content_Type=f"{JSON}; charset={charset}"), UNKNOWN)
        for charset in ("nope", "base64", "unicode_escape", "utf-7", "idna", "rot13", "utf-16", "../x", "x" * 99)
    ),
    (http(403, NO.encode("cp1251")), UNKNOWN),
    (http(403, NO.encode("cp1251"), Content_Type=f"{JSON}; charset=utf-8"), UNKNOWN),
    (http(200, b"\xef\xbb\xbf"), UNKNOWN),
    # Header fields.
    (http(200, YES, **{f"X-{number}": "x" for number in range(198)}), DONE),
    (http(200, YES, **{f"X-{number}": "x" * 200 for number in range(150)}), DONE),
    (http(200, YES, Set_Cookie="x" * 20_480), DONE),
    (http(200, YES, Set_Cookie="x" * 65_536), DONE),
    (http(200, YES, X_A="x" * 65_536, X_B="y" * 65_536), DONE),
    (http(200, YES, Set_Cookie="x" * 100_000), UNKNOWN),
    (http(200, YES, **{f"X-{number}": "x" for number in range(300)}), UNKNOWN),
]  # fmt: skip


async def outcome(call: Any) -> State:
    try:
        await call
    except DispatchkitError as error:
        return error.state
    return State.DONE


def _numbers(rows: Sequence[tuple[object, ...]]) -> list[str]:
    return [str(number) for number in range(len(rows))]


@pytest.mark.parametrize(("response", "expected"), ANSWERS, ids=lambda value: repr(value)[14:110])
async def test_response_encoding_is_decoded(response: bytes, expected: State) -> None:
    async with Listener(response) as listener, DirectClient("k", base_url=listener.url, **once()) as direct:
        assert await outcome(direct.start(7)) is expected
    assert listener.requests[0].headers["Accept-Encoding"] == "identity"
    assert sum(request.startswith(b"POST") for request in listener.requests) == 1


@pytest.mark.parametrize("body", [b"", zipped(b"", 31)])
async def test_empty_body_may_be_compressed(body: bytes) -> None:
    response = http(200, body, Content_Encoding="gzip")
    async with Listener(response) as listener, DirectClient("k", base_url=listener.url, **once()) as direct:
        assert await outcome(direct.stop(7)) is State.DONE


TEXT = "<xml><data/><error>400</error><error_text>Отказано</error_text></xml>"
OK = "<xml><data/><error>0</error><error_text>Готово</error_text></xml>"


def declared(charset: str, text: str) -> str:
    return f'<?xml version="1.0" encoding="{charset}"?>{text}'


ALTCRAFT: list[tuple[WireForm, bytes, State]] = [
    ("json", http(200, b'\xef\xbb\xbf{"error": 0}'), DONE),
    ("json", http(200, '{"error": 0}'.encode("utf-16")), DONE),
    ("json", http(200, '{"error": 400, "error_text": "Нет"}'.encode("cp1251"), Content_Type="x/y; charset=windows-1251"), REJECTED),  # noqa: E501
    ("xml", http(200, OK), DONE),
    ("xml", http(200, b"\xef\xbb\xbf" + OK.encode()), DONE),
    ("xml", http(200, OK.encode("utf-16")), DONE),
    ("xml", http(200, declared("utf-16", OK).encode("utf-16")), DONE),
    ("xml", http(200, declared("UTF-8", OK).encode("utf-16")), DONE),
    ("xml", http(200, b"\xef\xbb\xbf" + declared("windows-1251", OK).encode()), DONE),
    *(("xml", http(200, declared(name, TEXT).encode(name)), REJECTED) for name in ("utf-8", "windows-1251", "koi8-r", "iso-8859-5", "cp866")),  # noqa: E501
    ("xml", http(200, declared("windows-1251", TEXT).encode("cp1251"), Content_Type="text/xml"), REJECTED),
    ("xml", http(200, TEXT.encode("cp1251"), Content_Type="text/xml; charset=windows-1251"), REJECTED),
    ("xml", http(200, declared("koi8-r", TEXT).encode("cp1251"), Content_Type="text/xml; charset=cp1251"), REJECTED),
    ("xml", http(200, declared("nope", TEXT).encode("cp1251"), Content_Type="text/xml; charset=cp1251"), REJECTED),
    ("xml", http(200, zipped(declared("windows-1251", TEXT).encode("cp1251"), 31), Content_Encoding="gzip"), REJECTED),
    ("xml", http(200, TEXT.encode("utf-16-be"), Content_Type="text/xml; charset=utf-16"), REJECTED),
    ("xml", http(200, OK, Content_Type="text/xml; charset=nope"), UNKNOWN),
    ("xml", http(200, declared("nope", OK)), UNKNOWN),
    ("xml", http(200, declared("utf-16", OK)), UNKNOWN),
    ("xml", http(200, TEXT.encode("cp1251")), UNKNOWN),
    ("xml", http(200, declared("windows-1251", TEXT).encode("cp1251"), Content_Type="a/b; charset=utf-8"), UNKNOWN),
]  # fmt: skip


@pytest.mark.parametrize(("form", "response", "expected"), ALTCRAFT, ids=lambda value: repr(value)[14:110])
async def test_altcraft_charset_is_decoded(form: WireForm, response: bytes, expected: State) -> None:
    async with Listener(response) as listener, AltcraftClient(listener.url, "t", wire=form, **once()) as altcraft:
        assert await outcome(altcraft.launch_broadcast(9)) is expected


async def test_refusal_charset_is_decoded() -> None:
    response = http(200, declared("windows-1251", TEXT).encode("cp1251"))
    async with Listener(response) as listener, AltcraftClient(listener.url, "t", wire="xml", **once()) as altcraft:
        with pytest.raises(DispatchkitError, match="Отказано"):
            await altcraft.launch_broadcast(9)


@functools.cache  # the zeros, packed, are small; to pack them takes a third of a second
def zip_bomb(window: int) -> bytes:
    return zipped(bytes(100 * 2**20), window)


@pytest.mark.parametrize("window", [31, *(pytest.param(bits, marks=pytest.mark.second_stage) for bits in (15, -15))])
async def test_compression_bomb_is_too_large(window: int) -> None:
    bomb = zip_bomb(window)
    encoding = "gzip" if window == 31 else "deflate"
    longest, last = 0.0, time.thread_time()  # other processes of the machine do not count

    async def watch() -> None:
        nonlocal longest, last
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, last = max(longest, now - last), now

    async with Listener(http(200, bomb, Content_Encoding=encoding)) as listener, transport(listener.url) as made:
        watching = asyncio.create_task(watch())
        tracemalloc.start()
        try:
            reply, sent = await send(made, Request("POST", "/"))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            watching.cancel()
    assert (reply, sent) == (TransportFailure("the answer is larger than 8 MiB", sent=True), True)
    assert peak < 8 * MAX_RESPONSE_BYTES
    assert longest < 0.25


@pytest.mark.parametrize("size", [MAX_RESPONSE_BYTES, MAX_RESPONSE_BYTES + 1])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
async def test_bound_holds_for_every_encoding(size: int, encoding: str) -> None:
    data = bytes(size)
    body = data if encoding == "identity" else zipped(data, 31 if encoding == "gzip" else -15)
    async with Listener(http(200, body, Content_Encoding=encoding)) as listener, transport(listener.url) as made:
        reply, _ = await send(made, Request("POST", "/"))
    if size > MAX_RESPONSE_BYTES:
        assert reply == TransportFailure("the answer is larger than 8 MiB", sent=True)
    else:
        assert isinstance(reply, Response)
        assert reply.body == data


@pytest.mark.parametrize("fields", [150, 200])
async def test_pure_python_parser_limits_match(fields: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiohttp.http_parser import HttpResponseParserPy  # noqa: PLC0415 - not public

    monkeypatch.setattr("aiohttp.client_proto.HttpResponseParser", HttpResponseParserPy)
    more = {f"X-{number}": "x" for number in range(fields - 2)}
    for headers in (more, {"X-Long": "x" * 65_536}):
        async with Listener(http(200, YES, **headers)) as listener, transport(listener.url) as made:
            reply, _ = await send(made, Request("POST", "/"))
        assert isinstance(reply, Response)
        assert reply.body == YES


async def test_uncompressed_body_is_passed_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "decoded", None)  # a call of it would fail
    async with Listener(http(200, YES)) as listener, DirectClient("k", base_url=listener.url, **once()) as direct:
        assert await outcome(direct.start(7)) is State.DONE

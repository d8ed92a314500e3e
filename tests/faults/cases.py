"""Every way that we know for an answer to go wrong, as values.

A fault has a play, and the play gets the provider's answer. That is the real one if the provider acted, else the one
that it would have given. So each lie is as good as it can be.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Literal, TypeAlias

import attrs

from dispatchkit.sandbox import Reply
from tests.faults.actions import START, STOP, TARGET, Action
from tests.faults.hostile_server import Stage, Strike

Brings: TypeAlias = Literal["answer", "nothing", "429", "429 too long"]
"""What the client has in hand afterwards: the provider's answer, nothing that can be relied on, or to come back."""

Ending: TypeAlias = Callable[[Stage, Reply], Awaitable[bool | None]]


@attrs.frozen
class Fault:
    """One way for a call to go wrong."""

    name: str
    acts: bool
    brings: Brings
    ending: Ending
    suits: Callable[[Action], bool] = lambda action: True
    """Whether it makes sense for a command: an empty 200 is no fault where it is what success looks like."""

    def strike(self, action: Action) -> Strike:
        async def play(stage: Stage) -> bool | None:
            reply = stage.act() if self.acts else action.provider().answer(stage.call)  # type: ignore[arg-type]
            return await self.ending(stage, reply)

        return Strike(play)

    def __str__(self) -> str:
        return f"{'acts' if self.acts else 'does not act'}, {self.name}"


def raw(status: str, body: bytes = b"", *headers: str, length: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, *([f"Content-Length: {len(body)}"] if length else []), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


HTML = b"<html>\n<head><title>502 Bad Gateway</title></head>\n<body><h1>502 Bad Gateway</h1></body>\n</html>\n"


def says(data: bytes, *, stays: bool = False) -> Ending:
    async def ending(stage: Stage, reply: Reply) -> bool:
        del reply
        await stage.peer.send(data)
        return stays

    return ending


def turned(turn: Callable[[Reply], bytes], *, then: Literal["close", "reset", "hang", "stay"] = "close") -> Ending:
    async def ending(stage: Stage, reply: Reply) -> bool:
        await stage.peer.send(turn(reply))
        if then == "reset":
            stage.peer.reset()
        if then == "hang":
            await stage.peer.hang()
        return then == "stay"

    return ending


async def close(stage: Stage, reply: Reply) -> None:
    del stage, reply


async def reset(stage: Stage, reply: Reply) -> None:
    del reply
    stage.peer.reset()


async def hang(stage: Stage, reply: Reply) -> None:
    del reply
    await stage.peer.hang()


def forever(first: bytes, more: bytes, *, pause: float = 0.002) -> Ending:
    async def ending(stage: Stage, reply: Reply) -> None:
        del reply
        await stage.peer.send(first)
        while not stage.peer.reader.at_eof():
            await stage.peer.send(more)
            await asyncio.sleep(pause)

    return ending


async def drip(stage: Stage, reply: Reply) -> bool:
    for at, char in enumerate(reply.raw()):
        await stage.peer.send(bytes([char]))
        if at % 8 == 0:  # many of them drip at once, and each turn of the loop takes its time
            await asyncio.sleep(0)
    return True


def _with_length(change: int) -> Callable[[Reply], bytes]:
    def turn(reply: Reply) -> bytes:
        length = max(len(reply.body) + change, 0)
        return reply.raw().replace(b"Content-Length: %d" % len(reply.body), b"Content-Length: %d" % length)

    return turn


def _chunked(chunks: bytes) -> bytes:
    return raw("200 OK", chunks, "Transfer-Encoding: chunked", length=False)


def _failed(status: str) -> Callable[[Reply], bytes]:
    return lambda reply: raw(status, reply.body, "Content-Type: application/json")


def _not_stop(action: Action) -> bool:
    return action is not STOP


def _only_start(action: Action) -> bool:
    return action is START


def _lost(elsewhere: str) -> Iterator[tuple[str, Ending, Callable[[Action], bool]]]:
    """What can come instead of an answer, whether the provider acted or not."""

    def every(action: Action) -> bool:
        del action
        return True

    yield "closes", close, every
    yield "resets", reset, every
    yield "hangs", hang, every
    yield "drips headers for ever", forever(b"HTTP/1.1 200 OK\r\nX: ", b"x"), every
    yield "drips a body for ever", forever(raw("200 OK", b"", "Content-Length: 5000", length=False), b" "), every
    yield "cuts the answer at its last byte", turned(lambda reply: reply.raw()[:-1]), every
    yield "cuts the answer in half", turned(lambda reply: reply.raw()[: len(reply.raw()) // 2]), every
    yield "cuts the answer in half with a reset", turned(lambda reply: reply.raw()[:30], then="reset"), every
    yield "half an answer and hangs", turned(lambda reply: reply.raw()[:-1], then="hang"), every
    yield "sends bytes that are no HTTP", says(bytes(range(256)) * 4), every
    yield "speaks SSH", says(b"SSH-2.0-OpenSSH_9.6\r\n"), every
    yield "200 with garbage", says(raw("200 OK", b"\xff\xfe{\x00<garbage"), stays=True), every
    yield "200 with a web page", says(raw("200 OK", HTML, "Content-Type: text/html"), stays=True), every
    yield "200 with null", says(raw("200 OK", b"null"), stays=True), every
    yield "200 with []", says(raw("200 OK", b"[]"), stays=True), every
    yield "200 with nothing", says(raw("200 OK"), stays=True), _not_stop
    yield "202 with nothing", says(raw("202 Accepted"), stays=True), every
    yield "204", says(raw("204 No Content", length=False), stays=True), every
    for status in ("500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"):
        yield f"{status[:3]} with the body of a success", turned(_failed(status), then="stay"), every
        yield f"{status[:3]} with a web page", says(raw(status, HTML), stays=True), every
        yield f"{status[:3]} with nothing", says(raw(status)), every
    yield "503 with Retry-After", says(raw("503 Service Unavailable", b"", "Retry-After: 0.005"), stays=True), every
    yield "500 with a refusal", says(raw("500 Oh", b'{"error":{"code":4031,"msg":"no"}}'), stays=True), _only_start
    yield "400 with a web page", says(raw("400 Bad Request", HTML), stays=True), every
    yield "403 with nothing", says(raw("403 Forbidden"), stays=True), every
    yield "408 and closes", says(raw("408 Request Timeout", b"", "Connection: close")), every
    yield "100 and hangs", forever(raw("100 Continue", length=False), b"", pause=0.02), every
    yield "100 and closes", says(raw("100 Continue", length=False)), every
    yield "103 for ever", forever(b"", raw("103 Early Hints", length=False)), every
    yield "101", says(raw("101 Switching Protocols", b"", "Upgrade: h2c", "Connection: Upgrade", length=False)), every
    for code in (301, 302, 303, 307, 308):
        answer = raw(f"{code} Elsewhere", b"", f"Location: {elsewhere}/api/v1/dispatch/{TARGET}/start")
        yield f"{code} to another host", says(answer, stays=True), every
    yield "Content-Length too long", turned(_with_length(+5)), every
    yield "Content-Length too long, hangs", turned(_with_length(+5), then="hang"), every
    yield "Content-Length too short", turned(_with_length(-1)), _not_stop
    yield "Content-Length below zero", says(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), every
    yield "two Content-Lengths", says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 3\r\n\r\n{}"), every
    yield "a broken chunk", says(_chunked(b"zz\r\n{}\r\n0\r\n\r\n")), every
    yield "a chunk that is cut", says(_chunked(b"20\r\n{")), every
    yield "no last chunk", says(_chunked(b"2\r\n{}\r\n")), every
    yield "no chunk, only a head", says(_chunked(b"")), every
    packed = "Content-Encoding: gzip"
    yield "gzip that is cut", turned(lambda r: raw("200 OK", gzip.compress(r.body)[:-1], packed)), every
    yield "429 with the body of a success", turned(_failed("429 Too Many Requests"), then="stay"), _not_stop
    yield "a body for ever", forever(raw("200 OK", length=False), b"x" * 2**16), every
    yield "headers for ever", forever(b"HTTP/1.1 200 OK\r\n", b"X-Header: x\r\n" * 100), every
    yield "a header of a megabyte", says(raw("200 OK", b"", "X: " + "x" * 2**20)), every
    yield "ten thousand headers", says(raw("200 OK", b"", *["X: x"] * 10_000)), every
    yield "the answer to another dispatch", says(raw("200 OK", b'{"dispatchId": 7}'), stays=True), _only_start
    # Garbage after an answer makes it unreliable: both may have the same author.
    yield "rubbish after the answer", turned(lambda r: r.raw() + b"\x00\x01\x02"), every
    yield "nothing, without a length", says(raw("200 OK", length=False)), every
    yield "the answer to a read", says(raw("200 OK", b'{"total": 0, "items": []}'), stays=True), every


def _late(stage: Stage, reply: Reply) -> Awaitable[bool]:
    async def ending() -> bool:
        await asyncio.sleep(0.02)
        await stage.peer.send(reply.raw())
        return True

    return ending()


def _answered() -> Iterator[tuple[str, Ending]]:
    """What is odd, and an answer all the same."""
    yield "answers byte by byte", drip
    yield "answers late", _late
    yield "103 before the answer", turned(lambda r: raw("103 Early Hints", length=False) + r.raw(), then="stay")
    hundred = raw("100 Continue", length=False) * 50
    yield "fifty times 100 before the answer", turned(lambda r: hundred + r.raw(), then="stay")
    yield "answers twice at once", turned(lambda r: r.raw() * 2, then="stay")
    yield "answers, then more than a byte of nothing", turned(lambda r: r.raw() + b"\r\n\r\n", then="stay")
    yield "answers in gzip", turned(lambda r: raw("200 OK", gzip.compress(r.body), "Content-Encoding: gzip"))
    yield "answers and closes", turned(lambda r: r.raw())
    yield "answers without a length", turned(lambda r: raw("200 OK", r.body, length=not r.body))
    yield "answers in HTTP/1.0", turned(lambda r: r.raw().replace(b"HTTP/1.1", b"HTTP/1.0"))

    def chunked(reply: Reply) -> bytes:
        chunks = b"".join(b"1\r\n" + bytes([char]) + b"\r\n" for char in reply.body)
        return _chunked(chunks + b"0\r\n\r\n")

    yield "answers in chunks of a byte", turned(chunked, then="stay")


def http_date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


RETRY_AFTERS: tuple[tuple[str, str | None, bool], ...] = (
    ("none", None, False),
    ("0", "0", False),
    ("2", "2", True),
    ("-1", "-1", False),
    ("4294967", "4294967", True),
    ("9 * 400", "9" * 400, True),
    ("a date past", http_date(-3600), False),
    ("a date to come", http_date(3600), True),
    ("garbage", "in a while, crocodile", False),
    ("empty", "", False),
    ("2.5", "2.5", True),
    ("nan", "nan", False),
    ("inf", "inf", True),
    ("-inf", "-inf", False),
    ("2.5", "2.5", True),
    ("a date of no calendar", "Wed, 99 Feb 2099 99:99:99 GMT", False),
    ("a date of the year 9999", "Fri, 31 Dec 9999 23:59:59 GMT", True),
    ("latin-1", "\xb2\xb3", False),
)
"""What Retry-After may say, and whether that is longer than any call of the table may take."""


def faults(elsewhere: str) -> Iterator[Fault]:
    """All of them. ``elsewhere`` is a server to which nothing may come."""
    for acts in (True, False):
        for name, ending, suits in _lost(elsewhere):
            yield Fault(name, acts, "nothing", ending, suits)
    for name, ending in _answered():
        yield Fault(name, acts=True, brings="answer", ending=ending)
    for name, text, too_long in RETRY_AFTERS:
        headers = [] if text is None else [f"Retry-After: {text}"]
        ending = says(raw("429 Too Many Requests", b"", *headers), stays=True)
        brings: Brings = "429 too long" if too_long else "429"
        yield Fault(f"429, Retry-After: {name}", acts=False, brings=brings, ending=ending)
    with_nul = b"HTTP/1.1 429 Slow\r\nRetry-After: 1\x00\r\nContent-Length: 0\r\n\r\n"
    yield Fault("429, Retry-After with a NUL", acts=False, brings="nothing", ending=says(with_nul))
    ending = says(raw("429 Too Many Requests", HTML), stays=True)
    yield Fault("429 with a web page", acts=False, brings="429", ending=ending)

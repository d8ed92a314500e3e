"""Random responses for the recogniser: near to plain ones, and mutated. And what aiohttp's parser makes of them.

``python -m tests.core.transport.responses COUNT [SEED]`` compares both on so many inputs.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from unittest.mock import Mock

import aiohttp.http
import aiohttp.http_parser
from aiohttp.http_exceptions import HttpProcessingError

from dispatchkit.core.command import Response
from dispatchkit.core.transport.lane import MAX_FIELD, MAX_FIELDS
from dispatchkit.core.transport.recognise import Recogniser
from dispatchkit.core.transport.shape import Shape

Recognises = Callable[[bytes], Response | None]
Reading = tuple[int, list[tuple[str, str]], bytes]
"""Status, header fields in their order, body. The parser may write a name in another case."""

_STATUS = (b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 200 Very Well\t!")
_ODD_STATUS = (
    b"HTTP/1.1 200", b"HTTP/1.1  200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.2 200 OK", b"HTTP/2 200 OK", b"http/1.1 200 OK",
    b"HTTP/1.1 2000 OK", b"HTTP/1.1 201 Created", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 Switching", b"HTTP/1.1 429 Slow", b"HTTP/1.1 200 \xd0\x9e\xd0\x9a",
    b"HTTP/1.1\t200 OK", b"ICY 200 OK", b"HTTP/1.1 200 OK\0", b"\r\nHTTP/1.1 200 OK", b"HTTP/1.1 200 O\nK",
)  # fmt: skip
_FIELDS = (
    b"Server: nginx", b"Date: Thu, 26 Nov 2026 22:00:00 GMT", b"Content-Type: application/json; charset=utf-8",
    b"Connection: keep-alive", b"connection:Keep-Alive", b"X-Request-Id: 8f1c", b"Keep-Alive: timeout=5", b"X-Empty:",
    b"X-Spaces: \t a b \t ", b"Set-Cookie: a=b; Path=/", b"ETag: \"x\"", b"Vary: *", b"X_Under: 1", b"9: 9",
)  # fmt: skip
_IN_ORDER = tuple(field for field in _FIELDS if not field.startswith(b"connection"))
_BEFORE_LENGTH = _IN_ORDER[:3]
CLEAN = 64
"""Plain responses at the start of those in order."""
_ODD_FIELDS = (
    b"Connection: close", b"Connection: keep-alive, close", b"Connection: Upgrade", b"Connection: keep-alive ",
    b"Connection:", b"Proxy-Connection: close", b"Upgrade: h2c", b"Upgrade: websocket", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity", b"transfer-encoding:\tchunked", b"Trailer: X", b"Content-Encoding: gzip",
    b"Content-Encoding:", b"Sec-WebSocket-Key1: x", b"Content-Length: 5", b"Content-Length: 0", b"Content-Length : 5",
    b"Content-Length: -1", b"Content-Length: +5", b"Content-Length: 0x5", b"Content-Length: 5, 5", b"Content-Length:",
    b"Content-Length: 99999999999999999999", b"content-length: 005", b"Content_Length: 5", b"Server: other",
    b" folded: yes", b"\tfolded", b": no name", b"no colon", b"Na me: x", b"X\xc3\xa9: x", b"X: \xd0\xb0", b"X: a\0b",
    b"X: a\x01b", b"X: a\x7fb", b"X: a\nY: b", b"X: a\nContent-Length: 5", b"X: a\rb", b"X: a\r", b"X(y): z", b"",
    b"X: a\n Transfer-Encoding: chunked", b"X: a\nTransfer-Encoding: chunked",
)  # fmt: skip
_BODIES = (
    b"",
    b"{}",
    b'{"dispatchId":7}',
    b"\r\n\r\n",
    b"x" * 300,
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"0",
)
_ODD_BYTES = (
    b"\0",
    b"\n",
    b"\r",
    b"\r\n",
    b" ",
    b"\t",
    b":",
    b"\x7f",
    b"\xff",
    b"5",
    b"\r\n\r\n",
    b"Content-Length: 5\r\n",
)


_ODD_LENGTHS = (
    b"+%d", b"-%d", b"0%d", b" 00%d", b"\t%d", b"  %d", b" %d ", b" %d\t", b"%d.0", b"0x%d", b" %d, 5", b"%d;", b"%dx",
    b'"%d"', b" %d\0", b" %d\n", b"%d\r", b" 1%d",
)  # fmt: skip


def responses(seed: int, *, ordered: bool = False) -> Iterator[bytes]:
    """Responses without end. Half of them are plain.

    Args:
        seed: The seed of the random numbers.
        ordered: Whether the fields are those of one server, in one order. The first responses are then plain.
    """
    rng = random.Random(seed)
    chance, choice = rng.random, rng.choice
    for number in itertools.count():
        body = choice(_BODIES)
        length = b"%b%d" % (choice((b"Content-Length: ", b"content-length:", b"CONTENT-LENGTH: ")), len(body))
        if ordered:
            length = b"Content-Length: %d" % len(body)
            fields = [field for field in _IN_ORDER if chance() < 0.4]
            fields.insert(sum(field in _BEFORE_LENGTH for field in fields), length)
        else:
            fields = rng.choices(_FIELDS, k=int(chance() * 5))
            fields.insert(int(chance() * (len(fields) + 1)), length)
        status, ending = choice(_STATUS), b"\r\n"
        is_clean = ordered and number < CLEAN
        if not is_clean and chance() < 0.5:
            turn = int(chance() * 8)
            if turn == 0:
                status = choice(_ODD_STATUS)
            elif turn == 1:
                fields.insert(int(chance() * (len(fields) + 1)), choice(_ODD_FIELDS))
            elif turn == 2:
                fields.insert(int(chance() * (len(fields) + 1)), choice(fields))
            elif turn == 3:
                body = body[:-1] if chance() < 0.5 else body + choice(_ODD_BYTES)
            elif turn == 4 and chance() < 0.05:
                fields += [b"X-%d: x" % place for place in range(choice((90, 100, 250, 260, 300)))]
            elif turn == 4 and chance() < 0.05:
                fields.append(b"X-Long: " + b"x" * choice((8100, 8190, 65_600, 70_000)))
            elif turn == 6:
                fields[fields.index(length)] = b"Content-Length:" + choice(_ODD_LENGTHS) % len(body)
            elif turn == 5:
                ending = choice((b"\n", b"\r", b"\r\r\n", b" \r\n"))
        data = status + ending + b"".join(field + ending for field in fields) + ending + body
        while not is_clean and chance() < 0.25:
            at = int(chance() * (len(data) + 1))
            data = data[:at] + choice(_ODD_BYTES) + data[at + (chance() < 0.5) :]
        yield data


class Reference:
    """aiohttp's parser as `Lane` sets it up. What it reads without complaint, and keeps the connection for."""

    def __init__(
        self, parser: Callable[..., aiohttp.http.HttpResponseParser] = aiohttp.http.HttpResponseParser
    ) -> None:
        self._parser = parser
        self._loop = asyncio.new_event_loop()
        self._protocol = Mock()

    def close(self) -> None:
        self._loop.close()

    def __call__(self, data: bytes) -> Reading | None:
        """Read a response. None if the bytes are no response, a part of one, several, or the last of the connection."""
        parser = self._parser(
            self._protocol,
            self._loop,
            2**16,
            payload_exception=aiohttp.ClientPayloadError,
            response_with_body=True,
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=MAX_FIELD,
            max_field_size=MAX_FIELD,
            max_headers=MAX_FIELDS,
        )
        try:
            messages, upgraded, tail = parser.feed_data(data)
        except HttpProcessingError:
            return None
        if len(messages) != 1 or upgraded or tail:
            return None
        message, payload = messages[0]
        if message.should_close or message.upgrade or message.chunked or message.compression or not payload.is_eof():
            return None
        if "Content-Encoding" in message.headers:
            return None
        return message.code, _fields(message.headers), payload.read_nowait()


def _fields(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in headers.items()]


def difference(data: bytes, reference: Reference, recogniser: Recognises) -> tuple[bool, str | None]:
    """Whether the recogniser takes the bytes for a plain response, and how that is wrong."""
    response = recogniser(data)
    if response is None:
        return False, None
    try:
        reading: object = (response.status, _fields(response.headers), response.body)
    except KeyError as error:
        reading = error
    expected = reference(data)
    if reading != expected:
        return True, f"{data!r}\nrecognised: {reading}\nparsed: {expected}"
    return True, None


def compare(
    count: int, seed: int, reference: Reference, recogniser: Recognises, *, ordered: bool = False
) -> tuple[int, str | None]:
    """How many of so many responses were recognised, up to the first that was recognised wrongly."""
    recognised = 0
    for data in islice(responses(seed, ordered=ordered), count):
        taken, wrong = difference(data, reference, recogniser)
        recognised += taken
        if wrong is not None:
            return recognised, wrong
    return recognised, None


if __name__ == "__main__":
    began = time.monotonic()
    total, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    taken, wrong = compare(total // 2, first, Reference(), Recogniser())
    if wrong is None:
        more, wrong = compare(total - total // 2, first, Reference(), Recogniser(Shape(first=8)), ordered=True)
        taken += more
    print(f"{total} responses, {taken} recognised, {time.monotonic() - began:.0f} s: {wrong or 'no difference'}")
    sys.exit(wrong is not None)

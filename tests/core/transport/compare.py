"""Compare the recogniser with aiohttp's parser, under our limits.

    python -m tests.core.transport.compare                      # ten million responses, in about ten minutes
    python -m tests.core.transport.compare 200_000 --seed 7

Half of the responses are random, the other half are those of servers whose shape is learned. The exit status is 1 if
the recogniser accepts a response that the parser refuses or reads differently.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import NamedTuple
from unittest.mock import Mock

import aiohttp.http
import aiohttp.http_parser
from aiohttp.http_exceptions import HttpProcessingError

from dispatchkit.core.command import Response
from dispatchkit.core.transport.lane import MAX_FIELD, MAX_FIELDS
from dispatchkit.core.transport.recognise import Recogniser
from dispatchkit.core.transport.shape import Shape
from tests.core.transport.responses import responses
from tests.core.transport.servers import LEARNED_AFTER, streams

__all__ = ["Compared", "Recognises", "Reference", "compare", "compare_servers", "parser_in_c"]

Recognises = Callable[[bytes], Response | None]
Reading = tuple[int, list[tuple[str, str]], bytes, str | None]
"""Status, header fields in their order, body, Content-Type. The parser may write a name in another case."""


class Compared(NamedTuple):
    """What came of a comparison, up to the first response that was recognised wrongly."""

    total: int
    recognised: int
    learned: int
    """Responses that a learned pattern matched."""
    wrong: str | None
    """How the recogniser and the parser differ."""


def parser_in_c() -> Callable[..., aiohttp.http.HttpResponseParser]:
    """aiohttp's parser in C.

    Raises:
        AssertionError: aiohttp has no C extension, and would use its parser in Python instead.
    """
    assert aiohttp.http.HttpResponseParser is not aiohttp.http_parser.HttpResponseParserPy, "aiohttp has no C extension"
    return aiohttp.http.HttpResponseParser


class Reference:
    """aiohttp's parser as `Lane` sets it up. What it reads without complaint, and keeps the connection for."""

    def __init__(self, parser: Callable[..., aiohttp.http.HttpResponseParser]) -> None:
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
        headers = message.headers
        return message.code, _fields(headers), payload.read_nowait(), headers.get("Content-Type")


def _fields(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in headers.items()]


def difference(data: bytes, reference: Reference, recogniser: Recognises) -> tuple[bool, str | None]:
    """Whether the recogniser takes the bytes for a plain response, and how that is wrong."""
    try:
        response = recogniser(data)
        if response is None:
            return False, None
        headers = response.headers
        reading: object = response.status, _fields(headers), response.body, headers.get("Content-Type")
    except Exception as error:  # noqa: BLE001 - it is a difference, too
        reading = error
    expected = reference(data)
    if reading != expected:
        return True, f"{data!r}\nrecognised: {reading}\nparsed: {expected}"
    return True, None


def compare(count: int, seed: int, reference: Reference, recogniser: Recognises) -> Compared:
    """Compare so many random responses."""
    return _compare(islice(responses(seed), count), reference, recogniser, None)


def compare_servers(
    count: int,
    seed: int,
    reference: Reference,
    make: Callable[[Shape], Recognises] = Recogniser,
    shape: Callable[[int], Shape] = Shape,
) -> Compared:
    """Compare so many responses of servers. Each server has a recogniser and a shape of its own."""
    total = recognised = learned = 0
    for stream in streams(seed):
        if total >= count:
            break
        learning = shape(LEARNED_AFTER)
        found = _compare(islice(stream, count - total), reference, make(learning), learning)
        total, recognised, learned = total + found.total, recognised + found.recognised, learned + found.learned
        if found.wrong is not None:
            return Compared(total, recognised, learned, found.wrong)
    return Compared(total, recognised, learned, None)


def _compare(inputs: Iterable[bytes], reference: Reference, recogniser: Recognises, shape: Shape | None) -> Compared:
    total = recognised = learned = 0
    for data in inputs:
        pattern = None if shape is None else shape.pattern  # before it learns from these bytes
        taken, wrong = difference(data, reference, recogniser)
        total += 1
        recognised += taken
        learned += taken and pattern is not None and pattern.match(data) is not None
        if wrong is not None:
            return Compared(total, recognised, learned, wrong)
    return Compared(total, recognised, learned, None)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.core.transport.compare", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("count", nargs="?", type=int, default=10_000_000, help="responses (default: 10_000_000)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: 1)")
    given = parser.parse_args()
    began, half = time.monotonic(), given.count // 2
    reference = Reference(parser_in_c())
    found = [compare(half, given.seed, reference, Recogniser())]
    if found[0].wrong is None:
        found.append(compare_servers(given.count - half, given.seed, reference))
    reference.close()
    total, recognised, learned = (sum(numbers) for numbers in list(zip(*found, strict=True))[:3])
    wrong = found[-1].wrong
    print(
        f"{total:,} responses, {recognised:,} recognised, {learned:,} of them by a learned pattern, "
        f"{time.monotonic() - began:.0f} s, seed {given.seed}: {wrong or 'no difference'}"
    )
    return int(wrong is not None)


if __name__ == "__main__":
    sys.exit(main())

"""Parse a large response in slices, between which the event loop does its other work."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import attrs

from dispatchkit.core.command import Response, UnexpectedResponseError

__all__ = ["LARGE_BODY", "parsed_in_slices", "with_bytes"]

LARGE_BODY = 256 * 1024
"""Bytes of a body that is parsed at once: about 10 ms of work."""
_SLICE = 0.005
"""Seconds of work between two turns of the event loop."""
_NEVER = 2**30

_lock = threading.RLock()  # the garbage collector may end a coroutine that needs it, too
_parsing = 0
_threshold = _NEVER
"""The threshold of full collections before the first response that is being parsed."""


async def parsed_in_slices(response: Response, slices: Callable[[Response], Generator[None, None, object]]) -> Response:
    """The response with its parsed body, or with the reason why it cannot be parsed. Its ``body`` is then empty."""
    parsing = slices(response)
    until = time.perf_counter() + _SLICE
    with _without_full_collections():
        while True:
            try:
                next(parsing)
            except StopIteration as end:
                return attrs.evolve(response, body=b"", parsed=end.value)
            except UnexpectedResponseError as error:
                return attrs.evolve(response, body=b"", undecoded=str(error))
            if time.perf_counter() >= until:
                await asyncio.sleep(0)
                until = time.perf_counter() + _SLICE


def with_bytes(response: Response) -> Response:
    """The response with a body of bytes. That of a large one is a bytearray until its parser is known."""
    body = bytes(response.body)  # no copy, if it is one already
    return response if body is response.body else attrs.evolve(response, body=body)


@contextmanager
def _without_full_collections() -> Generator[None]:
    """Collect only young garbage: a full collection looks through all that was parsed, which takes 0.2 s."""
    global _parsing, _threshold  # noqa: PLW0603 - the collector is the process's own
    with _lock:
        if not _parsing:
            _threshold = _set_full(_NEVER)
        _parsing += 1
    try:
        yield
    finally:
        with _lock:
            _parsing -= 1
            if not _parsing:
                _set_full(_threshold)


def _set_full(threshold: int) -> int:
    first, second, before = gc.get_threshold()
    gc.set_threshold(first, second, threshold)
    return before

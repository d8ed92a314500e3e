"""Keep what a command's own code raises from hiding an outcome, and from showing secrets.

Tracebacks are stripped: the locals of their frames hold headers, bodies and tokens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeVar

from dispatchkit.core.command import Command

__all__ = ["hint_of", "without_frames"]

W = TypeVar("W")

_FRAMES = 8
"""Number of innermost frames that a note names."""


def without_frames(exception: Exception) -> Exception:
    """Drop the tracebacks of an exception and its causes, and add a note with the place of the raise."""
    places: deque[str] = deque(maxlen=_FRAMES)
    trace = exception.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename}:{trace.tb_lineno} in {code.co_name}")
        trace = trace.tb_next
    note = "raised at " + " > ".join(places)
    if note not in getattr(exception, "__notes__", ()):  # one exception object may be raised for every call
        exception.add_note(note)
    chain: list[BaseException] = []
    error: BaseException | None = exception
    while error is not None and error not in chain:
        chain.append(error.with_traceback(None))
        error = error.__cause__ or error.__context__
    return exception


def hint_of(command: Command[W, object], wire: W) -> str:
    """The command's hint to an unknown outcome; empty if its code raises, which must not hide the outcome."""
    try:
        hint: object = command.unknown_hint(wire)
    except (Exception, asyncio.CancelledError):  # noqa: BLE001 - a provider's code may raise anything
        return ""
    return hint if isinstance(hint, str) else ""

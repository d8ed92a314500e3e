"""Build the request of a command. A dry run needs no more of a call, so this module imports no event loop."""

from __future__ import annotations

from typing import TypeVar

from dispatchkit.core.command import Command, Request

__all__ = ["request_of"]

W = TypeVar("W")


def request_of(command: Command[W, object], wire: W, request_id: str | None) -> Request:
    """Build the request of a command.

    Raises:
        Exception: Any exception of the command or of a token callable.
    """
    try:
        return command.request(wire, request_id)
    except Exception as error:  # noqa: BLE001 - a token callable may raise anything
        exception = error.with_traceback(None)
    raise exception

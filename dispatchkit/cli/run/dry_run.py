"""``--dry-run``: the requests, without sending them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from dispatchkit.cli.text import escape_control, write

if TYPE_CHECKING:
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command, Request

__all__ = ["show_requests"]

R = TypeVar("R")
W = TypeVar("W")

_SHOWN = 3
_MAX_BODY = 4_000
_BASE64 = re.compile(r"base64,([A-Za-z0-9+/=]{24})[A-Za-z0-9+/=]{24,}")


def show_requests(client: Client[W], host: str, commands: Iterable[Command[W, R]], total: int) -> None:
    """Print the first few requests and how many more there are.

    Args:
        client: Made with a token that may be shown.
        host: Where they would go.
        commands: What would be done.
        total: How many they are.
    """
    for command in islice(commands, _SHOWN):
        write(sys.stdout, f"{_described(client.call(command).request, host.rstrip('/'))}\n\n")
    more = f", of which the first {_SHOWN} are shown" if total > _SHOWN else ""
    write(sys.stdout, f"{total:,} {'request' if total == 1 else 'requests'}{more}. None was sent.\n")


def _described(request: Request, host: str) -> str:
    lines = [f"{request.method} {host}{request.target}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    if request.body is not None:
        body = _BASE64.sub(r"base64,\1…", request.body.decode(errors="backslashreplace"))
        if len(body) > _MAX_BODY:
            body = f"{body[:_MAX_BODY]}…"
        lines += ["", *body.splitlines(), f"({len(request.body):,} bytes)"]
    return "\n".join(map(escape_control, lines))

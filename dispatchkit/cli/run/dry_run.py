"""``--dry-run``: the requests, without sending them. It needs no token, no client and no connection."""

from __future__ import annotations

import re
import sys
import uuid
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from dispatchkit.cli.settings import check_canary, client_settings, guards
from dispatchkit.cli.text import counted, escape_control, write
from dispatchkit.cli.translate import ngettext
from dispatchkit.core.call.request import request_of
from dispatchkit.core.transport.url import origin, proxy_url
from dispatchkit.core.validators import label, seconds

if TYPE_CHECKING:
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.cli.options import RunOptions
    from dispatchkit.cli.run.spec import LaunchSpec
    from dispatchkit.cli.settings import Guards
    from dispatchkit.core.command import Request

__all__ = ["describe_request", "show_requests"]

R = TypeVar("R")
W = TypeVar("W")

_SHOWN = 3
_MAX_BODY = 4_000
_BASE64 = re.compile(r"base64,([A-Za-z0-9+/=]{24})[A-Za-z0-9+/=]{24,}")
_MASK = "***"


def show_requests(options: RunOptions, spec: LaunchSpec[W, R], targets: Targets) -> None:
    """Print the first few requests and how many more there are.

    Raises:
        ValueError: A request cannot be sent like this, or an option is out of range.
    """
    host = spec.host(sandbox=options.sandbox)
    bounds = _check(options, host)
    check_canary(bounds, spec.command(targets.first), len(targets))
    wire, total = spec.wire(_MASK), len(targets)
    for number in islice(targets, _SHOWN):
        command = spec.command(number)
        request = request_of(command, wire, str(uuid.uuid4()) if command.has_request_id else None)
        write(sys.stdout, f"{describe_request(request, host.rstrip('/'))}\n\n")
    if total > _SHOWN:
        text = ngettext(
            "{count:,} request, of which the first {shown} are shown. None was sent.",
            "{count:,} requests, of which the first {shown} are shown. None was sent.",
            total,
        )
    else:
        text = ngettext("{count:,} request. None was sent.", "{count:,} requests. None was sent.", total)
    write(sys.stdout, text.format(count=total, shown=_SHOWN) + "\n")


def _check(options: RunOptions, host: str) -> Guards:
    """Check what a client would check of the options. Returns the bounds of the run."""
    origin(host, insecure=options.insecure)
    settings = client_settings(options)
    bounds = guards(options)
    for name in ("timeout", "attempt_timeout"):
        if (value := getattr(options, name)) is not None:
            seconds(name, value)
    if (proxy := settings.get("proxy")) is not None:
        proxy_url(proxy)
    if (account := settings.get("account")) is not None:
        label("account", account)
    return bounds


def describe_request(request: Request, host: str) -> str:
    """A request as text: its line, its headers and the start of its body."""
    lines = [f"{request.method} {host}{request.target}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    if (whole := request.body) is not None:
        body = _BASE64.sub(r"base64,\1…", whole.decode(errors="backslashreplace"))
        if len(body) > _MAX_BODY:
            body = f"{body[:_MAX_BODY]}…"
        size = counted(len(whole), "byte", "bytes")
        lines += ["", *body.splitlines(), f"({size})"]
    return "\n".join(map(escape_control, lines))

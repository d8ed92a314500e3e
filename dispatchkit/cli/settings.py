"""Settings of clients and fan-outs, from options. The module is imported when a command runs, not for ``--help``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypedDict, TypeVar

from dispatchkit.cli.durations import above_zero, canary_seconds, give_up_seconds
from dispatchkit.cli.durations import in_words as seconds_in_words
from dispatchkit.cli.hours import parse_window
from dispatchkit.cli.lazy import load
from dispatchkit.cli.options import ActingOptions, ConnectionOptions
from dispatchkit.cli.text import counted
from dispatchkit.cli.translate import _
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.fanout.window import in_words
from dispatchkit.core.pacing.pace import DEFAULT_PACE, Pace

if TYPE_CHECKING:
    from datetime import datetime
    from ssl import SSLContext

    from dispatchkit.core.clock import Clock
    from dispatchkit.core.command import Command
    from dispatchkit.core.fanout.window import Window
    from dispatchkit.ledger.run import Counts

__all__ = [
    "AUTO_WORKERS",
    "ClientSettings",
    "Guards",
    "canary_ahead",
    "check_canary",
    "client_settings",
    "describe_guards",
    "guards",
]

R = TypeVar("R")
W = TypeVar("W")

AUTO_WORKERS = 1024
"""Workers of a run with ``--concurrency auto``: as many as calls may ever be in flight."""


class ClientSettings(TypedDict, total=False):
    """Keywords of both clients."""

    insecure: bool
    proxy: str | None
    ssl: SSLContext
    timeout: float
    attempt_timeout: float
    pace: Pace
    retry: RetryPolicy
    account: str | None


class Guards(TypedDict):
    """Keywords of a fan-out."""

    concurrency: int
    max_launches: int | None
    stop_after_failures: int | None
    give_up_after: float | None
    canary: int | None
    canary_timeout: float
    window: Window | None


def client_settings(options: ConnectionOptions) -> ClientSettings:
    """The settings that both clients take; what was not given is left to the client.

    Raises:
        OSError: A file of a certificate cannot be read.
        ValueError: It holds no certificate.
    """
    settings = ClientSettings(insecure=options.insecure, proxy=options.proxy)
    if any(file is not None for file in (options.ca_file, options.client_cert, options.client_key)):
        tls_context = load("dispatchkit.cli.tls:tls_context")
        settings["ssl"] = tls_context(options.ca_file, options.client_cert, options.client_key)
    if options.timeout is not None:
        settings["timeout"] = above_zero("--timeout", options.timeout, such_as="240 seconds")
    if options.attempt_timeout is not None:
        settings["attempt_timeout"] = above_zero("--attempt-timeout", options.attempt_timeout, such_as="70 seconds")
    if isinstance(options, ActingOptions):
        settings["account"] = options.account
        if options.never_repeat:
            settings["retry"] = RetryPolicy(repeat_unclear=False)
        if options.rate is not None or options.concurrency == "auto":
            concurrency = "auto" if options.concurrency == "auto" else DEFAULT_PACE.concurrency
            rate = None if options.rate is None else above_zero("--rate", options.rate, such_as="50 launches a second")
            settings["pace"] = Pace(rate=rate, concurrency=concurrency)
    return settings


def guards(options: ActingOptions) -> Guards:
    """The bounds of the run.

    Raises:
        ValueError: ``--concurrency`` is neither a number nor auto. Or a duration cannot be read, or the hours of the
            launch are past or cannot be read.
    """
    if options.concurrency != "auto" and re.fullmatch("0*[1-9][0-9]*", options.concurrency) is None:
        raise ValueError(
            _("--concurrency must be an integer from 1 up, or auto, not {concurrency!r}").format(
                concurrency=options.concurrency
            )
        )
    has_hours = (options.not_before, options.not_after, options.zone) != (None, None, None)
    return Guards(
        concurrency=AUTO_WORKERS if options.concurrency == "auto" else int(options.concurrency),
        max_launches=options.max_launches,
        stop_after_failures=options.stop_after_failures,
        give_up_after=give_up_seconds(options.give_up_after),
        canary=options.canary,
        canary_timeout=canary_seconds(options.canary_timeout),
        window=parse_window(options, _now()) if has_hours else None,
    )


def _now() -> datetime:
    clock: Clock = load("dispatchkit.core.clock:SYSTEM")  # it imports asyncio, and most dry runs do without
    return clock.now()


def describe_guards(bounds: Guards, noun: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """The canary and the hours of a run, for the question."""
    rows: list[tuple[str, str]] = []
    if bounds["canary"]:
        first, within = counted(bounds["canary"], *noun), seconds_in_words(bounds["canary_timeout"])
        rows.append(
            (
                _("canary"),
                _("{first} first, and the rest once they go out, within {within}").format(first=first, within=within),
            )
        )
    window = bounds["window"]
    if window is not None and window.not_before is not None:
        rows.append((_("not before"), in_words(window.not_before)))
    if window is not None and window.not_after is not None:
        rows.append((_("not after"), in_words(window.not_after)))
    return tuple(rows)


def canary_ahead(bounds: Guards, counts: Counts, planned: int | None) -> Guards:
    """The bounds for the question about the rest of a run: without the canary, once other targets have begun.

    Args:
        bounds: The bounds of this command line.
        counts: The targets of the run.
        planned: The canary that the run was planned with.
    """
    canary = planned if bounds["canary"] is None else bounds["canary"]
    begun = counts.sending + counts.done + counts.rejected + counts.not_sent + counts.unknown
    return {**bounds, "canary": canary if canary and begun <= max(canary, planned or 0) else None}


def check_canary(bounds: Guards, command: Command[W, R] | None, total: int | None) -> None:
    """Refuse a canary that cannot protect the rest, before anything is sent.

    Args:
        bounds: The bounds of this command line.
        command: One of the commands; None if there is none.
        total: The targets that the canary is a part of; None if they are not known yet.

    Raises:
        ValueError: The command has no state to read, or the canary is not smaller than the list.
    """
    canary = bounds["canary"]
    if not canary:
        return
    if command is not None and command.goes_out(_now()) is None:
        raise ValueError(
            _(
                "--canary needs launches whose state shows that they go out, and this {command} has none: nothing "
                "was sent. Launch without --canary"
            ).format(command=type(command).__name__)
        )
    if total == 1:
        raise ValueError(
            _(
                "--canary {canary} holds nothing back: 1 id is to be launched. Nothing was sent. Launch without "
                "--canary"
            ).format(canary=canary)
        )
    if total is not None and canary >= total:
        raise ValueError(
            _(
                "--canary {canary} holds nothing back: {count:,} ids are to be launched. Nothing was sent. Give a "
                "smaller one, {most} at most, or launch without --canary"
            ).format(canary=canary, count=total, most=total - 1)
        )

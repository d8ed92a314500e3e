"""Settings of clients and fan-outs, from options. The module is imported when a command runs, not for ``--help``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypedDict

from dispatchkit.cli.durations import give_up_seconds
from dispatchkit.cli.lazy import load
from dispatchkit.cli.options import ActingOptions, ConnectionOptions
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.pacing.pace import DEFAULT_PACE, Pace

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["AUTO_WORKERS", "ClientSettings", "Guards", "client_settings", "guards"]

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
        settings["timeout"] = options.timeout
    if options.attempt_timeout is not None:
        settings["attempt_timeout"] = options.attempt_timeout
    if isinstance(options, ActingOptions):
        settings["account"] = options.account
        if options.never_repeat:
            settings["retry"] = RetryPolicy(repeat_unclear=False)
        if options.rate is not None or options.concurrency == "auto":
            concurrency = "auto" if options.concurrency == "auto" else DEFAULT_PACE.concurrency
            settings["pace"] = Pace(rate=options.rate, concurrency=concurrency)
    return settings


def guards(options: ActingOptions) -> Guards:
    """The bounds of the run.

    Raises:
        ValueError: ``--concurrency`` is neither a number nor auto, or ``--give-up-after`` is no duration.
    """
    if options.concurrency != "auto" and re.fullmatch("0*[1-9][0-9]*", options.concurrency) is None:
        raise ValueError(f"--concurrency must be an integer from 1 up, or auto, not {options.concurrency!r}")
    return Guards(
        concurrency=AUTO_WORKERS if options.concurrency == "auto" else int(options.concurrency),
        max_launches=options.max_launches,
        stop_after_failures=options.stop_after_failures,
        give_up_after=give_up_seconds(options.give_up_after),
    )

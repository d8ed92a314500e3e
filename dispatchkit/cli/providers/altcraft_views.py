"""``dispatchkit altcraft status`` and ``log``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatchkit import AltcraftClient
from dispatchkit.altcraft.reads import ReadLog, ReadStatus
from dispatchkit.built_in.altcraft import PROVIDER
from dispatchkit.cli.input.profile import with_profile
from dispatchkit.cli.input.values import exit_on_user_error, token
from dispatchkit.cli.providers.views import moment, read, read_ids, show_log, show_statuses
from dispatchkit.cli.settings import client_settings

if TYPE_CHECKING:
    from dispatchkit.cli.commands.altcraft import AltcraftReadOptions, LogOptions, StatusOptions

__all__ = ["connect", "log", "status"]


def status(options: StatusOptions) -> None:
    """Read whether mailings are active, and show it."""
    with exit_on_user_error():
        ids = read_ids(options, ReadStatus)
        client = connect(options)
    show_statuses(
        client,
        map(ReadStatus, ids),
        ("mailing", "active", "completed", "status"),
        lambda read: (read.is_active, read.is_completed, read.status),
        json=options.json,
        flexible=("status",),
    )


def log(options: LogOptions) -> None:
    """Read the log of a mailing, and show it."""
    with exit_on_user_error():
        command = ReadLog(options.id, since=moment("--since", options.since), limit=options.limit)
        client = connect(options)
    show_log(read(client, command), json=options.json)


def connect(options: AltcraftReadOptions) -> AltcraftClient:
    """The client of a command that reads."""
    options = with_profile(options, PROVIDER)
    key = token(options, PROVIDER.token_variable)
    return AltcraftClient(options.base_url, key, wire=options.wire, **client_settings(options))

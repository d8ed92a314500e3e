"""``dispatchkit altcraft status`` and ``log``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatchkit import AltcraftClient
from dispatchkit.altcraft.reads import ReadLog
from dispatchkit.built_in.altcraft import PROVIDER
from dispatchkit.cli.input.ids import from_arguments
from dispatchkit.cli.input.values import exit_on_user_error, token
from dispatchkit.cli.providers.views import moment, read, show_log, show_statuses
from dispatchkit.cli.settings import client_settings

if TYPE_CHECKING:
    from dispatchkit.cli.commands.altcraft import AltcraftReadOptions, LogOptions, StatusOptions

__all__ = ["log", "status"]


def status(options: StatusOptions) -> None:
    """Read whether mailings are active, and show it."""
    with exit_on_user_error():
        ids, client = from_arguments(options.ids), _client(options)
    show_statuses(client, ids, json=options.json)


def log(options: LogOptions) -> None:
    """Read the log of a mailing, and show it."""
    with exit_on_user_error():
        command = ReadLog(options.id, since=moment("--since", options.since), limit=options.limit)
        client = _client(options)
    show_log(read(client, command), json=options.json)


def _client(options: AltcraftReadOptions) -> AltcraftClient:
    key = token(options, PROVIDER.token_variable)
    return AltcraftClient(options.base_url, key, wire=options.wire, **client_settings(options))

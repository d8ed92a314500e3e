"""``dispatchkit direct list``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatchkit import DirectClient
from dispatchkit.built_in.direct import PROVIDER
from dispatchkit.cli.input.values import exit_on_user_error, token
from dispatchkit.cli.providers.views import check_status, moment, read, show_dispatches
from dispatchkit.cli.settings import client_settings
from dispatchkit.direct.commands import ReadDispatches

if TYPE_CHECKING:
    from dispatchkit.cli.commands.direct import ListOptions

__all__ = ["list_dispatches"]


def list_dispatches(options: ListOptions) -> None:
    """Read the dispatches that pass every filter, and show them."""
    with exit_on_user_error():
        command = ReadDispatches(
            dispatch_id=options.dispatch_id,
            status=options.status,
            dispatch_name=options.dispatch_name,
            traffic_center_id=options.traffic_center_id,
            created_from=moment("--created-from", options.created_from),
            created_to=moment("--created-to", options.created_to),
        )
        key = token(options, PROVIDER.token_variable)
        client = DirectClient(key, base_url=options.base_url, **client_settings(options))
    listing = read(client, command)
    with exit_on_user_error():
        check_status(listing, options.status)
    show_dispatches(listing, json=options.json)

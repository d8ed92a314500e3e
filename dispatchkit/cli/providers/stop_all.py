"""``dispatchkit direct stop --status``: stop every dispatch that has a status."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import attrs
import typer

from dispatchkit.cli.input.ids import Targets
from dispatchkit.cli.input.values import exit_on_user_error, token
from dispatchkit.cli.providers.views import check_status, describe_listing, read
from dispatchkit.cli.run.launch import launch
from dispatchkit.cli.text import write
from dispatchkit.direct.commands import DirectAuth, ReadDispatches

if TYPE_CHECKING:
    from dispatchkit.cli.options import RunOptions
    from dispatchkit.cli.run.spec import LaunchSpec

__all__ = ["stop_all"]


def stop_all(options: RunOptions, status: str, spec: LaunchSpec[DirectAuth, None]) -> None:
    """Stop every dispatch that has a status at this moment; what gets it afterwards is left alone and not counted.

    Raises:
        typer.Exit: Always, with the exit status.
    """
    with exit_on_user_error():
        if options.ids or options.from_ is not None or options.column is not None:
            raise ValueError("give either --status or ids (as arguments or with --from), not both")
        if options.sandbox:
            raise ValueError("--status does not go with --sandbox: a new sandbox has no started dispatches")
        host, key = spec.base_url or "", token(options, spec.token_variable)
        client, command = spec.connect(host, key), ReadDispatches(status=status)
    listing = read(client, command)
    with exit_on_user_error():
        check_status(listing, status)
        if not listing and options.expected is not None:
            raise ValueError(f"there are 0 ids, but --expected is {options.expected:,}: nothing was stopped")
    if not listing and not listing.missing:
        write(sys.stderr if options.json else sys.stdout, f"No dispatch has the status {status!r}: nothing to stop.\n")
        raise typer.Exit(0)
    write(sys.stderr, describe_listing(listing, status))
    if not listing:
        raise typer.Exit(1)
    targets = Targets((dispatch.dispatch_id, dispatch.dispatch_id) for dispatch in listing)
    missing = listing.missing
    del listing  # it may be large
    try:
        launch(options, attrs.evolve(spec, targets=targets, token=key))
    except typer.Exit as left:
        # Dispatches that were not listed were not stopped either.
        raise typer.Exit(left.exit_code or int(missing > 0)) from None

"""What the commands do that look before they act: lists, statuses, logs, and everything that has a status."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, TypeVar, cast

import attrs
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dispatchkit import FanOut
from dispatchkit.altcraft.commands import AltcraftWire, ReadStatus
from dispatchkit.cli.input.ids import Targets
from dispatchkit.cli.input.values import mistakes_in_one_line, token
from dispatchkit.cli.output.text import as_json, clean, number_of, one_line, put, said, utc
from dispatchkit.cli.run.drive import run_loop
from dispatchkit.cli.run.execute import carry_out
from dispatchkit.direct.commands import STATUSES, DirectWire, ReadDispatches
from dispatchkit.errors import AuthenticationError, DispatchkitError

if TYPE_CHECKING:
    from dispatchkit import Dispatch, Listing, LogEntry
    from dispatchkit.cli.options import RunOptions
    from dispatchkit.cli.run.execute import Job
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command

__all__ = ["moment", "read", "show_dispatches", "show_log", "show_statuses", "stop_all"]

R = TypeVar("R")
W = TypeVar("W")

_SHOWN = 5
_ANY_WIDTH = 10_000


def moment(option: str, text: str | None) -> datetime | None:
    """The time that an option says; UTC unless it says a zone.

    Raises:
        ValueError: It says none.
    """
    if text is None:
        return None
    try:
        said = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} must be a time such as 2026-01-31T09:00:00, not {text!r}") from None
    return said.replace(tzinfo=UTC) if said.tzinfo is None else said


def read(client: Client[W], command: Command[W, R]) -> R:
    """Perform one read.

    Raises:
        typer.Exit: With status 1, after a line that says why; a read that failed has changed nothing.
    """

    async def reading() -> R:
        async with client:
            return await client.perform(command)

    try:
        return run_loop(reading())
    except DispatchkitError as error:
        put(sys.stderr, f"dispatchkit: this could not be read: {clean(error.summary)}\n{error.hint}\n")
    raise typer.Exit(1)


def stop_all(options: RunOptions, status: str, job: Job[DirectWire, None]) -> None:
    """Stop every dispatch that has a status at this moment; what gets it afterwards is left alone and not counted.

    Raises:
        typer.Exit: Always, with the exit status.
    """
    with mistakes_in_one_line():
        if options.ids or options.from_ is not None or options.column is not None:
            raise ValueError("give either --status or the ids (as arguments or with --from), not both")
        if options.sandbox:
            raise ValueError("--status does not go with --sandbox: nothing has happened yet in a sandbox of its own")
        host, key = job.base_url or "", token(options, job.token_variable)
        client, command = job.connect(host, key), ReadDispatches(status=status)
    listing = read(client, command)
    with mistakes_in_one_line():
        if not listing and not listing.missing and status not in STATUSES:
            # A slip of the pen must not look like success; but a word of the provider's that is new has dispatches.
            raise ValueError(
                f"no dispatch has the status {status!r}, which is none of those that are known: {', '.join(STATUSES)}"
            )
        if not listing and options.expected is not None:
            raise ValueError(f"there are 0 ids, but --expected {options.expected:,}: nothing was started")
    if not listing and not listing.missing:
        put(sys.stderr if options.json else sys.stdout, f"No dispatch has the status {status!r}: nothing to stop.\n")
        raise typer.Exit(0)
    put(sys.stderr, _found(listing, status))
    if not listing:
        raise typer.Exit(1)
    found = Targets((dispatch.dispatch_id, dispatch.dispatch_id) for dispatch in listing)
    try:
        carry_out(options, attrs.evolve(job, found=found, token=key))
    except typer.Exit as left:
        # What was not listed was not stopped either.
        raise typer.Exit(left.exit_code or int(listing.missing > 0)) from None


def _found(listing: Listing[Dispatch], status: str) -> str:
    one = len(listing) == 1
    lines = [f"{len(listing):,} {'dispatch has' if one else 'dispatches have'} the status {status!r}:"]
    lines += [f"  {each.dispatch_id}  {each.dispatch_name or ''}".rstrip() for each in islice(listing, _SHOWN)]
    if len(listing) > _SHOWN:
        lines.append(f"  and {len(listing) - _SHOWN:,} more")
    return "\n".join(map(clean, lines)) + "\n" + _missing(listing)


def _missing(listing: Listing[object]) -> str:
    if not listing.missing:
        return ""
    return f"The provider counts {listing.total:,}, but listed only {len(listing):,} of them that fit: look again.\n"


def show_dispatches(listing: Listing[Dispatch], *, json: bool) -> None:
    """Show dispatches, one a row or one JSON object a line."""
    if json:
        _put_objects(listing)
    else:
        rows = (
            (
                each.dispatch_id,
                each.status,
                each.dispatch_name,
                utc(each.created),
                each.messages and each.messages.total,
                each.messages and each.messages.delivered,
            )
            for each in listing
        )
        _put_table(("dispatch", "status", "name", "created (UTC)", "messages", "delivered"), rows)
    put(sys.stderr, _missing(listing))


def show_log(listing: Listing[LogEntry], *, json: bool) -> None:
    """Show a mailing's log, one entry a row or one JSON object a line."""
    if json:
        _put_objects(listing)
    else:
        rows = ((utc(each.time), each.level, each.state, each.message) for each in listing)
        _put_table(("time (UTC)", "level", "state", "message"), rows)
    put(sys.stderr, _missing(listing))


def show_statuses(client: Client[AltcraftWire], ids: Targets, *, json: bool) -> None:
    """Read the status of mailings and show them, one a row or one JSON object an outcome.

    Raises:
        typer.Exit: With status 1, if one could not be read.
    """
    rows: dict[int, tuple[object, ...]] = {}

    async def reading() -> bool:
        async with client:
            run = FanOut(client, map(ReadStatus, ids))
            try:
                async for outcome in run:
                    if json:
                        put(sys.stdout, f"{as_json(outcome)}\n")
                    if outcome.error is not None:
                        put(sys.stderr, f"{one_line(outcome)}\n")
                    if (status := outcome.result) is not None:
                        number = number_of(outcome.command)
                        rows[outcome.index] = (number, status.is_active, status.is_completed, status.status)
            except AuthenticationError:
                put(sys.stderr, "The token was refused.\n")
            return run.report.failed == 0

    whole = run_loop(reading())
    if not json:
        _put_table(("mailing", "active", "completed", "status"), (rows[index] for index in sorted(rows)))
    if not whole:
        raise typer.Exit(1)


def _put_objects(values: Iterable[object]) -> None:
    for value in values:
        if not put(sys.stdout, f"{json_module.dumps(_plain(value))}\n"):
            return


def _plain(value: object) -> object:
    """A model as JSON can say it; what a provider said beyond the model stays as it came."""
    if isinstance(value, datetime):
        return value.isoformat()
    if attrs.has(type(value)):
        kind = cast("type[attrs.AttrsInstance]", type(value))
        fields = sorted(attrs.fields(kind), key=lambda field: field.name == "more")  # which comes last
        return {field.name: _plain(getattr(value, field.name)) for field in fields}
    return value


def _put_table(header: Sequence[str], rows: Iterable[tuple[object, ...]]) -> None:
    table = Table(*header, box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*(Text(clean(said(value))) for value in row))
    # Only a terminal has an edge.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _ANY_WIDTH)
    with console.capture() as captured:
        console.print(table, highlight=False)
    put(sys.stdout, captured.get())

"""Lists, statuses and logs, and the targets that have a given status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dispatchkit import FanOut
from dispatchkit.cli.input.origin import Reader
from dispatchkit.cli.input.values import read_targets
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.option_names import as_options
from dispatchkit.cli.output.tables import PlainTable, Rows
from dispatchkit.cli.providers.listed import SHOWN
from dispatchkit.cli.text import (
    escape_control,
    format_failure,
    format_value,
    ignore_broken_pipe,
    utc,
    write,
)
from dispatchkit.cli.translate import N_, _, ngettext
from dispatchkit.direct.commands import STATUSES
from dispatchkit.errors import AuthenticationError, DispatchkitError, RejectedError
from dispatchkit.providers import installed_provider
from dispatchkit.values import Value, as_json

if TYPE_CHECKING:
    from dispatchkit import Dispatch, Listing, LogEntry
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.cli.options import ReadIdsOptions
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command

__all__ = [
    "check_status",
    "describe_listing",
    "list_was_cut",
    "moment",
    "read",
    "read_ids",
    "show_dispatches",
    "show_log",
    "show_statuses",
    "unread",
]

R = TypeVar("R")
W = TypeVar("W")

_ANY_WIDTH = 10_000
_MAX_FITTED = 1000
"""Rows of the longest table that is fitted to the terminal."""


def moment(option: str, text: str | None) -> datetime | None:
    """The time that an option says; UTC unless it says a zone.

    Raises:
        ValueError: It says none.
    """
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            _("{option} must be a time such as 2026-01-31T09:00:00, not {text!r}").format(option=option, text=text)
        ) from None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed


def read(client: Client[W], command: Command[W, R], *, interrupted: str = "") -> R:
    """Perform one read.

    Args:
        client: The client.
        command: The read.
        interrupted: What is said after Ctrl-C.

    Raises:
        typer.Exit: With status 1, after a line that says why; a read that failed has changed nothing. With status 130
            after Ctrl-C.
    """

    async def reading() -> R:
        async with client:
            return await client.perform(command)

    try:
        return run_loop(reading())
    except DispatchkitError as error:
        raise typer.Exit(unread(error)) from None
    except KeyboardInterrupt:
        write(sys.stderr, f"\n{interrupted}\n" if interrupted else "\n")
        raise typer.Exit(130) from None


def unread(error: DispatchkitError) -> int:
    """Say why the provider could not be read. Returns the exit status."""
    why, hint = as_options(escape_control(error.summary)), as_options(error.hint)
    text = _("the provider could not be read: {why}").format(why=why)
    write(sys.stderr, f"dispatchkit: {text}\n{hint}\n")
    return 1


_DISPATCHES = (
    N_("dispatch"), N_("status"), N_("name"), N_("created (UTC)"), N_("messages"), N_("delivered"),
)  # fmt: skip
_LOG = (N_("time (UTC)"), N_("level"), N_("state"), N_("message"))


def describe_listing(listing: Listing[Dispatch], status: str, *, total: int | None = None) -> str:
    """The first dispatches that have a status, and how many more there are.

    Args:
        listing: The dispatches, or the first ones.
        status: The status.
        total: How many there are. Default: those of the listing.
    """
    total = len(listing) if total is None else total
    head = ngettext(
        "{count:,} dispatch has the status {status!r}:", "{count:,} dispatches have the status {status!r}:", total
    )
    lines = [head.format(count=total, status=status)]
    lines += [f"  {each.dispatch_id}  {each.dispatch_name or ''}".rstrip() for each in islice(listing, SHOWN)]
    if total > SHOWN:
        lines.append("  " + _("and {count:,} more").format(count=total - SHOWN))
    return "\n".join(map(escape_control, lines)) + "\n" + _missing(listing)


def list_was_cut(total: int, listed: int) -> str:
    """What is said of a list that lacks some of what the provider counts."""
    text = _("The list is not complete: the provider counts {total:,}, and listed {listed:,}. Try again.")
    return text.format(total=total, listed=listed) + "\n"


def _missing(listing: Listing[object]) -> str:
    return list_was_cut(listing.total or 0, len(listing)) if listing.missing else ""


def check_status(listing: Listing[Dispatch], status: str | None) -> None:
    """Refuse a status that no dispatch has and no page names: a typo must not look like an empty list.

    Raises:
        ValueError: It is such a status.
    """
    if status is not None and status not in STATUSES and not listing and not listing.missing:
        raise ValueError(
            _("no dispatch has the status {status!r}, and it is not a known status. Those are: {names}").format(
                status=status, names=", ".join(STATUSES)
            )
        )


def show_dispatches(listing: Listing[Dispatch], *, json: bool) -> None:
    """Show dispatches, one a row or one JSON object a line.

    Raises:
        typer.Exit: With status 1, if the provider did not list all.
    """
    if json:
        _write_objects(listing)
    else:
        rows = (
            (
                dispatch.dispatch_id,
                dispatch.status,
                dispatch.dispatch_name,
                utc(dispatch.created),
                dispatch.messages and dispatch.messages.total,
                dispatch.messages and dispatch.messages.delivered,
            )
            for dispatch in listing
        )
        _write_table(_DISPATCHES, rows)
    write(sys.stderr, _missing(listing))
    if listing.missing:
        raise typer.Exit(1)


def show_log(listing: Listing[LogEntry], *, json: bool) -> None:
    """Show a mailing's log, one entry a row or one JSON object a line."""
    if json:
        _write_objects(listing)
    else:
        rows = ((utc(entry.time), entry.level, entry.state, entry.message) for entry in listing)
        _write_table(_LOG, rows)
    write(sys.stderr, _missing(listing))


def read_ids(options: ReadIdsOptions, command: type[Command[W, R]]) -> Targets:
    """The ids whose state is to be read.

    Raises:
        ValueError: See `read_targets`.
        OSError: The file cannot be read.
    """
    ids = read_targets(options, Reader.of(installed_provider(command.provider), command.__name__, only_reads=True))
    for note in ids.notes:
        write(sys.stderr, f"{escape_control(note)}\n")
    return ids


def show_statuses(
    client: Client[W],
    commands: Iterable[Command[W, R]],
    names: Sequence[str],
    cells: Callable[[R], tuple[object, ...]],
    *,
    json: bool,
    optional: Sequence[str] = (),
    flexible: Sequence[str] = (),
) -> None:
    """Read the status of targets and show them, one a row or one JSON object an outcome.

    Args:
        client: Whose commands they are.
        commands: The reads, one a target.
        names: The columns of the table. The first one is that of the targets.
        cells: The other cells of a row.
        json: Whether to write JSON.
        optional: See `PlainTable`.
        flexible: See `PlainTable`.

    Raises:
        typer.Exit: With status 1, if one could not be read, or is not known to the provider.
    """
    rows: dict[int, tuple[object, ...]] = {}

    async def reading() -> bool:
        async with client:
            fan_out = FanOut(client, commands)
            try:
                async for outcome in fan_out:
                    if json:
                        write(sys.stdout, f"{as_json(outcome)}\n")
                    if outcome.error is not None:
                        write(sys.stderr, f"{format_failure(outcome)}\n")
                    elif not json:
                        rows[outcome.index] = (outcome.target, *cells(outcome.result))
            except AuthenticationError:
                write(sys.stderr, _("The token was refused.") + "\n")
            except RejectedError:
                write(sys.stderr, _("The provider's first answer refused the token or the account.") + "\n")
            return fan_out.report.failed == 0

    whole = run_loop(reading())
    if not json:
        table, left = PlainTable(names, optional=optional, flexible=flexible), (rows[index] for index in sorted(rows))
        table.write([*islice(left, _MAX_FITTED)])
        while (batch := [*islice(left, _MAX_FITTED)]) and table.write(batch):
            pass
    if not whole:
        raise typer.Exit(1)


def _write_objects(values: Iterable[Value]) -> None:
    objects = Rows("json", Value, ())
    for value in values:
        if not objects.add(value):
            return
    objects.flush()


def _write_table(header: Sequence[str], rows: Iterable[tuple[object, ...]]) -> None:
    """Write a table. A long one is not fitted to the terminal, since fitting takes 0.3 ms a row."""
    rows = iter(rows)
    first = [*islice(rows, _MAX_FITTED)]
    if len(first) == _MAX_FITTED:
        plain = PlainTable(header)
        plain.write(first)
        while (batch := [*islice(rows, _MAX_FITTED)]) and plain.write(batch):
            pass
        return
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(Text(_(name)), overflow="fold")
    for row in first:
        table.add_row(*(Text(escape_control(format_value(value))) for value in row))
    # Only a terminal has an edge.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _ANY_WIDTH)
    with ignore_broken_pipe(sys.stdout):  # Rich itself writes when a capture ends
        with console.capture() as captured:
            console.print(table, highlight=False)
        write(sys.stdout, captured.get())

"""``dispatchkit direct stop --status``: stop every dispatch that has a status.

A question, a count or a ledger needs the whole list first. With ``--yes`` alone, the dispatches of each window of the
list are stopped while the next window is read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

import attrs
import typer

from dispatchkit.cli.input.ids import Targets
from dispatchkit.cli.input.values import exit_on_user_error, token
from dispatchkit.cli.lazy import load
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.option_names import as_options
from dispatchkit.cli.output.log_file import with_log
from dispatchkit.cli.output.notify import Notifier, notifier_of, refusal_told
from dispatchkit.cli.output.reporter import Reporter
from dispatchkit.cli.providers.listed import Listed
from dispatchkit.cli.providers.views import check_status, describe_listing, list_was_cut, read, unread
from dispatchkit.cli.run.launch import launch, refused_on_user_error
from dispatchkit.cli.run.spec import describe
from dispatchkit.cli.settings import check_canary, guards
from dispatchkit.cli.text import escape_control, left_out_repeats, write
from dispatchkit.cli.translate import _, ngettext
from dispatchkit.core.listing import Listing
from dispatchkit.direct.commands import DirectAuth, ReadDispatches

if TYPE_CHECKING:
    from dispatchkit.cli.options import RunOptions
    from dispatchkit.cli.run.spec import LaunchSpec
    from dispatchkit.cli.settings import Guards
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command

__all__ = ["stop_all"]


def stop_all(options: RunOptions, status: str, spec: LaunchSpec[DirectAuth, None]) -> None:
    """Stop every dispatch that has a status at this moment; what gets it afterwards is left alone and not counted.

    Raises:
        typer.Exit: Always, with the exit status.
    """
    with refused_on_user_error(options):
        if options.ids or options.from_ is not None or options.column is not None:
            raise ValueError(_("give either --status or ids (as arguments or with --from), not both"))
        if options.sandbox:
            raise ValueError(_("--status does not go with --sandbox: a new sandbox has no started dispatches"))
        host, key = spec.base_url or "", token(options, spec.token_variable)
        client, command = spec.connect(host, key), ReadDispatches(status=status)
        bounds, notifier = guards(options), notifier_of(options)
        check_canary(bounds, spec.command(1), None)
    with refusal_told(notifier, options.run):
        if _stops_while_listing(options):
            with with_log(options.log_file):
                raise typer.Exit(
                    run_loop(_stop_while_listing(options, spec, client, status, bounds=bounds, notifier=notifier))
                )
        listing = read(client, command, interrupted=_("Nothing was stopped."))
        with exit_on_user_error():
            check_status(listing, status)
            if not listing and options.expected is not None:
                text = _("there are 0 ids, but --expected is {expected:,}: nothing was stopped")
                raise ValueError(text.format(expected=options.expected))
        if not listing and not listing.missing:
            _say_nothing_to_stop(options, status)
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


def _stops_while_listing(options: RunOptions) -> bool:
    """Whether nothing asks for the whole list before the first stop."""
    recorded = options.ledger or options.run or os.environ.get("DISPATCHKIT_LEDGER")
    counted_first = options.expected is not None or options.failures is not None
    return options.yes and not (options.dry_run or recorded or counted_first)


async def _stop_while_listing(
    options: RunOptions,
    spec: LaunchSpec[DirectAuth, None],
    client: Client[DirectAuth],
    status: str,
    *,
    bounds: Guards,
    notifier: Notifier | None,
) -> int:
    """Stop the dispatches of each window of the list while the next one is read. Returns the exit status."""
    listed = Listed(client, status)
    async with client, aclosing(listed.pages()) as pages:
        first = await _first_page(pages)
        if not first:
            return _nothing_listed(options, listed, status)
        reporter = Reporter(
            total=len(first),
            most=options.max_launches,
            verb=spec.verb,
            noun=spec.noun,
            json=options.json,
            quiet=options.quiet,
            notifier=notifier,
            invocation=options.invocation,
        )
        listed.tell = lambda: reporter.extend(len(listed.ids))

        async def commands() -> AsyncIterator[Command[DirectAuth, None]]:
            for number in first:
                yield spec.command(number)
            async for page in pages:
                for number in page:
                    yield spec.command(number)

        drive = load("dispatchkit.cli.run.drive:drive")
        with reporter:
            report, interrupted = await drive(client, commands(), reporter, bounds)
        targets = Targets((number, number) for number in listed.ids)
        write(sys.stderr, describe_listing(Listing(tuple(listed.first)), status, total=len(targets)))
        reporter.extend(len(targets), describe(options, spec, targets, spec.base_url or ""))
        code = reporter.summary(report, interrupted=interrupted)
    incomplete = _tell_of_list(options, listed, status)
    return code or incomplete


async def _first_page(pages: AsyncIterator[list[int]]) -> list[int]:
    """The first page with an id; empty if there is none."""
    async for page in pages:
        if page:
            return page
    return []


def _nothing_listed(options: RunOptions, listed: Listed, status: str) -> int:
    if listed.error is not None:
        return unread(listed.error)
    with exit_on_user_error():
        check_status(Listing((), total=None if listed.cut is None else listed.cut[0]), status)
    if listed.cut is None:
        _say_nothing_to_stop(options, status)
        return 0
    write(sys.stderr, list_was_cut(*listed.cut))
    return 1


def _say_nothing_to_stop(options: RunOptions, status: str) -> None:
    write(
        sys.stderr if options.json else sys.stdout,
        _("No dispatch has the status {status!r}: nothing to stop.").format(status=status) + "\n",
    )


def _tell_of_list(options: RunOptions, listed: Listed, status: str) -> int:
    """Say what the list lacked. Returns the exit status for it."""
    again = options.invocation.again()
    if listed.repeated:
        write(sys.stderr, left_out_repeats(listed.repeated))
    if listed.later:
        text = ngettext(
            "Since then, {count:,} more dispatch has the status {status!r}. To stop what has it now: {line}",
            "Since then, {count:,} more dispatches have the status {status!r}. To stop what has it now: {line}",
            listed.later,
        )
        write(sys.stderr, text.format(count=listed.later, status=status, line=again) + "\n")
    if listed.cut is not None:
        write(sys.stderr, list_was_cut(*listed.cut))
    if listed.is_whole:
        return int(listed.cut is not None or listed.later > 0)
    why = "" if listed.error is None else f": {as_options(escape_control(listed.error.summary))}"
    text = ngettext(
        "The list broke off{why}. Stopping was tried for the {count:,} dispatch that was listed until then, as counted "
        "above; others may have the status {status!r}. To go on: {line}",
        "The list broke off{why}. Stopping was tried for the {count:,} dispatches that were listed until then, as "
        "counted above; others may have the status {status!r}. To go on: {line}",
        len(listed.ids),
    )
    write(sys.stderr, text.format(why=why, count=len(listed.ids), status=status, line=again) + "\n")
    return 1

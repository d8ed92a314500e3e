"""What ``dispatchkit resume`` and ``dispatchkit stop-run`` do: go on with a run of a ledger, and stop one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import attrs
import typer

import dispatchkit
from dispatchkit.cli.input.ledger_ref import Place, places
from dispatchkit.cli.input.question import ask
from dispatchkit.cli.input.values import mistakes_in_one_line, token
from dispatchkit.cli.output.failures import Sheet
from dispatchkit.cli.output.reporter import Show
from dispatchkit.cli.output.text import clean, put
from dispatchkit.cli.run.drive import Memory, run_loop
from dispatchkit.cli.run.ledger_run import perform
from dispatchkit.cli.run.takeover import Decisions, Hindrances, decide, hindrances
from dispatchkit.cli.views.ledger import Seen, look, settings_of, the_run, unknown_for_good
from dispatchkit.core.clock import SYSTEM
from dispatchkit.errors import LedgerError

if TYPE_CHECKING:
    from dispatchkit import AltcraftClient, DirectClient, Report
    from dispatchkit.cli.commands.ledger import ResumeOptions
    from dispatchkit.cli.options import Guards
    from dispatchkit.core.call.client import Client

__all__ = ["go_on", "stop"]

W = TypeVar("W")

_URL = "DISPATCHKIT_ALTCRAFT_URL"
_TOKENS = {"direct": "DISPATCHKIT_DIRECT_TOKEN", "altcraft": "DISPATCHKIT_ALTCRAFT_TOKEN"}
_NOUNS = {"direct": ("dispatch", "dispatches"), "altcraft": ("mailing", "mailings")}


def go_on(options: ResumeOptions) -> None:
    """Check everything, ask, go on, report.

    Raises:
        typer.Exit: Always, with the exit status.
    """
    with mistakes_in_one_line():
        place = _place(options)
        guards = options.guards()
        seen, hindering = run_loop(_see(place))
        place = attrs.evolve(place, run=seen.run.name)
        run, settings = seen.run, settings_of(seen.run)
        if not run.whole:
            raise ValueError(
                f"the plan of run {run.name!r} is not whole: run the command again that launched it, which finishes "
                "its plan and goes on"
            )
        if not seen.left:
            told, kept = f"Nothing is left of run {clean(repr(run.name))}.", seen.counts.unknown_for_good
            if kept:
                told = f"Nothing of run {clean(repr(run.name))} can go on. {unknown_for_good(kept)}"
            put(sys.stderr if options.json else sys.stdout, f"{told}\n")
            raise typer.Exit(3 if kept else 0)
        client = _connect(options, settings)
    noun = _NOUNS[settings["provider"]]
    if run.stopped:
        put(sys.stderr, f"Run {clean(repr(run.name))} was stopped: to resume it lets it go on.\n")
    if not options.yes and seen.left > 1:
        ask(f"resume run {run.name!r}: {seen.left:,} of {run.total:,} {noun[1]} are left, at {settings['base_url']}")
    decisions = decide(hindering, options, place)
    with mistakes_in_one_line():
        sheet = None if options.failures is None else Sheet(options.failures)
        show = Show(
            total=run.total,
            most=options.max_launches,
            verb="resume",
            noun=noun,
            json=options.json,
            quiet=options.quiet,
            sheet=sheet,
            place=place,
        )
        show.planned = True
        with show:
            report, interrupted = run_loop(_resume(client, place, decisions, show=show, guards=guards, sheet=sheet))
    raise typer.Exit(show.summary(report, interrupted=interrupted))


def _place(options: ResumeOptions) -> Place:
    words = options.where or []
    place = places(words[:1], run=False)
    if len(words) > 1:
        raise ValueError(f"name the run with --run: {place.resume(words[1])}")
    return Place(place.where, options.run, named=place.named)


async def _see(place: Place) -> tuple[Seen, Hindrances]:
    async with place.open() as ledger:
        run = await the_run(ledger, place)
        return await look(ledger, run), await hindrances(ledger, run.name)


def _connect(options: ResumeOptions, settings: dict[str, str]) -> DirectClient | AltcraftClient:
    provider, host = settings.get("provider"), settings.get("base_url", "")
    if provider not in _TOKENS:
        raise ValueError(f"the run is of the provider {provider!r}, which this release does not know: upgrade it")
    key = token(options, _TOKENS[provider])
    if provider == "direct":
        return dispatchkit.DirectClient(key, base_url=host, **options.client_settings())
    ours = os.environ.get(_URL)
    if ours and ours.rstrip("/") != host.rstrip("/"):
        # The token is most likely that platform's, and must not be sent to another.
        raise ValueError(f"the run goes to {host}, but {_URL} says {ours}: unset it, or set it to the run's host")
    return dispatchkit.AltcraftClient(
        host,
        key,
        wire=cast("Literal['json', 'xml']", settings.get("wire", "json")),
        deduplicates=settings.get("deduplicates") == "yes",
        **options.client_settings(),
    )


async def _resume(
    client: DirectClient | AltcraftClient,
    place: Place,
    decisions: Decisions,
    *,
    show: Show,
    guards: Guards,
    sheet: Sheet | None,
) -> tuple[Report, bool]:
    async with place.open() as ledger, client:
        memory = Memory(ledger, place, decisions, resumes=True)
        return await perform(cast("Client[object]", client), None, memory, show=show, guards=guards, sheet=sheet)


def stop(words: Sequence[str]) -> None:
    """Stop a run, whatever works on it, and wait until no process can launch anything of it any more.

    Raises:
        typer.Exit: With status 2, if it cannot be stopped; with 130 after Ctrl-C, when it is stopped all the same.
    """
    until: datetime | None = None

    async def stopping(place: Place) -> Seen | None:
        nonlocal until
        async with place.open() as ledger:
            run = await the_run(ledger, place)
            seen = await look(ledger, run)
            if run.whole and not seen.left and not seen.holders:
                return None
            try:
                until = await ledger.stop(run.name)
            except LedgerError as error:
                if not seen.holders:
                    raise
                # It may be suspended while it writes, and then keeps the file from everyone else.
                holder, line = seen.holders[0], place.resume(run.name, "--end-holder")
                raise LedgerError(
                    f"{error}. The run was not stopped: process {holder.pid} on {holder.host} holds it. If it is "
                    f"suspended, let it go on, or end it and go on with the run: {line}"
                ) from None
            return await look(ledger, run)

    with mistakes_in_one_line():
        place = places(words, run=True)
        if place.run is None:
            raise ValueError("name the run that is to be stopped: dispatchkit stop-run LEDGER RUN")
        name = clean(repr(place.run))
        try:
            seen = run_loop(stopping(place))
            if seen is None or until is None:
                put(sys.stdout, f"Nothing is left of run {name}: nothing to stop.\n")
                return
            flight = f"{seen.counts.sending:,} in flight" if seen.holders else "nobody works on it"
            put(sys.stderr, f"Run {name} is stopped ({flight}). Waiting until {_whole_second(until)} UTC.\n")
            time.sleep(max(0.0, (until - SYSTEM.now()).total_seconds()))
        except KeyboardInterrupt:
            told = f"Nothing is known of the stop of run {name}: run the same again."
            if until is not None:
                told = (
                    f"Run {name} is stopped all the same. A process that was suspended may launch something until "
                    f"{_whole_second(until)} UTC."
                )
            put(sys.stderr, f"{told}\n")
            raise typer.Exit(130) from None
    text = f"Run {name} is stopped: no process launches anything of it after {_whole_second(until)} UTC."
    put(sys.stdout, f"{text}\nTo go on: {clean(place.resume(place.run))}\n")


def _whole_second(moment: datetime) -> str:
    """The time of day of a moment, rounded up: what was promised from then on holds."""
    return f"{moment + timedelta(microseconds=-moment.microsecond % 1_000_000):%H:%M:%S}"

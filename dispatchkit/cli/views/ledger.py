"""What ``dispatchkit ledger`` shows: the runs, one of them as it goes on, and its targets."""

from __future__ import annotations

import asyncio
import json as json_module
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, cast

import attrs
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from dispatchkit.cli.input.ledger_ref import Place, places
from dispatchkit.cli.input.values import mistakes_in_one_line
from dispatchkit.cli.output.failures import HEADER
from dispatchkit.cli.output.tables import Form, Rows, form_of
from dispatchkit.cli.output.text import clean, number_of, put, utc
from dispatchkit.cli.run.drive import run_loop
from dispatchkit.cli.run.ledger_run import NOT_DONE, failure
from dispatchkit.cli.run.takeover import silence
from dispatchkit.core.clock import SYSTEM
from dispatchkit.errors import State
from dispatchkit.ledger.codec import decode

if TYPE_CHECKING:
    from dispatchkit.ledger.ledger import Ledger
    from dispatchkit.ledger.store import Counts, Holder, Run, Target

__all__ = [
    "Seen",
    "list_runs",
    "look",
    "settings_of",
    "show_failures",
    "show_run",
    "show_targets",
    "the_run",
    "unknown_for_good",
]

_LOOK_EVERY = 1.0
"""Seconds between two looks at a run that is followed."""

_SHARE = 0.2
"""The most of its time that a follower looks: to count half a million targets costs the database something."""

_SHOWN = 5

_COUNTS = ("done", "rejected", "not_sent", "unknown", "sending", "planned")
_RUN = ("run", "state", "created", "total", *_COUNTS)
_TARGET = ("index", "id", "command", "state", "code", "error", "request_id", "attempts", "at")


@attrs.frozen
class Seen:
    """A run at one moment."""

    run: Run
    counts: Counts
    holders: Sequence[Holder]
    paused_until: datetime | None = None
    """Until when the run's account is paused, where its ledger is shared."""

    @property
    def left(self) -> int:
        """Targets that are not final."""
        counts = self.counts
        return counts.planned + counts.sending + counts.not_sent + counts.unknown - counts.unknown_for_good

    @property
    def over(self) -> bool:
        """Whether nothing more happens unless somebody resumes it."""
        if self.holders:
            return False
        return self.run.stopped or (self.run.whole and not self.counts.planned and not self.counts.sending)

    @property
    def state(self) -> str:
        """How it is, in a word or two."""
        if self.run.stopped:
            return "stopping" if self.holders else "stopped"
        if self.holders:
            return "running"
        if not self.run.whole:
            return "not planned to its end"
        return "to be resumed" if self.left else "over"


def settings_of(run: Run) -> dict[str, str]:
    """How a run is carried out: provider, host and wire."""
    return cast("dict[str, str]", json_module.loads(run.settings))


async def look(ledger: Ledger, run: Run) -> Seen:
    """See how a run is.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    holders = {holder.token: holder for chunk in await ledger.chunks(run.name) if (holder := chunk.holder) is not None}
    return Seen(run, await ledger.counts(run.name), [*holders.values()])


async def _paused_until(ledger: Ledger, run: Run) -> datetime | None:
    if not ledger.is_shared:
        return None
    paused = await ledger.paused_accounts()
    return next((each.until for each in paused if any(other.number == run.number for other in each.runs)), None)


async def the_run(ledger: Ledger, place: Place) -> Run:
    """The run that is meant: that of the name, or the only one.

    Raises:
        ValueError: There is none, or more than one.
        LedgerError: There is none of this name, or the ledger cannot be read.
    """
    if place.run is not None:
        return await ledger.run(place.run)
    runs = await ledger.runs()
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise ValueError(f"{place} holds no run")
    names = ", ".join(repr(run.name) for run in runs[:_SHOWN]) + (", ..." if len(runs) > _SHOWN else "")
    raise ValueError(f"{place} holds {len(runs):,} runs: name one of {names}")


def list_runs(words: Sequence[str], *, json: bool, csv: bool) -> None:
    """List the runs of a ledger.

    Raises:
        typer.Exit: With status 2, if it cannot be read.
    """

    async def listing(place: Place, form: Form) -> None:
        async with place.open() as ledger:
            rows = Rows(form, _RUN)
            for run in await ledger.runs():
                rows.add(*_row(await look(ledger, run)))
            rows.flush()

    with mistakes_in_one_line():
        run_loop(listing(places(words, run=False), form_of(json=json, csv=csv)))


def _row(seen: Seen) -> tuple[object, ...]:
    run = seen.run
    return run.name, seen.state, run.created, run.total, *(getattr(seen.counts, name) for name in _COUNTS)


def show_run(words: Sequence[str], *, follow: bool, json: bool, csv: bool) -> None:
    """Show one run, once or until it is over.

    Raises:
        typer.Exit: With status 2, if it cannot be read.
    """

    async def showing(place: Place, form: Form) -> None:
        async with place.open() as ledger:
            name = (await the_run(ledger, place)).name

            async def seen() -> Seen:
                run = await ledger.run(name)
                return attrs.evolve(await look(ledger, run), paused_until=await _paused_until(ledger, run))

            if follow:
                await _follow(seen, place, form)
            else:
                _show(await seen(), place, form)

    with mistakes_in_one_line():
        place, form = places(words, run=True), form_of(json=json, csv=csv)
        if follow and csv:
            raise ValueError("--follow does not go with --csv: a CSV has one header")
        try:
            run_loop(showing(place, form))
        except KeyboardInterrupt:  # it only looked
            raise typer.Exit(130) from None


def _show(seen: Seen, place: Place, form: Form) -> None:
    if form == "csv":
        rows = Rows(form, _RUN)
        rows.add(*_row(seen))
        rows.flush()
    else:
        put(sys.stdout, _object(seen) if form == "json" else f"{_described(seen, place)}\n")


async def _follow(see: Callable[[], Coroutine[object, object, Seen]], place: Place, form: Form) -> None:
    console = Console(file=sys.stdout)
    live = None
    if form == "table" and console.is_interactive and sys.stdout.isatty():
        live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    shown = ""
    with live or nullcontext():
        while True:
            began = SYSTEM.monotonic()
            seen = await see()
            took = SYSTEM.monotonic() - began
            if live is not None:
                live.update(Text(_described(seen, place)), refresh=True)
            else:
                told = _object(seen) if form == "json" else f"{_line(seen)}\n"
                if told != shown and not put(sys.stdout, told):
                    return
                shown = told
            if seen.over:
                return
            await asyncio.sleep(max(_LOOK_EVERY, took / _SHARE))


def _described(seen: Seen, place: Place) -> str:
    run = seen.run
    whole = "" if run.whole else " so far: the plan is not whole, and the same command again goes on with it"
    lines = [
        ("run", run.name),
        ("ledger", str(place)),
        ("created", f"{utc(run.created)} UTC"),
        *((name.replace("_", " "), value) for name, value in settings_of(run).items()),
        ("state", seen.state),
        ("held by", _held(seen.holders)),
        ("targets", f"{run.total:,}{whole}"),
        *((name.replace("_", " "), f"{getattr(seen.counts, name):,}") for name in _COUNTS),
    ]
    if seen.paused_until is not None:
        lines.append(("paused until", f"{utc(seen.paused_until)} UTC (by Retry-After); to go on: {place.lift_pause()}"))
    if seen.left and not seen.holders and run.whole:
        lines.append(("to go on", place.resume(run.name)))
    return "\n".join(f"{clean(name):12}  {clean(value)}" for name, value in lines)


def _held(holders: Sequence[Holder]) -> str:
    told = ", ".join(
        f"process {holder.pid} on {holder.host}"
        + (f" since {utc(holder.since)} UTC" if holder.since else "")
        + (f", silent for {silent:.0f} s" if (silent := silence(holder)) else "")
        for holder in holders[:_SHOWN]
    )
    more = f" and {len(holders) - _SHOWN:,} more" if len(holders) > _SHOWN else ""
    return f"{told}{more}" or "nobody"


def _line(seen: Seen) -> str:
    counts = ", ".join(
        f"{count:,} {name.replace('_', ' ')}" for name in _COUNTS if (count := getattr(seen.counts, name))
    )
    paused = "" if seen.paused_until is None else f"; the account is paused until {utc(seen.paused_until)} UTC"
    return clean(f"{seen.run.name}: {seen.state}: {counts or 'nothing'} of {seen.run.total:,}{paused}")


def _object(seen: Seen) -> str:
    run = seen.run
    told = {
        "run": run.name,
        "state": seen.state,
        "created": run.created.isoformat(),
        "total": run.total,
        **{name: getattr(seen.counts, name) for name in _COUNTS},
        "whole": run.whole,
        "stopped": run.stopped,
        "paused_until": seen.paused_until and seen.paused_until.isoformat(),
        "settings": settings_of(run),
        "held_by": [
            {"pid": holder.pid, "host": holder.host, "since": holder.since and holder.since.isoformat()}
            for holder in seen.holders
        ],
    }
    return f"{json_module.dumps(told)}\n"


def show_targets(words: Sequence[str], *, json: bool, csv: bool) -> None:
    """Show all targets of a run.

    Raises:
        typer.Exit: With status 2, if they cannot be read.
    """
    with mistakes_in_one_line():
        run_loop(_targets(places(words, run=True), form_of(json=json, csv=csv), ()))


def show_failures(words: Sequence[str], *, json: bool, csv: bool) -> None:
    """Show what of a run did not come to done.

    Raises:
        typer.Exit: With status 2, if it cannot be read.
    """
    with mistakes_in_one_line():
        run_loop(_targets(places(words, run=True), form_of(json=json, csv=csv), NOT_DONE))


async def _targets(place: Place, form: Form, states: Sequence[str]) -> None:
    async with place.open() as ledger:
        run = await the_run(ledger, place)
        as_failures = bool(states) and form == "csv"
        rows, left, kept = Rows(form, HEADER if as_failures else _TARGET), 0, 0
        async for target in ledger.targets(run.name, states=states):
            left += target.state != State.REJECTED and not target.is_final
            kept += target.is_final
            if not rows.add(*(failure(target) if as_failures else _all_of(target))):
                return
        rows.flush()
    if as_failures and left:
        told = f"{left:,} of these are launched by {place.resume(run.name)} too: do that, or launch them from this CSV."
        put(sys.stderr, f"{clean(told)}\n")
    if states and kept:
        put(sys.stderr, f"{unknown_for_good(kept)}\n")


def unknown_for_good(count: int) -> str:
    """Say what to do about targets that nothing can settle."""
    return (
        f"{count:,} of these stay unknown, and a resume leaves them alone: look at the mailing's log, and launch in "
        "another run what did not start."
    )


def _all_of(target: Target) -> tuple[object, ...]:
    command = decode(target.command)
    return (
        target.index,
        number_of(command),
        type(command).__name__,
        target.state,
        target.code,
        target.summary or None,
        target.request_id,
        target.attempts,
        target.at,
    )

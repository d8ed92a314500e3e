"""The check before a launch: the state of the targets, and what speaks against launching them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import aclosing
from shutil import get_terminal_size
from typing import TYPE_CHECKING, TypeVar

import attrs
import typer

from dispatchkit.cli.fitted import fitted
from dispatchkit.cli.input.question import is_asked
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.option_names import as_options
from dispatchkit.cli.output.tables import PlainTable
from dispatchkit.cli.text import counted, escape_control, write
from dispatchkit.cli.translate import N_, _, ngettext
from dispatchkit.core.fanout.id_set import IdSet
from dispatchkit.errors import DispatchkitError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from dispatchkit import LaunchCheck
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.cli.invocation import Invocation
    from dispatchkit.cli.run.spec import CheckSpec
    from dispatchkit.core.call.client import Client

__all__ = ["SHOWN", "CheckResult", "check_before_question", "check_or_refuse", "check_unplanned"]

W = TypeVar("W")

SHOWN = 20
"""Targets that a question checks and shows."""
TIMEOUT = 5.0
"""Seconds that a question waits for the provider's state."""
_MARGIN = 0.5
"""Seconds that a single read ends earlier, so that its error says why."""
_NAMED = 10
"""Targets that a message names."""
_REFUSED = 2
"""The exit status of a launch that the check refuses."""


@attrs.define
class CheckResult:
    """What a check found. It keeps the first checks only."""

    count: int = 0
    first: dict[int, LaunchCheck] = attrs.Factory(dict["int", "LaunchCheck"])
    """The checks of the first targets, by their places."""
    named: dict[int, LaunchCheck] = attrs.Factory(dict["int", "LaunchCheck"])
    """The first ones that something speaks against, by their places."""
    unlaunchable: IdSet = attrs.Factory(IdSet)
    refused: int = 0
    error: str | None = None
    """Why the check broke off."""

    def add(self, index: int, check: LaunchCheck) -> None:
        """Take one check."""
        self.count += 1
        if index < SHOWN:
            self.first[index] = check
        if not check.is_launchable:
            self.refused += 1
            self.unlaunchable.add(check.target)
            self.named[index] = check
            if len(self.named) > _NAMED:
                del self.named[max(self.named)]

    @property
    def reasons(self) -> str:
        """The first targets that something speaks against, with the reasons, and how many more there are."""
        named = ", ".join(f"{each.target} ({_against(each)})" for _index, each in sorted(self.named.items()))
        more = self.refused - len(self.named)
        return _("{named}, and {count:,} more").format(named=named, count=more) if more > 0 else named

    def table(self, noun: str) -> str:
        """The first checks as a table for the terminal of standard error; empty if there is none."""
        checks = [self.first[index] for index in sorted(self.first)]
        if not checks:
            return ""
        has_names = any(each.name is not None for each in checks)
        names = [noun, *((N_("name"),) if has_names else ()), N_("status"), N_("recipients"), N_("against a launch")]
        table = PlainTable(
            names,
            flexible=[name for name in ("against a launch", "name", "status") if name in names],
            width=get_terminal_size().columns,
        )
        return table.lines([table.header, *([*_cells(each, has_names=has_names)] for each in checks)])


def _cells(check: LaunchCheck, *, has_names: bool) -> Iterator[object]:
    yield check.target
    if has_names:
        yield check.name
    yield check.status
    # An estimate is text, so that its mark stays.
    yield f"~{check.recipients}" if check.is_estimate and check.recipients is not None else check.recipients
    yield _against(check) or None


def _against(check: LaunchCheck) -> str:
    texts = ", ".join(_(each.text) for each in check.objections)
    return texts if check.unread is None else f"{texts}: {as_options(check.unread)}"


async def _check(
    spec: CheckSpec[W],
    opened: AbstractAsyncContextManager[Client[W]],
    targets: Iterable[int],
    result: CheckResult,
    timeout: float | None,
) -> None:
    each = None if timeout is None else timeout - _MARGIN
    async with asyncio.timeout(timeout), opened as client, aclosing(spec.read(client, targets, each)) as checks:
        async for index, check in checks:
            result.add(index, check)


def _read(checking: Coroutine[object, object, None]) -> None:
    """Run a check.

    Raises:
        typer.Exit: With status 130, after Ctrl-C.
    """
    try:
        run_loop(checking)
    except KeyboardInterrupt:
        write(sys.stderr, "\n" + _("Nothing was sent.") + "\n")
        raise typer.Exit(130) from None


def check_before_question(
    spec: CheckSpec[W], opened: AbstractAsyncContextManager[Client[W]], targets: Targets, noun: tuple[str, str]
) -> str:
    """The state of a few targets, for the question. A provider that cannot be read keeps no launch back.

    Args:
        spec: How they are checked.
        opened: Gives the client that reads.
        targets: The targets; if there are many, none is read.
        noun: What a target is called: one, and many.
    """
    if len(targets) > SHOWN or not is_asked():
        return ""
    result = CheckResult()
    why = None
    try:
        _read(_check(spec, opened, targets, result, TIMEOUT))
    except TimeoutError:
        why = _("no answer within {seconds:g} s").format(seconds=TIMEOUT)
    except DispatchkitError as error:
        why = as_options(error.summary)
    missing = len(targets) - result.count
    if not missing:
        return result.table(noun[0])
    unread = _("The state of {targets} could not be read").format(targets=counted(missing, *noun))
    return f"{result.table(noun[0])}{unread}{'' if why is None else f': {escape_control(why)}'}.\n"


def check_or_refuse(
    spec: CheckSpec[W],
    opened: AbstractAsyncContextManager[Client[W]],
    targets: Targets,
    noun: tuple[str, str],
    invocation: Invocation,
) -> tuple[Targets, str]:
    """Check all targets. Returns those that may be launched, and what the question shows.

    Raises:
        typer.Exit: Status 2: something speaks against a target that is not left out. Status 1: the provider could not
            be read. Status 130: Ctrl-C.
    """
    total, result = len(targets), _check_all(spec, opened, targets, noun)
    shown = result.table(noun[0]) if total <= SHOWN and is_asked() else ""
    if not result.refused:
        text = _("Checked: nothing is known to speak against {targets}.").format(targets=_of(total, total, noun))
        return targets, shown or f"{text}\n"
    against = _("Something speaks against {targets}: {reasons}.").format(
        targets=_of(result.refused, total, noun), reasons=result.reasons
    )
    if spec.skips and result.refused < total:
        write(sys.stderr, fitted(sys.stderr, f"{escape_control(against)} " + _("Left out.") + "\n"))
        return targets.without(result.unlaunchable), shown
    write(sys.stderr, shown)
    line = invocation.again("--skip-unlaunchable", without=("check",))
    sentences = [against, _("Nothing was sent.")]
    if result.refused < total:
        text = ngettext("To leave it out: {line}", "To leave them out: {line}", result.refused)
        sentences.append(text.format(line=line))
    write(sys.stderr, fitted(sys.stderr, f"{escape_control(' '.join(sentences))}\n"))
    raise typer.Exit(_REFUSED)


def check_unplanned(
    spec: CheckSpec[W],
    connect: Callable[[Targets], AbstractAsyncContextManager[Client[W]]],
    targets: Targets,
    *,
    unplanned: IdSet,
    noun: tuple[str, str],
    difference: str,
) -> Targets:
    """Check the targets that the plan of a run lacks. Returns the others.

    A launch that left out some targets is the same one only while something speaks against each of these.

    Raises:
        typer.Exit: Status 2: one of them may be launched, so this is another launch. Status 1: the provider could not
            be read. Status 130: Ctrl-C.
    """
    planned = targets.without(unplanned)
    planned_ids = IdSet()
    planned_ids.add_new(planned)
    others = targets.without(planned_ids)
    result = _check_all(spec, connect(others), others, noun)
    if result.refused < len(others):
        write(sys.stderr, f"dispatchkit: {escape_control(difference)}\n")
        raise typer.Exit(_REFUSED)
    against = _("Something speaks against {targets}: {reasons}.").format(
        targets=_of(result.refused, len(targets), noun), reasons=result.reasons
    )
    write(sys.stderr, f"{escape_control(against)} " + _("Left out.") + "\n")
    return planned


def _check_all(
    spec: CheckSpec[W], opened: AbstractAsyncContextManager[Client[W]], targets: Targets, noun: tuple[str, str]
) -> CheckResult:
    """Check all targets.

    Raises:
        typer.Exit: Status 1: the provider could not be read. Status 130: Ctrl-C.
    """
    total, result = len(targets), CheckResult()
    try:
        _read(_check(spec, opened, targets, result, None))
    except DispatchkitError as error:
        why, hint = as_options(escape_control(error.summary)), as_options(error.hint)
        text = _("the check could not be made: {why}. Nothing was sent.").format(why=why)
        write(sys.stderr, f"dispatchkit: {text}\n{hint}\n")
        raise typer.Exit(1) from None
    if result.count < total:  # what was not read may be anything
        text = _("only {count:,} of {targets} were read. Nothing was sent.")
        write(sys.stderr, f"dispatchkit: {text.format(count=result.count, targets=counted(total, *noun))}\n")
        raise typer.Exit(1)
    return result


def _of(count: int, total: int, noun: tuple[str, str]) -> str:
    if count == total:
        if total == 1:
            return _("the {noun}").format(noun=ngettext(*noun, 1))
        return _("all {targets}").format(targets=counted(total, *noun))
    return _("{count:,} of {targets}").format(count=count, targets=counted(total, *noun))

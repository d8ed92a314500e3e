"""A launch that is checked, from the question to its exit status."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar

from dispatchkit.cli.durations import repeat_seconds
from dispatchkit.cli.input.ledger_ref import LedgerRef, ledger_from_options, without_ledger
from dispatchkit.cli.input.question import Description, ask
from dispatchkit.cli.input.values import exit_on_user_error, token
from dispatchkit.cli.lazy import load
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.run.checked import MASK, checked_targets, checking_client
from dispatchkit.cli.run.known_run import KnownRun, all_launched_before, describe_earlier, inspect_run
from dispatchkit.cli.run.perform import perform
from dispatchkit.cli.run.plan import plan_run
from dispatchkit.cli.run.spec import describe, describe_rest
from dispatchkit.cli.run.takeover import Decisions, decide
from dispatchkit.cli.settings import canary_ahead, check_canary, describe_guards, guards
from dispatchkit.cli.text import escape_control, write
from dispatchkit.cli.translate import _, ngettext

if TYPE_CHECKING:
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.cli.options import RunOptions
    from dispatchkit.cli.output.notify import Notifier
    from dispatchkit.cli.run.spec import LaunchSpec
    from dispatchkit.cli.settings import Guards

__all__ = ["execute"]

R = TypeVar("R")
W = TypeVar("W")

_MAX_RECORDED = 20_000_000
"""Ids of a launch in the user's own ledger. Each takes about 100 bytes of the disk."""


def execute(
    options: RunOptions,
    spec: LaunchSpec[W, R],
    targets: Targets,
    *,
    notifier: Notifier | None,
    tell: Callable[[], None],
) -> NoReturn:
    """Ask, run, report.

    Args:
        options: What was typed.
        spec: What is to be done.
        targets: To which ids.
        notifier: What runs at the end.
        tell: Says which ids are left out, once everything is checked.

    Raises:
        typer.Exit: Always, with the exit status.
    """
    plan = options.invocation.plan
    with exit_on_user_error():
        host = spec.host(sandbox=options.sandbox)
        key = MASK
        if not options.sandbox and not _plans_without_token(options, spec):
            key = spec.token or token(options, spec.token_variable)
        bounds = guards(options)
        ledger_ref = None if plan is not None else _ledger_of(options, spec, targets)
        if options.sandbox and options.invocation.given("base_url"):
            raise ValueError(_("give either --sandbox or --base-url, not both: the sandbox is a host of its own"))
        window = _repeat_window(options, spec)
        repeat_window = None if options.again or (ledger_ref is None and plan is None) else window
        client = spec.connect(host, key)
        connect = checking_client(options, spec, host, key)
        del key
        client._profile = profile.name if (profile := options.invocation.profile) is not None else None
        client._launch_options = options.invocation.to_keep()
        command = spec.command(targets.first)  # what is wrong with one is wrong with all
        client._call(command)
        check_canary(bounds, command, len(targets))
        known = KnownRun()
        if ledger_ref is not None and ledger_ref.holds_runs:
            known = run_loop(inspect_run(ledger_ref, spec, client, targets, window, again=options.again))
    given = targets
    if known.earlier.count and (known.leaves_out or not options.again):
        targets = known.earlier.without(given)
    tell()
    if ledger_ref is not None and not len(targets):
        raise all_launched_before(spec, known.earlier, len(given), ledger_ref)
    if ledger_ref is not None and not known.left and known.taken_over.count:
        raise load("dispatchkit.cli.run.taken_over:nothing_left")(
            ledger_ref.run or "", known.taken_over, known.counts, ledger_ref
        )
    is_asked_for = not (options.sandbox or options.yes or known.left == 0)
    targets, state = checked_targets(spec, connect, targets, options, known=known, is_asked_for=is_asked_for)
    if known.left is None and len(targets) < len(given):
        with exit_on_user_error():  # of what was left out, none is in the canary
            check_canary(bounds, command, len(targets))
    description = _describe(options, spec, targets, host, known=known, ledger_ref=ledger_ref, bounds=bounds)
    whole = description.with_rows(_left_out(known, ledger_ref))
    if is_asked_for:
        ask(whole, more=state)
    else:
        description = whole  # for the report at the end
    decisions = Decisions()
    if ledger_ref is not None:
        decisions = decide(known.hindrances, options, ledger_ref)
    if plan is not None:
        plan_run(
            plan,
            options,
            client,
            map(spec.command, targets),
            total=len(targets),
            noun=spec.noun,
            repeat_window=repeat_window,
        )
    perform(
        options,
        spec,
        targets,
        client,
        ledger_ref,
        decisions=decisions,
        bounds=bounds,
        description=description,
        notifier=notifier,
        repeat_window=repeat_window,
        compared=known.compared,
        told_left_out=known.taken_over.count,
    )


def _ledger_of(options: RunOptions, spec: LaunchSpec[W, R], targets: Targets) -> LedgerRef | None:
    """The ledger of the launch; None without one.

    Raises:
        ValueError: The options name none, or the default ledger cannot take so many targets.
    """
    ledger_ref = ledger_from_options(options, spec.verb, stops=bool(spec.stops))
    if ledger_ref is not None and ledger_ref.is_default and len(targets) > _MAX_RECORDED:
        text = ngettext(
            "{count:,} id is too many for the ledger on this machine: nothing was sent. To launch without a record: "
            "{line}",
            "{count:,} ids are too many for the ledger on this machine: nothing was sent. To launch without a record: "
            "{line}",
            len(targets),
        )
        raise ValueError(text.format(count=len(targets), line=without_ledger(options.invocation)))
    return ledger_ref


def _repeat_window(options: RunOptions, spec: LaunchSpec[W, R]) -> float | None:
    """Seconds within which another run's launches count.

    Raises:
        ValueError: The options contradict each other, or one is no time.
    """
    if options.again and options.repeat_window is not None:
        raise ValueError(_("give either --again or --repeat-window, not both"))
    return repeat_seconds(options.repeat_window, default=spec.repeat_window)


def _describe(
    options: RunOptions,
    spec: LaunchSpec[W, R],
    targets: Targets,
    host: str,
    *,
    known: KnownRun,
    ledger_ref: LedgerRef | None,
    bounds: Guards,
) -> Description:
    """The launch in words. A run that is over is said at once."""
    if known.left is not None:
        bounds = canary_ahead(bounds, known.counts, known.canary)
    more = (*describe_guards(bounds, spec.noun), *describe_earlier(known.earlier, options.again, ledger_ref))
    description = describe(options, spec, targets, host, more=more)
    if known.left is None or ledger_ref is None:
        return description
    if not known.left:
        text = _("Run {name} is over: no target is left.").format(name=escape_control(repr(ledger_ref.run)))
        write(sys.stderr, f"{text}\n")
    return describe_rest(description, spec, targets, run=ledger_ref.run or "", left=known.left)


def _left_out(known: KnownRun, ledger_ref: LedgerRef | None) -> tuple[tuple[str, str], ...]:
    """What other runs took over from the run. It is said once."""
    if not known.taken_over.count or ledger_ref is None:
        return ()
    rows: tuple[tuple[str, str], ...] = load("dispatchkit.cli.run.taken_over:describe_taken_over")(
        known.taken_over, ledger_ref
    )
    return rows


def _plans_without_token(options: RunOptions, spec: LaunchSpec[W, R]) -> bool:
    """Whether a run is planned for a named account, and there is no token: then it needs none."""
    if options.invocation.plan is None or options.account is None:
        return False
    return options.token_file is None and not os.environ.get(spec.token_variable)

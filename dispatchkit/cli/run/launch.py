"""One command of the command line, up to the point where something may be sent: everything is read and checked."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

from dispatchkit.cli.input.values import exit_on_user_error, read_targets
from dispatchkit.cli.lazy import load
from dispatchkit.cli.output.log_file import with_log
from dispatchkit.cli.run.dry_run import show_requests
from dispatchkit.cli.text import escape_control, left_out_repeats, write
from dispatchkit.cli.translate import _, ngettext

if TYPE_CHECKING:
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.cli.invocation import PlanOptions
    from dispatchkit.cli.options import RunOptions
    from dispatchkit.cli.output.notify import Notifier
    from dispatchkit.cli.run.spec import LaunchSpec

__all__ = ["launch", "refused_on_user_error"]

R = TypeVar("R")
W = TypeVar("W")


def launch(options: RunOptions, spec: LaunchSpec[W, R]) -> None:
    """Check everything, then show the requests, or ask, run and report.

    Raises:
        typer.Exit: Always, with the exit status.
    """
    with exit_on_user_error():
        if options.invocation.plan is not None:
            options = _with_plan(options, options.invocation.plan, spec.verb)
        notifier: Notifier | None = None
        if options.notify is not None and not options.dry_run:
            notifier = load("dispatchkit.cli.output.notify:notifier_of")(options)
    if notifier is None:
        _launch(options, spec, None)
    with load("dispatchkit.cli.output.notify:refusal_told")(notifier, options.run):
        _launch(options, spec, notifier)


@contextmanager
def refused_on_user_error(options: RunOptions) -> Generator[None]:
    """Like `exit_on_user_error`, and run ``--notify`` for a refusal. The block must launch nothing.

    Raises:
        typer.Exit: With status 2, after an error.
    """
    try:
        with exit_on_user_error():
            yield
    except typer.Exit:
        if options.notify is None or options.dry_run:
            raise
        with exit_on_user_error():
            notifier = load("dispatchkit.cli.output.notify:notifier_of")(options)
        with load("dispatchkit.cli.output.notify:refusal_told")(notifier, options.run):
            raise


def _launch(options: RunOptions, spec: LaunchSpec[W, R], notifier: Notifier | None) -> NoReturn:
    with exit_on_user_error():
        targets = read_targets(options, spec.reader) if spec.targets is None else spec.targets
        if options.expected not in {None, len(targets)}:
            text = ngettext(
                "there is {count:,} id, but --expected is {expected:,}: nothing was started",
                "there are {count:,} ids, but --expected is {expected:,}: nothing was started",
                len(targets),
            )
            raise ValueError(text.format(count=len(targets), expected=options.expected))
        if options.dry_run and options.json:
            raise ValueError(_("--dry-run shows requests, not outcomes: it does not go with --json"))
        if options.dry_run and spec.check is not None and spec.check.is_demanded:
            raise ValueError(_("--dry-run opens no connection, and --check reads the provider: give one of them"))
    if options.dry_run:
        with exit_on_user_error():
            show_requests(options, spec, targets)
        _tell_what_is_left_out(targets)
        raise typer.Exit(0)
    # All that opens connections is imported here: a dry run does without.
    with with_log(options.log_file):
        load("dispatchkit.cli.trust_store:load_launch")("dispatchkit.cli.run.execute:execute")(
            options, spec, targets, notifier=notifier, tell=lambda: _tell_what_is_left_out(targets)
        )
    raise AssertionError  # it always exits


def _with_plan(options: RunOptions, plan: PlanOptions, verb: str) -> RunOptions:
    """The options of the launch, with those that stand before it.

    Raises:
        ValueError: One is missing, they contradict each other, or do not go with a run that is launched later.
    """
    # They import what a dry run without a plan does without.
    load("dispatchkit.cli.input.shared_ledger:shared_ledger")(plan.ledger, options.invocation)
    load("dispatchkit.cli.input.shared_ledger:check_run_name")(plan.run, verb, options.invocation)
    here = {
        "--ledger": options.ledger,
        "--no-ledger": options.no_ledger,
        "--run": options.run,
        "--sandbox": options.sandbox,
        "--json": options.json,
        "--failures": options.failures,
        "--log-file": options.log_file,
        "--notify": options.notify,
        "--max-launches": options.max_launches,
        "--stop-after-failures": options.stop_after_failures,
        "--give-up-after": options.give_up_after,
        "--canary": options.canary is not None,
        "--canary-timeout": options.canary_timeout,
        "--not-before": options.not_before,
        "--not-after": options.not_after,
        "--zone": options.zone,
        "--never-repeat": options.never_repeat,
        "--copied": options.copied,
        "--end-holder": options.end_holder,
    }
    for name, value in here.items():
        if value:
            raise ValueError(
                _("{name} does not go with plan: it only plans the run, and workers launch it").format(name=name)
            )
    if options.rate is not None or options.concurrency != "64":
        raise ValueError(
            _("put --rate and --concurrency before the launch: with plan, they hold for all workers together")
        )
    if plan.from_ is not None:
        if options.from_ is not None:
            raise ValueError(_("--from is given twice"))
        options = replace(options, from_=plan.from_)
    return options


def _tell_what_is_left_out(targets: Targets) -> None:
    for note in targets.notes:
        write(sys.stderr, f"{escape_control(note)}\n")
    if targets.done:
        text = ngettext("Left out {count:,} id that is done.", "Left out {count:,} ids that are done.", targets.done)
        write(sys.stderr, text.format(count=targets.done) + "\n")
    if targets.dropped:
        write(sys.stderr, left_out_repeats(targets.dropped))
    if targets.unknown:
        text = ngettext(
            "Left out {count:,} id whose outcome is unknown. Check with the provider whether it was launched. "
            "--include-unknown takes such ids, too.",
            "Left out {count:,} ids whose outcome is unknown. Check with the provider whether they were launched. "
            "--include-unknown takes such ids, too.",
            targets.unknown,
        )
        write(sys.stderr, text.format(count=targets.unknown) + "\n")

"""Hindrances of a run in a ledger, and the decisions that remove them.

Three hindrances need a decision that no other option covers:

- The ledger file is a copy.
- The account has another token.
- The process that holds the run exists and gives no heartbeats.
"""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import TYPE_CHECKING, Never

import attrs

from dispatchkit.cli.durations import in_words
from dispatchkit.cli.input.question import confirm
from dispatchkit.cli.translate import _
from dispatchkit.cli.views.snapshot import resume_line, silence
from dispatchkit.errors import AccountMismatchError, LedgerError, RunHeldError, RunStoppedError

if TYPE_CHECKING:
    from dispatchkit.cli.input.ledger_ref import LedgerRef
    from dispatchkit.cli.options import ActingOptions
    from dispatchkit.cli.output.reporter import Reporter
    from dispatchkit.core.call.client import Client
    from dispatchkit.ledger.chunk import Holder
    from dispatchkit.ledger.ledger import Ledger
    from dispatchkit.ledger.run import Run

__all__ = ["Decisions", "Hindrances", "decide", "explained", "hindrances", "prepare"]


@attrs.frozen
class Hindrances:
    """Hindrances of a run that its ledger shows beforehand."""

    run: Run | None
    is_copy: bool = False
    """Whether the ledger file is a copy."""
    silent: Holder | None = None
    """The process that holds the run, exists, and has missed its heartbeats."""


@attrs.frozen
class Decisions:
    """Decisions of the user, by an option or by an answer."""

    copied: bool = False
    account_changed: bool = False
    end_holder: bool = False


async def hindrances(ledger: Ledger, name: str) -> Hindrances:
    """See what keeps a run from going on.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    store = await ledger._open_store()
    is_copy = False
    try:
        await store.check_identity()
    except LedgerError:
        is_copy = True
    run = next((run for run in await ledger.runs() if run.name == name), None)
    holders = () if run is None else [chunk.holder for chunk in await ledger.chunks(name)]
    silent = next((holder for holder in holders if holder is not None and silence(holder)), None)
    return Hindrances(run, is_copy, silent)


def decide(hindrances: Hindrances, options: ActingOptions, ledger_ref: LedgerRef) -> Decisions:
    """Take the decisions that are needed from the options, or ask for them. ``--yes`` answers none of these questions.

    Raises:
        typer.Exit: The run is not to go on.
    """
    decisions = Decisions(options.copied, options.account_changed, options.end_holder)
    if hindrances.is_copy and not decisions.copied:
        confirm(
            _(
                "The ledger {ledger} is a copy, or was moved to another disk. Is the original out of use, so that this "
                "one may be used?"
            ).format(ledger=ledger_ref),
            _(
                "the ledger {ledger} is a copy, or was moved to another disk. Nothing was sent: a copy and its "
                "original would both launch what is left. If the original is out of use: {line}"
            ).format(ledger=ledger_ref, line=_line(hindrances.run, ledger_ref, "--copied")),
        )
        decisions = attrs.evolve(decisions, copied=True)
    if (holder := hindrances.silent) is not None and not decisions.end_holder:
        silent = in_words(silence(holder))
        confirm(
            _("Process {pid} on {host} has been silent for {time}. End it and take the run over?").format(
                pid=holder.pid, host=holder.host, time=silent
            ),
            _silent(hindrances.run, ledger_ref, pid=holder.pid, host=holder.host, silent=silent),
        )
        decisions = attrs.evolve(decisions, end_holder=True)
    return decisions


async def prepare(client: Client[Never], ledger: Ledger, name: str, decisions: Decisions, reporter: Reporter) -> None:
    """Carry out the decisions, before the run opens.

    Raises:
        LedgerError: One of them cannot be carried out.
    """
    if decisions.copied:
        await ledger.accept_copy()
    if decisions.account_changed:
        await ledger.change_account(name, client)
    if decisions.end_holder:
        ended = await ledger.end_holder(name)
        if ended is not None:
            text = _("Process {pid} on {host} was ended: this one takes the run over.")
            reporter.note(text.format(pid=ended.pid, host=ended.host))


async def explained(error: LedgerError, ledger: Ledger, ledger_ref: LedgerRef) -> LedgerError:
    """The error in the words of the command line, with the line to type.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    name = ledger_ref.run or ""
    run = next((run for run in await ledger.runs() if run.name == name), None)
    if isinstance(error, RunStoppedError):
        line = ledger_ref.resume(name) if run is None else resume_line(ledger_ref, run)
        return LedgerError(_("run {run!r} was stopped. To resume it: {line}").format(run=name, line=line))
    if isinstance(error, AccountMismatchError):
        account = None if run is None else run.account
        text = (
            _(
                "run {run!r} was planned for another account, or with another token of this one: nothing was sent. Use "
                "the token (and the --account) of that account. If it is the same account with a new token or name: "
                "{line}"
            )
            if account is None
            else _(
                "run {run!r} was planned for the account {account!r}: nothing was sent. Use the token (and the "
                "--account) of that account. If it is the same account with a new token or name: {line}"
            )
        )
        line = _line(run, ledger_ref, "--account-changed")
        return LedgerError(text.format(run=name, account=account, line=line))
    if isinstance(error, RunHeldError):
        if error.silent_for:
            silent = in_words(error.silent_for)
            return LedgerError(_silent(run, ledger_ref, pid=error.pid, host=error.host, silent=silent))
        # Without an id if it was suspended between its lock and its row.
        text = (
            _(
                "run {run!r} is held by process {pid} on {host}, which works on it: nothing was sent. Wait until it "
                "ends. To stop the run: {line}"
            )
            if error.pid
            else _(
                "run {run!r} is held by another process: nothing was sent. Wait until it ends. To stop the run: {line}"
            )
        )
        return LedgerError(text.format(run=name, pid=error.pid, host=error.host, line=ledger_ref.stop(name)))
    return error


def _silent(run: Run | None, ledger_ref: LedgerRef, *, pid: int, host: str, silent: str) -> str:
    return _(
        "run {run!r} is held by process {pid} on {host}, which has been silent for {time}. It is suspended or hangs. "
        "Nothing was sent. Continue it, or end it and take the run over: {line}"
    ).format(run=ledger_ref.run, pid=pid, host=host, time=silent, line=_line(run, ledger_ref, "--end-holder"))


def _line(run: Run | None, ledger_ref: LedgerRef, option: str) -> str:
    """The command that goes on with one more option."""
    if run is None or not run.plan_complete:
        return ledger_ref.again(option)
    return resume_line(ledger_ref, run, option)

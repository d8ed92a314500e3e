"""The run that a command line means, and the line that resumes it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from dispatchkit.cli.input.ledger_ref import LedgerRef
from dispatchkit.cli.translate import _
from dispatchkit.core.transport.url import origin
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.run_snapshot import RunSnapshot, silence, take_snapshot
from dispatchkit.profiles import read_profiles
from dispatchkit.providers import parse_settings

if TYPE_CHECKING:
    from dispatchkit.ledger.ledger import Ledger
    from dispatchkit.ledger.run import Run

__all__ = ["RunSnapshot", "notify_remark", "resolve_run", "resume_line", "silence", "take_snapshot"]

_SHOWN = 5


def resume_line(ledger_ref: LedgerRef, run: Run, *options: str) -> str:
    """The command that resumes a run, with what the run itself needs."""
    needed: list[str] = []
    if _needs_profile(run) and not ledger_ref.invocation.given("profile"):
        needed += ["--profile", run.profile or ""]
    if run.account is not None and not ledger_ref.invocation.given("account"):
        needed += ["--account", run.account]
    if _needs_insecure(run) and not ledger_ref.invocation.given("insecure"):
        needed.append("--insecure")
    return ledger_ref.resume(run.name, *needed, *options, kept=run.launch_options)


def notify_remark(ledger_ref: LedgerRef, run: Run) -> str:
    """What the line that resumes a run leaves out; empty if it leaves out nothing."""
    if not ledger_ref.invocation.lacks_notify(run.launch_options):
        return ""
    return _("The run was launched with --notify. A ledger does not keep its command: add it, to be told of the end.")


def _needs_profile(run: Run) -> bool:
    """Whether the run was planned with a profile that this machine has, too: it holds the token."""
    with suppress(ValueError, OSError, ImportError):
        return run.profile is not None and run.profile in read_profiles()
    return False


def _needs_insecure(run: Run) -> bool:
    """Whether the run's host takes plain http, and is another machine. False for damaged settings."""
    with suppress(LedgerError, ValueError):
        host = parse_settings(run.settings).get("base_url", "")
        origin(host, insecure=True)
        try:
            origin(host)
        except ValueError:
            return True
    return False


async def resolve_run(ledger: Ledger, ledger_ref: LedgerRef) -> Run:
    """The run that is meant: that of the name, or the only one.

    Raises:
        ValueError: There is none, or more than one.
        LedgerError: There is none of this name, or the ledger cannot be read.
    """
    if ledger_ref.run is not None:
        return await ledger.run(ledger_ref.run)
    runs = await ledger.runs()
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise ValueError(_("{ledger} holds no run: name another ledger").format(ledger=ledger_ref))
    names = ", ".join(repr(run.name) for run in runs[:_SHOWN]) + (", ..." if len(runs) > _SHOWN else "")
    raise ValueError(
        _("{ledger} holds {count:,} runs: name one of {names}. To list them: {line}").format(
            ledger=ledger_ref, count=len(runs), names=names, line=ledger_ref.list_runs()
        )
    )

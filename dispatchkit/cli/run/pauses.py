"""``dispatchkit ledger lift-pause``: see until when the accounts of a shared ledger are paused, and end that."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dispatchkit.cli.input.ledger_ref import LedgerRef, parse_ledger_args
from dispatchkit.cli.input.question import Description, ask
from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.text import escape_control, utc, write
from dispatchkit.cli.translate import _, ngettext
from dispatchkit.providers import parse_settings

if TYPE_CHECKING:
    from dispatchkit.cli.commands.ledger import LiftPauseOptions
    from dispatchkit.ledger.pauses import PausedAccount

__all__ = ["lift"]

_KEY = 12
"""Letters of an account's key that are shown. They are enough to name it."""
_SHOWN = 5
"""Runs of an account that are shown."""


def lift(options: LiftPauseOptions) -> None:
    """Show the accounts that are paused, ask, and lift their pauses.

    Raises:
        typer.Exit: The ledger cannot be used, or the pauses are not to be lifted.
    """
    with exit_on_user_error():
        ledger_ref = parse_ledger_args(options.where or [], run=False)
        found = run_loop(_paused(ledger_ref))
    account = options.account
    chosen = [each for each in found if account is None or account in _names(each) or each.key.startswith(account)]
    for each in chosen:
        write(sys.stdout, f"{escape_control(_described(each))}\n")
    if not chosen:
        write(sys.stdout, (_("No account is paused.") if account is None else _("No such account is paused.")) + "\n")
        return
    if not options.yes:
        action = ngettext("lift the pause of {count:,} account", "lift the pause of {count:,} accounts", len(chosen))
        description = Description(action.format(count=len(chosen)), ((_("ledger"), str(ledger_ref)),))
        ask(description, nothing=_("No pause was lifted."))
    with exit_on_user_error():
        lifted = run_loop(_lift(ledger_ref, [each.key for each in chosen]))
    text = ngettext(
        "{count:,} pause lifted: waiting calls start within a second. If the provider answers 429 again, the account "
        "is paused again.",
        "{count:,} pauses lifted: waiting calls start within a second. If the provider answers 429 again, the account "
        "is paused again.",
        len(lifted),
    )
    write(sys.stdout, text.format(count=len(lifted)) + "\n")


async def _paused(ledger_ref: LedgerRef) -> list[PausedAccount]:
    async with ledger_ref.open() as ledger:
        return await ledger.paused_accounts()


async def _lift(ledger_ref: LedgerRef, keys: Sequence[str]) -> list[str]:
    async with ledger_ref.open() as ledger:
        return await ledger.lift_pauses(keys)


def _names(paused: PausedAccount) -> set[str]:
    return {run.account for run in paused.runs if run.account is not None}


def _described(paused: PausedAccount) -> str:
    name = _("Account {key}").format(key=paused.key[:_KEY])
    if paused.runs:
        settings = parse_settings(paused.runs[0].settings)
        named = "".join(f", {each!r}" for each in sorted(_names(paused)))
        runs = ", ".join(repr(run.name) for run in paused.runs[:_SHOWN])
        more = _(" and {count:,} more").format(count=len(paused.runs) - _SHOWN) if len(paused.runs) > _SHOWN else ""
        name += named + _(" (provider {provider}, {host}; runs {runs}{more})").format(
            provider=settings.get("provider"), host=settings.get("base_url"), runs=runs, more=more
        )
    return _("{account} is paused until {time} UTC (by Retry-After).").format(account=name, time=utc(paused.until))

"""The accounts that all processes with a shared ledger pause, as their providers asked."""

from __future__ import annotations

from datetime import datetime

import attrs

from dispatchkit.core.secret import account_key
from dispatchkit.ledger.run import Run
from dispatchkit.ledger.store import SharedStore
from dispatchkit.providers import parse_settings
from dispatchkit.values import Value

__all__ = ["PausedAccount", "find_paused_accounts", "paused_until"]


@attrs.frozen
class PausedAccount(Value):
    """An account that all processes with this ledger pause, as the provider asked."""

    key: str
    """The account key, a hash."""
    until: datetime
    """The end of the pause, UTC."""
    runs: tuple[Run, ...] = ()
    """The runs of the account, newest first."""


async def find_paused_accounts(store: SharedStore) -> list[PausedAccount]:
    """The accounts that are paused, longest pause first.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    pauses, runs = await store.pauses(), await store.runs()
    keys = [_account_key(run) for run in runs]
    return [
        PausedAccount(key, until, tuple(run for run, other in zip(runs, keys, strict=True) if other == key))
        for key, until in pauses
    ]


async def paused_until(store: SharedStore, run: Run) -> datetime | None:
    """The end of the pause of a run's account; None without a pause.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    return dict(await store.pauses()).get(_account_key(run))


def _account_key(run: Run) -> str:
    """The account key of a run, equal to `Client._account_key`."""
    if run.account is None:
        return run.fingerprint
    settings = parse_settings(run.settings)
    return account_key(settings.get("provider", ""), settings.get("base_url", ""), run.account)

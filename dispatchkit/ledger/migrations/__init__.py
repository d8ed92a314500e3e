"""The numbered changes of a ledger's tables. A newer release upgrades a ledger when it opens it, in one transaction.

A released migration never changes: a change of the tables is another migration, at the end. The version of a ledger is
the number of its latest migration. A release refuses a ledger of a later version than it knows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import attrs

from dispatchkit._version import __version__
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.migrations import m0001_tables

__all__ = ["MIGRATIONS", "Migration", "check_known", "held", "latest", "pending", "statements"]


@attrs.frozen
class Migration:
    """One change of the tables. Each text may hold many statements, and none that ends a transaction."""

    postgres: str
    sqlite: str


MIGRATIONS: list[Migration] = [
    Migration(postgres=m0001_tables.POSTGRES, sqlite=m0001_tables.SQLITE),
]
"""In order: the first one makes version 1 out of nothing."""


def latest() -> int:
    """The version of the tables that this release uses."""
    return len(MIGRATIONS)


def pending(version: int) -> Sequence[Migration]:
    """The migrations that a ledger of this version lacks."""
    return MIGRATIONS[version:]


def check_known(version: int, release: str | None, ledger: str) -> None:
    """Refuse a ledger that a newer release has made or upgraded.

    Args:
        version: Of its tables.
        release: Of dispatchkit, which made them so.
        ledger: What to call it in the message.

    Raises:
        LedgerError: Its version is not known.
    """
    if version > latest():
        raise LedgerError(
            f"{ledger} is of version {version}, made by dispatchkit {release or 'of a later release'}. This is "
            f"dispatchkit {__version__}, which knows versions up to {latest()}: upgrade dispatchkit"
        )


def held(ledger: str, version: int) -> LedgerError:
    """Why a ledger is not upgraded now."""
    return LedgerError(
        f"{ledger} is of version {version}, and version {latest()} is needed. A process of an earlier release still "
        "launches a run of it, so nothing was changed. Wait until it ends, or stop it. Then run the same again"
    )


def statements(text: str) -> Iterator[str]:
    """The statements of a migration for SQLite, which takes them one by one."""
    statement = ""
    for part in text.split(";"):
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            if statement.strip(" \n;"):
                yield statement.strip()
            statement = ""

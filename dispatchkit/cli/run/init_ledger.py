"""``dispatchkit ledger init``: make a ledger's tables, or print the SQL that makes them."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dispatchkit.cli.input.default_ledger import make_writable
from dispatchkit.cli.input.ledger_ref import LedgerRef, parse_ledger_args
from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.lazy import load
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.text import escape_control, write
from dispatchkit.cli.translate import _

if TYPE_CHECKING:
    from dispatchkit.cli.commands.ledger import InitOptions

__all__ = ["init_ledger"]

_NOTE = """\
-- Run this in the ledger's database, as the role that launches. If that role may not create schemas, create each of
-- them for it before: CREATE SCHEMA name AUTHORIZATION role;
"""


def init_ledger(options: InitOptions) -> None:
    """Make or upgrade the tables, those of the queue too where the extra ``workers`` is installed.

    Raises:
        typer.Exit: With status 2, if there is no such ledger, or it cannot be made.
    """
    with exit_on_user_error():
        ledger_ref = parse_ledger_args(options.where or [], run=False)
        if ledger_ref.is_default:
            make_writable(Path(ledger_ref.address.file))
        if options.sql and not ledger_ref.address.is_database:
            raise ValueError(_("--sql is for a ledger in PostgreSQL: a file is made by the first launch"))
        if options.sql:
            write(sys.stdout, _sql(ledger_ref))
            return
        run_loop(_init(ledger_ref))
    write(sys.stdout, _("The ledger {ledger} is ready.").format(ledger=escape_control(str(ledger_ref))) + "\n")


def _has_queue() -> bool:
    return find_spec("procrastinate") is not None and find_spec("psycopg") is not None


def _sql(ledger_ref: LedgerRef) -> str:
    name = load("dispatchkit.ledger.postgres.driver_settings:DriverSettings")(ledger_ref.address).schema
    text = f"{_NOTE}{load('dispatchkit.ledger.postgres.schema:creation_sql')(name)}"
    if _has_queue():
        queue = load("dispatchkit.workers.queue_connection:creation_sql")(name)
        text += f"-- The queue of the workers.\n{queue}"
    return text


async def _init(ledger_ref: LedgerRef) -> None:
    async with ledger_ref.open(new=True) as ledger:
        await ledger._open_store()
        if ledger.is_shared and _has_queue():
            store = await load("dispatchkit.workers.chunk:in_postgres")(ledger)
            await load("dispatchkit.workers.queue_connection:create_tables")(store)

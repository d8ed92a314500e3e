"""The ledger that ``plan`` and ``worker`` share on any number of machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatchkit.cli.input.ledger_ref import new_run_name
from dispatchkit.cli.translate import _
from dispatchkit.ledger.address import Address

if TYPE_CHECKING:
    from dispatchkit.cli.invocation import Invocation

__all__ = ["check_run_name", "shared_ledger"]

_EXAMPLE = "postgresql://user@host:port/database"


def shared_ledger(where: str | None, invocation: Invocation) -> Address:
    """The ledger of the command line or of the environment.

    Raises:
        ValueError: There is none, or it is no database. The message has the line to type.
    """
    address = Address.of(where) if where else None
    del where  # a traceback would show it
    if address is not None:
        address.check()
        if address.is_database:
            return address
    line = invocation.first("ledger", "--ledger", _EXAMPLE)
    text = (
        _(
            "no ledger: workers share one in PostgreSQL. Set DISPATCHKIT_LEDGER to its address, or put the address "
            "here: {line}"
        )
        if address is None
        else _("workers share a ledger in PostgreSQL, and {where} is a file. Put the address of yours here: {line}")
    )
    raise ValueError(text.format(where=address, line=line))


def check_run_name(run: str, action: str, invocation: Invocation) -> None:
    """Check that a run that is planned has a name.

    Raises:
        ValueError: There is none. The message has the line to type.
    """
    if run:
        return
    line = invocation.first("run", "--run", new_run_name(action, invocation.profile))
    raise ValueError(_("no name for the run. To give it one: {line}").format(line=line))

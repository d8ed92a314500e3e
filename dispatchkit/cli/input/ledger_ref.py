"""Which ledger is meant, and which run in it. A database's address may hold a password, so it shows only masked."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from dispatchkit.core.validators import label
from dispatchkit.ledger.address import Address

if TYPE_CHECKING:
    from dispatchkit.cli.options import RunOptions
    from dispatchkit.ledger.ledger import Ledger

__all__ = ["LedgerRef", "ledger_from_options", "parse_ledger_args"]

_VARIABLE = "DISPATCHKIT_LEDGER"


def _checked(where: str | Address) -> Address:
    address = Address.of(where)
    del where  # a traceback would show it
    address.check()
    return address


@attrs.frozen
class LedgerRef:
    """A ledger, and what the command line says of a run in it."""

    address: Address = attrs.field(converter=_checked)
    """A file or a database. Another kind of address is a `ValueError`, which does not show it."""
    run: str | None = None
    named: bool = True
    """Whether the command line names the ledger; else the environment does."""

    def __str__(self) -> str:
        return str(self.address)

    @property
    def exists(self) -> bool:
        """Whether the file is there; of a database it is not known."""
        return self.address.is_database or Path(self.address.file).exists()

    def open(self, *, new: bool = False) -> Ledger:
        """The ledger, which opens itself when it is first used.

        Args:
            new: Whether a file that is not there is to be made.

        Raises:
            ValueError: There is no such file.
            ImportError: A database needs an extra.
        """
        from dispatchkit.ledger.ledger import Ledger  # noqa: PLC0415 - heavy

        if not new and not self.exists:
            raise ValueError(f"there is no ledger {self}: no such file")
        return Ledger(self.address)

    def resume(self, run: str, *options: str) -> str:
        """The command that goes on with a run."""
        return shlex.join(["dispatchkit", "resume", *self._words(), "--run", run, *options])

    def stop(self, run: str) -> str:
        """The command that stops a run."""
        return shlex.join(["dispatchkit", "stop-run", *self._words(), run])

    def failures(self, run: str) -> str:
        """The command that writes the failures of a run as ``--from`` takes them."""
        return shlex.join(["dispatchkit", "ledger", "failures", *self._words(), run, "--csv"])

    def lift_pause(self) -> str:
        """The command that lifts the pauses of accounts."""
        return shlex.join(["dispatchkit", "ledger", "lift-pause", *self._words()])

    def worker(self, *options: str) -> str:
        """The command that launches what is planned in a database."""
        ledger = ["--ledger", str(self)] if self.named else []
        return shlex.join(["dispatchkit", "worker", *ledger, *options])

    def _words(self) -> list[str]:
        return [str(self)] if self.named else []


def ledger_from_options(options: RunOptions) -> LedgerRef | None:
    """Where a launch is to be remembered, if it is.

    Raises:
        ValueError: There is a ledger without a run, or a run without a ledger, or it is remembered in vain.
    """
    if options.run is None:
        if options.ledger is not None:
            raise ValueError("--ledger needs --run NAME: a ledger holds many runs, and its name is how one goes on")
        for option in ("account_changed", "copied", "end_holder"):
            if getattr(options, option):
                raise ValueError(f"--{option.replace('_', '-')} needs --run NAME: it is about a run of a ledger")
        return None
    if not options.run:
        raise ValueError("--run needs a name that is not empty")
    label("--run", options.run)
    if options.sandbox:
        raise ValueError("--run does not go with --sandbox: nothing is left of a sandbox of its own to go on with")
    where = options.ledger or os.environ.get(_VARIABLE)
    if not where:
        raise ValueError(f"--run needs --ledger FILE|URL, or {_VARIABLE}: where the run is to be remembered")
    return LedgerRef(where, options.run, named=options.ledger is not None)


def parse_ledger_args(words: Sequence[str], *, run: bool) -> LedgerRef:
    """What the arguments ``LEDGER RUN`` name. The ledger may be left out where the environment holds it.

    Args:
        words: The arguments.
        run: Whether there may be a run among them.

    Raises:
        ValueError: There are too many, or no ledger.
    """
    form = "LEDGER RUN" if run else "LEDGER"
    if len(words) > 1 + run:
        raise ValueError(f"too many arguments: there are {len(words)}, for {form}")
    where = os.environ.get(_VARIABLE) or None
    rest = [*words]
    named = bool(rest) and (where is None or not run or len(rest) > 1)
    if named:
        where = rest.pop(0)
    if not where:
        raise ValueError(f"no ledger: name a file or a URL, or set {_VARIABLE}")
    return LedgerRef(where, rest[0] if rest else None, named)

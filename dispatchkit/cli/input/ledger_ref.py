"""A reference to a ledger and to a run in it. A database address may hold a password and is shown masked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

import dispatchkit
from dispatchkit.cli.invocation import RESUMED, Invocation, command_line
from dispatchkit.core.clock import SYSTEM
from dispatchkit.core.validators import label
from dispatchkit.ledger.address import Address
from dispatchkit.redaction import without_passwords

if TYPE_CHECKING:
    from dispatchkit import Ledger
    from dispatchkit.cli.options import RunOptions

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
    is_new_name: bool = False
    """Whether the name of the run was made for this launch."""
    invocation: Invocation = attrs.field(factory=Invocation, repr=False, eq=False)
    """The command line. What it says of connection, guards and pace stands in the lines to type next, too."""

    def __str__(self) -> str:
        return str(self.address)

    @property
    def exists(self) -> bool:
        """Whether the file exists. True for a database, which is not asked."""
        return self.address.is_database or Path(self.address.file).exists()

    @property
    def is_empty(self) -> bool:
        """Whether it is an empty file, which a launch may make a ledger."""
        path = Path(self.address.file) if not self.address.is_database else None
        return path is not None and path.is_file() and not path.stat().st_size

    @property
    def holds_runs(self) -> bool:
        """Whether runs may be in it."""
        return self.exists and not self.is_empty

    def open(self, *, new: bool = False) -> Ledger:
        """The ledger, which opens itself when it is first used.

        Args:
            new: Whether a file that is not there is to be made, and an empty one to be used.

        Raises:
            ValueError: There is no such file, or it is empty.
            ImportError: A database needs an extra.
        """
        if not new and not self.exists:
            raise ValueError(f"there is no ledger {self}: no such file")
        if not new and self.is_empty:
            raise ValueError(f"{self} holds no ledger: the file is empty")
        return dispatchkit.Ledger(self.address)

    def resume(self, run: str, *options: str) -> str:
        """The command that resumes a run."""
        given = self.invocation.given(*RESUMED)
        return command_line("resume", *self._words(), "--run", run, *given, *options)

    def again(self, *options: str) -> str:
        """The same command, with more options. A name that was made for the run is part of it."""
        name = ["--run", self.run] if self.is_new_name and self.run else []
        return self.invocation.again(*name, *options)

    def launch_all_the_same(self) -> str:
        """The same command as a new run, whatever other runs have launched."""
        return self.invocation.again("--repeat-window", "never", without=("run", "repeat_window"))

    def stop(self, run: str) -> str:
        """The command that stops a run."""
        return command_line("stop-run", *self._words(), run)

    def list_runs(self) -> str:
        """The command that lists the runs."""
        return command_line("ledger", "list", *self._words())

    def failures(self, run: str) -> str:
        """The command that writes the failures of a run as ``--from`` takes them."""
        return command_line("ledger", "failures", *self._words(), run, "--csv")

    def lift_pause(self) -> str:
        """The command that lifts the pauses of accounts."""
        return command_line("ledger", "lift-pause", *self._words())

    def _words(self) -> Sequence[str]:
        return (without_passwords(str(self.address)),) if self.named else ()


def ledger_from_options(options: RunOptions, action: str) -> LedgerRef | None:
    """The ledger in which a launch is recorded, if there is one.

    Args:
        options: What was typed.
        action: What is done. A name that is made for the run ends with it.

    Raises:
        ValueError: There is a run without a ledger, or the options contradict each other.
    """
    if options.run is None:
        for option in ("account_changed", "copied", "end_holder"):
            if getattr(options, option):
                raise ValueError(f"--{option.replace('_', '-')} needs --run NAME: it is about a run of a ledger")
    elif not options.run:
        raise ValueError("--run needs a name that is not empty")
    else:
        label("--run", options.run)
    if options.sandbox:
        if options.run is not None or options.ledger is not None:
            raise ValueError("--ledger and --run do not go with --sandbox: the sandbox ends with the command")
        return None
    where = options.ledger or os.environ.get(_VARIABLE)
    if not where:
        if options.run is not None:
            raise ValueError(f"--run needs a ledger: add --ledger FILE|URL, or set {_VARIABLE}")
        if options.repeat_window not in {None, "never"}:
            raise ValueError(f"--repeat-window needs a ledger: add --ledger FILE|URL, or set {_VARIABLE}")
        return None
    run = options.run or f"{SYSTEM.now():%Y%m%d-%H%M%S}-{action.replace(' ', '-')}"
    return LedgerRef(
        where,
        run,
        named=options.ledger is not None,
        is_new_name=options.run is None,
        invocation=options.invocation,
    )


def parse_ledger_args(words: Sequence[str], *, run: bool) -> LedgerRef:
    """The ledger and run of the arguments ``LEDGER RUN``. The ledger may be left out where the environment holds it.

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

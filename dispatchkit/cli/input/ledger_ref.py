"""A reference to a ledger and to a run in it. A database address may hold a password and is shown masked."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

import dispatchkit
from dispatchkit.cli.input.default_ledger import default_ledger, make_writable
from dispatchkit.cli.invocation import Invocation, command_line
from dispatchkit.cli.translate import _
from dispatchkit.core.clock import SYSTEM
from dispatchkit.core.validators import label
from dispatchkit.ledger.address import Address
from dispatchkit.redaction import without_passwords

if TYPE_CHECKING:
    from dispatchkit import Ledger
    from dispatchkit.cli.options import RunOptions
    from dispatchkit.profiles import Profile

__all__ = ["LEDGER_VARIABLE", "LedgerRef", "ledger_from_options", "new_run_name", "parse_ledger_args", "without_ledger"]

LEDGER_VARIABLE = "DISPATCHKIT_LEDGER"
_MAX_PROFILE = 100
"""Letters of a profile's name in the name of a run, which has at most 200."""
_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_OF_LEDGERS = ("ledger", "run", "repeat_window", "account_changed", "copied", "end_holder")
"""Options that need a ledger."""


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
    """Whether the command line names the ledger; else the environment does, or it is the user's own."""
    is_default: bool = False
    """Whether it is the user's own, since neither the command line nor the environment names one."""
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
            if self.is_default:
                raise ValueError(
                    _("no launch was recorded yet: there is no ledger {ledger}. Name another ledger, if any").format(
                        ledger=self
                    )
                )
            raise ValueError(
                _("there is no ledger {ledger}: no such file. Check its name and its folder").format(ledger=self)
            )
        if not new and self.is_empty:
            raise ValueError(_("{ledger} holds no ledger: the file is empty. Name another file").format(ledger=self))
        return dispatchkit.Ledger(self.address)

    def resume(self, run: str, *options: str, kept: str | None = None) -> str:
        """The command that resumes a run, with the options of this line and those that the run keeps."""
        return command_line("resume", *self._words(), "--run", run, *self.invocation.with_kept(kept), *options)

    def again(self, *options: str) -> str:
        """The same command, with more options. A name that was made for the run is part of it."""
        name = ["--run", self.run] if self.is_new_name and self.run else []
        return self.invocation.again(*name, *options)

    def launch_all_the_same(self) -> str:
        """The same command as a new run, whatever other runs have launched."""
        return self.invocation.again("--again", without=("run", "repeat_window"))

    def show(self, run: str) -> str:
        """The command that shows a run."""
        return command_line("ledger", "show", *self._words(run), run)

    def stop(self, run: str) -> str:
        """The command that stops a run."""
        return command_line("stop-run", *self._words(run), run)

    def list_runs(self) -> str:
        """The command that lists the runs."""
        return command_line("ledger", "list", *self._words())

    def failures(self, run: str) -> str:
        """The command that writes the failures of a run as ``--from`` takes them."""
        return command_line("ledger", "failures", *self._words(run), run, "--csv")

    def export(self, run: str) -> str:
        """The command that shows all targets of a run."""
        return command_line("ledger", "export", *self._words(run), run)

    def lift_pause(self) -> str:
        """The command that lifts the pauses of accounts."""
        return command_line("ledger", "lift-pause", *self._words())

    def _words(self, run: str | None = None) -> Sequence[str]:
        """The arguments that name the ledger. None are needed where it is found without, also before ``run``."""
        if not self.named and (run is None or not (_is_file_name(run) or (self.is_default and _is_ledger(run)))):
            return ()
        return (without_passwords(str(self.address)),)


def ledger_from_options(options: RunOptions, action: str, *, stops: bool = False) -> LedgerRef | None:
    """The ledger in which a launch is recorded, if there is one.

    A launch is recorded in the user's own ledger if no other is named. A stop is not: nothing on this machine may keep
    it from its provider.

    Args:
        options: What was typed.
        action: What is done. A name that is made for the run has it, and the profile.
        stops: Whether the command stops launches.

    Raises:
        ValueError: The options contradict each other, or the user's own ledger cannot be written.
    """
    if options.run is None:
        for option in ("account_changed", "copied", "end_holder"):
            if getattr(options, option):
                raise ValueError(
                    _("--{option} needs --run NAME: it is about a run of a ledger").format(
                        option=option.replace("_", "-")
                    )
                )
    elif not options.run:
        raise ValueError(_("--run needs a name that is not empty"))
    else:
        label("--run", options.run)
    for option in ("sandbox", "no_ledger"):
        if getattr(options, option):
            if options.run is not None or options.ledger is not None:
                reason = _("the sandbox ends with the command") if option == "sandbox" else _("it records nothing")
                raise ValueError(
                    _("--ledger and --run do not go with --{option}: {reason}").format(
                        option=option.replace("_", "-"), reason=reason
                    )
                )
            if options.repeat_window is not None:
                raise ValueError(
                    _("--repeat-window does not go with --{option}: it needs a ledger").format(
                        option=option.replace("_", "-")
                    )
                )
            return None
    where = options.ledger or os.environ.get(LEDGER_VARIABLE)
    is_default = not where
    if not where:
        if stops and options.run is None:
            return None
        where = str(default_ledger())
        try:
            make_writable(Path(where))
        except ValueError as error:
            without = without_ledger(options.invocation)
            raise ValueError(
                _(
                    "{error}. Make the folder writable, or name another file with --ledger. To launch without a "
                    "record: {line}"
                ).format(error=error, line=without)
            ) from None
    return LedgerRef(
        where,
        options.run or new_run_name(action, options.invocation.profile),
        named=options.ledger is not None,
        is_default=is_default,
        is_new_name=options.run is None,
        invocation=options.invocation,
    )


def without_ledger(invocation: Invocation) -> str:
    """The same command, without a record."""
    return invocation.again("--no-ledger", without=_OF_LEDGERS)


def new_run_name(action: str, profile: Profile | None) -> str:
    """A name for a run. Its last part tells apart launches that several processes begin within a second."""
    named = "" if profile is None else f"-{profile.name[:_MAX_PROFILE]}"
    return f"{SYSTEM.now():%Y%m%d-%H%M%S}-{action.replace(' ', '-')}{named}-{secrets.token_hex(2)}"


def _is_ledger(word: str) -> bool:
    """Whether a single word of ``LEDGER RUN`` is the ledger. Else it is a run of the user's own."""
    return _is_file_name(word) or os.sep in word or Path(word).exists() or Address.of(word).is_database


def _is_file_name(word: str) -> bool:
    """Whether a word is named like a ledger's file, also where there is no such file."""
    return word.lower().endswith(_SUFFIXES)


def parse_ledger_args(words: Sequence[str], *, run: bool) -> LedgerRef:
    """The ledger and run of the arguments ``LEDGER RUN``. The ledger may be left out: see `ledger_from_options`.

    Args:
        words: The arguments.
        run: Whether there may be a run among them.

    Raises:
        ValueError: There are too many.
    """
    form = "LEDGER RUN" if run else "LEDGER"
    if len(words) > 1 + run:
        raise ValueError(_("too many arguments: there are {count}, for {form}").format(count=len(words), form=form))
    where = os.environ.get(LEDGER_VARIABLE) or None
    own = default_ledger()
    rest = [*words]
    may_be_run = run and len(rest) == 1 and not _is_file_name(rest[0])
    may_be_run = may_be_run and (where is not None or (own.exists() and not _is_ledger(rest[0])))
    named = bool(rest) and not may_be_run
    if named:
        where = rest.pop(0)
    return LedgerRef(where or str(own), rest[0] if rest else None, named, is_default=where is None)

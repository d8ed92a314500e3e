"""Begin a run: check its settings, account and repeats, and plan its commands."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import socket
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import chain, islice
from typing import TYPE_CHECKING, Never, TypeVar, cast

from dispatchkit.core.command import Command
from dispatchkit.core.durations import in_words
from dispatchkit.core.invalid_command import InvalidCommand
from dispatchkit.core.validators import MAX_SECONDS
from dispatchkit.errors import AccountMismatchError, LedgerError, RepeatedTargetsError, RunStoppedError
from dispatchkit.ledger.codec import decode, encode_text
from dispatchkit.ledger.contents import Content, new_contents
from dispatchkit.ledger.converter import LargeCommandError
from dispatchkit.ledger.keys import key_of
from dispatchkit.ledger.repeat import Repeat
from dispatchkit.ledger.run import Run, RunPlan
from dispatchkit.ledger.store import Store
from dispatchkit.ledger.template import Template
from dispatchkit.providers import parse_settings

if TYPE_CHECKING:
    from dispatchkit.core.call.context import RunSettings

__all__ = ["begin", "check_repeats", "digests", "find_repeats", "name_repeats", "name_targets", "no_such_run", "plan"]

R = TypeVar("R")
W = TypeVar("W")

_MAX_NAMED = 5
"""Maximum number of runs that an error names."""
_PLAN_ROWS, _PLAN_TEXT = 50_000, 8_000_000
"""Maximum rows and characters per transaction. Fewer transactions write fewer pages twice."""
_TURN = 256
"""Commands between two yields to the event loop."""


async def begin(store: Store, name: str, given: RunSettings, *, planned: bool, resumes: bool) -> Run:
    """Get or create a run, and check that its settings and account are the client's.

    Args:
        store: The store of the run.
        name: The run's name.
        given: The client's settings.
        planned: Whether the run must exist with a complete plan.
        resumes: Whether a stopped run is accepted.

    Raises:
        RunStoppedError: The run was stopped.
        AccountMismatchError: The run was planned for another account.
        LedgerError: The run does not exist, its plan is incomplete, or it was planned with other settings.
    """
    await store.check_identity()
    plan = RunPlan(
        name=name,
        settings=json.dumps(dict(given.settings), sort_keys=True),
        host=given.settings.get("base_url", ""),
        account=given.account,
        fingerprint=await asyncio.to_thread(given.fingerprint),
        attempt_timeout=given.attempt_timeout,
        repeat_window=given.repeat_window,
        canary=given.canary or None,
        planned_by=_user(),
        planned_on=socket.gethostname() or None,
        profile=given.profile,
        launch_options=given.launch_options,
    )
    if planned:
        run = await store.run(name)
        if run is None:
            raise no_such_run(name, await store.runs())
        if not run.plan_complete:
            raise LedgerError(
                f"the plan of the run {name!r} is incomplete: run the same again, with its commands, to complete it"
            )
    else:
        run = await store.begin(plan)
    if run.stopped and not resumes:
        raise RunStoppedError(f"the run {name!r} was stopped: to resume it, await ledger.clear_stop({name!r})")
    others = _differences(parse_settings(run.settings), given.settings)
    if others:
        raise LedgerError(f"the run {name!r} was planned with other settings ({others}): use another run name")
    await _check_account(store, run, plan)
    return run


def no_such_run(name: str, runs: Sequence[Run]) -> LedgerError:
    """The error for a run that does not exist, with the latest ones that do."""
    named = ", ".join(repr(run.name) for run in runs[:_MAX_NAMED]) or "none"
    more = f" and {len(runs) - _MAX_NAMED:,} more" if len(runs) > _MAX_NAMED else ""
    return LedgerError(f"the ledger holds no run {name!r}; it holds {named}{more}")


def _user() -> str | None:
    """The user of this process. A container may have one without a name."""
    with contextlib.suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return None


async def _check_account(store: Store, run: Run, plan: RunPlan) -> None:
    """Refuse another account's token: the provider would reject every target, and rejections are final."""
    named = run.account is not None and plan.account is not None
    if (run.account != plan.account) if named else (run.fingerprint != plan.fingerprint):
        planned = "another account" if run.account is None else f"the account {run.account!r}"
        own = "this token" if plan.account is None else f"the account {plan.account!r}"
        raise AccountMismatchError(
            f"the run {run.name!r} is planned for {planned} or another token, not for {own}: nothing was launched. If "
            "the account has a new token, accept it: await ledger.change_account(run, client)"
        )
    if run.fingerprint != plan.fingerprint:
        await store.set_account(run.number, account=run.account, fingerprint=plan.fingerprint)


async def check_repeats(store: Store, run: Run, *, chunk: int | None, within: float | None) -> None:
    """Refuse targets that another run launched a short time ago, or is launching now.

    Args:
        store: The store of the runs.
        run: The run. The longer one of its own ``repeat_window`` and ``within`` applies.
        chunk: Check only this chunk; None checks all.
        within: Seconds; None leaves only the run's own window.

    Raises:
        RepeatedTargetsError: Another run launched some of the targets.
    """
    repeats = await find_repeats(store, run, chunk=chunk, within=within)
    if not repeats:
        return
    raise RepeatedTargetsError(
        f"other runs have launched targets of the run {run.name!r}{_within(_window(run, within))}, or launch them "
        f"now: nothing was launched. Found: {name_repeats(repeats)}. Leave them out, or plan them without "
        "repeat_window as another run",
        runs={repeat.run: repeat.count for repeat in repeats},
    )


async def find_repeats(store: Store, run: Run, *, chunk: int | None, within: float | None) -> list[Repeat]:
    """The targets that another run launched a short time ago, or is launching now. See `check_repeats`."""
    window = _window(run, within)
    return [] if window is None else await store.repeats(run.number, chunk=chunk, within=window)


def _window(run: Run, within: float | None) -> float | None:
    return max((window for window in (within, run.repeat_window) if window is not None), default=None)


def _within(window: float | None) -> str:
    return "" if window is None or window >= MAX_SECONDS else f" within {in_words(window)}"


def name_repeats(repeats: Sequence[Repeat]) -> str:
    """The other runs, with the number of repeats, the time of the latest one, and the first targets of each."""
    others = "; ".join(
        f"{repeat.count:,} in run {repeat.run!r}, the latest at {repeat.latest:%Y-%m-%d %H:%M:%S} UTC "
        f"({name_targets(repeat)})"
        for repeat in repeats[:_MAX_NAMED]
    )
    more = f"; and in {len(repeats) - _MAX_NAMED:,} other runs" if len(repeats) > _MAX_NAMED else ""
    return f"{others}{more}"


def name_targets(repeat: Repeat) -> str:
    """The first targets of a repeat, as text."""
    commands = [decode(command, partial=True) for command in repeat.commands]
    named = [repr(each) if each.target is None else str(each.target) for each in commands]
    return ", ".join([*named, "..."] if repeat.count > len(named) else named)


async def plan(
    store: Store,
    run: Run,
    commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]],
    is_stopped: Callable[[], bool],
) -> bool:
    """Plan commands. Returns False if the run was stopped before all were planned.

    One part is written while the next one is encoded. A part that is planned already is left out. A thread encodes
    large commands.

    Raises:
        TypeError: A command could not be built.
        ValueError: A command could not be built.
        LedgerError: The ledger cannot be written.
    """
    known = await store.plan_parts(run.number)
    writing: asyncio.Task[None] | None = None
    number = index = 0
    part = Part()
    try:
        async for some in _in_turns(commands):
            if is_stopped():
                return False
            for command in some:
                one = cast("Command[Never, object]", command)
                try:
                    text = _text(index, one, may_wait=False)
                except LargeCommandError:
                    text = await asyncio.to_thread(_text, index, one)
                is_full = part.add(one, text)
                index += 1
                if is_full:
                    if part.digest() != known.get(number):
                        rows = await part.rows()
                        if writing is not None:
                            await writing
                        writing = asyncio.create_task(_write(store, run, number, part, rows))
                    part = Part()
                    number += 1
    finally:
        if writing is not None:
            await writing
    if part.digest() != known.get(number):
        await _write(store, run, number, part, await part.rows())
    return not is_stopped()  # a stop may have closed the iterator of commands early


async def _write(store: Store, run: Run, number: int, part: Part, rows: Sequence[tuple[bytes, str]]) -> None:
    await store.plan(run.number, rows, log_keys=part.log_keys, contents=part.contents, part=(number, part.digest()))


class Part:
    """Consecutive commands of a plan, and their digest. The same commands again have the same parts."""

    def __init__(self) -> None:
        self._commands: list[Command[Never, object]] = []
        self._texts: list[str] = []
        self._size = 0
        self._digest: bytes | None = None
        self.log_keys: dict[bytes, int] = {}
        """The `Command.log_key` of commands with one, by key, after `rows`."""
        self.contents: dict[str, Content] = {}
        """The contents of the commands, by hash."""

    def add(self, command: Command[Never, object], text: str) -> bool:
        """Add a command and its text. Returns whether the part is full."""
        self._commands.append(command)
        self._texts.append(text)
        self._size += len(text)
        if type(text) is not str and (contents := new_contents(text, self.contents)):
            self.contents |= contents
            self._size += sum(map(len, contents.values()))
        return len(self._texts) >= _PLAN_ROWS or self._size >= _PLAN_TEXT

    def digest(self) -> bytes:
        """The digest of the commands, in order. No command follows."""
        if self._digest is None:
            self._digest = sha256("\n".join(self._texts).encode()).digest()
        return self._digest

    async def rows(self) -> list[tuple[bytes, str]]:
        """The keys and texts of the commands. It yields to the event loop from time to time."""
        rows: list[tuple[bytes, str]] = []
        for command, text in zip(self._commands, self._texts, strict=True):
            key = key_of(command, text)
            rows.append((key, text))
            if command.log_key is not None:
                self.log_keys[key] = command.log_key
            if len(rows) % _TURN == 0:
                await asyncio.sleep(0)
        return rows


def digests(command: Callable[[int], Command[W, R]], numbers: Iterable[int]) -> dict[int, bytes]:
    """The digests of the parts of a plan, by number, as `Store.plan_parts` has them.

    Args:
        command: Makes the command of a number. Its commands differ in the number only.
        numbers: The numbers.

    Raises:
        TypeError: The command could not be built.
        ValueError: The command could not be built.
    """
    found: dict[int, bytes] = {}
    left = iter(numbers)
    while some := [*islice(left, _PLAN_ROWS)]:
        first = cast("Command[Never, object]", command(some[0]))
        template = Template.of(first, encode_text(first))
        text = "" if template is None else template.write_all(some)
        if template is None or len(text) >= _PLAN_TEXT:
            return _digests(map(command, numbers))
        found[len(found)] = sha256(text.encode()).digest()
        if len(some) < _PLAN_ROWS:
            return found
    found[len(found)] = Part().digest()
    return found


def _digests(commands: Iterable[Command[W, R]]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    part = Part()
    for index, command in enumerate(commands):
        one = cast("Command[Never, object]", command)
        if part.add(one, _text(index, one)):
            found[len(found)] = part.digest()
            part = Part()
    found[len(found)] = part.digest()
    return found


def _differences(planned: Mapping[str, str], given: Mapping[str, str]) -> str:
    names = sorted(name for name in {*planned, *given} if planned.get(name) != given.get(name))
    return ", ".join(f"{name}: {planned.get(name)!r}, not {given.get(name)!r}" for name in names)


async def _in_turns(
    commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]],
) -> AsyncIterable[Iterable[Command[W, R]]]:
    """Some commands at a time: a step of an asynchronous iterator for each costs as much as its text.

    Each is taken once the one before it is planned: both may have large files.
    """
    if isinstance(commands, AsyncIterable):
        async for command in commands:
            yield (command,)
        return
    left = iter(commands)
    for first in left:
        yield chain((first,), islice(left, _TURN - 1))
        await asyncio.sleep(0)


def _text(index: int, command: Command[Never, object], *, may_wait: bool = True) -> str:
    if type(command) is InvalidCommand:  # isinstance takes four times as long: the class is abstract
        error_type = TypeError if isinstance(command.error, TypeError) else ValueError
        raise error_type(f"commands[{index}]: {command.error}: nothing was launched") from None
    try:
        return encode_text(command, may_wait=may_wait)
    except TypeError as error:
        raise TypeError(f"commands[{index}]: {error}: nothing was launched") from None

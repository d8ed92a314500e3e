"""The beginning of a run: whose it is, whether it may be launched here and now, and what is planned in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import TypeVar

from dispatchkit.core.call.context import RunSettings
from dispatchkit.core.command import Command
from dispatchkit.core.invalid_command import InvalidCommand
from dispatchkit.errors import AccountMismatchError, LedgerError, RepeatedTargetsError, RunStoppedError
from dispatchkit.ledger.codec import decode, encode
from dispatchkit.ledger.store import Run, RunPlan, Store
from dispatchkit.providers import parse_settings

__all__ = ["begin", "check_repeats", "plan"]

R = TypeVar("R")
W = TypeVar("W")

_TOLD = 5
"""How many other runs an error names."""
_PLAN_ROWS, _PLAN_TEXT = 50_000, 8_000_000
"""How much is planned in one transaction: the fewer there are, the less is written twice."""
_TURN = 256
"""After so many commands, others get their turn in the event loop."""


async def begin(store: Store, name: str, given: RunSettings, *, planned: bool, resumes: bool) -> Run:
    """The run of this name, made if it is not there, and checked to be the one that is meant.

    Args:
        store: What holds it.
        name: Its name.
        given: How a client is to carry it out.
        planned: Whether all of it must be planned already.
        resumes: Whether it may have been stopped.

    Raises:
        RunStoppedError: It was stopped.
        AccountMismatchError: It was planned for another account.
        LedgerError: It is not there, not planned whole, or of another provider or host.
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
    )
    if planned:
        run = await store.run(name)
        if run is None:
            raise LedgerError(f"the ledger holds no run {name!r}")
        if not run.plan_complete:
            raise LedgerError(
                f"the plan of the run {name!r} is not whole: run the same again, with its commands, to finish it"
            )
    else:
        run = await store.begin(plan)
    if run.stopped and not resumes:
        raise RunStoppedError(f"the run {name!r} was stopped: to let it go on, await ledger.clear_stop({name!r})")
    others = _differences(parse_settings(run.settings), given.settings)
    if others:
        raise LedgerError(f"the run {name!r} was planned with other settings ({others}): use another run name")
    await _check_account(store, run, plan)
    return run


async def _check_account(store: Store, run: Run, plan: RunPlan) -> None:
    """Refuse the token of another account, which would be rejected for each target, for good."""
    named = run.account is not None and plan.account is not None
    if (run.account != plan.account) if named else (run.fingerprint != plan.fingerprint):
        planned = "another account" if run.account is None else f"the account {run.account!r}"
        own = "this token" if plan.account is None else f"the account {plan.account!r}"
        raise AccountMismatchError(
            f"the run {run.name!r} was planned for {planned} or for another token of it, not for {own}: nothing "
            "was launched. If the account has a new token, accept it: await ledger.change_account(run, client)"
        )
    if run.fingerprint != plan.fingerprint:
        await store.set_account(run.number, account=run.account, fingerprint=plan.fingerprint)


async def check_repeats(store: Store, run: Run, *, chunk: int | None, within: float | None) -> None:
    """Refuse targets that another run has launched a short time ago, or launches now.

    Args:
        store: What holds the runs.
        run: The run. The window that it was planned with counts, too.
        chunk: Only this chunk of it; None: all.
        within: Seconds; None refuses nothing more.

    Raises:
        RepeatedTargetsError: There are some.
    """
    within = max((window for window in (within, run.repeat_window) if window is not None), default=None)
    if within is None:
        return
    repeats = await store.repeats(run.number, chunk=chunk, within=within)
    if not repeats:
        return
    others = "; ".join(
        f"{each.count:,} in run {each.run!r}, the latest at {each.latest:%Y-%m-%d %H:%M:%S} UTC, such as "
        f"{decode(each.commands[0])!r}"
        for each in repeats[:_TOLD]
    )
    more = f"; and in {len(repeats) - _TOLD:,} other runs" if len(repeats) > _TOLD else ""
    raise RepeatedTargetsError(
        f"other runs have launched targets of the run {run.name!r} within {within:g} s, or launch them now "
        f"({others}{more}): nothing was launched. Leave them out, or plan them without repeat_window as another run",
        runs={each.run: each.count for each in repeats},
    )


async def plan(
    store: Store,
    run: Run,
    commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]],
    is_stopped: Callable[[], bool],
) -> bool:
    """Plan commands, and return whether all of them are planned: the run may be stopped meanwhile.

    One batch is written while the next is put into text.

    Raises:
        TypeError: One of the commands could not be built.
        ValueError: One of the commands could not be built.
        LedgerError: They cannot be written.
    """
    writing: asyncio.Task[None] | None = None
    rows: list[tuple[bytes, str]] = []
    log_keys: dict[bytes, int] = {}
    size = index = 0
    try:
        async for command in _each(commands):
            if is_stopped():
                return False
            rows.append(_row(index, command))
            if command.log_key is not None:
                log_keys[rows[-1][0]] = command.log_key
            index += 1
            size += len(rows[-1][1])
            if len(rows) >= _PLAN_ROWS or size >= _PLAN_TEXT:
                if writing is not None:
                    await writing
                writing = asyncio.create_task(store.plan(run.number, rows, log_keys=log_keys))
                rows, log_keys, size = [], {}, 0
    finally:
        if writing is not None:
            await writing
    await store.plan(run.number, rows, log_keys=log_keys)
    return not is_stopped()  # whoever stops the run may have closed what gives the commands


def _differences(planned: Mapping[str, str], given: Mapping[str, str]) -> str:
    names = sorted(name for name in {*planned, *given} if planned.get(name) != given.get(name))
    return ", ".join(f"{name}: {planned.get(name)!r}, not {given.get(name)!r}" for name in names)


async def _each(
    commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]],
) -> AsyncIterable[Command[W, R]]:
    if isinstance(commands, AsyncIterable):
        async for command in commands:
            yield command
        return
    for index, command in enumerate(commands):
        yield command
        if index % _TURN == _TURN - 1:
            await asyncio.sleep(0)


def _row(index: int, command: Command[W, R]) -> tuple[bytes, str]:
    if isinstance(command, InvalidCommand):
        error_type = TypeError if isinstance(command.error, TypeError) else ValueError
        raise error_type(f"commands[{index}]: {command.error}: nothing was launched") from None
    try:
        return encode(command)
    except TypeError as error:
        raise TypeError(f"commands[{index}]: {error}: nothing was launched") from None

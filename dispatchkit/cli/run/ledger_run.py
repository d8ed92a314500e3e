"""A run that a ledger remembers: that it is the one that is meant, how it is driven, and what did not come to done."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Never, TypeVar, cast

from dispatchkit.cli.output.text import clean, masked, number_of
from dispatchkit.cli.run.drive import drive
from dispatchkit.cli.run.takeover import explained, prepare
from dispatchkit.errors import LedgerError, State
from dispatchkit.ledger.codec import decode, encode, key

if TYPE_CHECKING:
    from dispatchkit import Report
    from dispatchkit.cli.options import Guards
    from dispatchkit.cli.output.failures import Sheet
    from dispatchkit.cli.output.reporter import Show
    from dispatchkit.cli.run.drive import Memory
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command
    from dispatchkit.ledger.store import Target

__all__ = ["NOT_DONE", "failure", "perform", "same_launch"]

R = TypeVar("R")
W = TypeVar("W")

NOT_DONE = ("planned", "sending", *(state.value for state in State if state is not State.DONE))
"""The states of what did not come to done."""

_AT_ONCE = 1024
_LOOK_TIMEOUT = 1.0
"""Seconds in which an interrupted run looks into the ledger why it ended."""


async def perform(
    client: Client[W],
    commands: Iterable[Command[W, R]] | None,
    memory: Memory,
    *,
    show: Show,
    guards: Guards,
    sheet: Sheet | None,
) -> tuple[Report, bool]:
    """Drive a run that a ledger remembers, then write what of all of it did not come to done. See `drive`.

    Raises:
        LedgerError: The ledger could not be used, and nothing was begun.
    """
    try:
        await prepare(cast("Client[Never]", client), memory, show)
        ending = await drive(client, commands, show, guards, memory=memory)
    except LedgerError as error:
        raise await explained(error, memory) from None
    try:
        async with asyncio.timeout(_LOOK_TIMEOUT if ending[1] else None):
            await _tell_why_it_ended(memory, show)
            if ending[0].unknown:
                show.unknown_for_good = (await memory.ledger.counts(memory.name)).unknown_for_good
        if sheet is not None:
            await _write(sheet, memory)
    except (LedgerError, TimeoutError) as error:
        show.broke(masked(str(error)) or "the ledger's database does not answer: the run is resumed later")
        if sheet is not None:
            sheet.whole = False
    if sheet is not None:
        sheet.close()
    return ending


async def _tell_why_it_ended(memory: Memory, show: Show) -> None:
    run = await memory.ledger.run(memory.name)
    if run.stopped:
        show.note("The run was stopped from elsewhere: nothing new was started.")
    ours = (os.getpid(), socket.gethostname())  # still, where the ledger could not be written in the end
    for chunk in await memory.ledger.chunks(memory.name):
        if (holder := chunk.holder) is not None and (holder.pid, holder.host) != ours:
            show.note(f"The run was taken over by process {holder.pid} on {holder.host}, which goes on with it.")
            break


async def _write(sheet: Sheet, memory: Memory) -> None:
    rows: list[tuple[object, ...]] = []
    async for target in memory.ledger.targets(memory.name, states=NOT_DONE):
        rows.append(failure(target))
        if len(rows) == _AT_ONCE:
            if not sheet.write(rows):
                return
            rows.clear()
    if rows:
        sheet.write(rows)


def failure(target: Target) -> tuple[object, ...]:
    """A target as a row of the failures file, whose words are those of outcomes.

    What was left in flight may have happened.
    """
    outcome = {"planned": "not_started", "sending": "unknown"}.get(target.state, target.state)
    summary = target.summary or ("it was left in flight" if target.state == "sending" else "")
    return number_of(decode(target.command)), outcome, target.code, clean(summary), target.request_id


async def same_launch(memory: Memory, commands: Iterable[Command[W, R]], total: int) -> bool:
    """Check that the run of this name, if there is one, is this launch, and tell whether all of it is planned already.

    Another list, or another content, under the name of an old run would be launched on top of it; and so would what is
    left of the old one, which may be a mistake that was corrected in the list. So every command is compared.

    Args:
        memory: The run.
        commands: What is to be done, each of them once.
        total: How many they are.

    Raises:
        ValueError: It is another one.
        LedgerError: The ledger cannot be read.
    """
    run = next((run for run in await memory.ledger.runs() if run.name == memory.name), None)
    if run is None:
        return False
    first, ours, place = True, iter(commands), memory.place
    async for target in memory.ledger.targets(run.name):
        command = next(ours, None)
        if not _same(target, command) or (first and run.whole and run.total != total):
            which = "from {!r} on" if first else f"whose number {target.index + 1:,} is {{!r}}"
            raise ValueError(
                f"run {run.name!r} in {place} is another launch, of {run.total:,}{'' if run.whole else ' so far'} "
                f"{which.format(decode(target.command))}: "
                f"give this one a name of its own, or go on with that one: {place.resume(run.name)}"
            )
        first = False
    return run.whole


def _same(target: Target, command: Command[W, R] | None) -> bool:
    if command is None:
        return False
    digest, text = encode(command)
    # The text is quicker, and the key is right also where the order of a content's fields is another.
    return text == target.command or digest == key(decode(target.command))

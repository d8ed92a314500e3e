"""The table of faults: what came of every command under every fault. ``python -m tests.faults.table`` prints it."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias

import attrs

from dispatchkit import DispatchkitError, State
from dispatchkit.sandbox import Reply
from tests.faults.actions import ACTIONS, QUICK, Action
from tests.faults.cases import Fault, faults
from tests.faults.hostile_server import Hostile, Recorder

TIMEOUT = 1.5
ATTEMPT_TIMEOUT = 0.3
PUNCTUAL = 0.1
"""Seconds after its deadline by which a call must be back."""

Mode: TypeAlias = Literal["once", "always", "dark", "alone"]
"""How often the fault strikes, and what else is wrong.

``once``: the first attempt only. ``always``: every attempt. ``dark``: the first, and state cannot be read. In these
the user has vouched for deduplication. ``alone``: the first, with a client as it is by default, and a platform that
does not deduplicate.
"""

MODES: tuple[Mode, ...] = ("once", "always", "dark", "alone")


@attrs.frozen
class Cell:
    """One place of the table."""

    fault: Fault
    action: Action
    mode: Mode
    reused: bool = False
    blocking: bool = False

    def __str__(self) -> str:
        connection = "reused" if self.reused else "fresh"
        return f"{self.fault} | {self.action.name} | {self.mode} | {connection}{' | blocking' if self.blocking else ''}"

    def expected(self) -> State:
        """The one outcome that is right here. Unknown is an outcome of last resort, and this says where it is one."""
        if self.fault.brings == "429 too long":
            return State.REJECTED
        if self.fault.brings == "429":
            return State.REJECTED if self.mode == "always" else State.DONE
        if self.fault.brings == "answer":
            return State.DONE
        if self.mode == "always" and (not self.fault.acts or self.action.state == "log"):
            return State.UNKNOWN  # it tried to the end; a launch that is deduplicated is not looked for in the log
        if self.mode == "dark" and not self.action.has_request_id:
            return State.UNKNOWN  # nothing can tell, and a repeat could act twice
        if self.mode == "alone" and not self.fault.acts and self.action.state == "log":
            return State.UNKNOWN  # that the log shows no start is no proof
        return State.DONE


@attrs.frozen
class Row:
    """What came of a cell."""

    cell: Cell
    outcome: State
    acts: int
    elapsed: float
    requests: int
    bytes_seen: int
    error: DispatchkitError | None
    elsewhere: int
    stalled: bool = False
    """Whether the machine itself stood still meanwhile, so that a clear answer may have come too late to be read."""

    def lies(self) -> list[str]:
        """What nothing excuses, in words."""
        return list(self._lies())

    def _lies(self) -> Iterator[str]:
        if self.acts > 1:
            yield f"acted {self.acts} times"
        if self.outcome is State.DONE and self.acts != 1:
            yield "done, and it is not"
        if self.outcome in {State.REJECTED, State.NOT_SENT} and self.acts:
            yield f"{self.outcome}, and it acted"
        if self.outcome is State.NOT_SENT and self.bytes_seen:
            yield f"not sent, and the server saw {self.bytes_seen} bytes"
        if self.elsewhere:
            yield "followed a redirect"

    def _repeat_was_lost(self) -> bool:
        """Whether the one repeat that a launch has met the connection as the server closed it, unannounced."""
        attempts = () if self.error is None else self.error.attempts
        return (
            self.outcome is State.UNKNOWN
            and self.cell.action.state == "log"
            and len(attempts) == 2
            and (attempts[1].result.startswith("the connection was") and attempts[1].duration < ATTEMPT_TIMEOUT / 3)
        )

    def faults(self, *, slack: float) -> Iterator[str]:
        """What is wrong with it, in words."""
        yield from self._lies()
        expected = self.cell.expected()
        if self.outcome is not expected and not self._repeat_was_lost():
            yield f"{self.outcome}, not {expected}"
        if self.elapsed > TIMEOUT + PUNCTUAL + slack:
            yield f"late: {self.elapsed:.3f} s"
        if self.error is not None and self.error.state is not self.outcome:
            yield "the error says another outcome"

    def __str__(self) -> str:
        why = "" if self.error is None else f"  {self.error.summary}"
        return f"{self.outcome:8} acts {self.acts}  {self.elapsed * 1000:4.0f} ms  {self.requests} requests{why}"


def cells(
    elsewhere: str,
    *,
    modes: Iterable[Mode] = MODES,
    actions: Iterable[Action] = ACTIONS,
    reused: Iterable[bool] = (False, True),
    blocking: bool = False,
) -> Iterator[Cell]:
    """The cells that make sense."""
    for fault in faults(elsewhere):
        for action in actions:
            if not fault.suits(action):
                continue
            for mode in modes:
                if mode == "alone" and not action.has_request_id:
                    continue
                for again in reused:
                    yield Cell(fault, action, mode, again, blocking)


def _dark(_: object) -> Reply:
    return Reply.of_web_server(503)


async def play(cell: Cell, elsewhere: Recorder) -> Row:
    """Play one cell with a server and a client of its own."""
    action = cell.action
    provider = action.provider(deduplicates=False) if cell.mode == "alone" else action.provider()
    settings = {} if cell.mode == "alone" else action.vouched
    connections = elsewhere.connections
    async with Hostile(provider) as server:
        make = action.blocking if cell.blocking else action.client
        client = make(server.url, timeout=TIMEOUT, attempt_timeout=ATTEMPT_TIMEOUT, retry=QUICK, **settings)
        try:
            if cell.reused:
                await _warm(client, cell)
            if cell.mode == "always":
                server.forever = cell.fault.strike(action)
            else:
                server.order(cell.fault.strike(action))
            if cell.mode == "dark":
                server.dark = _dark
            outcome, error, elapsed = await _perform(client, cell)
        finally:
            closed: Any = asyncio.to_thread(client.close) if cell.blocking else client.close()
            await closed
        return Row(
            cell,
            outcome,
            action.acts(provider),
            elapsed,
            len(server.acting) + len(server.reading),
            server.bytes_seen,
            error,
            elsewhere.connections - connections,
        )


async def _warm(client: object, cell: Cell) -> None:
    reading = client.perform  # type: ignore[attr-defined]
    for _ in range(3):  # on a busy machine even an honest answer may come too late
        try:
            await (asyncio.to_thread(reading, cell.action.reads) if cell.blocking else reading(cell.action.reads))
        except DispatchkitError:
            continue
        return


async def _perform(client: object, cell: Cell) -> tuple[State, DispatchkitError | None, float]:
    def blocking() -> tuple[State, DispatchkitError | None, float]:
        began = time.monotonic()
        try:
            client.perform(cell.action.command)  # type: ignore[attr-defined]
        except DispatchkitError as error:
            return error.state, error, time.monotonic() - began
        return State.DONE, None, time.monotonic() - began

    if cell.blocking:
        return await asyncio.to_thread(blocking)
    began = time.monotonic()
    try:
        await client.perform(cell.action.command)  # type: ignore[attr-defined]
    except DispatchkitError as error:
        return error.state, error, time.monotonic() - began
    return State.DONE, None, time.monotonic() - began


class _Heart:
    """Notices when the loop stands still: on a busy machine it does, and then every server looks silent."""

    def __init__(self) -> None:
        self.stalls = 0

    async def beat(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self.stalls += time.monotonic() - before > ATTEMPT_TIMEOUT / 3


async def play_all(chosen: Iterable[Cell], elsewhere: Recorder, *, together: int = 16) -> list[Row]:
    """Play many cells, so many at a time.

    A cell during which the machine stood still is played again if its outcome is not the expected one. That excuses
    no lie: a row that acted twice, or is not what it says, stays.
    """
    rows: list[Row] = []
    source = iter(chosen)
    heart = _Heart()

    async def work() -> None:
        for cell in source:
            for _ in range(3):
                stalls = heart.stalls
                row = await play(cell, elsewhere)
                await asyncio.sleep(0.011)
                row = attrs.evolve(row, stalled=heart.stalls > stalls)
                if not row.stalled or row.lies() or row.outcome is cell.expected():
                    break
            rows.append(row)

    beating = asyncio.ensure_future(heart.beat())
    async with asyncio.TaskGroup() as group:
        for _ in range(together):
            group.create_task(work())
    beating.cancel()
    return rows


async def _print(modes: tuple[Mode, ...], word: str) -> int:
    async with Recorder() as elsewhere:
        chosen = [cell for cell in cells(elsewhere.url, modes=modes) if word in str(cell)]
        rows = await play_all(chosen, elsewhere)
    wrong = 0
    for row in sorted(rows, key=lambda row: chosen.index(row.cell)):
        found = list(row.faults(slack=0.1))
        wrong += bool(found)
        print(f"{row.cell!s:90} {row}{'   WRONG: ' + '; '.join(found) if found else ''}")
    print(f"{len(rows)} cells, {wrong} wrong: {dict(Counter(str(row.outcome) for row in rows))}")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("word", nargs="?", default="", help="only cells that contain this")
    parser.add_argument("--mode", choices=MODES, action="append")
    options = parser.parse_args()
    raise SystemExit(1 if asyncio.run(_print(tuple(options.mode or MODES), options.word)) else 0)

"""Two concurrent holders of one run: two operators, and two containers with one host name."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from tests.nemesis.command import Command
from tests.nemesis.faults.registry import fault
from tests.nemesis.scene import NotFiredError, Scene

__all__: list[str] = []

_CONTAINER = (
    "unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c",
    'n=$1; shift; while [ $n -gt 0 ]; do true & wait; n=$((n - 1)); done; "$@"; exit $?', "sh",
)  # fmt: skip
"""A PID namespace. Some pids are used up first, so that those of two containers differ."""


@fault()
async def two_operators(scene: Scene) -> None:
    """Two start the same run at the same moment, or resume it after a kill. One launches, the other is refused."""
    resumed = scene.chance.random() < 0.5
    if resumed:
        first = await scene.begin()
        await scene.acts(scene.somewhere(most=0.5), first)
        await first.kill()
        count = scene.provider.count
        pair: Sequence[Command] = await asyncio.gather(scene.second("one"), scene.second("two"))
    elif scene.kind == "worker":
        await asyncio.gather(scene.plan(), scene.plan())
        count = 0
        pair = await asyncio.gather(scene.worker("one"), scene.worker("two"), scene.worker("three"))
    else:
        count = 0
        pair = await asyncio.gather(scene.start("one"), scene.start("two", proxied=False))
    apart = max(process.began for process in pair) - min(process.began for process in pair)
    if count >= scene.total or apart > 0.5:
        raise NotFiredError(f"{scene.done}, {apart:.2f} s apart")
    await asyncio.sleep(0.2)
    if not all(process.alive for process in pair):
        raise NotFiredError("one had ended before the other began")
    scene.proof.append(f"{'resumed' if resumed else 'started'} {apart * 1000:.0f} ms apart at {count} acts")
    if scene.kind == "command":
        for each in pair:
            await each.wait(scene.times.timeout)
        scene.proof.append("ended with " + ", ".join(str(process.status) for process in pair))


@fault(kinds=("command",), needs=("unshare",))
async def pid_namespace(scene: Scene) -> None:
    """Two containers with one host name and a PID namespace each. The second must not take the first for dead.

    The first is alive and works, or is suspended for less than a lease. A takeover within the lease counts as false.
    The first process wakes after the second has launched what was unclear.
    """
    scene.provider.latency = (0.2, 0.4) if scene.chance.random() < 0.3 else scene.provider.latency
    first = await scene.begin(before=(*_CONTAINER, "3"))
    await scene.acts(scene.somewhere(most=0.3), first)
    sleeping = scene.chance.random() < 0.7
    if sleeping:
        await scene.suspend(first)
    struck = time.monotonic()
    owners = await scene.book.owners()
    if not owners or not first.alive:
        raise NotFiredError("the first had ended")
    second = await scene.second(before=(*_CONTAINER, "40"))
    # The lease counts from the last heartbeat, which a busy machine writes late.
    until = struck + scene.times.lease - 2 * scene.times.heartbeat
    taken = False
    while time.monotonic() < until and second.alive and first.alive and not taken:
        now = await scene.book.owners()
        changed = any(now.get(chunk) not in {token, None} for chunk, token in owners.items())
        taken = changed and scene.provider.count < scene.total  # else the first has let go of it, at its end
        await asyncio.sleep(0.02)
    what = "suspended" if sleeping else "at work"
    if taken:
        scene.extra.false += 1
        scene.extra.note(f"a process {what} was taken over after {time.monotonic() - struck:.1f} s, within its lease")
    scene.proof.append(f"the first {what}, " + ("taken over" if taken else f"the second ended with {second.status}"))
    if sleeping and taken:
        await scene.until_over(scene.times.timeout, second)
    first.wake()


@fault(stores=("sqlite",), kinds=("command",))
async def copied(scene: Scene) -> None:
    """The ledger's file is copied at full speed. The copy is refused; with ``--copied`` it settles before it launches.

    The first process goes on with the original while the copy is refused. Or it is killed some time after the copy. The
    copy then lacks the last claims and outcomes: what it calls planned may have been launched.
    """
    first = await scene.begin()
    await scene.acts(scene.somewhere(most=0.4), first)
    copy, count = scene.folder / "copy.db", scene.provider.count
    await asyncio.to_thread(_copy, scene.ledger, str(copy))
    await scene.acts(min(scene.total - 100, count + scene.chance.randrange(100, 1000)), first)
    killed = scene.chance.random() < 0.6
    if killed:
        await first.kill()
    original = scene.ledger
    scene.use_copy(copy)
    refused = await scene.second("refused")
    status = await refused.wait(scene.times.timeout)
    if status != 2 or refused.told() or "is a copy" not in refused.text(errors=True):
        scene.extra.false += 1
        scene.extra.note(f"a copy was not refused: status {status}, {refused.last_words()[:200]}")
    scene.proof.append(f"copied at {count} acts, refused with {status} at {scene.done}" + ", then killed" * killed)
    if killed:
        copy_goes_on = await scene.second("copy", "--copied")
        await copy_goes_on.wait(2 * scene.times.timeout)
    else:
        scene.use_copy(Path(original))


def _copy(source: str, target: str) -> None:
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)

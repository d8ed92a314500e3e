"""Processes that are killed, ended, suspended, and suspended for so long that another takes over."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from datetime import UTC, datetime

from tests.nemesis.command import Command
from tests.nemesis.faults.registry import fault
from tests.nemesis.scene import NotFiredError, Scene

__all__: list[str] = []

_TOLERANCE = 0.3
"""Seconds by which a busy harness may see an act late."""


@fault()
async def kill(scene: Scene) -> None:
    """SIGKILL at full speed, while claims are open. Then the run goes on, and settles what was in flight."""
    first = await scene.begin()
    await scene.acts(scene.somewhere(), first)
    if scene.chance.random() < 0.5:
        # Requests in flight act as late as possible: the next holder must not deny them too early.
        provider = scene.provider
        provider.late, provider.latest = 1.0, 0.95 * scene.times.lag
        await asyncio.sleep(0.05)
        await first.kill()
        provider.late = 0.0001
        scene.proof.append("what is in flight acts late")
    await first.kill()
    count = scene.provider.count
    claims = await scene.book.open_claims()
    if first.status != -signal.SIGKILL or count >= scene.total or not claims:
        raise NotFiredError(f"{scene.done}, {len(claims)} open claims at the end of the process")
    scene.proof.append(f"killed with {len(claims)} open claims, {scene.done}")
    if scene.kind == "worker":
        await scene.second()


@fault()
async def term(scene: Scene) -> None:
    """SIGTERM at full speed. It starts nothing new, awaits what is in flight, and ends; then the run goes on."""
    first = await scene.begin()
    await scene.acts(scene.somewhere(), first)
    first.signal(signal.SIGTERM)
    sent = time.monotonic()
    before = scene.done
    if await first.wait(scene.times.attempt + scene.times.lag + 40) is None:
        scene.extra.note("it did not end on SIGTERM")
        await first.kill()
    if scene.provider.count >= scene.total:
        raise NotFiredError("it had launched everything")
    scene.proof.append(f"SIGTERM at {before}, gone after {time.monotonic() - sent:.1f} s")


@fault()
async def pause(scene: Scene) -> None:
    """SIGSTOP between claims and writes, SIGCONT some time later, and no other fault."""
    first = await scene.begin()
    await scene.acts(scene.somewhere(), first)
    await scene.suspend(first)
    least = min(1.0, scene.times.longest / 3)
    await asyncio.sleep(scene.chance.uniform(least, scene.times.longest))
    first.wake()


@fault()
async def takeover(scene: Scene) -> None:
    """SIGSTOP between claims and writes until another has taken the run over, then SIGCONT: it must launch nothing.

    It wakes while the other one settles what was in flight, or after all of it is done. If a suspended holder may not
    be taken over, the other one is refused. It goes on once the first has ended.
    """
    first = await scene.begin()
    await scene.acts(scene.somewhere(), first)
    await scene.suspend(first)
    await _hand_over(scene, first)


@fault(stores=("sqlite",), kinds=("command",))
async def takeover_locked(scene: Scene) -> None:
    """SIGSTOP in the middle of a transaction of the file, whose lock it keeps; then resume, and ``--end-holder``.

    The first is to be refused, with the reason; the second ends the holder, and goes on.
    """
    first = await scene.begin()
    await scene.acts(scene.somewhere(), first)
    tries = 0
    for tries in range(200):  # noqa: B007 - it is told below
        if not await first.suspend():
            raise NotFiredError("it had ended")
        if scene.book.locked():
            break
        first.wake()
        await asyncio.sleep(scene.chance.uniform(0.003, 0.03))
    else:
        raise NotFiredError("it was never suspended in a transaction")
    scene.proof.append(f"suspended in a transaction after {tries} other moments, {scene.done}")
    await asyncio.sleep(scene.times.lease + scene.times.heartbeat + 0.5)
    began = time.monotonic()
    refused = await scene.second("refused")
    if await refused.wait(scene.times.timeout) != 2 or "--end-holder" not in refused.last_words():
        scene.extra.false += 1
        elapsed = time.monotonic() - began
        scene.extra.note(f"status {refused.status} of a resume after {elapsed:.0f} s: {refused.last_words()[:300]}")
    await _end_holder(scene, first)


@fault(total=800)
async def takeover_repeat(scene: Scene) -> None:
    """As takeover, but while unclear launches are repeated: a repeat is a claim too, and expires like any other.

    The provider drops some of the first starts, so that their state denies them. They are sent again together after the
    state lag. The first process is suspended among these repeats.
    """
    provider, times = scene.provider, scene.times
    provider.dropped, provider.late = 0.06, 0.0
    first = await scene.begin()
    while provider.count < scene.total / 10 or time.monotonic() < _latest(scene) + times.lag / 3:
        if not first.alive:
            raise NotFiredError(f"it had ended before anything was repeated: {first.last_words()}")
        await asyncio.sleep(0.02)
    provider.dropped = 0.0
    if scene.proxy is not None and scene.chance.random() < 0.4:
        await scene.suspend_at_grant(first, after=scene.chance.randrange(3), timeout=30 + 3 * times.lag)
    else:
        quiet, until = _latest(scene), time.monotonic() + 30 + 3 * times.lag
        while _latest(scene) <= quiet:
            if not first.alive or time.monotonic() > until:
                raise NotFiredError(f"nothing was repeated: {first.last_words()}")
            await asyncio.sleep(0.001)
        await asyncio.sleep(scene.chance.uniform(0, 0.3))
        await first.suspend()
    await asyncio.sleep(0.03)
    claimed = {scene.first + index for index in await scene.book.open_claims()}
    waiting = {each for each in claimed if provider.arrived.get(each) and not provider.acts.get(each)}
    if not (waiting and first.suspended) or scene.book.locked():
        first.wake()
        raise NotFiredError("it was not suspended with repeats that had not been sent")
    scene.proof.append(f"{first.name} in state T with {len(waiting)} repeats unsent, {scene.done}")
    await _hand_over(scene, first)


def _latest(scene: Scene) -> float:
    """When the latest start arrived."""
    return max((times[-1] for times in scene.provider.arrived.values()), default=0.0)


async def _hand_over(scene: Scene, first: Command) -> None:
    """Have another process take over from one that is suspended, and wake that one afterwards.

    In PostgreSQL the lease decides: an early successor waits for its end. A file stays held while its holder
    exists, so the other one is refused, or ends the holder on request.
    """
    owners = await scene.book.owners()
    if scene.store == "sqlite":
        await asyncio.sleep(scene.times.lease + scene.times.heartbeat + 0.5)
        if scene.chance.random() < 0.5:
            await _end_holder(scene, first)
            return
        second = await scene.second()
    else:
        early = scene.kind == "worker" or scene.chance.random() < 0.5
        await asyncio.sleep(0 if early else scene.times.lease + scene.times.heartbeat + 0.5)
        second = await scene.second()
    await wake_after_takeover(scene, first, second, owners)


async def _end_holder(scene: Scene, first: Command) -> None:
    second = await scene.second("second", "--end-holder")
    status = await first.wait(scene.times.timeout)
    scene.proof.append(f"--end-holder: the first ended with {status}")
    if status != -signal.SIGKILL:
        await second.wait(5)
        scene.extra.false += 1
        scene.extra.note(f"--end-holder did not end the holder (status {status}): {second.last_words()[:200]}")
    elif scene.chance.random() < 0.3:
        await second.kill()  # and the one that took over is killed, too


async def wake_after_takeover(scene: Scene, first: Command | None, second: Command, owners: dict[int, str]) -> None:
    """Wait for a takeover, and wake the first process at some moment after it."""
    times = scene.times
    until = time.monotonic() + times.lease * 2 + times.claim + 15
    while True:
        now = await scene.book.owners()
        if any(now.get(chunk) not in {token, None} for chunk, token in owners.items()):
            break
        if not second.alive:
            if second.status in {0, 3}:
                break  # so fast that it has let go again
            scene.proof.append(f"the second was refused with status {second.status}: {second.last_words()[:90]}")
            if scene.store == "postgres" or second.status != 2 or "--end-holder" not in second.last_words():
                scene.extra.false += 1
                scene.extra.note(f"status {second.status} where a takeover was right: {second.last_words()[:300]}")
            if first is not None:
                first.wake()
            return
        if time.monotonic() > until:
            raise NotFiredError("the run was neither taken over nor refused")
        await asyncio.sleep(0.02)
    if scene.chance.random() < 0.35:
        await asyncio.sleep(scene.chance.uniform(0, times.lag + 1))
        scene.proof.append("taken over, woken while it is settled")
        if scene.store == "postgres" and first is not None and scene.chance.random() < 0.4:
            await _third(scene, second)
    else:
        await scene.until_over(times.timeout, second)
        scene.proof.append("taken over, woken after all was done")
    if first is not None and not first.suspended and first.alive:
        raise NotFiredError("the first process was not suspended at the end")
    if first is not None:
        first.wake()
        await asyncio.sleep(0.5 + times.claim / 2)


async def _third(scene: Scene, second: Command) -> None:
    """Suspend the one that took over, among what it settles, until a third one has taken over from it."""
    owners = await scene.book.owners()
    if not await second.suspend() or await scene.over():
        second.wake()
        return
    third = await scene.second("third")
    until = time.monotonic() + 2 * scene.times.lease + 15
    while third.alive and time.monotonic() < until:
        now = await scene.book.owners()
        if any(now.get(chunk) not in {token, None} for chunk, token in owners.items()):
            break
        await asyncio.sleep(0.02)
    await asyncio.sleep(scene.chance.uniform(0, scene.times.lag))
    scene.proof.append(f"the second suspended, too, and taken over by a third, {scene.done}")
    second.wake()


@fault()
async def stop_run(scene: Scene) -> None:
    """SIGSTOP between claims and writes, `stop-run`, then SIGCONT: nothing starts later than the stop has promised.

    What starts later counts as false. Afterwards the run is resumed.
    """
    first = await scene.begin()
    await scene.acts(scene.somewhere(most=0.4), first)
    sleeping = scene.chance.random() < 0.85
    if sleeping:
        await scene.suspend(first)
    promised = await stop(scene)
    count = scene.provider.count
    if sleeping:
        await asyncio.sleep(max(0.0, promised - time.monotonic()) + scene.chance.uniform(0, scene.times.longest))
        first.wake()
    await asyncio.sleep(1.0 + scene.times.claim)
    scene.quiet.append((promised, time.monotonic()))
    scene.proof.append(f"stopped at {count} of {scene.total} acts" + (", asleep" if sleeping else ""))
    if count >= scene.total:
        raise NotFiredError("it had launched everything")
    await resume_stopped(scene, first)


async def stop(scene: Scene) -> float:
    """Stop the run. Returns from when on nothing may start: what `stop-run` prints, and it returns no earlier."""
    stopping = await scene.run("stop", "stop-run", scene.ledger, "nemesis")
    if await stopping.wait(30 + 2 * scene.times.claim) != 0:
        raise NotFiredError(f"stop-run failed: {stopping.last_words()}")
    printed = re.search(r"after (\d\d):(\d\d):(\d\d) UTC", stopping.text())
    if printed is None:
        raise NotFiredError(f"there was nothing to stop: {stopping.last_words()}")
    now = datetime.now(UTC)
    hour, minute, second = map(int, printed.groups())
    at = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
    left = (at - now).total_seconds()
    if left < -43200:
        left += 86400  # it is past midnight
    if left > 1.5:
        scene.extra.false += 1
        scene.extra.note(f"stop-run returned {left:.1f} s before the time that it printed")
    return time.monotonic() + max(-1.0, left) + _TOLERANCE


async def resume_stopped(scene: Scene, first: Command) -> None:
    """Resume a run that was stopped, once its process has ended."""
    if scene.kind == "worker":
        first.signal(signal.SIGTERM)
    if await first.wait(30) is None:
        first.signal(signal.SIGTERM)
        if await first.wait(20) is None:
            scene.extra.note("it did not end after the stop")
            await first.kill()
    again = await scene.run("allow", "resume", scene.ledger, "--run", "nemesis", "--yes", "--quiet", "--json")
    await again.wait(scene.times.timeout)

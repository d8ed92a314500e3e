"""A database that is cut off, late, restarted, or replaced by a standby that lacks the last rows."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

from tests.nemesis.database import Server
from tests.nemesis.faults.registry import fault
from tests.nemesis.faults.signals import resume_stopped, stop, wake_after_takeover
from tests.nemesis.proxy import GRANTED, Proxy
from tests.nemesis.scene import NotFiredError, Scene

__all__: list[str] = []


async def _open_claims(scene: Scene) -> int:
    claims = len(await scene.book.open_claims())
    if not claims or scene.provider.count >= scene.total:
        raise NotFiredError(f"{claims} open claims, {scene.done}")
    return claims


async def _hold_grant(scene: Scene) -> int:
    """Hold back the answer that grants claims. Returns how many claims it grants."""
    proxy = scene.proxy
    assert proxy is not None
    struck = asyncio.Event()

    def on_answer(data: bytes) -> None:
        if GRANTED in data and not struck.is_set():
            proxy.stall()
            struck.set()

    proxy.on_answer = on_answer
    try:
        await asyncio.wait_for(struck.wait(), 10)
    except TimeoutError:
        raise NotFiredError("no claim was granted any more") from None
    finally:
        proxy.on_answer = None
    await asyncio.sleep(0.05)
    if not (unsent := await scene.unsent()):
        proxy.go()
        raise NotFiredError("the answer that was held back granted nothing")
    scene.proof.append(f"an answer was held that grants {len(unsent)} claims, {scene.done}")
    return len(unsent)


@fault(stores=("postgres",))
async def db_cut(scene: Scene) -> None:
    """All connections to the database are reset, several times at full speed. The run goes on by itself."""
    first = await scene.begin()
    assert scene.proxy is not None
    await scene.acts(scene.somewhere(most=0.5), first)
    claims, cuts = await _open_claims(scene), 0
    for _ in range(scene.chance.randrange(2, 7)):
        cuts += scene.proxy.cut()
        await asyncio.sleep(scene.chance.uniform(0.01, 0.4))
    if not cuts:
        raise NotFiredError("there was nothing to cut")
    scene.proof.append(f"{cuts} connections cut, first with {claims} open claims")


@fault(stores=("postgres",))
async def db_stall(scene: Scene) -> None:
    """The answer that grants claims is held until another has taken the run over: it must launch nothing then."""
    first = await scene.begin()
    await scene.acts(scene.somewhere(most=0.5), first)
    await _hold_grant(scene)
    assert scene.proxy is not None
    owners = await scene.book.owners()
    second = await scene.second() if scene.kind == "worker" else None
    await asyncio.sleep(scene.times.lease + scene.times.heartbeat + 0.5)
    second = second or await scene.second()
    await wake_after_takeover(scene, None, second, owners)
    scene.proxy.go()
    await asyncio.sleep(0.5 + scene.times.claim / 2)


@fault(stores=("postgres",))
async def db_late(scene: Scene) -> None:
    """The answer that grants claims comes after a `stop-run`: nothing starts later than the stop has promised."""
    first = await scene.begin()
    await scene.acts(scene.somewhere(most=0.4), first)
    await _hold_grant(scene)
    assert scene.proxy is not None
    promised = await stop(scene)
    await asyncio.sleep(max(0.0, promised - time.monotonic()) + scene.chance.uniform(0, scene.times.longest))
    scene.proxy.go()
    await asyncio.sleep(1.0 + scene.times.claim)
    scene.quiet.append((promised, time.monotonic()))
    await resume_stopped(scene, first)


@fault(stores=("postgres",), total=1500)
async def db_delay(scene: Scene) -> None:
    """Every answer of the database is late for some seconds, around the age at which a claim expires."""
    first = await scene.begin()
    assert scene.proxy is not None
    await scene.acts(scene.somewhere(most=0.3), first)
    claims = await _open_claims(scene)
    until = time.monotonic() + 4 * scene.times.claim
    while time.monotonic() < until:
        scene.proxy.delay = scene.times.claim * scene.chance.uniform(0.1, 0.8)  # twice: there and back
        await asyncio.sleep(scene.times.claim)
    scene.proxy.delay = 0.0
    scene.proof.append(f"answers delayed, first with {claims} open claims, {scene.done} at the end")


@fault(stores=("postgres",))
async def db_blackhole(scene: Scene) -> None:
    """The database's network swallows everything for a while, also new connections; another may take the run over."""
    first = await scene.begin()
    assert scene.proxy is not None
    await scene.acts(scene.somewhere(most=0.5), first)
    claims = await _open_claims(scene)
    scene.proxy.swallowing = True
    long = scene.chance.random() < 0.5
    second = None
    if long and scene.kind == "worker":
        second = await scene.second()
    await asyncio.sleep(scene.times.lease + 1 if long else scene.chance.uniform(0.5, scene.times.lease))
    if long and scene.kind == "command":
        second = await scene.second()
    if second is not None:
        await scene.until_over(scene.times.lag + scene.times.lease, second)
    scene.proxy.swallowing = False
    cuts = scene.proxy.cut()
    scene.proof.append(f"{cuts} connections swallowed, first with {claims} open claims" + (", taken over" * long))


@fault(stores=("postgres",))
async def db_away_term(scene: Scene) -> None:
    """SIGTERM while the database is away, to a command that plans or to a worker: it ends within 5 s.

    A later end counts as false. Afterwards the database is back, and the run goes on.
    """
    proxy = scene.proxy
    assert proxy is not None
    if scene.kind == "worker":
        first = await scene.begin()
        await scene.acts(scene.somewhere(most=0.5), first)
        proxy.swallowing = True
        proxy.cut()
    else:
        planning = asyncio.Event()

        def on_request(data: bytes) -> None:
            if b"INSERT INTO" in data and b"target" in data:
                proxy.swallowing = True
                planning.set()

        proxy.on_request = on_request
        first = await scene.start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(planning.wait(), 20)
    await asyncio.sleep(scene.chance.uniform(0.1, scene.times.lease / 2))
    if not (first.alive and proxy.swallowing):
        raise NotFiredError(f"it was not at work when its database went away: {first.last_words()}")
    before = scene.done
    first.signal(signal.SIGTERM)
    sent = time.monotonic()
    if await first.wait(40) is None:
        await first.kill()
    elapsed = time.monotonic() - sent
    scene.proof.append(f"SIGTERM with the database away, {before}; ended after {elapsed:.1f} s")
    if elapsed > 6:
        scene.extra.false += 1
        scene.extra.note(f"it ended {elapsed:.1f} s after SIGTERM")
    proxy.on_request = None
    proxy.swallowing = False
    proxy.cut()


@fault(stores=("postgres",), own_server=True)
async def db_restart(scene: Scene) -> None:
    """The database crashes (an immediate stop) and is started again. The run goes on by itself."""
    first = await scene.begin()
    assert scene.server is not None
    await scene.acts(scene.somewhere(most=0.5), first)
    claims = await _open_claims(scene)
    await asyncio.to_thread(scene.server.stop, "immediate")
    await asyncio.sleep(scene.chance.uniform(0.1, scene.times.lease / 2))
    killed = scene.chance.random() < 0.3
    if killed:
        await first.kill()
    await asyncio.to_thread(scene.server.start)
    scene.proof.append(f"restarted with {claims} open claims, {scene.done}" + ", killed too" * killed)


@fault(stores=("postgres",), own_server=True, total=2000)
async def db_failover(scene: Scene) -> None:
    """The primary is lost while its standby lacks the last claims and outcomes; the standby is promoted.

    Replication is asynchronous and goes through a proxy that is stalled, so rows are lost for certain. What the new
    primary calls planned may have been launched: it has to be settled first. The process lives on, or is killed.
    """
    primary = scene.server
    assert primary is not None
    assert scene.proxy is not None
    scene.through_proxy()
    replication = Proxy(primary.port)
    await replication.open()
    scene.clean_up.append(replication.close)
    standby = Server(programs=primary.programs)
    scene.clean_up.append(lambda: asyncio.to_thread(standby.remove))
    await asyncio.to_thread(standby.copy, replication.port)
    first = await scene.begin()
    await scene.acts(scene.somewhere(most=0.4), first)
    replication.stall()
    await scene.acts(min(scene.total - 50, scene.provider.count + scene.chance.randrange(50, scene.total // 3)), first)
    killed = scene.chance.random() < 0.5
    if killed:
        await first.kill()
    before, acts = await scene.book.written(), scene.provider.count
    await asyncio.to_thread(primary.stop, "immediate")
    replication.cut()
    await asyncio.to_thread(standby.promote)
    scene.proxy.target = standby.port
    scene.proxy.cut()
    await scene.book.close()
    now = await scene.book.written()
    if not 0 < now < before or (killed and acts >= scene.total):
        raise NotFiredError(f"{before} rows before the failover, {now} after it")
    scene.proof.append(f"{before - now} of {before} rows lost, {acts} acts" + ", killed too" * killed)

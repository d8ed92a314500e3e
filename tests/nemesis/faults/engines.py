"""An engine such as Celery or Airflow that retries a task whose worker was killed, on another host."""

from __future__ import annotations

import asyncio
import time

from tests.nemesis.command import Command
from tests.nemesis.faults.registry import fault
from tests.nemesis.scene import NotFiredError, Scene

__all__: list[str] = []


@fault(stores=("postgres",), kinds=("worker",), total=3000, needs=("unshare",))
async def engine_retry(scene: Scene) -> None:
    """A task that launches a chunk is killed and retried on another host. Once it succeeds, all has to be launched.

    No other process continues the run: for a queue, a task that has succeeded is over.
    """
    await scene.plan(chunks=1)

    async def task(host: str) -> Command:
        before = ["unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"', "sh"]
        return await scene.run(
            host, "engine", scene.ledger, "nemesis", 0, scene.provider.url, scene.times.timeout, before=before
        )

    first = await task("airflow-1")
    await scene.acts(scene.somewhere(), first)
    await first.kill()
    count = scene.provider.count
    claims = await scene.book.open_claims()
    if count >= scene.total or not claims:
        raise NotFiredError(f"{scene.done}, {len(claims)} open claims")
    scene.proof.append(f"killed with {len(claims)} open claims, {scene.done}")
    await asyncio.sleep(scene.chance.uniform(0, scene.times.lease / 2))

    async def retries() -> None:
        until = time.monotonic() + 2 * scene.times.timeout
        for number in range(2, 12):
            retry = await task(f"airflow-{number}")
            if await retry.wait(max(1.0, until - time.monotonic())) == 0:
                return
            await asyncio.sleep(0.5)

    scene.finish_by = retries

"""The network to the provider goes away while requests are on their way."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time

from tests.nemesis.faults.registry import fault
from tests.nemesis.scene import NotFiredError, Scene

__all__: list[str] = []


async def _filter(action: str, port: int) -> None:
    line = ["iptables", "-w", action, "INPUT", "-p", "tcp", "--dport", str(port), "-j", "DROP"]
    done = await asyncio.to_thread(subprocess.run, line, check=False, capture_output=True)
    if done.returncode:
        raise NotFiredError(f"iptables: {done.stderr.decode()[-100:]}")


async def _held(port: int) -> int:
    """How many sockets hold bytes that the provider has not acknowledged."""
    line = ["ss", "-Htan", "dport", "=", f":{port}"]
    done = await asyncio.to_thread(subprocess.run, line, check=False, capture_output=True, text=True)
    return sum(row.split()[0] != "SYN-SENT" and int(row.split()[2]) > 1 for row in done.stdout.splitlines())


@fault(total=2000, needs=("iptables", "ss", "ip"))
async def network_away(scene: Scene) -> None:
    """The network is away, `kill -9`, resume, the network is back: what the kernel still holds must not act.

    The kernel repeats the bytes of a killed process after 0.2 s, 0.6 s and so on until 12.6 s.
    At scale 1 the network is away for up to 50 s. The round trip is that of a real network.
    """
    if not os.environ.get("NEMESIS_INSIDE"):
        raise NotFiredError("it needs a network namespace of its own, so root or user namespaces")
    port, times = scene.provider.port, scene.times
    if times.lag >= 30:
        line = "ip route replace local 127.0.0.1 dev lo table local rto_min 260ms"  # as if a round trip took 60 ms
        await asyncio.to_thread(subprocess.run, line.split(), check=True)
    first = await scene.begin()
    await scene.acts(scene.somewhere(most=0.5), first)
    await _filter("-A", port)
    gone = time.monotonic()
    try:
        await asyncio.sleep(scene.chance.uniform(0.3, 1.2))
        unsent, held = await scene.unsent(), await _held(port)
        if not (unsent and held and first.alive):
            raise NotFiredError(f"{len(unsent)} starts were on their way, {held} sockets held bytes")
        await first.kill()
        left = await _held(port)
        scene.proof.append(
            f"killed with {len(unsent)} starts on their way in {held} sockets, after it in {left}, {scene.done}"
        )
        await scene.second()
        real = times.lag >= 30
        back = scene.chance.choice((3.2, 3.8, 4.4, 6.6)) if not real else scene.chance.uniform(27, 50)
        await asyncio.sleep(max(0.1, gone + back - time.monotonic()))
    finally:
        await _filter("-D", port)
    last = gone + (104 if real else 14)

    async def finish() -> None:
        await scene.finish()
        await asyncio.sleep(max(0.0, last - time.monotonic()))

    scene.finish_by = finish

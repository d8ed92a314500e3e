"""A run takes no more memory for many targets than for few."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# A million take 14 seconds on two idle cores. What grew with every target shows in a tenth of that as well: fifteen
# bytes each would be 1.3 MiB.
TARGETS = 100_000

SCRIPT = """
import asyncio, gc, sys
from dispatchkit import DirectClient, FanOut, StartDispatch
from dispatchkit.core.command import Response
import dispatchkit.direct.client, dispatchkit.core.fanout.fan_out

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

class Stub:
    async def send(self, request, tracker, *, timeout):
        tracker.sent = True
        await asyncio.sleep(0)
        number = int(request.target.split("/")[-2])
        return Response(200, {}, b'{"dispatchId": %d}' % number)
    async def close(self): pass

async def main(iterating):
    client = DirectClient("t")
    client._context.transport = Stub()
    before = resident()
    marks = []
    def ids():
        for number in range(1, TARGETS + 1):
            if number in (10_000, TARGETS):
                marks.append(resident() - before)
            yield number
    run = client.start_many(ids(), concurrency=256)
    if iterating:
        seen = 0
        async for outcome in run:
            seen += 1
        assert seen == TARGETS
    else:
        await run.finish()
    assert run.report.done == TARGETS, run.report
    print(*marks)

asyncio.run(main(sys.argv[1] == "iterating"))
"""


@pytest.mark.second_stage
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("way", ["iterating", "finishing"])
def test_memory_is_flat(way: str) -> None:
    script = SCRIPT.replace("TARGETS", str(TARGETS if way == "finishing" else TARGETS * 2 // 5))
    done = subprocess.run([sys.executable, "-c", script, way], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr
    early, late = map(float, done.stdout.split())
    assert late <= 30, "MiB above import"
    assert late - early <= 1, "MiB from 10,000 on"

"""The wall clock of a client steps by two hours."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.nemesis.faults.registry import fault
from tests.nemesis.scene import NotFiredError, Scene

__all__: list[str] = []

_LIBRARIES = ("libfaketimeMT.so.1", "libfaketime.so.1")
_STEPS = ("+0", "+7200", "-7200")


def _clock(scene: Scene, name: str, offset: str) -> tuple[Path, dict[str, str]]:
    """A wall clock of a process's own, and the file that sets it. The monotonic clocks stay what they are."""
    found = [path for name in _LIBRARIES for path in Path("/usr/lib").glob(f"*/faketime/{name}")]
    if not found:
        raise NotFiredError("there is no libfaketime")
    file = scene.folder / name
    file.write_text(offset)
    return file, {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # it would make every timed wait of a thread end at once, or never
    }


@fault(total=3000, needs=("faketime",))
async def clock_step(scene: Scene) -> None:
    """The wall clock steps by two hours at full speed, in either direction; then the process is killed or suspended.

    Another one, whose clock says something else, goes on with the run. Requests that are in flight at the kill act
    late, within the state lag. They must be settled neither too early nor hours later.
    """
    before, after, other = (scene.chance.choice(_STEPS) for _ in range(3))
    while after == before:
        after = scene.chance.choice(_STEPS)
    file, clock = _clock(scene, "first", before)
    first = await scene.begin(more=clock)
    await scene.acts(scene.somewhere(most=0.4), first)
    file.write_text(after)
    stepped = scene.provider.count
    await scene.acts(min(scene.total - 100, stepped + 200), first)
    how = scene.chance.choice(("goes on", "killed", "suspended"))
    said = f"{before} -> {after} s at {stepped} acts, then {how}, the second at {other} s"
    _, others = _clock(scene, "second", other)
    if how == "killed":
        scene.provider.late, scene.provider.silent = 1.0, 0.0
        await asyncio.sleep(0.1)
        await first.kill()
        scene.provider.late = 0.0001
        if not await scene.book.open_claims():
            raise NotFiredError("nothing was in flight at the kill")
        await scene.second(more=others)
    elif how == "suspended":
        await scene.suspend(first)
        owners = await scene.book.owners()
        second = await scene.second(more=others)
        await asyncio.sleep(scene.times.lease - 1.0)  # it may not be taken over yet
        now = await scene.book.owners()
        if any(now.get(chunk) not in {token, None} for chunk, token in owners.items()):
            scene.extra.false += 1
            scene.extra.note(f"a holder was taken over within its lease, by a clock that says {other} s")
            await scene.until_over(scene.times.timeout, second)
        first.wake()
    scene.proof.append(said)

"""`FakeClock` and `RetryPolicy.for_tests`: quick, with the decisions of real time."""

from __future__ import annotations

import asyncio
import time

import attrs
import pytest

from dispatchkit import AltcraftClient, ClientOptions, DirectClient, DispatchkitError, RetryPolicy, State
from dispatchkit.core.clock import a_clock
from dispatchkit.sandbox import Fault, Sandbox
from dispatchkit.testing import FakeClock
from dispatchkit.testing.clock import START


async def test_time_jumps_when_idle() -> None:
    clock = a_clock(FakeClock())
    order: list[str] = []

    async def waits(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        order.append(f"{name} at {clock.monotonic():g}")

    async with asyncio.timeout(60):  # of real time
        await asyncio.gather(waits("late", 3600), waits("early", 60), waits("late", 3600))
    assert order == ["early at 60", "late at 3600", "late at 3600"]
    assert (clock.now() - START).total_seconds() == 3600


async def test_time_passes_by_hand() -> None:
    clock = FakeClock(jumps=False)
    waiting = asyncio.create_task(clock.sleep(10))
    await asyncio.sleep(0)
    clock.advance(9)
    await asyncio.sleep(0)
    assert not waiting.done()
    clock.advance(1)
    await waiting
    assert clock.timestamp() == START.timestamp() + 10
    assert repr(clock) == "<FakeClock at 2026-01-01 00:00:10 UTC, 10 s after its start>"


async def ends(provider: str, fault: Fault, *, quick: bool) -> tuple[State, bool, int]:
    """How a call ends that meets a fault: its outcome, whether it was settled, and its launches."""
    clock = FakeClock()
    options: ClientOptions = {"retry": RetryPolicy.for_tests()} if quick else {"clock": clock}
    options["attempt_timeout"] = 0.1 if fault.name == "silent" else 5
    # Dates in answers have whole seconds. A provider whose clock is ahead spares the test a wait for the next second.
    timestamp = (lambda: time.time() + 1) if quick else clock.timestamp
    async with Sandbox(active=[7], clock=timestamp) as sandbox:
        sandbox.order(fault)
        try:
            if provider == "direct":
                async with DirectClient(sandbox.direct_token, base_url=sandbox.url, **options) as direct:
                    settled = (await direct.start(7)).settled
            else:
                async with AltcraftClient(sandbox.url, sandbox.altcraft_token, **options) as altcraft:
                    settled = (await altcraft.launch_broadcast(7)).settled
        except DispatchkitError as error:
            return error.state, False, sandbox.launches[7]
        return State.DONE, settled, sandbox.launches[7]


def without_retry_after(fault: Fault) -> Fault:
    """A test on the real clock would wait for it."""
    return attrs.evolve(fault, reply=fault.reply and attrs.evolve(fault.reply, headers={}))


FAULTS = [
    pytest.param(
        without_retry_after(fault),
        id=str(fault),
        # The date of the spoiled answer tells the provider's clock, so the next second is awaited all the same.
        marks=[pytest.mark.second_stage] if fault.name in {"http", "html", "garbage"} and not fault.acts else [],
    )
    for fault in Fault.all()
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("provider", ["direct", "altcraft"])
async def test_policies_decide_alike(fault: Fault, provider: str) -> None:
    async with asyncio.timeout(50):  # less than the minute that the policies wait in real time
        quick = await ends(provider, fault, quick=True)
        assert quick == await ends(provider, fault, quick=False)
    assert quick[2] == (1 if fault.acts or provider == "direct" or fault.name == "throttled" else 0)


def test_test_policy_is_told() -> None:
    policy = RetryPolicy.for_tests()
    assert repr(policy) == "RetryPolicy.for_tests()"
    assert repr(attrs.evolve(policy, attempts=1)).startswith("RetryPolicy")
    assert policy.attempts == RetryPolicy().attempts
    assert [policy.delay(1, throttled=throttled, after=0.0, drawn=1.0) for throttled in (True, False)] == [0.0, 0.0]
    assert [policy.probe_delay(number, drawn=0.5) for number in (1, 2, 5, 6, 9999)] == [0.005, 0.01, 0.08, 0.1, 0.1]

"""A randomised trial of the one promise: never twice, and always the truth.

``python -m tests.faults.fuzz --trials 100000`` plays that many calls against both providers behind a bad network, in
virtual time. It varies faults, byte positions, and a state that lags by 0 to 30 s. Requests act after their sender gave
up. Deduplication is on or off, and one mailing is launched several times at once. The platform's clock is wrong, a
proxy strips ids, and caches serve an old state. The same seed plays the same trial.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import time
from collections import Counter
from typing import Any

import attrs

from dispatchkit import (
    ActivateMailing,
    AltcraftClient,
    DeactivateMailing,
    DirectClient,
    DispatchkitError,
    LaunchBroadcast,
    StartDispatch,
    State,
    StopDispatch,
)
from dispatchkit.core.call.pending import PendingCall as CoreCall
from dispatchkit.core.call.request import request_of
from dispatchkit.core.command import Command
from dispatchkit.sandbox import AltcraftProvider, Call, DirectProvider

from .simulated import BadNetwork, Cache, VirtualClock

KEY = "a2V5OnBhc3N3b3Jk"
MAX_STATE_LAG = 30.0
LATEST = 20.0


@attrs.define
class Tally:
    """What came of a trial. The lists of lies must stay empty."""

    trials: int = 0
    outcomes: Counter[str] = attrs.field(factory=Counter)
    by_command: dict[str, Counter[str]] = attrs.field(factory=dict)
    double_acts: list[str] = attrs.field(factory=list)
    false_not_sent: list[str] = attrs.field(factory=list)
    false_rejected: list[str] = attrs.field(factory=list)
    false_done: list[str] = attrs.field(factory=list)
    late: list[str] = attrs.field(factory=list)
    met: Counter[str] = attrs.field(factory=Counter)
    """How many trials met what is rare, such as ``"stale state"``."""

    @property
    def lies(self) -> list[str]:
        return self.double_acts + self.false_not_sent + self.false_rejected + self.false_done + self.late

    def __str__(self) -> str:
        lines = [
            (
                f"{self.trials} trials: {len(self.double_acts)} double acts, "
                f"{len(self.false_not_sent)} false not_sent, "
                f"{len(self.false_rejected)} false rejected, {len(self.false_done)} false done, "
                f"{len(self.late)} too late"
            )
        ]
        lines.append("  met: " + ", ".join(f"{count} {what}" for what, count in sorted(self.met.items())))
        for name, counts in {**self.by_command, "all": self.outcomes}.items():
            total = counts.total()
            shares = ", ".join(f"{state} {100 * counts[state] / total:.2f} %" for state in State)
            lines.append(f"  {name:32} {shares}")
        return "\n".join(lines)


async def one_trial(seed: int, tally: Tally) -> None:
    """Play one call, or several launches of one mailing at once, and hold what they say against what was done."""
    rng = random.Random(seed)
    clock = VirtualClock(rng)
    timeout = rng.choice([5.0, 100.0, 240.0, 600.0])
    lag = rng.random() * MAX_STATE_LAG
    platform, strips, siblings, skew = "", False, 1, 0.0
    client: DirectClient | AltcraftClient
    provider: DirectProvider | AltcraftProvider
    command: Command[object, object]
    if rng.random() < 0.5:
        provider = DirectProvider([7], token=KEY, scheduled=1.0, sending=900.0, awaiting=900.0, clock=clock.timestamp)
        client = DirectClient(KEY, clock=clock)
        command = _direct_command(rng, provider)
    else:
        deduplicates, vouched = rng.random() < 0.5, rng.random() < 0.5
        vouched = vouched and deduplicates
        strips = not vouched and rng.random() < 0.5
        skew = rng.choice([0.0, 0.0, -3.0, 3.0, -90.0, 3600.0, -3600.0])
        platform = f", {'vouched' if vouched else 'default'}"
        provider = AltcraftProvider(
            [7],
            active=rng.choice([[], [7]]),
            token=KEY,
            deduplicates=deduplicates,
            replay_generation=rng.choice(["newer", "older"]),
            clock=lambda: clock.timestamp() + skew,
        )
        client = AltcraftClient("https://altcraft.test", KEY, clock=clock, deduplicates=vouched)
        command = _altcraft_command(rng)
        if command.log_key is not None:
            siblings = rng.choice([2, 5] if strips else [1, 1, 2, 5])
            platform += ", siblings" if siblings > 1 else ""
            if rng.random() < 0.5:
                _launch_elsewhere(provider)
                clock.advance(rng.choice([60.0, 600.0, 3599.0]))
    cache = _cache(rng, clock, skew)
    network = BadNetwork(
        rng,
        clock,
        provider,
        trouble=rng.choice([0.3, 0.7, 0.95]),
        reading_trouble=rng.choice([0.0, 0.3, 0.9]),
        late=LATEST,
        strips=strips,
        cache=cache,
    )
    client._context.transport = network  # type: ignore[assignment]
    if cache is not None and (probe := command.probe(clock.now())) is not None:
        # The cache keeps what was so before the call.
        network.arrive(request_of(probe.command, client._context.wire, str(seed)))
        clock.advance(rng.random() * 600)
        if isinstance(provider, AltcraftProvider) and rng.random() < 0.5:
            _switch_elsewhere(provider, active=rng.random() < 0.5)
    clock.advance(rng.random() * 60 + MAX_STATE_LAG)  # what was set up is visible by now
    provider.read_lag = lag

    calls = [client._call(command, timeout=timeout) for _ in range(siblings)]  # type: ignore[arg-type]
    told = await asyncio.gather(*(_perform(call, clock) for call in calls))
    for call in calls:
        sent = [request for request in network.acting if request.headers.get("Request-ID") == call.request_id]
        assert len({(request.body, str(request.headers)) for request in sent}) <= 1
    clock.advance(2 * LATEST)  # whatever is still on its way arrives

    tally.met["stale state"] += 0 if cache is None else cache.stale > 0
    tally.met["foreign replay"] += client._context.replays.foreign
    tally.met["siblings"] += siblings > 1
    tally.met["wrong clock"] += skew != 0
    for call, (state, elapsed) in zip(calls, told, strict=True):
        acts = network.acts_by_id[call.request_id]
        story = f"seed {seed}: {command!r} {state}, {acts} acts, {len(call.attempts)} attempts, {elapsed:.2f} s"
        tally.trials += 1
        tally.outcomes[state] += 1
        name = f"{type(command).__name__}{' run_now' if getattr(command, 'run_now', None) else ''}{platform}"
        tally.by_command.setdefault(name, Counter())[state] += 1
        if acts > 1:
            tally.double_acts.append(story)
        if state is State.NOT_SENT and network.bytes_arrived[call.request_id]:
            tally.false_not_sent.append(story)
        if state is State.REJECTED and acts:
            tally.false_rejected.append(story)
        if state is State.DONE and not acts and not _holds(command, provider):
            tally.false_done.append(story)
        if siblings == 1 and elapsed > timeout + 0.1:
            tally.late.append(story)


async def _perform(call: CoreCall[Any, Any], clock: VirtualClock) -> tuple[State, float]:
    began = clock.time
    try:
        await call.run()
    except DispatchkitError as error:
        return error.state, clock.time - began
    return State.DONE, clock.time - began


def _launch_elsewhere(provider: AltcraftProvider) -> None:
    """A launch of the same mailing that this process knows nothing of."""
    body = json.dumps({"token": KEY, "id": 7, "run_now": True}).encode()
    headers = {"Content-Type": "application/json", "Request-ID": "elsewhere", "X-Request-ID": "elsewhere"}
    provider.answer(Call("POST", "/api/v1.1/campaigns/activate/", {}, headers, body))


def _switch_elsewhere(provider: AltcraftProvider, *, active: bool) -> None:
    """The mailing is activated or deactivated by what this process knows nothing of."""
    path = "/api/v1.1/campaigns/activate/" if active else "/api/v1.1/campaigns/deactivate"
    headers = {"Content-Type": "application/json", "Request-ID": "switch", "X-Request-ID": "switch"}
    provider.answer(Call("POST", path, {}, headers, json.dumps({"token": KEY, "id": 7}).encode()))


def _cache(rng: random.Random, clock: VirtualClock, skew: float) -> Cache | None:
    if rng.random() < 0.6:
        return None
    # A clock that is ahead makes old answers look new, until the host has answered once.
    fields = [("Age",), ("Age", "Date")] if skew > MAX_STATE_LAG else [("Age",), ("Date",), ("Age", "Date")]
    return Cache(clock, keep=rng.choice([20.0, 90.0, 600.0, 3600.0]), fields=frozenset(rng.choice(fields)))


def _direct_command(rng: random.Random, provider: DirectProvider) -> Command[Any, Any]:
    if rng.random() < 0.5:
        return StartDispatch(rng.choice([7, 7, 7, 8]))
    if rng.random() < 0.8:
        provider.answer(Call("POST", "/api/v1/dispatch/7/start", {}, {"Authorization": f"Basic {KEY}"}))
    return StopDispatch(rng.choice([7, 7, 7, 8]))


def _altcraft_command(rng: random.Random) -> Command[Any, Any]:
    target = rng.choice([7, 7, 7, 8])
    return rng.choice(
        [
            ActivateMailing(target),
            ActivateMailing(target, run_now=True),
            LaunchBroadcast(target),
            DeactivateMailing(target),
            DeactivateMailing(target, abort_if_running=True),
        ]
    )


def _holds(command: Command[object, object], provider: DirectProvider | AltcraftProvider) -> bool:
    """Whether what the command asks for is so, though it took no act of this call: it was so before."""
    match command:
        case StartDispatch(dispatch_id=target) if isinstance(provider, DirectProvider):
            return provider.status(target) != "initiated"
        case StopDispatch(dispatch_id=target) if isinstance(provider, DirectProvider):
            return provider.status(target) == "stopped"
        case ActivateMailing(mailing_id=target, run_now=None) if isinstance(provider, AltcraftProvider):
            return provider._view(target).is_active(math.inf)
        case DeactivateMailing(mailing_id=target) if isinstance(provider, AltcraftProvider):
            return not provider._view(target).is_active(math.inf)
        case _:
            return False


async def run(trials: int, seed: int) -> Tally:
    """Play many trials."""
    tally = Tally()
    for index in range(trials):
        await one_trial(seed * 1_000_000_007 + index, tally)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.perf_counter()
    tally = asyncio.run(run(options.trials, options.seed))
    print(tally)
    print(f"{time.perf_counter() - began:.0f} s")
    for lie in tally.lies[:20]:
        print(lie)
    raise SystemExit(1 if tally.lies else 0)


if __name__ == "__main__":
    main()

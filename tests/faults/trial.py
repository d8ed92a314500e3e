"""A randomised trial of the one promise: never twice, and always the truth.

``python -m tests.faults.trial --trials 100000`` plays that many calls against both providers behind a bad network, in
virtual time: over faults, byte positions, a state that lags by 0 to 30 s, requests that are carried out after their
sender gave up, deduplication on and off. The same seed plays the same trial.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter

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
from dispatchkit.core.command import Command
from dispatchkit.sandbox import AltcraftProvider, Call, DirectProvider

from .simulated import BadNetwork, VirtualClock

KEY = "a2V5OnBhc3N3b3Jk"
LARGEST_LAG = 30.0
LATEST = 20.0


@attrs.define
class Tally:
    """What came of a trial. The four lists of lies must stay empty."""

    trials: int = 0
    outcomes: Counter[str] = attrs.field(factory=Counter)
    by_command: dict[str, Counter[str]] = attrs.field(factory=dict)
    double_acts: list[str] = attrs.field(factory=list)
    false_not_sent: list[str] = attrs.field(factory=list)
    false_rejected: list[str] = attrs.field(factory=list)
    false_done: list[str] = attrs.field(factory=list)
    late: list[str] = attrs.field(factory=list)

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
        for name, counts in {**self.by_command, "all": self.outcomes}.items():
            total = counts.total()
            shares = ", ".join(f"{state} {100 * counts[state] / total:.2f} %" for state in State)
            lines.append(f"  {name:32} {shares}")
        return "\n".join(lines)


async def one_trial(seed: int, tally: Tally) -> None:
    """Play one call, and hold what it says against what the provider did."""
    rng = random.Random(seed)
    clock = VirtualClock(rng)
    timeout = rng.choice([5.0, 100.0, 240.0, 600.0])
    deduplicates = rng.random() < 0.5
    lag = rng.random() * LARGEST_LAG
    client: DirectClient | AltcraftClient
    provider: DirectProvider | AltcraftProvider
    command: Command[object, object]
    if rng.random() < 0.5:
        provider = DirectProvider([7], token=KEY, scheduled=1.0, sending=900.0, awaiting=900.0, clock=clock.timestamp)
        client = DirectClient(KEY, clock=clock)
        command, action = _direct_command(rng, provider)
    else:
        provider = AltcraftProvider(
            [7],
            active=rng.choice([[], [7]]),
            token=KEY,
            deduplicates=deduplicates,
            replay_generation=rng.choice(["newer", "older"]),
            clock=clock.timestamp,
        )
        client = AltcraftClient("https://altcraft.test", KEY, clock=clock, deduplicates=deduplicates)
        command, action = _altcraft_command(rng)
    clock.advance(rng.random() * 60 + LARGEST_LAG)  # what was set up is visible by now
    provider.read_lag = lag
    before = sum(act.action == action for act in provider.acts)
    network = BadNetwork(
        rng,
        clock,
        provider,
        trouble=rng.choice([0.3, 0.7, 0.95]),
        reading_trouble=rng.choice([0.0, 0.3, 0.9]),
        late=LATEST,
    )
    client._means.transport = network  # type: ignore[assignment]

    began = clock.time
    state = State.DONE
    try:
        await client.perform(command, timeout=timeout)  # type: ignore[arg-type]
    except DispatchkitError as error:
        state = error.outcome
    if network.acting:
        assert len({request.body for request in network.acting}) == 1
        assert len({str(request.headers) for request in network.acting}) == 1
    elapsed = clock.time - began
    clock.advance(2 * LATEST)  # whatever is still on its way arrives

    acts = sum(act.action == action for act in provider.acts) - before
    story = f"seed {seed}: {command!r} {state}, {acts} acts, {len(network.acting)} attempts, {elapsed:.2f} s"
    tally.trials += 1
    tally.outcomes[state] += 1
    name = f"{type(command).__name__}{' run_now' if getattr(command, 'run_now', None) else ''}"
    if isinstance(client, AltcraftClient):
        name += f", dedup {'on' if deduplicates else 'off'}"
    tally.by_command.setdefault(name, Counter())[state] += 1
    if acts > 1:
        tally.double_acts.append(story)
    if state is State.NOT_SENT and network.bytes_arrived:
        tally.false_not_sent.append(story)
    if state is State.REJECTED and acts:
        tally.false_rejected.append(story)
    if state is State.DONE and not acts and not _holds(command, provider, clock):
        tally.false_done.append(story)
    if elapsed > timeout + 0.1:
        tally.late.append(story)


def _direct_command(rng: random.Random, provider: DirectProvider) -> tuple[Command[object, object], str]:
    if rng.random() < 0.5:
        return StartDispatch(rng.choice([7, 7, 7, 8])), "start"
    if rng.random() < 0.8:
        provider.answer(Call("POST", "/api/v1/dispatch/7/start", {}, {"Authorization": f"Basic {KEY}"}))
    return StopDispatch(rng.choice([7, 7, 7, 8])), "stop"


def _altcraft_command(rng: random.Random) -> tuple[Command[object, object], str]:
    target = rng.choice([7, 7, 7, 8])
    return rng.choice(
        [
            (ActivateMailing(target), "activate"),
            (ActivateMailing(target, run_now=True), "launch"),
            (LaunchBroadcast(target), "launch"),
            (DeactivateMailing(target), "deactivate"),
            (DeactivateMailing(target, abort_if_running=True), "deactivate"),
        ]
    )


def _holds(command: Command[object, object], provider: DirectProvider | AltcraftProvider, clock: VirtualClock) -> bool:
    """Whether what the command asks for is so, though it took no act of this call: it was so before."""
    match command:
        case StartDispatch(dispatch_id=target) if isinstance(provider, DirectProvider):
            return provider.status(target) != "initiated"
        case StopDispatch(dispatch_id=target) if isinstance(provider, DirectProvider):
            return provider.status(target) == "stopped"
        case ActivateMailing(mailing_id=target, run_now=None) if isinstance(provider, AltcraftProvider):
            return provider._view(target).is_active(clock.timestamp())
        case DeactivateMailing(mailing_id=target) if isinstance(provider, AltcraftProvider):
            return not provider._view(target).is_active(clock.timestamp())
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

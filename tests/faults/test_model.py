"""A model of a provider's dispatches, held against the real machine and against what the client says of it.

The model knows only what the caller was told. After a call whose outcome is unknown, it keeps both possibilities. What
the provider did must be one of them.
"""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dispatchkit import DirectClient, DispatchkitError, StartDispatch, State, StopDispatch
from dispatchkit.sandbox import DirectProvider

from .simulated import FAULTS, BadNetwork, Fault, VirtualClock, answered

KEY = "a2V5OnBhc3N3b3Jk"
TARGETS = [1, 2, 3]
SCRIPTS = st.lists(st.sampled_from([*FAULTS, answered]), max_size=6)


class ScriptedNetwork(BadNetwork):
    """Faults in a given order, first for what acts, then for what reads; afterwards everything arrives."""

    acts: list[Fault]
    reads: list[Fault]

    def meet(self, *, reading: bool) -> Fault:
        script = self.reads if reading else self.acts
        return script.pop(0) if script else answered


class Dispatches(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        rng = random.Random(0)
        self.loop = asyncio.new_event_loop()
        self.clock = VirtualClock(rng)
        self.provider = DirectProvider(
            TARGETS, token=KEY, scheduled=1, sending=10**7, awaiting=1, read_lag=20, clock=self.clock.timestamp
        )
        self.clock.advance(60)
        self.network = ScriptedNetwork(rng, self.clock, self.provider, trouble=0, reading_trouble=0, late=10)
        self.client = DirectClient(KEY, clock=self.clock)
        self.client._context.transport = self.network  # type: ignore[assignment]
        self.possible = {target: {"initiated"} for target in TARGETS}
        self.most_launches = dict.fromkeys(TARGETS, 0)

    def teardown(self) -> None:
        self.loop.close()

    @rule(dispatch_id=st.sampled_from(TARGETS), acts=SCRIPTS, reads=SCRIPTS)
    def start(self, dispatch_id: int, acts: list[Fault], reads: list[Fault]) -> None:
        # What a second start does is not documented, so the model only starts what may not have been started.
        if "initiated" not in self.possible[dispatch_id]:
            return
        state = self.perform(StartDispatch(dispatch_id), acts, reads)
        if state is not State.REJECTED and state is not State.NOT_SENT:
            self.most_launches[dispatch_id] += 1
        self.told(dispatch_id, state, happened={"running", "stopped"} & ({"running"} | self.possible[dispatch_id]))

    @rule(dispatch_id=st.sampled_from(TARGETS), acts=SCRIPTS, reads=SCRIPTS)
    def stop(self, dispatch_id: int, acts: list[Fault], reads: list[Fault]) -> None:
        state = self.perform(StopDispatch(dispatch_id), acts, reads)
        self.told(dispatch_id, state, happened={"stopped"})

    @rule(seconds=st.floats(0, 300))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def perform(self, command: StartDispatch | StopDispatch, acts: list[Fault], reads: list[Fault]) -> State:
        self.network.acts, self.network.reads = list(acts), list(reads)
        before = len(self.provider.acts)
        try:
            self.loop.run_until_complete(self.client.perform(command))
            state = State.DONE
        except DispatchkitError as error:
            state = error.state
        self.clock.advance(40)  # what was still on its way arrives, and what it did becomes visible
        assert len(self.provider.acts) - before <= 1
        return state

    def told(self, target: int, state: State, *, happened: set[str]) -> None:
        if state is State.DONE:
            self.possible[target] = happened
        elif state is State.UNKNOWN:
            self.possible[target] = self.possible[target] | happened

    @invariant()
    def what_the_provider_did_is_one_of_the_possibilities(self) -> None:
        for target in TARGETS:
            status = self.provider.status(target)
            really = status if status in {"initiated", "stopped"} else "running"
            assert really in self.possible[target], (target, status, self.possible[target])

    @invariant()
    def no_target_was_launched_more_often_than_the_caller_was_told(self) -> None:
        for target in TARGETS:
            assert self.provider.launches[target] <= self.most_launches[target]


class ManyDispatches(Dispatches):
    """The same, with more examples."""


TestDispatches = Dispatches.TestCase
TestManyDispatches = pytest.mark.second_stage(ManyDispatches.TestCase)
for _case, _examples in ((TestDispatches, 30), (TestManyDispatches, 150)):
    _case.settings = settings(max_examples=_examples, stateful_step_count=15, deadline=None)

"""Explore every sequence of events of a call, and check what must hold for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import attrs
from tenacity import wait_fixed

from dispatchkit import DispatchkitError, NotSentError, OutcomeUnknownError, RejectedError, RetryPolicy
from dispatchkit.core.call.call_state import CallState, Event, Expired, Finish, Log, Probe, Send, Wait
from dispatchkit.core.call.decide import decide
from dispatchkit.core.command import Evidence
from tests.proof.merge import Key, KeyOf, merged_key
from tests.proof.provider import DISTINCT_KINDS, LAG, LATEST, MEMORY, Kind, World, begin, begin_takeover, events

__all__ = ["Explored", "ViolationError", "check", "explore", "explore_all"]

Decide = Callable[[CallState[Any, Any], Event[Any]], tuple[CallState[Any, Any], Any]]
Visit = Callable[[CallState[Any, Any], World, Any], None]

_EPSILON = 1e-9


class ViolationError(AssertionError):
    """A sequence of events after which something does not hold. Its text has the events."""


class Explored(NamedTuple):
    """What an exploration has seen."""

    states: int
    """Points of calls that go on. Points with equal keys count once."""
    merged: int
    """Events that led to a point which was known already."""
    outcomes: int
    """Events that ended a call."""


class _Node(NamedTuple):
    """One point of an exploration."""

    key: Key
    state: CallState[Any, Any]
    world: World
    event: Event[Any]
    action: Any
    rest: Iterator[tuple[World, Event[Any]]]


def explore(
    kind: Kind,
    *,
    attempts: int,
    probes: int,
    repeat_unclear: bool = True,
    surprises: int = 1,
    decide: Decide = decide,
    key_of: KeyOf = merged_key,
    visit: Visit | None = None,
) -> Explored:
    """Explore the calls of one kind of command.

    Args:
        kind: The kind.
        attempts: Maximum number of attempts of a call.
        probes: Maximum number of state reads of a call.
        repeat_unclear: See `RetryPolicy.repeat_unclear`.
        surprises: See `World.surprises`.
        decide: The decisions to explore.
        key_of: What tells points apart.
        visit: Called with each point that is new.

    Raises:
        ViolationError: Something does not hold.
    """
    policy = RetryPolicy(
        attempts=attempts,
        wait=wait_fixed(1),
        throttled_wait=wait_fixed(1),
        state_lag=LAG,
        repeat_unclear=repeat_unclear,
    )
    world = World(surprises=surprises)
    starts = list(begin(kind, policy, world))
    if not kind.command.is_read_only:
        for has_one_id in (True, False):
            for repeats in (0, 1):
                starts += begin_takeover(kind, policy, world, has_one_id=has_one_id, repeats=repeats)
    explorer = _Explorer(kind, probes, decide, key_of, visit)
    for start in starts:
        explorer.descend(*start)
    return Explored(len(explorer.is_open), explorer.merged, explorer.outcomes)


def explore_all(*, attempts: int, probes: int, surprises: int = 1) -> Iterator[tuple[str, Explored]]:
    """Explore all kinds of commands, with and without retries of unclear calls. Yields the names and the numbers."""
    for names, kind in DISTINCT_KINDS.items():
        for repeat_unclear in (True, False):
            explored = explore(
                kind, attempts=attempts, probes=probes, surprises=surprises, repeat_unclear=repeat_unclear
            )
            yield f"{names}{'' if repeat_unclear else ' (never repeated)'}", explored


@attrs.define
class _Explorer:
    """Explores depth first."""

    kind: Kind
    max_probes: int
    decide: Decide
    key_of: KeyOf
    visit: Visit | None
    is_open: dict[Key, bool] = attrs.field(factory=dict, init=False)
    """The points seen, and whether they are on the way to the current one."""
    merged: int = attrs.field(default=0, init=False)
    outcomes: int = attrs.field(default=0, init=False)
    path: list[_Node] = attrs.field(factory=list, init=False)

    def descend(self, state: CallState[Any, Any], world: World, event: Event[Any]) -> None:
        """Explore all that may follow an event."""
        path = self.path
        self._enter(state, world, event)
        while path:
            node = path[-1]
            following = next(node.rest, None)
            if following is None:
                self.is_open[path.pop().key] = False
            else:
                self._enter(node.state, *following)

    def _enter(self, before: CallState[Any, Any], world: World, event: Event[Any]) -> None:
        kind = self.kind
        try:
            state, action = self.decide(before, event)
            check(kind, state, world, event, action)
        except Exception as error:
            raise self._violation(f"{type(error).__name__}: {error}", world, event) from error
        if isinstance(action, Finish):
            self.outcomes += 1
            return
        key = self.key_of(kind, state, world, action)
        if key in self.is_open:
            if self.is_open[key]:
                raise self._violation("the call never ends", world, event)
            self.merged += 1
            return
        self.is_open[key] = True
        rest = events(kind, state, world, action, max_probes=self.max_probes)
        self.path.append(_Node(key, state, world, event, action, rest))
        if self.visit is not None:
            self.visit(state, world, action)

    def _violation(self, what: str, world: World, event: Event[Any]) -> ViolationError:
        lines = [f"{node.world}\n  {node.event}\n  -> {node.action}" for node in self.path]
        return ViolationError("\n".join([f"{self.kind.name}: {what}", *lines, f"{world}\n  {event}"]))


# What must hold


def check(kind: Kind, state: CallState[Any, Any], world: World, event: Event[Any], action: Any) -> None:
    """Check an action of a call. `World` is that of its latest event."""
    assert isinstance(action, Send) or not isinstance(event, Expired), "an expired claim is an outcome"
    if isinstance(action, Finish):
        _check_outcome(world, action.error)
        is_applied = state.settlement.evidence is Evidence.APPLIED
        assert action.error is None or not is_applied, "the state shows the effect, but the call is not done"
    elif isinstance(action, Send):
        _check_send(kind, state, world, event)
    elif isinstance(action, Probe):
        assert not kind.command.is_read_only, "an unclear read is not settled"
        assert not world.stopped, "a state read after the stop"
        assert not world.paused, "a state read during a pause"
        assert world.token or (not world.sends and not world.probes), "a state read without a token"
    elif isinstance(action, Log) and action.delay is not None:
        assert not world.stopped, "a retry is announced after the stop"
        assert world.time + action.delay <= LATEST + _EPSILON, "a retry is announced for after the deadline"
    elif isinstance(action, Wait) and action.seconds:
        assert action.seconds > 0, "a wait into the past"
        assert world.time + action.seconds <= LATEST + _EPSILON, "a wait beyond the deadline"


def _check_outcome(world: World, error: DispatchkitError | None) -> None:
    has_acted = any(act <= world.time for act in world.acts)
    if error is None:
        assert has_acted or world.acts or not world.unclear, "done, but nothing has acted"
        assert has_acted, "done, but nothing has acted yet"
    elif isinstance(error, OutcomeUnknownError):
        assert world.unclear or world.partly, "unknown, but each request was answered"
    elif isinstance(error, NotSentError):
        assert not world.left, "not sent, but a byte has left"
    else:
        assert isinstance(error, RejectedError)
        assert not world.acts, "rejected, but a request acts"


def _check_send(kind: Kind, state: CallState[Any, Any], world: World, event: Event[Any]) -> None:
    policy = state.rules.policy
    is_first = not world.sends
    assert world.sends < policy.attempts, "more attempts than the policy allows"
    if isinstance(event, Expired):
        return  # the same attempt goes on
    assert not world.stopped, "an attempt after the stop"
    assert is_first or world.token, "a repeat without a token"
    assert world.time >= world.not_before, "an attempt before the end of Retry-After"
    if kind.command.is_read_only or not world.unclear:
        return
    assert policy.repeat_unclear, "an unclear call was repeated, which the policy forbids"
    if not world.acts:
        return  # the same events may happen where the request does act
    is_known = state.rules.has_one_id and not world.stripped and world.time - world.first < MEMORY
    is_safe = kind.vouched and is_known
    assert is_safe, "repeated, but an earlier request has acted or may act"
    inherited_repeat = world.is_repeat and state.rules.in_log
    unclear = world.unclear + inherited_repeat
    assert unclear < 2 or world.honoured, "repeated twice, but no replay was ever seen"

"""Explore every sequence of events of a call, and check what must hold for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
from tenacity import wait_fixed

from dispatchkit import DispatchkitError, NotSentError, OutcomeUnknownError, RejectedError, RetryPolicy
from dispatchkit.core.call.call_state import CallState, Event, Expired, Finish, Log, Probe, Send, Wait
from dispatchkit.core.call.decide import decide
from dispatchkit.core.command import Evidence
from tests.proof.provider import DISTINCT_KINDS, LAG, LATEST, MEMORY, Kind, World, begin, begin_takeover, events

__all__ = ["ViolationError", "explore", "explore_all"]

Decide = Callable[[CallState[Any, Any], Event[Any]], tuple[CallState[Any, Any], Any]]

_EPSILON = 1e-9


class ViolationError(AssertionError):
    """A sequence of events after which something does not hold. Its text has the events."""


@attrs.frozen
class _Node:
    """One point of an exploration."""

    key: tuple[object, ...]
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
) -> int:
    """Explore the calls of one kind of command. Returns the number of states.

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
    is_open: dict[tuple[object, ...], bool] = {}
    for state, after, event in starts:
        _descend(kind, probes, decide, is_open, state, after, event)
    return len(is_open)


def explore_all(*, attempts: int, probes: int, surprises: int = 1) -> dict[str, int]:
    """Explore all kinds of commands, with and without retries of unclear calls. Returns the states of each."""
    return {
        f"{names}{'' if repeat_unclear else ' (never repeated)'}": explore(
            kind, attempts=attempts, probes=probes, surprises=surprises, repeat_unclear=repeat_unclear
        )
        for names, kind in DISTINCT_KINDS.items()
        for repeat_unclear in (True, False)
    }


def _descend(
    kind: Kind,
    max_probes: int,
    decide: Decide,
    is_open: dict[tuple[object, ...], bool],
    state: CallState[Any, Any],
    world: World,
    event: Event[Any],
) -> None:
    """Explore depth first. ``is_open`` has the states seen, and whether they are on the way to the current one."""
    path: list[_Node] = []

    def enter(before: CallState[Any, Any], world: World, event: Event[Any]) -> None:
        try:
            after, action = decide(before, event)
            _check(kind, after, world, event, action)
        except Exception as error:
            lines = [f"{node.world}\n  {node.event}\n  -> {node.action}" for node in path]
            text = "\n".join([*lines, f"{world}\n  {event}"])
            raise ViolationError(f"{kind.name}: {type(error).__name__}: {error}\n{text}") from error
        if isinstance(action, Finish):
            return
        wait = (action.seconds, action.for_token) if isinstance(action, Wait) else None
        key = (_key(after), world.key(), type(action), wait)
        if key in is_open:
            if is_open[key]:
                raise ViolationError(f"{kind.name}: the call never ends: {after} {world}")
            return
        is_open[key] = True
        path.append(_Node(key, world, event, action, events(kind, after, world, action, max_probes=max_probes)))
        states.append(after)

    states: list[CallState[Any, Any]] = []
    enter(state, world, event)
    while path:
        following = next(path[-1].rest, None)
        if following is None:
            is_open[path.pop().key] = False
            states.pop()
        else:
            enter(states[-1], *following)


def _key(state: CallState[Any, Any]) -> tuple[object, ...]:
    """What makes two states equal: everything but the texts."""
    doubt = state.doubt
    return (
        state.rules.repeats,
        state.rules.has_one_id,
        state.phase,
        state.tries,
        state.first_started,
        doubt and (doubt.error.is_final, doubt.began.monotonic, doubt.acting_until, doubt.is_denied),
        state.partly_sent is None,
        state.throttled is None,
        type(state.error),
        state.delay,
        state.probes,
        state.reads_once,
        state.settlement.evidence,
        state.settlement.is_final,
        state.refusal is None,
    )


# What must hold


def _check(kind: Kind, state: CallState[Any, Any], world: World, event: Event[Any], action: Any) -> None:
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

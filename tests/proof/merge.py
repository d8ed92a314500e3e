"""Which points of an exploration are equal: those that differ only in what can no longer be seen.

A key leaves out each value that nothing reads before it is set again, and replaces a moment whose time has come.
`test_merged_points_behave_alike` explores with `exact_key` too, and compares what follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

from dispatchkit.core.call.call_state import CallState, Doubt, Log, Wait
from dispatchkit.core.command import Evidence
from tests.proof.provider import LAG, MEMORY, OLD, Kind, World

__all__ = ["Key", "KeyOf", "exact_key", "merged_key"]

Key = tuple[object, ...]
KeyOf = Callable[[Kind, CallState[Any, Any], World, Any], Key]


def exact_key(kind: Kind, state: CallState[Any, Any], world: World, action: Any) -> Key:
    """Everything but the texts."""
    del kind
    doubt = state.doubt
    return (
        world,
        type(action),
        _wait(action),
        state.rules.repeats,
        state.rules.has_one_id,
        state.phase,
        state.tries,
        state.first_started and state.first_started.monotonic,
        doubt and (doubt.error.is_final, doubt.began.monotonic, doubt.acting_until, doubt.is_denied, doubt.is_partial),
        state.throttled is None,
        type(state.error),
        state.delay,
        state.probes,
        state.reads_once,
        state.settlement.evidence,
        state.settlement.is_final,
        state.refusal is None,
    )


def merged_key(kind: Kind, state: CallState[Any, Any], world: World, action: Any) -> Key:
    """What the rest of the call depends on."""
    is_logging = isinstance(action, Log)
    doubt = state.unclear
    # The rules of ids matter only where the provider deduplicates.
    ids = (state.rules.has_one_id, state.rules.in_log and state.rules.repeats) if kind.vouched else None
    match state.phase:
        case "settle":
            doing: Key = (state.probes, state.reads_once, state.refusal is None)
        case "settled":
            doing = (state.reads_once, state.refusal is None, state.settlement.evidence)
        case "retry":
            doing = (type(state.error), state.delay if is_logging else None, doubt and doubt.is_denied)
        case _:
            doing = ()
    return (
        _merged_world(kind, world, is_logging=is_logging),
        type(action),
        _wait(action),
        ids,
        state.phase,
        state.tries,
        state.first_started is None,
        _oldest_id(state, world) if kind.vouched else None,
        doubt and _acting_until(state, doubt, world),
        # Both decide the outcome of a call that is not in doubt; a read may be rejected in doubt, too.
        state.doubt is None,
        (doubt is None or kind.command.is_read_only) and state.throttled is None,
        state.settlement.evidence is Evidence.APPLIED,
        doing,
    )


def _wait(action: Any) -> tuple[float, bool] | None:
    return (action.seconds, action.for_token) if isinstance(action, Wait) else None


def _merged_world(kind: Kind, world: World, *, is_logging: bool) -> World:
    """The world without what makes no difference any more."""
    # Only the first effect decides what a state may show, and whether a request has acted.
    act = min(world.acts, default=math.inf)
    return world._replace(
        acts=() if act == math.inf else (act if act > world.time - OLD else -math.inf,),
        left=world.left or world.unclear > 0,
        # The second unclear request of a kind that deduplicates is one too many without a replay.
        unclear=min(world.unclear, 2 if kind.vouched else 1),
        first=(world.first if world.time - world.first < MEMORY else -math.inf) if kind.vouched else 0.0,
        is_repeat=world.is_repeat and kind.vouched and kind.command.log_key is not None,
        not_before=world.not_before if world.not_before > world.time else -math.inf,
        # A record takes no time. All other actions use the token, and ask again whether the account is paused.
        token=world.token and is_logging,
        paused=world.paused and is_logging,
    )


def _oldest_id(state: CallState[Any, Any], world: World) -> float:
    """The age of the request id, or infinity once the provider has forgotten it."""
    moments: list[datetime] = []
    if state.first_started is not None:
        moments.append(state.first_started.wall)
    if state.doubt is not None:
        moments.append(state.doubt.began.wall)
    if not moments:
        return 0.0
    age = (world.wall - min(moments)).total_seconds()
    return age if age < MEMORY else math.inf


def _acting_until(state: CallState[Any, Any], doubt: Doubt, world: World) -> float:
    """Until when the doubt's requests may act, or minus infinity once the state is believed."""
    if state.phase == "settle":
        return doubt.acting_until if world.time < doubt.acting_until + LAG + OLD else -math.inf
    return doubt.acting_until if world.time < doubt.acting_until else -math.inf  # a later doubt takes the later moment

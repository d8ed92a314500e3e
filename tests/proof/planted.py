"""Faults planted into the source of `decide`: each must be found by the exploration."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from dispatchkit.core.call import decide as decide_module

__all__ = ["FAULTS", "Fault", "mutated"]


class Fault(NamedTuple):
    """One change of the source, and the kind of command that shows it."""

    name: str
    before: str
    after: str
    kind: str
    attempts: int = 2


FAULTS = (
    Fault(
        "state is believed at once",
        "believed_from = _doubt(state).acting_until + policy.state_lag",
        "believed_from = _doubt(state).acting_until",
        "start",
    ),
    Fault("the age of a response is ignored", "event.asked - event.age >=", "event.asked >=", "start"),
    Fault("state counts from its arrival", "event.asked - event.age >=", "now.monotonic - event.age >=", "start"),
    Fault("absence is proof", "_DENIALS = frozenset({", "_DENIALS = frozenset({Evidence.ABSENT, ", "launch"),
    Fault(
        "the refusal of a retry is final",
        "if (doubt := state.unclear) is None or state.rules",
        "if True or state.rules",
        "deduplicated activate",
    ),
    Fault(
        "a throttled retry forgets the doubt",
        "    if doubt is None or ((doubt.is_partial",
        "    if True or ((doubt.is_partial",
        "stop",
    ),
    Fault("retries need no token", "Wait(state.delay, for_token=True)", "Wait(state.delay)", "start"),
    Fault(
        "a stop during a wait is missed",
        "    if now.stopped:\n        return state, Finish",
        "    if 0:\n        return state, Finish",
        "start",
    ),
    Fault("waits end after the deadline", "delay <= state.rules.latest_start", "delay <= 1e9", "start"),
    Fault("another launch's entry counts", "if rules.in_log and now.other", "if 0 and now.other", "launch"),
    Fault(
        "ids are never forgotten",
        "return rules.deduplicated(max(ages))",
        "return rules.deduplicated(now.wall - now.wall)",
        "deduplicated launch",
    ),
    Fault("stripped ids are trusted", "or now.strips_ids:", "or False:", "deduplicated launch"),
    Fault(
        "an id of another process is trusted",
        "if not repeats or not rules.has_one_id or",
        "if not repeats or",
        "deduplicated launch",
    ),
    Fault("unclear retries go on", "(not is_repeat or now.honours_ids)", "True", "deduplicated launch"),
    Fault(
        "a retry shortens an earlier doubt",
        "acting_until = max(earlier.acting_until, now.monotonic)",
        "acting_until = now.monotonic",
        "deduplicated activate",
    ),
    Fault(
        "a retry does not renew the doubt",
        "acting_until = max(earlier.acting_until, now.monotonic)",
        "acting_until = earlier.acting_until",
        "start",
        attempts=3,
    ),
    Fault("unclear calls are always repeated", "and state.rules.policy.repeat_unclear:", "and True:", "start"),
    Fault(
        "a partly sent request is not sent",
        "if event.partly_sent is not None and",
        "if False and",
        "start",
    ),
    Fault("state is read during a pause", "    if now.paused:", "    if 0:", "start"),
    Fault(
        "another request's answer is settled",
        "if state.rules.in_log and answers_another:",
        "if 0:",
        "deduplicated launch",
    ),
    Fault(
        "an unclear call is repeated without evidence",
        "is_denied = settlement.evidence in _DENIALS and not",
        "is_denied = True or not",
        "start",
    ),
    Fault("state reads need no token", "if not has_token and (", "if False and (", "start"),
    Fault(
        "state is read after the stop",
        "    if now.stopped:\n        return _give_up",
        "    if 0:\n        return _give_up",
        "start",
    ),
    Fault("a retry follows the stop", "return not now.stopped and _in_time", "return _in_time", "start"),
    Fault("Retry-After is ignored", "after=error.retry_after or 0.0", "after=0.0", "start"),
    Fault(
        "an expired claim is an outcome",
        "attrs.evolve(state, doubt=doubt)\n    return state, Send()",
        "attrs.evolve(state, doubt=doubt)\n    return state, Finish(error=OutcomeUnknownError('it expired'))",
        "start",
    ),
    Fault(
        "a takeover forgets until when a request may act",
        "return _settle(state, event.now, is_repeat=state.rules",
        "state = attrs.evolve(state, doubt=attrs.evolve(_doubt(state), acting_until=event.now.monotonic))\n"
        "            return _settle(state, event.now, is_repeat=state.rules",
        "start",
    ),
    Fault(
        "an effect that shows is not believed",
        "return state, Finish(result=settlement.result)\n    error = then",
        "pass\n    error = then",
        "start",
    ),
    Fault("attempts are not counted", "if state.tries >= policy.attempts:", "if 0:", "read"),
)


def mutated(fault: Fault) -> Callable[..., tuple[Any, Any]]:
    """`decide`, with the fault."""
    source = inspect.getsource(decide_module)
    assert source.count(fault.before) == 1, f"{fault.name}: the source has changed"
    module = types.ModuleType("planted")
    exec(compile(source.replace(fault.before, fault.after), "planted", "exec"), vars(module))
    decide: Callable[..., tuple[Any, Any]] = module.decide
    return decide

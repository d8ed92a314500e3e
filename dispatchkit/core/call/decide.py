"""Decide the next action of a call, as a pure function of its state and an event.

The result is a new state and an action. The function performs nothing: time and random numbers come with the events.
Only a wait strategy of the user may look at a clock or draw a number itself. So every sequence of events can be
explored. `Call` performs the actions. Each event leads to one action:

- *Unknown*: the doubt begins or is renewed. If the user vouches for deduplication by request id, a retry with the same
  id is allowed. Otherwise `Probe` reads the provider's state.
- *Not sent*, *throttled*: the attempt did nothing, so it may be retried after a wait. An earlier doubt stays.
- *Rejected*: final, unless an earlier attempt of the same call is unclear. The earlier attempt may have succeeded (a
  second stop of a stopped dispatch is refused), so the provider's state decides.
- *Evidence* that the command was applied makes the call done. Evidence against it counts only
  `RetryPolicy.state_lag` after the latest unclear attempt, plus the age of the response. It then allows a retry.
  Without evidence, the state is read until the deadline.

Some launches show only in a log (`Command.log_key`). A log entry settles such a launch only if no other launch can have
made it. A missing entry never allows a retry. If the user vouches for deduplication, the log is not read.

An unclear read needs no settling: it is retried, and a refusal of the retry is final.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Never, TypeVar

import attrs

from dispatchkit.core.call.call_state import (
    NOT_READ,
    Action,
    CallState,
    Doubt,
    Event,
    Expired,
    Failed,
    Finish,
    Late,
    Log,
    Logged,
    NoToken,
    Now,
    Observed,
    Probe,
    Send,
    Start,
    Succeeded,
    TakenOver,
    Wait,
    Waited,
)
from dispatchkit.core.call.provider_time import MAX_OFFSET
from dispatchkit.core.call.retry import MIN_PROBE_PAUSE, RetryPolicy, RetryReason
from dispatchkit.core.command import Evidence, Settlement
from dispatchkit.errors import DispatchkitError, NotSentError, OutcomeUnknownError, RejectedError, ThrottledError

__all__ = ["decide", "log_tolerance", "not_alone", "then", "unclear_too"]

R = TypeVar("R")
W = TypeVar("W")

_LAST_PAUSE = 0.01
"""Minimum seconds before the deadline for one more state read."""
_BUDGET = "the retry budget of the client had no token for a state read before the deadline"
_DENIALS = frozenset({Evidence.NOT_APPLIED, Evidence.NEVER_APPLIED})
"""Evidence that allows a retry."""
_LAGGING = frozenset({Evidence.NOT_APPLIED, Evidence.ABSENT})
"""Evidence that counts only after the lag."""


def decide(state: CallState[W, R], event: Event[R]) -> tuple[CallState[W, R], Action[W, R]]:
    """What a call does after an event.

    Args:
        state: The state before the event.
        event: What happened, with its time.

    Returns:
        The state after the event, and the action to perform. `Finish` is the last one.
    """
    match event:
        case Succeeded(result=result):
            return state, Finish(result=result)
        case Failed():
            return _failed(state, event)
        case Late():  # no further attempt could start in time
            return state, Finish(error=_without_effect(state, NotSentError(event.why)))
        case Expired():
            return _expired(state, event)
        case TakenOver():
            return _settle(state, event.now, is_repeat=state.rules.in_log and state.rules.repeats > 0)
        case Observed():
            return _observed(state, event)
        case Waited() if state.phase == "settle":
            return _read(state, event.now, has_token=event.has_token)
        case Waited():
            return _send(attrs.evolve(state, tries=state.tries + 1), event.now)
        case NoToken():
            return _give_up(state, _BUDGET) if state.phase == "settle" else (state, Finish(error=state.error))
        case Logged():
            is_settled = state.phase == "settled"
            return _settled(state, event.now) if is_settled else (state, Wait(state.delay, for_token=True))


def log_tolerance(policy: RetryPolicy) -> float:
    """Seconds after its end for which a launch may still act, and its log may lag."""
    return max(policy.state_lag, MAX_OFFSET.total_seconds())


def not_alone(evidence: Evidence) -> Settlement[Never]:
    """The settlement where another launch may have made the entry. A later process does not know of that launch."""
    text = "another launch of the same at this time may have made what its log shows"
    return Settlement(evidence, text, is_final=True)


def unclear_too(error: OutcomeUnknownError) -> OutcomeUnknownError:
    """The outcome of a launch whose retry is unclear too: another retry might launch again."""
    return then(error, "its retry is unclear too, and no replay was ever seen", is_final=True)


def then(error: OutcomeUnknownError, what: str, *, is_final: bool = False) -> OutcomeUnknownError:
    """The outcome with a later event appended. A final outcome stays final."""
    return type(error)(f"{error.summary}; {what}", is_final=error.is_final or is_final)


# Attempts


def _expired(state: CallState[W, R], event: Expired) -> tuple[CallState[W, R], Action[W, R]]:
    """Neither an attempt nor an outcome: the next request claims again."""
    if event.partly_sent is not None and state.doubt is None:
        error = OutcomeUnknownError("a part of the request had left when its claim expired")
        doubt = Doubt(error, event.partly_sent, event.now.monotonic, is_partial=True)
        state = attrs.evolve(state, doubt=doubt)
    return state, Send()


def _failed(state: CallState[W, R], event: Failed) -> tuple[CallState[W, R], Action[W, R]]:
    now, error = event.now, event.error
    state = attrs.evolve(state, first_started=state.first_started or event.start, latest=error)
    if isinstance(error, OutcomeUnknownError):
        return _unclear(state, now, error, event.start, answers_another=event.answers_another)
    if isinstance(error, NotSentError):
        return _retry(state, now, _without_effect(state, error), "not_sent")
    if isinstance(error, ThrottledError):
        state = attrs.evolve(state, throttled=error)  # from now on, the call is no longer "not sent"
        return _retry(state, now, _without_effect(state, error), "throttled", after=error.retry_after or 0.0)
    if (doubt := state.unclear) is None or state.rules.is_read_only:
        return state, Finish(error=error)
    return _refused(state, now, error, doubt)


def _without_effect(state: CallState[W, R], error: DispatchkitError) -> DispatchkitError:
    """The outcome after an attempt that did nothing: unknown if an earlier request is unclear."""
    error, doubt = state.throttled or error, state.doubt
    if doubt is None or ((doubt.is_partial or state.rules.is_read_only) and isinstance(error, RejectedError)):
        return error
    return then(doubt.error, f"then {error.summary}")


def _unclear(
    state: CallState[W, R], now: Now, error: OutcomeUnknownError, start: Start, *, answers_another: bool
) -> tuple[CallState[W, R], Action[W, R]]:
    """The doubt begins or is renewed."""
    earlier, acting_until = state.unclear, now.monotonic
    if earlier is not None:  # an earlier process's request may still arrive
        acting_until = max(earlier.acting_until, now.monotonic)
    began = start if state.doubt is None else state.doubt.began
    state = attrs.evolve(state, doubt=Doubt(error, began, acting_until))
    if state.rules.is_read_only:
        return _retry(state, now, error, "unknown")
    if state.rules.in_log and answers_another:
        return state, Finish(error=error)  # the provider did not launch it: an entry is another launch's
    return _settle(state, now, is_repeat=earlier is not None)


# Settling


def _settle(state: CallState[W, R], now: Now, *, is_repeat: bool) -> tuple[CallState[W, R], Action[W, R]]:
    doubt = _doubt(state)
    is_deduplicated = _is_deduplicated(state, now)
    # The first retry shows whether the provider recognises retries.
    repeatable = is_deduplicated and (not is_repeat or now.honours_ids)
    if state.rules.in_log and is_deduplicated:
        if repeatable:
            return _retry(state, now, doubt.error, "unknown")
        return state, Finish(error=unclear_too(doubt.error))
    state = attrs.evolve(state, phase="settle", reads_once=repeatable, probes=0, settlement=NOT_READ)
    return _read(state, now)


def _refused(
    state: CallState[W, R], now: Now, refusal: DispatchkitError, doubt: Doubt
) -> tuple[CallState[W, R], Action[W, R]]:
    """A retry was rejected, perhaps because the earlier attempt succeeded."""
    if state.rules.in_log:
        # Only deduplicated launches are retried, and a replayed refusal has no mark.
        return state, Finish(error=then(doubt.error, f"then {refusal.summary}"))
    # The lag begins again: the refusal may be the first sign of the effect.
    doubt = attrs.evolve(doubt, acting_until=max(doubt.acting_until, now.monotonic))
    state = attrs.evolve(
        state, phase="settle", reads_once=False, refusal=refusal, probes=0, settlement=NOT_READ, doubt=doubt
    )
    return _read(state, now)


def _is_deduplicated(state: CallState[W, R], now: Now) -> bool:
    """Whether the call may be retried under its id: the user vouches for it, and no replay has refuted it."""
    rules, policy = state.rules, state.rules.policy
    repeats = policy.repeat_unclear and "unknown" in policy.retry_on and policy.attempts > 1
    if not repeats or not rules.has_one_id or now.strips_ids:
        return False
    starts = [_doubt(state).began]
    if state.first_started is not None:  # an earlier process may have sent the first request
        starts.append(state.first_started)
    boottime = now.monotonic + now.slept
    # The wall clock may have been set back, and only it may know of a start in an earlier process.
    ages = (max(now.wall - start.wall, timedelta(seconds=start.age(boottime))) for start in starts)
    return rules.deduplicated(max(ages))


def _read(state: CallState[W, R], now: Now, *, has_token: bool = False) -> tuple[CallState[W, R], Action[W, R]]:
    """Read the provider's state, if nothing is in the way."""
    rules, doubt = state.rules, _doubt(state)
    probe = rules.probe(doubt.began.wall)  # effects before the first unclear attempt are not this call's
    if probe is None:
        return _conclude(state, Settlement(Evidence.UNAVAILABLE, "the provider has no state that shows it"))
    if rules.in_log and now.other_launch_ended >= doubt.began.monotonic - log_tolerance(rules.policy):
        return _conclude(state, not_alone(Evidence.UNAVAILABLE))
    if now.stopped:
        return _give_up(state, "it was told to stop")
    if now.paused:  # state reads respect the account's pause, too
        return (state, Wait(now.paused)) if _in_time(state, now, now.paused) else _give_up(state, now.pause)
    # After a takeover, the first state read is this call's first request: it costs no token.
    if not has_token and (state.first_started is not None or state.probes):
        return state, Wait(for_token=True)
    return state, Probe(probe, doubt, doubt.acting_until + rules.policy.state_lag)


def _observed(state: CallState[W, R], event: Observed[R]) -> tuple[CallState[W, R], Action[W, R]]:
    now, settlement, policy = event.now, event.settlement, state.rules.policy
    state = attrs.evolve(state, probes=state.probes + 1, settlement=settlement)
    believed_from = _doubt(state).acting_until + policy.state_lag
    lags = settlement.evidence in _LAGGING
    believed = event.asked - event.age >= believed_from
    if state.reads_once or not (lags or settlement.evidence is Evidence.INCONCLUSIVE) or (lags and believed):
        return _conclude(state, settlement)
    pause = policy.probe_delay(
        state.probes,
        drawn=now.random,
        error=state.latest or _doubt(state).error,
        elapsed=now.monotonic - state.rules.started,
        waited=state.waited,
    )
    if not believed:
        # The next response may be as old: wait that much longer.
        pause = min(pause, max(MIN_PROBE_PAUSE if event.age else 0.0, believed_from + event.age - now.monotonic))
    if not _in_time(state, now, pause):
        pause = state.rules.latest_start - now.monotonic  # read once more just before the deadline
        if pause < _LAST_PAUSE:
            return _give_up(state, "the deadline left no time to ask again")
    return state, Wait(pause)


def _give_up(state: CallState[W, R], obstacle: str) -> tuple[CallState[W, R], Action[W, R]]:
    """Conclude without evidence, since the state cannot be read again."""
    detail = f"{state.settlement.detail}, and {obstacle}"
    return _conclude(state, attrs.evolve(state.settlement, evidence=Evidence.INCONCLUSIVE, detail=detail))


def _conclude(state: CallState[W, R], settlement: Settlement[R]) -> tuple[CallState[W, R], Action[W, R]]:
    """No further state is read."""
    doubt = _doubt(state)
    state = attrs.evolve(state, phase="settled", settlement=settlement)
    if state.refusal is None:
        return state, Log(f"settling: {settlement.evidence.value}, {settlement.detail}", doubt.error)
    if settlement.evidence is Evidence.APPLIED:
        return state, Finish(result=settlement.result)
    if settlement.evidence in _DENIALS:
        return state, Finish(error=state.refusal)
    return state, Finish(error=then(then(doubt.error, f"then {state.refusal.summary}"), settlement.detail))


def _settled(state: CallState[W, R], now: Now) -> tuple[CallState[W, R], Action[W, R]]:
    """The settlement is logged: the call is done, is retried, or stays unknown."""
    doubt, settlement = _doubt(state), state.settlement
    if settlement.evidence is Evidence.APPLIED:
        return state, Finish(result=settlement.result)
    error = then(doubt.error, settlement.detail, is_final=settlement.is_final)
    is_denied = settlement.evidence in _DENIALS and not (state.reads_once and settlement.evidence in _LAGGING)
    state = attrs.evolve(state, doubt=attrs.evolve(doubt, error=error, is_denied=is_denied))
    if (is_denied or state.reads_once) and state.rules.policy.repeat_unclear:
        return _retry(state, now, error, "unknown")
    return state, Finish(error=error)


# Retries


def _retry(
    state: CallState[W, R], now: Now, error: DispatchkitError, reason: RetryReason, *, after: float = 0.0
) -> tuple[CallState[W, R], Action[W, R]]:
    """Make another attempt after a wait, if the policy and the deadline allow it."""
    policy = state.rules.policy
    state = attrs.evolve(state, phase="retry", error=error)
    if reason not in policy.retry_on:
        return state, Finish(error=error)
    if state.first_started is None and _may_start(state, now, 0.0):
        # The unclear attempt was an earlier process's, so this call's first attempt is no retry.
        return _send(state, now)
    if state.tries >= policy.attempts:
        return state, Finish(error=error)
    try:
        delay = policy.delay(
            state.tries,
            throttled=reason == "throttled",
            after=after,
            drawn=now.random,
            error=state.latest or error,
            elapsed=now.monotonic - state.rules.started,
            waited=state.waited,
        )
    except Exception as exception:  # noqa: BLE001 - the strategy is the user's code: the outcome must not depend on it
        return state, Finish(error=error, cause=exception)
    if not _may_start(state, now, delay):
        return state, Finish(error=error)
    state = attrs.evolve(state, delay=delay, waited=state.waited + delay)
    return state, Log(f"attempt {state.tries + 1} in {delay:.2f} s ({reason})", error, delay)


def _send(state: CallState[W, R], now: Now) -> tuple[CallState[W, R], Action[W, R]]:
    """Make another attempt now, unless what allowed it has changed since."""
    doubt = state.unclear
    if now.stopped:
        return state, Finish(error=state.error)
    if doubt is not None and not (doubt.is_denied or state.rules.is_read_only or _is_deduplicated(state, now)):
        # The provider forgets ids, and another call may have found that ids are stripped: it may act twice.
        return state, Finish(error=doubt.error)
    return attrs.evolve(state, phase="attempt"), Send()


def _doubt(state: CallState[W, R]) -> Doubt:
    assert state.doubt is not None  # noqa: S101 - only a call in doubt is settled
    return state.doubt


def _in_time(state: CallState[W, R], now: Now, delay: float) -> bool:
    """Whether a request after so many seconds would start in time."""
    return now.monotonic + delay <= state.rules.latest_start


def _may_start(state: CallState[W, R], now: Now, delay: float) -> bool:
    """Whether a request may start after so many seconds."""
    return not now.stopped and _in_time(state, now, delay)

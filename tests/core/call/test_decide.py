"""The decisions of a call, event by event. `tests/proof` explores all sequences of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from tenacity import RetryCallState

from dispatchkit import NotSentError, OutcomeUnknownError, RejectedError, RetryPolicy, ThrottledError
from dispatchkit.core.call.call_state import (
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
    Rules,
    Send,
    Start,
    Succeeded,
    TakenOver,
    Wait,
    Waited,
)
from dispatchkit.core.call.decide import decide
from dispatchkit.core.call.provider_time import MAX_OFFSET
from dispatchkit.core.command import Evidence, Settlement
from dispatchkit.core.command import Probe as StateProbe

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PROBE: StateProbe[Any, Any] = StateProbe(None, lambda _: None)  # type: ignore[arg-type, return-value]
UNSENT = NotSentError("connection refused")
LOST = OutcomeUnknownError("reset")
THROTTLED = ThrottledError("slow down", code=None, retry_after=3.0)
REFUSED = RejectedError("no", status=403, code=None)
FOREVER = timedelta(days=365)


def start(at: float = 0.0) -> Start:
    return Start(NOON + timedelta(seconds=at), at)


def now(at: float = 0.0, **more: Any) -> Now:
    return Now(monotonic=at, wall=NOON + timedelta(seconds=at), **{"random": 1.0, **more})


def rules(*, remembered: timedelta = timedelta(0), **more: Any) -> Rules[Any, Any]:
    settings: dict[str, Any] = {"policy": RetryPolicy(), "latest_start": 200.0, "probe": lambda _: PROBE}
    return Rules(**{**settings, "deduplicated": lambda age: age < remembered, **more})


def state(**more: Any) -> CallState[Any, Any]:
    return CallState(rules=rules(**more))


def failed(error: Any, at: float = 0.0, **more: Any) -> Failed:
    return Failed(now(at, **more), error, start(at))


def denied(evidence: Evidence, at: float) -> Observed[Any]:
    return Observed(now(at), Settlement(evidence, "it is absent"), at)


def play(
    before: CallState[Any, Any], *events: Event[Any]
) -> tuple[CallState[Any, Any], Action[Any, Any], list[Action[Any, Any]]]:
    """Apply events, each log at once. Returns the state, the last action and all actions."""
    actions: list[Action[Any, Any]] = []
    script: Iterator[Event[Any]] = iter(events)
    for event in script:
        assert not actions or not isinstance(actions[-1], Finish), "an event after the end of the call"
        before, action = decide(before, event)
        actions.append(action)
        while isinstance(action, Log):
            before, action = decide(before, Logged(event.now))
            actions.append(action)
    return before, actions[-1], actions


def test_a_result_finishes_the_call() -> None:
    before = state()
    assert decide(before, Succeeded(now(), 1)) == (before, Finish(result=1))


def test_attempts_go_on_until_result() -> None:
    _, last, actions = play(
        state(),
        failed(UNSENT),
        Waited(now(1), has_token=True),
        failed(THROTTLED, 2),
        Waited(now(9)),
        Succeeded(now(), 1),
    )
    assert last == Finish(result=1)
    assert [action for action in actions if isinstance(action, Wait)] == [
        Wait(0.5, for_token=True),
        Wait(3.0 + 4.0, for_token=True),
    ]
    assert [action.text for action in actions if isinstance(action, Log)] == [
        "attempt 2 in 0.50 s (not_sent)",
        "attempt 3 in 7.00 s (throttled)",
    ]


def test_refusal_without_doubt_is_final() -> None:
    assert play(state(), failed(UNSENT), Waited(now(1)), failed(REFUSED))[1] == Finish(error=REFUSED)


def test_attempts_run_out() -> None:
    before = state(policy=RetryPolicy(attempts=3))
    _, last, actions = play(before, failed(UNSENT), Waited(now()), failed(UNSENT), Waited(now()), failed(THROTTLED))
    assert last == Finish(error=THROTTLED)
    assert actions.count(Send()) == 2


@pytest.mark.parametrize(("latest", "waits"), [(0.5, True), (0.49, False)])
def test_wait_ends_before_latest_start(latest: float, waits: bool) -> None:
    assert isinstance(play(state(latest_start=latest), failed(UNSENT))[1], Wait if waits else Finish)


def test_excluded_reasons_are_not_retried() -> None:
    assert play(state(policy=RetryPolicy(retry_on={"throttled"})), failed(UNSENT))[1] == Finish(error=UNSENT)


def test_retry_needs_budget_token() -> None:
    assert play(state(), failed(UNSENT), NoToken(now(9)))[1] == Finish(error=UNSENT)


def test_stop_during_wait_ends_call() -> None:
    assert play(state(), failed(UNSENT), Waited(now(0.1, stopped=True)))[1] == Finish(error=UNSENT)
    assert play(state(), failed(UNSENT, stopped=True))[1] == Finish(error=UNSENT)


def test_late_attempt_keeps_doubt() -> None:
    assert play(state(), failed(THROTTLED), Waited(now(9)), Late(now(9), "late"))[1] == Finish(error=THROTTLED)
    _, last, _ = play(state(), Late(now(9), "late"))
    assert isinstance(last, Finish)
    assert isinstance(last.error, NotSentError)


def test_expired_claim_is_no_attempt() -> None:
    before, last, _ = play(state(), Expired(now(1)))
    assert last == Send()
    assert (before.tries, before.doubt) == (1, None)


def began_of(state: CallState[Any, Any]) -> Start | None:
    return None if state.doubt is None else state.doubt.began


def test_partly_sent_is_unknown() -> None:
    before, last, _ = play(state(policy=RetryPolicy(attempts=1)), Expired(now(1), start(0)), failed(UNSENT, 2))
    assert isinstance(last, Finish)
    assert isinstance(last.error, OutcomeUnknownError)
    assert (began_of(before), before.unclear) == (start(0), None)
    _, last, _ = play(state(), Expired(now(1), start(0)), Expired(now(2), start(1)), Late(now(200), "late"))
    assert isinstance(last, Finish)
    assert isinstance(last.error, OutcomeUnknownError)
    before, _, _ = play(state(), Expired(now(1), start(0)), failed(LOST, 2))
    assert (began_of(before), before.unclear) == (start(0), before.doubt)


def test_phase_names_next_step() -> None:
    before, _, _ = play(state(), failed(UNSENT))
    assert before.phase == "retry"
    before, _, _ = play(before, Waited(now(1)))
    assert before.phase == "attempt"
    before, _, _ = play(before, failed(LOST, 2))
    assert before.phase == "settle"
    before, _, _ = play(before, Waited(now(3), has_token=True), denied(Evidence.ABSENT, 99))
    assert before.phase == "settled"


def test_first_partly_sent_request_counts() -> None:
    for later in (start(2), None):
        before, _, _ = play(state(), Expired(now(1), start(0)), Expired(now(3), later))
        assert began_of(before) == start(0)


def test_throttling_outranks_partly_sent() -> None:
    before = state(policy=RetryPolicy(attempts=1))
    assert play(before, Expired(now(1), start(0)), failed(THROTTLED, 2))[1] == Finish(error=THROTTLED)


def test_state_read_costs_a_token() -> None:
    _, last, _ = play(state(), failed(LOST))
    assert last == Wait(for_token=True)
    taken_over = attrs.evolve(state(), doubt=Doubt(LOST, start(), 0.0))
    assert isinstance(play(taken_over, TakenOver(now(1)))[1], Probe)


def test_evidence_counts_after_the_lag() -> None:
    early = play(state(), failed(LOST), Waited(now(1), has_token=True), denied(Evidence.NOT_APPLIED, 59))
    assert early[1] == Wait(0.5)
    late, last, _ = play(state(), failed(LOST), Waited(now(1), has_token=True), denied(Evidence.NOT_APPLIED, 60))
    assert last == Wait(0.5, for_token=True)
    assert late.doubt is not None
    assert late.doubt.is_denied


def test_absent_effect_allows_no_retry() -> None:
    _, last, _ = play(state(), failed(LOST), Waited(now(1), has_token=True), denied(Evidence.ABSENT, 60))
    assert isinstance(last, Finish)
    assert isinstance(last.error, OutcomeUnknownError)


def test_earlier_process_may_still_act() -> None:
    """An unclear retry must not shorten the time for which the first attempt may act."""
    inherited = Doubt(LOST, start(-10), 75.0)
    before = attrs.evolve(state(remembered=FOREVER), doubt=inherited)
    before, last, _ = play(before, TakenOver(now(1)), denied(Evidence.INCONCLUSIVE, 1))
    assert last == Send()
    before, _, _ = play(before, failed(LOST, 2))
    assert before.doubt is not None
    assert before.doubt.acting_until == 75.0
    before, last, _ = play(attrs.evolve(before, doubt=inherited), failed(REFUSED, 3), Waited(now(4), has_token=True))
    assert isinstance(last, Probe)
    assert last.believed_from == 75.0 + 60.0


def test_unclear_retry_may_act_too() -> None:
    before, _, _ = play(state(), failed(LOST), Waited(now(1), has_token=True), denied(Evidence.NOT_APPLIED, 60))
    before, last, _ = play(before, Waited(now(61), has_token=True), failed(LOST, 62), Waited(now(62), has_token=True))
    assert isinstance(last, Probe)
    assert last.believed_from == 62.0 + 60.0


@pytest.mark.parametrize(("slept", "leaves"), [(18.0, True), (19.0, False)])
def test_set_back_clock_ages_id(slept: float, leaves: bool) -> None:
    """An id is as old as the clock says that advanced more. Sleep of the machine counts."""
    before = state(remembered=timedelta(seconds=30), in_log=True)
    before, last, _ = play(before, failed(THROTTLED), Waited(now(5)), failed(LOST, 6))
    assert isinstance(last, Wait)
    back = Now(monotonic=11.0, wall=NOON - timedelta(hours=2), slept=slept)
    assert isinstance(decide(before, Waited(back))[1], Send if leaves else Finish)


def test_inherited_id_ages_while_asleep() -> None:
    doubt = Doubt(LOST, attrs.evolve(start(-10), slept=100.0), 0.0)
    before = attrs.evolve(state(remembered=timedelta(seconds=30), in_log=True), doubt=doubt)
    for slept, leaves in ((100.0, True), (118.0, True), (119.0, False)):
        surroundings = Now(monotonic=1.0, wall=NOON - timedelta(hours=2), slept=slept)
        assert isinstance(play(before, TakenOver(surroundings))[1], Send if leaves else Probe)


def test_deduplication_is_checked_when_leaving() -> None:
    before = state(remembered=timedelta(seconds=30), in_log=True)
    before, last, _ = play(before, failed(LOST))
    assert last == Wait(0.5, for_token=True)
    assert decide(before, Waited(now(29)))[1] == Send()
    assert decide(before, Waited(now(31)))[1] == Finish(error=LOST)
    assert decide(before, Waited(now(1, strips_ids=True)))[1] == Finish(error=LOST)


def test_pause_postpones_a_state_read() -> None:
    waits = Waited(now(1, paused=7.0), has_token=True)
    assert play(state(), failed(LOST), waits)[1] == Wait(7.0)
    beyond = Waited(now(1, paused=500.0, pause="the account is paused"), has_token=True)
    _, last, _ = play(state(), failed(LOST), beyond)
    assert isinstance(last, Finish)
    assert "the account is paused" in str(last.error)


def raises(_: RetryCallState) -> float:
    raise KeyError("mine")


@pytest.mark.parametrize(
    ("before", "events"),
    [
        (state(), [failed(LOST), Waited(now(1), has_token=True), denied(Evidence.ABSENT, 60)]),
        (state(), [failed(LOST), Waited(now(1), has_token=True), denied(Evidence.NOT_APPLIED, 60)]),
        (state(remembered=FOREVER, in_log=True), [failed(LOST), Waited(now(1)), failed(UNSENT, 2)]),
        (state(), [Expired(now(1), start(0)), Late(now(9), "late")]),
        (state(policy=RetryPolicy(throttled_wait=raises)), [failed(THROTTLED)]),
    ],
)
def test_same_events_decide_alike(before: CallState[Any, Any], events: list[Event[Any]]) -> None:
    assert play(before, *events) == play(before, *events)
    assert hash(play(before, *events)[1]) == hash(play(before, *events)[1])


def test_different_errors_differ() -> None:
    assert Finish[None](error=LOST) == Finish(error=OutcomeUnknownError("reset"))
    assert Finish[None](error=LOST) != Finish(error=OutcomeUnknownError("no answer"))
    assert Finish[None](error=LOST) != Finish(error=OutcomeUnknownError("reset", is_final=True))
    assert Finish[None](error=THROTTLED) != Finish(error=ThrottledError("slow down", code=None, retry_after=4.0))
    assert Finish[None](error=UNSENT, cause=KeyError(1)) != Finish(error=UNSENT, cause=KeyError(2))
    assert Finish[None](error=UNSENT) != Finish()
    assert failed(LOST) == failed(OutcomeUnknownError("reset"))


def test_state_and_actions_are_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        state().tries = 2  # type: ignore[misc]


@pytest.mark.parametrize(("at", "wait"), [(199.5, 0.5), (199.98, 0.02), (199.995, None)])
def test_last_read_before_deadline(at: float, wait: float | None) -> None:
    inconclusive = denied(Evidence.INCONCLUSIVE, at)
    _, last, _ = play(state(), failed(LOST), Waited(now(1), has_token=True), inconclusive)
    if wait is None:
        assert isinstance(last, Finish)
        assert "the deadline left no time to ask again" in str(last.error)
    else:
        assert isinstance(last, Wait)
        assert last.seconds == pytest.approx(wait)


@pytest.mark.parametrize(("left", "is_read"), [(0.01, True), (0.0099, False)])
def test_last_read_takes_time(left: float, is_read: bool) -> None:
    before = state(latest_start=left)
    _, last, _ = play(before, failed(LOST), Waited(now(), has_token=True), denied(Evidence.INCONCLUSIVE, 0.0))
    assert last == Wait(left) if is_read else isinstance(last, Finish)


def test_unclear_read_is_simply_retried() -> None:
    before = state(is_read_only=True)
    _, last, actions = play(before, failed(LOST))
    assert last == Wait(0.5, for_token=True)
    assert not any(isinstance(action, Log) and "settling" in action.text for action in actions)
    assert play(before, failed(LOST), Waited(now(1)), failed(REFUSED))[1] == Finish(error=REFUSED)
    last = play(before, failed(LOST), Waited(now(1)), failed(THROTTLED), NoToken(now(9)))[1]
    assert last == Finish(error=THROTTLED)
    last = play(before, failed(LOST), Waited(now(1)), failed(UNSENT), NoToken(now(9)))[1]
    assert isinstance(last, Finish)
    assert isinstance(last.error, OutcomeUnknownError)


def test_id_ages_from_first_attempt() -> None:
    before = state(remembered=timedelta(seconds=30), in_log=True)
    before, last, _ = play(before, failed(THROTTLED), Waited(now(5)), failed(LOST, 20))
    assert isinstance(last, Wait)
    assert decide(before, Waited(now(29)))[1] == Send()
    assert decide(before, Waited(now(31)))[1] == Finish(error=LOST)


def test_command_without_state_stays_unknown() -> None:
    _, last, actions = play(state(probe=lambda _: None), failed(LOST))
    assert isinstance(last, Finish)
    assert "the provider has no state that shows it" in str(last.error)
    assert not any(isinstance(action, Probe | Wait) for action in actions)


def test_settling_begins_with_short_waits() -> None:
    before = state(remembered=FOREVER)
    inconclusive = denied(Evidence.INCONCLUSIVE, 1)
    before, last, _ = play(before, failed(LOST), Waited(now(1), has_token=True), inconclusive, Waited(now(2)))
    assert last == Send()
    assert before.probes == 1
    before, _, _ = play(before, failed(LOST, 3))
    assert before.probes == 0
    assert not before.reads_once
    assert before.settlement.detail == "its state was not read"
    before, last, _ = play(before, Waited(now(4), has_token=True), denied(Evidence.INCONCLUSIVE, 4))
    assert last == Wait(0.5)
    before, last, _ = play(attrs.evolve(before, phase="attempt", probes=5), failed(REFUSED, 5))
    assert before.probes == 0
    assert before.settlement.detail == "its state was not read"


def test_refused_retry_is_read_again() -> None:
    before = state(remembered=FOREVER)
    before, _, _ = play(before, failed(LOST), Waited(now(1), has_token=True), denied(Evidence.NOT_APPLIED, 1))
    assert before.reads_once
    refused: list[Event[Any]] = [Waited(now(2)), failed(REFUSED, 3), Waited(now(3), has_token=True)]
    before, last, _ = play(before, *refused, denied(Evidence.NOT_APPLIED, 4))
    assert last == Wait(0.5)
    assert play(before, Waited(now(62), has_token=True), denied(Evidence.NOT_APPLIED, 63))[1] == Finish(error=REFUSED)
    applied = Observed(now(5), Settlement(Evidence.APPLIED, "it runs", "a result"), 5)
    assert play(before, Waited(now(5), has_token=True), applied)[1] == Finish(result="a result")


def test_stop_ends_the_settling() -> None:
    _, last, _ = play(state(), failed(LOST), Waited(now(1, stopped=True)))
    assert isinstance(last, Finish)
    assert "its state was not read, and it was told to stop" in str(last.error)


@pytest.mark.parametrize(("lag", "tolerance"), [(0.0, MAX_OFFSET.total_seconds()), (60.0, 60.0)])
def test_rival_launch_leaves_final_unknown(lag: float, tolerance: float) -> None:
    before = state(in_log=True, policy=RetryPolicy(state_lag=lag))
    _, last, _ = play(before, failed(LOST, other_launch_ended=-tolerance))
    assert isinstance(last, Finish)
    assert isinstance(last.error, OutcomeUnknownError)
    assert last.error.is_final
    assert isinstance(play(before, failed(LOST, other_launch_ended=-tolerance - 0.1))[1], Wait)
    assert isinstance(play(state(), failed(LOST, other_launch_ended=0.0))[1], Wait)


def test_early_denial_still_needs_deduplication() -> None:
    before = state(remembered=FOREVER, policy=RetryPolicy(attempts=2))
    before, last, _ = play(before, failed(LOST), Waited(now(1), has_token=True), denied(Evidence.NOT_APPLIED, 1))
    assert isinstance(last, Wait)
    assert decide(before, Waited(now(2)))[1] == Send()
    assert before.doubt is not None
    assert decide(before, Waited(now(2, strips_ids=True)))[1] == Finish(error=before.doubt.error)


def test_final_denial_needs_no_deduplication() -> None:
    never = denied(Evidence.NEVER_APPLIED, 1)
    before, _, _ = play(state(remembered=FOREVER), failed(LOST), Waited(now(1), has_token=True), never)
    assert decide(before, Waited(now(2, strips_ids=True)))[1] == Send()


def test_old_response_delays_next_read() -> None:
    old = Observed[Any](now(61), Settlement(Evidence.NOT_APPLIED, "it is absent"), 61, 1.05)
    assert play(state(), failed(LOST), Waited(now(1), has_token=True), old)[1] == Wait(0.25)


def test_undated_throttling_follows_policy() -> None:
    assert play(state(), failed(ThrottledError("slow down", code=None)))[1] == Wait(2.0, for_token=True)


def test_takeover_may_send_late() -> None:
    before = attrs.evolve(state(latest_start=100.0), doubt=Doubt(LOST, start(-10), 0.0))
    assert play(before, TakenOver(now(1)), denied(Evidence.NOT_APPLIED, 100))[1] == Send()
    assert isinstance(play(before, TakenOver(now(1)), denied(Evidence.NOT_APPLIED, 100.1))[1], Finish)


@pytest.mark.parametrize("in_log", [True, False])
def test_inherited_retries_end_launches_only(in_log: bool) -> None:
    """A launch that was retried without a seen replay may have launched twice."""
    before = attrs.evolve(state(remembered=FOREVER, in_log=in_log, repeats=1), doubt=Doubt(LOST, start(-10), 0.0))
    assert isinstance(play(before, TakenOver(now(1)))[1], Finish if in_log else Probe)
    assert isinstance(play(before, TakenOver(now(1, honours_ids=True)))[1], Send if in_log else Probe)
    if not in_log:
        assert play(before, TakenOver(now(1)), denied(Evidence.INCONCLUSIVE, 1))[1] == Send()


@pytest.mark.parametrize("repeats", [0, 1])
def test_inherited_launch_is_retried_once(repeats: int) -> None:
    before = attrs.evolve(state(remembered=FOREVER, in_log=True, repeats=repeats), doubt=Doubt(LOST, start(-10), 0.0))
    assert isinstance(play(before, TakenOver(now(1)))[1], Finish if repeats else Send)


def test_unclear_retry_is_final() -> None:
    before = state(remembered=FOREVER, in_log=True)
    assert ended_finally(before, failed(LOST), Waited(now(1)), failed(LOST, 2))
    assert not ended_finally(before, failed(LOST), Waited(now(1)), failed(REFUSED, 2))
    assert not ended_finally(before, failed(LOST), NoToken(now(9)))
    final = OutcomeUnknownError("stripped", is_final=True)
    assert ended_finally(before, failed(final), Waited(now(1)), failed(REFUSED, 2))


def ended_finally(before: CallState[Any, Any], *events: Event[Any]) -> bool:
    """Whether a call ends in an unknown outcome that nothing can settle."""
    _, last, _ = play(before, *events)
    assert isinstance(last, Finish)
    assert isinstance(last.error, OutcomeUnknownError)
    return last.error.is_final


@pytest.mark.parametrize(
    ("policy", "retries"),
    [
        (RetryPolicy(attempts=2), True),
        (RetryPolicy(attempts=1), False),
        (RetryPolicy(repeat_unclear=False), False),
        (RetryPolicy(retry_on={"not_sent", "throttled"}), False),
    ],
)
def test_launch_without_retry_is_read(policy: RetryPolicy, retries: bool) -> None:
    """The log is read unless a retry under the same id may follow."""
    before = state(remembered=FOREVER, in_log=True, policy=policy)
    before, last, _ = play(before, failed(LOST))
    assert last == Wait(0.5 if retries else 0.0, for_token=True)
    assert isinstance(decide(before, Waited(now(1), has_token=True))[1], Send if retries else Probe)


def test_next_read_outlasts_old_response() -> None:
    before, _, _ = play(state(), failed(LOST), Waited(now(1), has_token=True))
    old = Observed[Any](now(61), Settlement(Evidence.NOT_APPLIED, "it is absent"), 61, 3.0)
    assert play(attrs.evolve(before, probes=5), old)[1] == Wait(60 + 3.0 - 61)


def test_strategy_sees_time_and_error() -> None:
    seen: list[tuple[float | None, object]] = []

    def strategy(call: RetryCallState) -> float:
        seen.append((call.seconds_since_start, call.outcome and call.outcome.exception()))
        return 1.0

    policy = RetryPolicy(wait=strategy, throttled_wait=strategy)
    play(state(policy=policy, started=10.0), failed(UNSENT, 25), Waited(now(26)), failed(THROTTLED, 27))
    assert seen == [(15.0, UNSENT), (17.0, THROTTLED)]
    read = denied(Evidence.INCONCLUSIVE, 29)
    play(state(policy=policy, started=10.0), failed(LOST, 28), Waited(now(29), has_token=True), read)
    assert seen[2:] == [(19.0, LOST)]


def test_strategy_sees_latest_attempt() -> None:
    seen: list[tuple[object, float]] = []

    def strategy(call: RetryCallState) -> float:
        seen.append((call.outcome and call.outcome.exception(), call.idle_for))
        return 1.0

    before = state(policy=RetryPolicy(wait=strategy, throttled_wait=strategy))
    read = denied(Evidence.NOT_APPLIED, 60)
    before, _, _ = play(before, failed(LOST), Waited(now(1), has_token=True), read, Waited(now(61)))
    before, last, _ = play(before, failed(THROTTLED, 62), Waited(now(66)), failed(UNSENT, 67))
    assert last == Wait(1.0, for_token=True)
    play(before, Waited(now(68)), failed(LOST, 69), Waited(now(70), has_token=True), denied(Evidence.INCONCLUSIVE, 70))
    assert seen == [(LOST, 0.0), (THROTTLED, 1.0), (UNSENT, 5.0), (LOST, 6.0)]
    before = state(remembered=FOREVER, policy=RetryPolicy(wait=strategy))
    before, _, _ = play(before, failed(LOST), Waited(now(1), has_token=True), denied(Evidence.NOT_APPLIED, 1))
    play(before, Waited(now(2)), failed(REFUSED, 3), Waited(now(3), has_token=True), denied(Evidence.NOT_APPLIED, 4))
    assert seen[4:] == [(LOST, 0.0), (REFUSED, 1.0)]


def test_strategy_sees_inherited_doubt() -> None:
    seen: list[object] = []

    def strategy(call: RetryCallState) -> float:
        seen.append(call.outcome and call.outcome.exception())
        return 1.0

    before = attrs.evolve(state(policy=RetryPolicy(wait=strategy)), doubt=Doubt(LOST, start(-10), 0.0))
    play(before, TakenOver(now(1)), denied(Evidence.INCONCLUSIVE, 1))
    assert seen == [LOST]

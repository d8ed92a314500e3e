"""One attempt: permit, claim, time limit, write, response, classification, record.

Single calls, repeats and the workers of a fan-out all use `attempt`, with a ledger and without.
"""

from __future__ import annotations

import logging
from typing import TypeVar

from dispatchkit.core.call.call_state import AttemptEvent, Expired, Failed, Late, Start
from dispatchkit.core.call.classify import classify, pause_after, paused_by
from dispatchkit.core.call.flight import Flight
from dispatchkit.core.call.gate import Permit
from dispatchkit.core.command import Response
from dispatchkit.core.transport.transport import SendTracker, TransportFailure
from dispatchkit.errors import DispatchkitError, OutcomeUnknownError, RejectedError

__all__ = ["attempt"]

R = TypeVar("R")
W = TypeVar("W")


async def attempt(flight: Flight[W, R], permit: Permit = 0) -> R | AttemptEvent:
    """Make one attempt.

    If it raises, `Flight.tracker` and `Flight.permit` tell what was in flight.

    Args:
        flight: The command on its way.
        permit: The permit of its gate, if the flight has one already.

    Returns:
        The result, or how the attempt ended without one.
    """
    context, gate = flight.context, flight.gate
    clock = context.clock
    permit = permit or await gate.acquire(flight.latest_start)
    if not permit:
        return Late(flight.now(), flight.obstacle())
    flight.permit = permit
    flight.began, flight.started = began, started = clock.now(), clock.monotonic()
    flight.tracker = tracker = SendTracker(gate.claim, gate.renew)
    limit = flight.deadline - started
    if limit > context.attempt_timeout:  # noqa: PLR1730 - a call of `min` costs more
        limit = context.attempt_timeout
    reply = await context.transport.send(flight.request, tracker, timeout=limit)
    if isinstance(reply, Response):
        elapsed = clock.monotonic() - started
        flight.record("HTTP 200" if reply.status == 200 else f"HTTP {reply.status}", elapsed, sent=True)
        if not flight.command.is_read_only:
            context.freshness.acted = reply.headers, began, started, elapsed
    elif reply.claim_expired:
        gate.expired()
        flight.permit, flight.tracker = 0, None
        context.pacer.cancel(permit)
        now = flight.now()
        return Expired(now, Start(began, started, now.slept) if reply.sent else None)
    else:
        elapsed = clock.monotonic() - started
        flight.record(reply.what, elapsed, sent=reply.sent)
    if tracker.claim is not None:
        gate.used()
    result = classify(flight.command, reply, context.wire, clock)
    if context.observers is not None:  # else the call to a method would cost more than this comparison
        flight.note_attempt(reply, result if isinstance(result, DispatchkitError) else None)
    flight.permit = 0
    if isinstance(result, DispatchkitError):
        return _failed(flight, permit, result, reply, elapsed)
    flight.answered_at = started + elapsed
    context.pacer.release(permit, answered=True, elapsed=elapsed)
    if flight.request_id is None:
        return result
    checked: R | Failed = _check(flight, result)
    return checked


def _failed(
    flight: Flight[W, R],
    permit: Permit,
    error: DispatchkitError,
    reply: Response | TransportFailure,
    elapsed: float,
) -> Failed:
    context = flight.context
    error = error.with_context(flight.command, flight.attempts, flight.request_id)  # a wait strategy sees it
    answered = isinstance(error, RejectedError)
    if answered:
        flight.answered_at = flight.started + elapsed
    context.pacer.release(
        permit,
        # An attempt that the close of its own client ends counts as cancelled.
        answered=None if isinstance(reply, TransportFailure) and reply.client_closed else answered,
        elapsed=elapsed,
        pause=pause_after(error, reply, policy=flight.policy, now=context.clock.now),
        grows=isinstance(error, RejectedError) and error.concerns_target,
        by=paused_by(reply),
    )
    now = flight.now()
    return Failed(now, error, Start(flight.began, flight.started, now.slept))


def _check(flight: Flight[W, R], result: R) -> R | Failed:
    """Check whether a result may be the replayed answer to another request."""
    command, replays = flight.command, flight.context.replays
    is_replay = command.is_replay(result)
    # Refused and unsent attempts did nothing, so no success can be a replay of their answers.
    answers_another = is_replay and not flight.in_doubt and not flight.id_is_known
    replays.foreign = replays.foreign or answers_another
    if is_replay and replays.foreign:
        which = "this is" if answers_another else "it may be"
        text = f"{which} the answer to another request: a proxy on the way strips request ids"
        # Final for a launch: a later process knows the id and would trust the replay.
        error = OutcomeUnknownError(
            text,
            is_final=flight.log_key is not None,
            command=command,
            attempts=flight.attempts,
            request_id=flight.request_id,
        )
        now = flight.now()
        return Failed(now, error, Start(flight.began, flight.started, now.slept), answers_another=answers_another)
    if flight.log_key is None or (flight.state is None and not is_replay):
        return result
    if is_replay:
        replays.honoured = True
    elif flight.in_doubt:
        text = "the provider accepted the retry of an unclear launch and did not mark it as a replay"
        flight.log(logging.WARNING, f"{text}: it may have launched twice", kind="repeated")
        return command.as_repeated(result)
    return result

"""Attempts with the token of a callable. A token that is plain text needs only `attempt`.

A call takes the latest token before its first request. A refused request did nothing. So the callable is asked once
more, and a call makes one more attempt if the token is another one. A request that may have acted must stay as it is:
a call in doubt changes no token.
"""

from __future__ import annotations

import contextlib
import uuid
from typing import TypeVar

from dispatchkit.core.call.attempt import attempt
from dispatchkit.core.call.call_state import AttemptEvent, Failed, Late
from dispatchkit.core.call.flight import Flight
from dispatchkit.core.call.gate import Permit
from dispatchkit.errors import AuthenticationError

__all__ = ["attempt_with_token"]

R = TypeVar("R")
W = TypeVar("W")


async def attempt_with_token(flight: Flight[W, R], permit: Permit = 0) -> R | AttemptEvent:
    """Make one attempt with the latest token, and one more if the provider refuses it and the callable gives another.

    The refusal stands if the callable gives the same token or none, or if no attempt can start in time.

    Args:
        flight: The command on its way.
        permit: The permit of its gate, if the flight has one already.
    """
    flight.context.keeps_pacer = True
    if _may_change(flight) and flight.first_sent is None:
        permit = permit or await flight.gate.acquire(flight.latest_start)
        if not permit or not await _take_latest(flight, permit):
            return Late(flight.now(), flight.obstacle())
    attempted = await attempt(flight, permit)
    if not isinstance(attempted, Failed) or not isinstance(attempted.error, AuthenticationError):
        return attempted
    if not _may_change(flight) or not await _renew(flight, attempted.error):
        return attempted
    another = await attempt(flight)
    return attempted if isinstance(another, Late) else another


def _may_change(flight: Flight[W, R]) -> bool:
    """Whether no request that may have acted has left, and the token was not renewed before."""
    return (flight.state is None or flight.state.doubt is None) and flight.refusal is None


async def _take_latest(flight: Flight[W, R], permit: Permit) -> bool:
    """Use the token of a renewal that is under way, or that has ended since the request was built.

    Returns:
        Whether the attempt may start. Otherwise, the permit is returned.
    """
    context, secret = flight.context, flight.context.secret
    flight.permit = permit
    if context.renewal.is_under_way:
        # A failure is no matter: the provider then refuses the earlier token.
        with flight.stop.interruptible(context.stop), contextlib.suppress(Exception):
            await context.have_token(_time_left(flight), again=True)
        if flight.is_over:
            flight.permit = 0
            context.pacer.cancel(permit)
            return False
    if flight.generation != secret.generation:
        flight.request = flight.build_request(flight.request_id)
        flight.generation = secret.generation
    return True


async def _renew(flight: Flight[W, R], refusal: AuthenticationError) -> bool:
    """Give the flight a request with another token; False if there is none.

    The request has an id of its own: the provider may remember the refusal under the earlier one.
    """
    context, request_id = flight.context, flight.request_id
    flight.refusal, flight.is_unjudged = refusal, False
    try:
        request = flight.build_request(request_id)
        if request == flight.request:  # else another call has renewed it already
            with flight.stop.interruptible():
                await context.have_token(_time_left(flight), again=True)
            request = flight.build_request(request_id)
        if request == flight.request or flight.is_over:
            return False
        if request_id is not None:
            request_id = str(uuid.uuid4())
            request = flight.build_request(request_id)
    except Exception:  # noqa: BLE001 - a token callable may raise anything, and the refusal is the outcome
        return False
    if request_id != flight.request_id:
        flight.request_id, flight.id_is_known = request_id, False
    flight.request, flight.generation = request, context.secret.generation
    return True


def _time_left(flight: Flight[W, R]) -> float:
    return max(0.0, flight.latest_start - flight.context.clock.monotonic())

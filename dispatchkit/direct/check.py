"""Checks of dispatches before a start: ``GET /api/v1/dispatch?dispatch_id=``, one a dispatch."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import cast

from dispatchkit.core.call.client import Client
from dispatchkit.core.fanout.check import LaunchCheck, Objection, unread_check
from dispatchkit.core.fanout.reads import read_all
from dispatchkit.direct.commands import STATUSES, DirectAuth, ReadDispatch
from dispatchkit.direct.models import Dispatch

__all__ = ["check_dispatch", "iterate_checks"]

_READY = "initiated"
_FINAL = {"done": Objection.FINISHED, "stopped": Objection.STOPPED}


def check_dispatch(dispatch: Dispatch) -> LaunchCheck:
    """What the state of a dispatch says for and against its start."""
    objections: list[Objection] = []
    if dispatch.status not in STATUSES:
        objections.append(Objection.UNKNOWN_STATUS)
    elif dispatch.status != _READY:
        objections.append(_FINAL.get(dispatch.status, Objection.STARTED))
    recipients = None if dispatch.messages is None else dispatch.messages.total
    if recipients == 0:
        objections.append(Objection.NO_RECIPIENTS)
    return LaunchCheck(
        target=dispatch.dispatch_id,
        name=dispatch.dispatch_name,
        status=dispatch.status,
        recipients=recipients,
        objections=tuple(objections),
    )


async def iterate_checks(
    client: Client[DirectAuth], ids: Iterable[int], *, timeout: float | None = None
) -> AsyncGenerator[tuple[int, LaunchCheck]]:
    """The place of each dispatch in the list, and its check, in the order of completion.

    Args:
        client: Reads.
        ids: The dispatches. They are taken one by one, and no more than are being read is kept.
        timeout: Seconds for each read; None takes the client's.

    Raises:
        RejectedError: The provider refuses the token or, in its first answer, the account.
        TypeError: An id is not an integer.
        ValueError: An id is not positive.
    """
    async with aclosing(read_all(client, map(ReadDispatch, ids), timeout=timeout)) as reading:
        async for outcome in reading:
            if outcome.error is None:
                yield outcome.index, check_dispatch(outcome.result)
            else:
                yield outcome.index, unread_check(cast("int", outcome.target), outcome.error)

"""Checks of mailings before a launch: status and log of each mailing, and the counters of the audience.

The platform documents no status for a launch that is under way. A start without an end in the log is our inference.
"""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from datetime import timedelta
from itertools import chain, islice

import attrs

from dispatchkit.altcraft.base import AltcraftWire
from dispatchkit.altcraft.counters import ChannelCounters, ReadCounters
from dispatchkit.altcraft.mailings import PAGE_SIZE, ReadMailings
from dispatchkit.altcraft.models import Audience
from dispatchkit.altcraft.state import MailingState, read_states
from dispatchkit.core.call.client import Client
from dispatchkit.core.fanout.check import LaunchCheck, Objection, unread_check
from dispatchkit.errors import AuthenticationError, DispatchkitError

__all__ = ["AudienceCheck", "check_audience", "check_mailing", "iterate_checks"]

_LOOKBACK = timedelta(days=1)
"""A start of the log counts as under way for this time, if no end follows it."""
_MAX_NAMED = 1000
"""Mailings whose names are read."""
_NAMES_TIMEOUT = 10.0
"""Seconds for a page of the list."""
_MAX_PAGES = 5
"""Pages of the list that are read for the names."""
_FEW = 10
"""An audience has few recipients if less than this part of it can be sent to."""


@attrs.frozen
class AudienceCheck:
    """What the counters of an audience say of a launch."""

    recipients: int | None = None
    objections: tuple[Objection, ...] = ()
    unread: str | None = None


def check_audience(channels: Sequence[ChannelCounters]) -> AudienceCheck:
    """Judge the counters. The channel of a mailing is not known here, so the largest one counts."""
    counted = [each.status for each in channels if each.status.subscribed_sendable is not None]
    if not counted:
        return AudienceCheck()
    largest = max(counted, key=lambda counts: counts.subscribed_sendable or 0)
    recipients = largest.subscribed_sendable or 0
    if not recipients:
        return AudienceCheck(0, (Objection.NO_RECIPIENTS,))
    is_small = largest.all is not None and recipients * _FEW < largest.all
    return AudienceCheck(recipients, (Objection.FEW_RECIPIENTS,) if is_small else ())


def check_mailing(
    state: MailingState, audience: AudienceCheck | None = None, *, activates: bool = False, name: str | None = None
) -> LaunchCheck:
    """What the state of a mailing and its audience say for and against a launch.

    Args:
        state: The state.
        audience: The audience of this launch; None is the mailing's own, which is not counted.
        activates: Whether the launch activates the mailing itself.
        name: The mailing's name, if it is known.
    """
    status, log = state.status, state.log
    if state.error is not None or status is None or log is None:
        return attrs.evolve(unread_check(state.mailing_id, state.error or DispatchkitError("no answer")), name=name)
    objections: list[Objection] = []
    if not (status.is_active or activates):
        objections.append(Objection.INACTIVE)
    if not log.missing and sum({"start": 1, "end": -1}.get(entry.state, 0) for entry in log) > 0:
        objections.append(Objection.STARTED)
    elif status.is_completed and audience is None:  # a mailing is often launched for one audience after another
        objections.append(Objection.FINISHED)
    counted = AudienceCheck() if audience is None else audience
    return LaunchCheck(
        target=state.mailing_id,
        name=name,
        status=status.status or ("active" if status.is_active else "not active"),
        recipients=counted.recipients,
        is_estimate=counted.recipients is not None,
        objections=(*objections, *counted.objections),
        unread=counted.unread,
    )


async def iterate_checks(
    client: Client[AltcraftWire],
    ids: Iterable[int],
    *,
    audience: Audience | None = None,
    resource_id: int | None = None,
    list_id: int | None = None,
    activates: bool = False,
    timeout: float | None = None,
) -> AsyncGenerator[tuple[int, LaunchCheck]]:
    """The place of each mailing in the list, and its check, in the order of completion.

    See `AltcraftClient.check`. No more than is being read is kept.
    """
    counted = None
    if audience is not None:
        counted = await _count(client, ReadCounters(audience, resource_id=resource_id, list_id=list_id), timeout)
    since, rest = client._clock.now() - _LOOKBACK, iter(ids)
    first = [*islice(rest, _MAX_NAMED)]
    names = await _names(client, first, timeout)
    async with aclosing(read_states(client, chain(first, rest), since=since, timeout=timeout)) as states:
        async for state in states:
            name = names.get(state.mailing_id)
            yield state.index, check_mailing(state, counted, activates=activates, name=name)


async def _names(client: Client[AltcraftWire], ids: Iterable[int], timeout: float | None) -> dict[int, str]:
    """The names of mailings, as the list has them. A launch needs none, so a failure only ends the search.

    Raises:
        AuthenticationError: The platform refuses the token.
    """
    names = dict[int, str]()
    within = _NAMES_TIMEOUT if timeout is None else min(_NAMES_TIMEOUT, timeout / 3)  # the states need the rest
    try:
        wanted, place = sorted({*ids}), 0
        for _ in range(_MAX_PAGES):
            if place == len(wanted):
                break
            page = await client.perform(ReadMailings(from_id=wanted[place]), timeout=within)
            names |= {each.mailing_id: each.name for each in page if each.name is not None}
            last = max((each.mailing_id for each in page), default=0)
            if len(page) < PAGE_SIZE or last < wanted[place]:  # the last page, or `from_id` is ignored
                break
            place = bisect_right(wanted, last)
    except AuthenticationError:
        raise
    except (DispatchkitError, ValueError, TypeError):  # a wrong id is refused with its state
        pass
    return names


async def _count(client: Client[AltcraftWire], command: ReadCounters, timeout: float | None) -> AudienceCheck:
    try:
        return check_audience(await client.perform(command, timeout=timeout))
    except AuthenticationError:
        raise
    except DispatchkitError as error:
        return AudienceCheck(objections=(Objection.AUDIENCE_UNREAD,), unread=error.summary)

"""Watch mailings after their launch: status and log of each, read again and again.

The platform documents no sign for the end of a launch. What counts as final here is our inference from three facts:

- the log has an end for each start;
- the mailing is completed or no longer active;
- the log was read whole.
"""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from datetime import datetime
from typing import ClassVar

import attrs

from dispatchkit.altcraft.base import AltcraftWire
from dispatchkit.altcraft.models import LogEntry, MailingStatus
from dispatchkit.altcraft.reads import ReadLog
from dispatchkit.altcraft.state import MailingState, read_states
from dispatchkit.core.call.client import Client
from dispatchkit.core.fanout.polling import Found, TargetProgress, WatchEnd, Watching, poll
from dispatchkit.core.listing import Listing
from dispatchkit.errors import DispatchkitError

__all__ = ["MailingProgress", "watch_mailings"]


@attrs.frozen(kw_only=True)
class MailingProgress(TargetProgress):
    """The state of a watched mailing at one moment.

    An end in the log is not a delivery: senders may still have a queue.

    Example:
        >>> async with Sandbox(active=[90], run_seconds=0) as sandbox:
        ...     async with AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        ...         accepted = await altcraft.launch_broadcast(90)
        ...         async for progress in altcraft.watch(90):
        ...             progress.starts, progress.ends, progress.errors, progress.is_well
        (1, 1, 0, True)
    """

    __to_dict_also__: ClassVar[tuple[str, ...]] = ("is_well",)

    is_active: bool | None = None
    """None if it was never read."""
    is_completed: bool | None = None
    status: str | None = None
    """The platform's word; the possible words are not documented."""
    starts: int = 0
    """Starts in the log. A large broadcast may have several cycles, each with a start and an end."""
    ends: int = 0
    errors: int = 0
    """Entries of the level ``ERROR``, such as messages that could not be handed over to a sender."""
    last_error: str | None = None
    """The platform's text of the latest of them."""
    log_missing: int = 0
    """Entries that the platform counts but did not list. With any, no state is final."""

    @property
    def is_well(self) -> bool:
        """Whether the launch has ended and its log has no error."""
        return self.end is WatchEnd.FINAL and not self.errors


def watch_mailings(
    client: Client[AltcraftWire], ids: Iterable[int], since: datetime | None, watching: Watching
) -> AsyncIterator[MailingProgress]:
    """See `AltcraftClient.watch`.

    Raises:
        TypeError: An id is not an integer.
        ValueError: An id is not positive, or ``since`` has no time zone.
    """
    clock = client._clock
    checked = [ReadLog(number, since).mailing_id for number in ids]

    async def read(targets: list[int], within: float | None) -> AsyncGenerator[Found[MailingProgress]]:
        async with aclosing(read_states(client, targets, since=since, within=within)) as states:
            async for state in states:
                if state.status is None or state.log is None:
                    yield state.mailing_id, state.error or DispatchkitError("no answer")
                else:
                    yield state.mailing_id, _progress(state, state.status, state.log, since, clock.now())

    return poll(dict.fromkeys(checked), read, lambda target, at: MailingProgress(target=target, at=at), watching, clock)


def _progress(
    state: MailingState, status: MailingStatus, log: Listing[LogEntry], since: datetime | None, at: datetime
) -> MailingProgress:
    starts = sum(entry.state == "start" for entry in log)
    ends = sum(entry.state == "end" for entry in log)
    errors = [entry for entry in log if entry.level.upper() == "ERROR"]
    is_over = starts <= ends and (status.is_completed is True or not status.is_active)
    # Without a start since then, the state is that of an earlier launch.
    is_final = is_over and not log.missing and (starts > 0 or since is None)
    return MailingProgress(
        target=state.mailing_id,
        at=at,
        end=WatchEnd.FINAL if is_final else None,
        is_active=status.is_active,
        is_completed=status.is_completed,
        status=status.status,
        starts=starts,
        ends=ends,
        errors=len(errors),
        last_error=max(errors, key=_when).message if errors else None,
        log_missing=log.missing,
    )


def _when(entry: LogEntry) -> str:
    """The order of entries, also if some have no time zone."""
    return entry.time.isoformat()

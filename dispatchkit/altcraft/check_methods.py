"""The methods of `AltcraftClient` around a launch: the check before it, and the watch after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime

from dispatchkit.altcraft.base import AltcraftWire
from dispatchkit.altcraft.check import iterate_checks
from dispatchkit.altcraft.models import Audience
from dispatchkit.altcraft.watch import MailingProgress, watch_mailings
from dispatchkit.core.call.client import Client
from dispatchkit.core.fanout.check import LaunchCheck
from dispatchkit.core.fanout.polling import Watching

__all__ = ["AltcraftChecks"]


class AltcraftChecks(Client[AltcraftWire]):
    """The methods of `AltcraftClient` that read many mailings: before a launch and after it."""

    async def check(
        self,
        ids: Iterable[int],
        *,
        audience: Audience | None = None,
        resource_id: int | None = None,
        list_id: int | None = None,
        activates: bool = False,
        timeout: float | None = None,
    ) -> tuple[LaunchCheck, ...]:
        """Check mailings before a launch: their status, their log of one day and, if one is given, the audience.

        It only reads, as fast as the account's pace allows. It reads ``campaigns/get_status`` and ``campaigns/log_v2``
        for each mailing, once ``databases/get_counters`` or ``segments/get_counters``, and ``campaigns/list`` for the
        names of the first 1,000. A mailing whose state cannot be read is no error: its check says so. The state may
        change between the check and the launch.

        A check is no promise of the platform. A start without an end in the log is taken for a launch under way. The
        platform counts a dynamic segment again before the launch, so the number of recipients is an estimate. It is
        ``subscribed_sendable`` of the audience's largest channel. A completed mailing speaks against a launch only
        without an audience: one mailing is often launched for several.

        Args:
            ids: The mailings, positive integers.
            audience: The recipients of the launch instead of the mailing's own. None: recipients are not counted.
            resource_id: The resource whose subscriptions count; None leaves it to the platform.
            list_id: The database of a dynamic segment, which the platform then requires.
            activates: Whether the launch is an `activate`: then an inactive mailing has no objection.
            timeout: Seconds for each read: attempts and waits together; None takes the client's.

        Returns:
            A check for each id, in the order of the ids.

        Raises:
            RejectedError: The platform refuses the token or, in its first answer, the account.
            TypeError: An id is not an integer.
            ValueError: An id is not positive, or ``list_id`` is given for a database.

        Example:
            >>> async with Sandbox(active=[90]) as sandbox:
            ...     async with AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
            ...         checks = await altcraft.check([90, 91], audience=Audience("list", 1))
            ...         [(each.target, each.recipients, *each.objections) for each in checks]
            [(90, 1000), (91, 1000, <Objection.INACTIVE: 'inactive'>)]
        """
        reading = iterate_checks(
            self,
            ids,
            audience=audience,
            resource_id=resource_id,
            list_id=list_id,
            activates=activates,
            timeout=timeout,
        )
        checks = [pair async for pair in reading]
        return tuple(check for _, check in sorted(checks, key=lambda pair: pair[0]))

    def watch(
        self,
        ids: int | Iterable[int],
        *,
        since: datetime | None = None,
        every: float = 5.0,
        timeout: float | None = None,
        stalled_after: float | None = None,
    ) -> AsyncIterator[MailingProgress]:
        """Watch mailings after their launch until all are final: ``async for progress in altcraft.watch(82)``.

        It reads status and log of each mailing once a round, and yields a value when one of them changes. The last
        value of each mailing has an `end`. A mailing that stalls or is refused ends alone; the others are watched on.

        The platform documents no sign for the end. Our inference: the log has an end for each start, and the mailing
        is completed or no longer active. An active mailing that is never completed therefore needs ``timeout`` or
        ``stalled_after``. Finished is not delivered: senders may still have a queue after the end. What fails shows in
        the log only, as ``errors``.

        Args:
            ids: A mailing, or several.
            since: The time of the launch, on the platform's clock; it must have a time zone. Only log entries of this
                time or later count, and only a start since then. None takes the whole log, also of earlier launches.
            every: Seconds from the end of one round of reads to the next one. Default: 5.0.
            timeout: Seconds until the watch ends in any case: the end is ``timed_out``. None: never. Default: None.
            stalled_after: Seconds without a change of status and log after which the end is ``stalled``. None: never.
                Default: None.

        Raises:
            RejectedError: The platform refuses the token or, in its first answer, the account.
            TypeError: An argument is of another type.
            ValueError: An id or a time is not positive, or ``since`` has no time zone.

        Example:
            >>> async with Sandbox(active=[90], run_seconds=0) as sandbox:
            ...     async with AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
            ...         accepted = await altcraft.launch_broadcast(90)
            ...         [progress.is_well async for progress in altcraft.watch(90, timeout=60)]
            [True]
        """
        given = ids if isinstance(ids, Iterable) else [ids]
        return watch_mailings(self, given, since, Watching(every, timeout, stalled_after))

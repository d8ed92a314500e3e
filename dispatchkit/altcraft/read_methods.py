"""The reads of `AltcraftClient`: status, log, mailings and the counters of audiences."""

from __future__ import annotations

from datetime import datetime

import attrs

from dispatchkit.altcraft.base import AltcraftWire
from dispatchkit.altcraft.counters import ChannelCounters, ReadCounters
from dispatchkit.altcraft.mailings import PAGE_SIZE, Mailing, MailingKind, ReadMailing, ReadMailings
from dispatchkit.altcraft.models import Audience, LogEntry, MailingStatus
from dispatchkit.altcraft.reads import ReadLog, ReadStatus
from dispatchkit.core.call.client import Client
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.listing import Listing

__all__ = ["AltcraftReads"]


class AltcraftReads(Client[AltcraftWire]):
    """The methods of `AltcraftClient` that only read. A failed read may be repeated: it changes nothing."""

    async def status(
        self, mailing_id: int, *, timeout: float | None = None, retry: RetryPolicy | None = None
    ) -> MailingStatus:
        """Read whether a mailing is active: ``POST /api/v1.1/campaigns/get_status``.

        A read changes nothing, so every failed attempt may be repeated. The status cannot prove a launch.

        Args:
            mailing_id: The mailing (v72: the campaign), a positive integer.
            timeout: Seconds for the whole call: attempts and waits together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            RejectedError: The platform said no: `IncorrectRequestError`, `AccessDeniedError`, ...
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: No response came. It is a `ResponseLostError`: a read changes nothing.
            TypeError: ``mailing_id`` is not an integer.
            ValueError: ``mailing_id`` is not positive.
        """
        return await self.perform(ReadStatus(mailing_id), timeout=timeout, retry=retry)

    async def log(
        self,
        mailing_id: int,
        *,
        since: datetime | None = None,
        limit: int = 1000,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> Listing[LogEntry]:
        """Read a mailing's log: ``POST /api/v1.1/campaigns/log_v2``.

        A read changes nothing, so every failed attempt may be repeated. Only the log shows a run, and an entry does not
        say which launch made it.

        Args:
            mailing_id: The mailing (v72: the campaign), a positive integer.
            since: Only entries of this time or later; it must have a time zone. None takes the whole log.
            limit: The most entries, default 1,000; ``missing`` of the result counts those that were left out.
            timeout: Seconds for the whole call: attempts and waits together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            RejectedError: The platform said no: `IncorrectRequestError`, `AccessDeniedError`, ...
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: No response came. It is a `ResponseLostError`: a read changes nothing.
            TypeError: An argument is of another type; the message names it.
            ValueError: ``mailing_id`` or ``limit`` is not positive, or ``since`` has no time zone.
        """
        return await self.perform(ReadLog(mailing_id, since=since, limit=limit), timeout=timeout, retry=retry)

    async def mailing(
        self,
        mailing_id: int,
        *,
        kind: MailingKind | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> Mailing:
        """Read one mailing: ``POST /api/v1.1/campaigns/get``.

        A read changes nothing, so every failed attempt may be repeated.

        Args:
            mailing_id: The mailing (v72: the campaign), a positive integer.
            kind: ``"broadcast"`` or ``"regular"`` reads it by the call of its kind. None reads any. Default: None.
            timeout: Seconds for the whole call: attempts and waits together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            RejectedError: The platform said no: `IncorrectRequestError`, `AccessDeniedError`, ...
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: No response came. It is a `ResponseLostError`: a read changes nothing.
            TypeError: ``mailing_id`` is not an integer.
            ValueError: ``mailing_id`` is not positive, or there is no such ``kind``.

        The provider's pages: https://guides.altcraft.com

        Example:
            >>> async with Sandbox() as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
            ...     (await altcraft.mailing(82)).name
            'рассылка 82'
        """
        return await self.perform(ReadMailing(mailing_id, kind=kind), timeout=timeout, retry=retry)

    async def mailings(
        self,
        *,
        kind: MailingKind | None = None,
        mailing_type: str | None = None,
        is_active: bool | None = None,
        limit: int | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> Listing[Mailing]:
        """Read the mailings, page by page: ``POST /api/v1.1/campaigns/list``.

        A page holds at most 1,000 mailings; the next one begins after its highest id. A read changes nothing, so every
        failed attempt may be repeated. ``missing`` of the result counts those that were left out.

        Args:
            kind: Only ``"broadcast"`` or ``"regular"`` mailings, by the list of this kind. None takes all.
            mailing_type: Only mailings of this type, in the platform's word; see `Mailing.type`.
            is_active: Only active mailings, or only those that are not.
            limit: The most mailings. None takes all. Default: None.
            timeout: Seconds for each page: attempts and waits together; None takes the client's.
            retry: When and how the read of a page is repeated; None takes the client's policy.

        Raises:
            RejectedError: The platform said no: `IncorrectRequestError`, `AccessDeniedError`, ...
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: No response came. It is a `ResponseLostError`: a read changes nothing.
            TypeError: An argument is of another type; the message names it.
            ValueError: ``limit`` is not positive, there is no such ``kind``, or ``mailing_type`` is empty.

        The provider's pages: https://guides.altcraft.com

        Example:
            >>> async with Sandbox(mailings=[82, 90]) as sandbox:
            ...     async with AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
            ...         [mailing.mailing_id for mailing in await altcraft.mailings()]
            [82, 90]
        """
        command = ReadMailings(
            kind=kind, mailing_type=mailing_type, is_active=is_active, limit=PAGE_SIZE if limit is None else limit
        )
        found, received, total = dict[int, Mailing](), 0, None
        while limit is None or len(found) < limit:
            left = PAGE_SIZE if limit is None else limit - len(found)
            command = attrs.evolve(command, limit=min(PAGE_SIZE, left))
            page = await self.perform(command, timeout=timeout, retry=retry)
            total = page.total if total is None else total
            received += len(page)
            new = {mailing.mailing_id: mailing for mailing in page if mailing.mailing_id not in found}
            found |= new
            # A platform that ignores `from_id` sends the first page again.
            if not new or len(found) == total:
                break
            command = attrs.evolve(command, from_id=max(found) + 1)
        return Listing(tuple(found.values())[:limit], total, received)

    async def counters(
        self,
        audience: Audience,
        *,
        resource_id: int | None = None,
        list_id: int | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> Listing[ChannelCounters]:
        """Read how many a database or a segment reaches, by channel: ``databases/`` or ``segments/get_counters``.

        A read changes nothing, so every failed attempt may be repeated. `AudienceCounts.subscribed_sendable` is what a
        launch can reach. It is an estimate: a dynamic segment is counted again before every launch.

        Args:
            audience: ``Audience("list", 1)`` for a database, ``Audience("segment", 5)`` for a segment.
            resource_id: The resource. None leaves the field out; the platform does not document whether it may.
            list_id: The database of a dynamic segment, which needs it. Default: None.
            timeout: Seconds for the whole call: attempts and waits together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            RejectedError: The platform said no: `IncorrectRequestError`, `AccessDeniedError`, ...
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: No response came. It is a `ResponseLostError`: a read changes nothing.
            TypeError: An argument is of another type; the message names it.
            ValueError: An id is not positive, or ``list_id`` is given for a database.

        The provider's pages: https://guides.altcraft.com

        Example:
            >>> async with Sandbox() as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
            ...     [counters.channel for counters in await altcraft.counters(Audience("segment", 5))]
            ['email', 'sms']
        """
        command = ReadCounters(audience, resource_id=resource_id, list_id=list_id)
        return await self.perform(command, timeout=timeout, retry=retry)

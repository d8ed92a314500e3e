"""The reads of `AltcraftClient`: status, log, mailings and the counters of audiences."""

from __future__ import annotations

from datetime import datetime

from dispatchkit.altcraft.base import AltcraftWire
from dispatchkit.altcraft.models import LogEntry, MailingStatus
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

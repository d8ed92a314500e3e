"""`AltcraftClient`: the client of the Altcraft platform."""

from __future__ import annotations

import os
import ssl as ssl_module
from collections.abc import AsyncIterable, Iterable, Mapping
from datetime import datetime

import attrs

from dispatchkit.altcraft.codec import WireForm, codec
from dispatchkit.altcraft.commands import (
    ActivateMailing,
    AltcraftCommand,
    AltcraftWire,
    DeactivateMailing,
    LaunchBroadcast,
    ReadLog,
    ReadStatus,
)
from dispatchkit.altcraft.models import Attachment, Audience, LogEntry, MailingAccepted, MailingStatus
from dispatchkit.core.call.client import ATTEMPT_TIMEOUT, TIMEOUT, Client
from dispatchkit.core.call.retry import DEFAULT_RETRY, RetryPolicy
from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.core.fanout.fan_out import FanOut
from dispatchkit.core.fanout.journal import JournalProvider
from dispatchkit.core.invalid_command import build_commands
from dispatchkit.core.listing import Listing
from dispatchkit.core.pacing.pace import Pace
from dispatchkit.core.secret import Secret, Token, Unshown
from dispatchkit.core.validators import JsonValue

__all__ = ["AltcraftClient"]


class AltcraftClient(Client[AltcraftWire]):
    """Activates, launches and deactivates mailings of the Altcraft platform, v72 to v74.

    Use it as ``async with AltcraftClient("https://example.com", token) as altcraft:``, or call `close` yourself. One
    client serves any number of concurrent calls of one event loop.

    Args:
        base_url: Your platform, ``scheme://host[:port]``; there is no default host. None reads
            ``DISPATCHKIT_ALTCRAFT_URL``.
        token: The API token, or a callable that returns it. None reads ``DISPATCHKIT_ALTCRAFT_TOKEN``.
        wire: ``"json"``, the default, or ``"xml"``, which needs the extra ``xml``.
        timeout: Seconds a whole call may take, default 240.
        attempt_timeout: Seconds one attempt may take, default 70.
        deduplicates: Your word that the platform deduplicates launches by request id, on all its nodes; ask its
            administrator. True repeats an unclear launch under the same id, at once. False, the default, never repeats
            it: only the mailing's log settles it, where no other launch can have made the entry.
        body_limit: The most bytes a body without files may have, default 10 MB as on the platform.
        attachment_limit: The most bytes a body with files may have, default 100 MB as on the platform.
        retry: When and how a call is repeated; see `RetryPolicy`.
        pace: How fast the account may be used, by all its clients in this process; see `Pace`. None leaves it as it is.
        clock: Time and chance; for tests that wait for nothing.
        insecure: Allow plain http to a host that is not this machine. It shows the token to everyone on the way.
        proxy: URL of an HTTP proxy.
        ssl: An SSL context of your own; True checks the server's certificate in the usual way.
        account: A name of your own for the account, at most 200 characters. A ledger's run keeps it, so that the same
            account with a new token goes on with the run. None: the token identifies the account.

    Raises:
        ValueError: No host, no token, a token that cannot be one, or a base_url that is more than a host; or another
            setting is out of range.
        TypeError: A setting is of another type; the message names it.
        ImportError: ``wire="xml"`` without the extra ``xml``.

    The provider's pages: https://guides.altcraft.com
    """

    _command_type = AltcraftCommand

    def __init__(
        self,
        base_url: str | None = None,
        token: Token | None = None,
        *,
        wire: WireForm = "json",
        timeout: float = TIMEOUT,
        attempt_timeout: float = ATTEMPT_TIMEOUT,
        deduplicates: bool = False,
        body_limit: int = 10_000_000,
        attachment_limit: int = 100_000_000,
        retry: RetryPolicy = DEFAULT_RETRY,
        pace: Pace | None = None,
        clock: Clock = SYSTEM,
        insecure: bool = False,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool = True,
        account: str | None = None,
    ) -> None:
        secret = Secret(token, environment="DISPATCHKIT_ALTCRAFT_TOKEN")
        url = Unshown(os.environ.get("DISPATCHKIT_ALTCRAFT_URL", "") if base_url is None else base_url)
        through = None if proxy is None else Unshown(proxy)
        del token, base_url, proxy  # a traceback shows the locals of this frame
        if not url.reveal():
            raise ValueError("no host: pass base_url='https://your-platform', or set DISPATCHKIT_ALTCRAFT_URL")
        secret.check()
        self._form = wire
        self._deduplicates = deduplicates
        super().__init__(
            url,
            AltcraftWire(secret, codec(wire), body_limit, attachment_limit, deduplicates),
            secret,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            retry=retry,
            pace=pace,
            clock=clock,
            insecure=insecure,
            proxy=through,
            ssl=ssl,
            account=account,
        )

    def settings(self) -> dict[str, str]:
        """See `Client.settings`; ``wire`` is ``"json"`` or ``"xml"``, ``deduplicates`` is ``"yes"`` or ``"no"``."""
        # Whoever resumes a run must not repeat an unclear launch that the platform would not swallow.
        return {**super().settings(), "wire": self._form, "deduplicates": "yes" if self._deduplicates else "no"}

    async def activate(
        self,
        mailing_id: int,
        *,
        run_now: bool | None = None,
        audience: Audience | None = None,
        limit: int | None = None,
        content: Mapping[str, JsonValue] | None = None,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> MailingAccepted:
        """Activate a mailing and, with ``run_now``, launch it at once: ``POST /api/v1.1/campaigns/activate/``.

        Args:
            mailing_id: The mailing (v72: the campaign), a positive integer.
            run_now: Also launch it at once (broadcast or regular).
            audience: Whom this run goes to instead of the mailing's own audience; only with ``run_now=True``.
            limit: The sending limit of this run; None keeps the mailing's own.
            content: A JSON object for the ``apicontent`` variables and the API content filter node.
            attachments: Files for the messages.
            timeout: Seconds for the whole call, attempts, waits and settling together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            RejectedError: The platform said no: `IncorrectRequestError`, `AccessDeniedError`, `TariffLimitError`, ...
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: It may have happened.
            TypeError: An argument is of another type; the message names it.
            ValueError: An argument cannot be sent, such as an audience without ``run_now``; the message names it.
        """
        try:
            command = ActivateMailing(
                mailing_id, run_now=run_now, audience=audience, limit=limit, content=content, attachments=attachments
            )
        except (TypeError, ValueError) as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same error; the frames below hold the content
        finally:
            del content, attachments  # a traceback shows the locals of this frame
        return await self.perform(command, timeout=timeout, retry=retry)

    async def launch_broadcast(
        self,
        mailing_id: int,
        *,
        audience: Audience | None = None,
        limit: int | None = None,
        content: Mapping[str, JsonValue] | None = None,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> MailingAccepted:
        """Launch a broadcast that is active already: ``POST /api/v1.1/campaigns/broadcasts/start``.

        Args:
            mailing_id: The broadcast, a positive integer.
            audience: Whom this run goes to instead of the broadcast's own audience.
            limit: The sending limit of this run; None keeps the broadcast's own.
            content: A JSON object for the ``apicontent`` variables and the API content filter node.
            attachments: Files for the messages.
            timeout: Seconds for the whole call, attempts, waits and settling together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            RejectedError: The platform said no: `IncorrectRequestError`, `AccessDeniedError`, `TariffLimitError`, ...
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: It may have been launched.
            TypeError: An argument is of another type; the message names it.
            ValueError: An argument cannot be sent; the message names it.
        """
        try:
            command = LaunchBroadcast(
                mailing_id, audience=audience, limit=limit, content=content, attachments=attachments
            )
        except (TypeError, ValueError) as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same error; the frames below hold the content
        finally:
            del content, attachments  # a traceback shows the locals of this frame
        return await self.perform(command, timeout=timeout, retry=retry)

    async def deactivate(
        self,
        mailing_id: int,
        *,
        abort_if_running: bool | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> MailingAccepted:
        """Deactivate a mailing: ``POST /api/v1.1/campaigns/deactivate``.

        Args:
            mailing_id: The mailing (v72: the campaign), a positive integer.
            abort_if_running: True aborts all queued messages at once; otherwise those already scheduled still go out.
            timeout: Seconds for the whole call, attempts, waits and settling together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            RejectedError: The platform said no: `IncorrectRequestError`, `AccessDeniedError`, ...
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: It may have been deactivated.
            TypeError: An argument is of another type; the message names it.
            ValueError: ``mailing_id`` is not positive.
        """
        return await self.perform(
            DeactivateMailing(mailing_id, abort_if_running=abort_if_running), timeout=timeout, retry=retry
        )

    async def status(
        self, mailing_id: int, *, timeout: float | None = None, retry: RetryPolicy | None = None
    ) -> MailingStatus:
        """Read whether a mailing is active: ``POST /api/v1.1/campaigns/get_status``.

        It changes nothing, so it is repeated whatever became of an attempt. It cannot prove that a launch happened.

        Args:
            mailing_id: The mailing (v72: the campaign), a positive integer.
            timeout: Seconds for the whole call, attempts and waits together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            RejectedError: The platform said no: `IncorrectRequestError`, `AccessDeniedError`, ...
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: No answer came; it is a `ResponseLostError`, since a read does nothing to the world.
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

        It changes nothing, so it is repeated whatever became of an attempt. It is the only place where a run shows, and
        an entry does not say whose launch it was.

        Args:
            mailing_id: The mailing (v72: the campaign), a positive integer.
            since: Only what was written from this moment on; it says its zone. None takes the whole log.
            limit: The most entries, default 1,000; the answer's ``missing`` says how many more the platform counts.
            timeout: Seconds for the whole call, attempts and waits together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            RejectedError: The platform said no: `IncorrectRequestError`, `AccessDeniedError`, ...
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: No answer came; it is a `ResponseLostError`, since a read does nothing to the world.
            TypeError: An argument is of another type; the message names it.
            ValueError: ``mailing_id`` or ``limit`` is not positive, or ``since`` does not say its zone.
        """
        return await self.perform(ReadLog(mailing_id, since=since, limit=limit), timeout=timeout, retry=retry)

    def activate_many(
        self,
        ids: Iterable[int] | AsyncIterable[int],
        *,
        run_now: bool | None = None,
        audience: Audience | None = None,
        limit: int | None = None,
        content: Mapping[str, JsonValue] | None = None,
        attachments: Iterable[Attachment] = (),
        concurrency: int = 64,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        expected: int | None = None,
        max_launches: int | None = None,
        stop_after_failures: int | None = None,
        give_up_after: float | None = None,
        ledger: JournalProvider | None = None,
        run: str | None = None,
        repeat_window: float | None = None,
    ) -> FanOut[AltcraftWire, MailingAccepted]:
        """`activate` for many mailings, as a `FanOut`: ``async for outcome in altcraft.activate_many(ids)``.

        What is set here holds for each of them. An id that is none is an outcome, not_sent, and ends nothing.

        Args:
            ids: The mailings; taken one by one, as calls end.
            run_now: Also launch each at once (broadcast or regular).
            audience: Whom each run goes to instead of the mailing's own audience; only with ``run_now=True``.
            limit: The sending limit of each run; None keeps the mailing's own.
            content: A JSON object for the ``apicontent`` variables and the API content filter node.
            attachments: Files for the messages.
            concurrency: How many calls may be under way at once, as far as the account's `Pace` allows.
            timeout: Seconds for each call, the wait for its turn not counted; None takes the client's.
            retry: When and how each call is repeated; None takes the client's policy.
            expected: How many ids there must be.
            max_launches: How many calls may be begun at most.
            stop_after_failures: Stop the run after so many outcomes that are not done.
            give_up_after: Stop the run when the provider has answered nothing for so many seconds; see `FanOut`.
            ledger: The durable memory of the run, usually a `Ledger`. The same line again goes on where it ended.
            run: The name of the run in the ledger.
            repeat_window: Seconds within which no other run may have launched one of the targets; see `FanOut`.

        Raises:
            TypeError: A setting is of another type.
            ValueError: A setting is out of range or cannot be sent, or there are not as many ids as ``expected``.
        """
        try:
            # A mistake in what all have in common is found here, not once for each.
            model = ActivateMailing(
                1, run_now=run_now, audience=audience, limit=limit, content=content, attachments=attachments
            )
        except (TypeError, ValueError) as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same error; the frames below hold the content
        finally:
            del content, attachments  # a traceback shows the locals of this frame
        return FanOut(
            self,
            build_commands(ids, lambda mailing_id: attrs.evolve(model, mailing_id=mailing_id)),
            concurrency=concurrency,
            timeout=timeout,
            retry=retry,
            expected=expected,
            max_launches=max_launches,
            stop_after_failures=stop_after_failures,
            give_up_after=give_up_after,
            ledger=ledger,
            run=run,
            repeat_window=repeat_window,
        )

    def launch_many(
        self,
        ids: Iterable[int] | AsyncIterable[int],
        *,
        audience: Audience | None = None,
        limit: int | None = None,
        content: Mapping[str, JsonValue] | None = None,
        attachments: Iterable[Attachment] = (),
        concurrency: int = 64,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        expected: int | None = None,
        max_launches: int | None = None,
        stop_after_failures: int | None = None,
        give_up_after: float | None = None,
        ledger: JournalProvider | None = None,
        run: str | None = None,
        repeat_window: float | None = None,
    ) -> FanOut[AltcraftWire, MailingAccepted]:
        """`launch_broadcast` for many broadcasts, as a `FanOut`: ``async for outcome in altcraft.launch_many(ids)``.

        What is set here holds for each of them. An id that is none is an outcome, not_sent, and ends nothing.

        Args:
            ids: The broadcasts; taken one by one, as calls end.
            audience: Whom each run goes to instead of the broadcast's own audience.
            limit: The sending limit of each run; None keeps the broadcast's own.
            content: A JSON object for the ``apicontent`` variables and the API content filter node.
            attachments: Files for the messages.
            concurrency: How many calls may be under way at once, as far as the account's `Pace` allows.
            timeout: Seconds for each call, the wait for its turn not counted; None takes the client's.
            retry: When and how each call is repeated; None takes the client's policy.
            expected: How many ids there must be.
            max_launches: How many calls may be begun at most.
            stop_after_failures: Stop the run after so many outcomes that are not done.
            give_up_after: Stop the run when the provider has answered nothing for so many seconds; see `FanOut`.
            ledger: The durable memory of the run, usually a `Ledger`. The same line again goes on where it ended.
            run: The name of the run in the ledger.
            repeat_window: Seconds within which no other run may have launched one of the targets; see `FanOut`.

        Raises:
            TypeError: A setting is of another type.
            ValueError: A setting is out of range or cannot be sent, or there are not as many ids as ``expected``.
        """
        try:
            # A mistake in what all have in common is found here, not once for each.
            model = LaunchBroadcast(1, audience=audience, limit=limit, content=content, attachments=attachments)
        except (TypeError, ValueError) as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same error; the frames below hold the content
        finally:
            del content, attachments  # a traceback shows the locals of this frame
        return FanOut(
            self,
            build_commands(ids, lambda mailing_id: attrs.evolve(model, mailing_id=mailing_id)),
            concurrency=concurrency,
            timeout=timeout,
            retry=retry,
            expected=expected,
            max_launches=max_launches,
            stop_after_failures=stop_after_failures,
            give_up_after=give_up_after,
            ledger=ledger,
            run=run,
            repeat_window=repeat_window,
        )

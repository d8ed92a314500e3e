"""`AltcraftClient`: the client of the Altcraft platform."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from datetime import datetime
from typing import Any, Self, Unpack, cast

import attrs

from dispatchkit.altcraft.base import AltcraftCommand, AltcraftWire
from dispatchkit.altcraft.check import iterate_checks
from dispatchkit.altcraft.codec import WireForm, codec
from dispatchkit.altcraft.commands import ActivateMailing, DeactivateMailing, LaunchBroadcast
from dispatchkit.altcraft.models import Attachment, Audience, LogEntry, MailingAccepted, MailingStatus
from dispatchkit.altcraft.reads import ReadLog, ReadStatus
from dispatchkit.altcraft.watch import MailingProgress, watch_mailings
from dispatchkit.core.call.client import Client
from dispatchkit.core.call.options import ClientOptions, hide_proxy
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.fanout.check import LaunchCheck
from dispatchkit.core.fanout.fan_out import FanOut
from dispatchkit.core.fanout.options import FanOutOptions
from dispatchkit.core.fanout.polling import Watching
from dispatchkit.core.invalid_command import build_commands
from dispatchkit.core.listing import Listing
from dispatchkit.core.options import check_options, takes_options
from dispatchkit.core.secret import Secret, Token, Unshown
from dispatchkit.core.validators import JsonValue
from dispatchkit.profiles import client_options, profile_name

__all__ = ["AltcraftClient", "AltcraftOptions"]


class AltcraftOptions(ClientOptions, total=False):
    """The options of `AltcraftClient`: those of `ClientOptions`, and four of its own.

    Attributes:
        wire: The format of requests and responses: ``"json"``, or ``"xml"``, which needs the extra ``xml``. Default:
            ``"json"``.
        deduplicates: Whether the platform deduplicates launches by request id, on all its nodes; its administrator
            knows. True: an unclear launch is repeated at once under the same id. False: an unclear launch is never
            repeated. Only the mailing's log settles it, if no other launch can have made the entry. Default: False.
        body_limit: The most bytes of a body without files. The platform's own limit is 10 MB. Default: 10000000.
        attachment_limit: The most bytes of a body with files. The platform's own limit is 100 MB. Default: 100000000.

    Example:
        >>> options: AltcraftOptions = {"wire": "json", "timeout": 60}
        >>> async with Sandbox() as sandbox:
        ...     async with AltcraftClient(sandbox.url, sandbox.altcraft_token, **options) as altcraft:
        ...         (await altcraft.activate(82)).mailing_id
        82
    """

    wire: WireForm
    deduplicates: bool
    body_limit: int
    attachment_limit: int


class AltcraftClient(Client[AltcraftWire]):
    """Activates, launches and deactivates mailings of the Altcraft platform, v72 to v74.

    Use it as ``async with AltcraftClient("https://example.com", token) as altcraft:``, or call `close` yourself. One
    client serves any number of concurrent calls of one event loop.

    Args:
        base_url: ``scheme://host[:port]`` of your platform; there is no default host. None reads
            ``DISPATCHKIT_ALTCRAFT_URL``.
        token: The API token, or a callable that returns it, also an asynchronous one: see
            `dispatchkit.core.secret.Token`. None reads ``DISPATCHKIT_ALTCRAFT_TOKEN``.
        options: See `AltcraftOptions`.

    Raises:
        ValueError: The host or the token is missing, or the token is invalid. ``base_url`` is more than a host, or
            another option is out of range.
        TypeError: An option is unknown or of another type; the message names it.
        ImportError: ``wire="xml"`` without the extra ``xml``.

    The provider's pages: https://guides.altcraft.com

    Example:
        >>> async with Sandbox() as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        ...     (await altcraft.activate(82, run_now=True)).mailing_id
        82
    """

    command_type = AltcraftCommand

    @takes_options(Client)
    def __init__(
        self,
        base_url: str | None = None,
        token: Token | None = None,
        *,
        wire: WireForm = "json",
        deduplicates: bool = False,
        body_limit: int = 10_000_000,
        attachment_limit: int = 100_000_000,
        **options: Unpack[ClientOptions],
    ) -> None:
        secret = Secret(token, environment="DISPATCHKIT_ALTCRAFT_TOKEN")
        url = Unshown(os.environ.get("DISPATCHKIT_ALTCRAFT_URL", "") if base_url is None else base_url)
        del token, base_url  # a traceback shows the locals of this frame
        hide_proxy(options)
        check_options(AltcraftClient, options)
        if not url.reveal():
            raise ValueError("no host: pass base_url='https://your-platform', or set DISPATCHKIT_ALTCRAFT_URL")
        secret.check()
        self._form = wire
        self._deduplicates = deduplicates
        altcraft_wire = AltcraftWire(secret, codec(wire), body_limit, attachment_limit, deduplicates)
        super().__init__(url, altcraft_wire, secret, **options)

    @classmethod
    def from_profile(
        cls,
        name: str | None = None,
        *,
        base_url: str | None = None,
        token: Token | None = None,
        **options: Unpack[AltcraftOptions],
    ) -> Self:
        """A client of a profile: ``[profiles.NAME]`` in ``config.toml`` in the user's configuration folder.

        An argument goes before the environment, the environment before the profile, the profile before defaults. A
        ``token_command`` runs now, for at most 60 s, and blocks.

        Args:
            name: The profile. None reads ``DISPATCHKIT_PROFILE``.
            base_url: See `AltcraftClient`.
            token: See `AltcraftClient`.
            options: See `AltcraftOptions`.

        Raises:
            ValueError: There is no such profile, it is of another provider, or its file is damaged or open to others.
                The ``token_command`` failed, or the constructor refuses a value.
            ImportError: The extra ``profiles`` is not installed.

        Example:
            >>> AltcraftClient.from_profile("loyalty")
            Traceback (most recent call last):
            ValueError: ...
        """
        settings = Unshown({"base_url": base_url, "token": token, **options})
        del base_url, token, options
        client = cls(**cast("Any", client_options("altcraft", name, settings.reveal()).reveal()))
        client._profile = profile_name(name)
        return client

    def _settings(self) -> dict[str, str]:
        """See `Client._settings`; ``wire`` is ``"json"`` or ``"xml"``, ``deduplicates`` is ``"yes"`` or ``"no"``."""
        # A resumed run must not repeat an unclear launch that the platform would not deduplicate.
        return {**super()._settings(), "wire": self._form, "deduplicates": "yes" if self._deduplicates else "no"}

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
            audience: The recipients of this run instead of the mailing's own; only with ``run_now=True``.
            limit: The sending limit of this run; None keeps the mailing's own.
            content: A JSON object for the ``apicontent`` variables and the API content filter node.
            attachments: Files for the messages.
            timeout: Seconds for the whole call: attempts, waits and settling together; None takes the client's.
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
        """Launch an active broadcast: ``POST /api/v1.1/campaigns/broadcasts/start``.

        Args:
            mailing_id: The broadcast, a positive integer.
            audience: The recipients of this run instead of the broadcast's own.
            limit: The sending limit of this run; None keeps the broadcast's own.
            content: A JSON object for the ``apicontent`` variables and the API content filter node.
            attachments: Files for the messages.
            timeout: Seconds for the whole call: attempts, waits and settling together; None takes the client's.
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
            abort_if_running: True aborts all queued messages at once; otherwise scheduled messages are still sent.
            timeout: Seconds for the whole call: attempts, waits and settling together; None takes the client's.
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

        It only reads, as fast as the account's pace allows: ``campaigns/get_status`` and ``campaigns/log_v2`` for each
        mailing, and once ``databases/get_counters`` or ``segments/get_counters``. A mailing whose state cannot be read
        is no error: its check says so. The state may change between the check and the launch.

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
            ValueError: An id is not positive.

        Example:
            >>> async with Sandbox(active=[90]) as sandbox:
            ...     async with AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
            ...         checks = await altcraft.check([90, 91], audience=Audience("list", 1))
            ...         [(each.target, each.recipients, *each.objections) for each in checks]
            [(90, 900), (91, 900, <Objection.INACTIVE: 'inactive'>)]
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

    @takes_options(FanOut)
    def activate_many(
        self,
        ids: Iterable[int] | AsyncIterable[int],
        *,
        run_now: bool | None = None,
        audience: Audience | None = None,
        limit: int | None = None,
        content: Mapping[str, JsonValue] | None = None,
        attachments: Iterable[Attachment] = (),
        **options: Unpack[FanOutOptions],
    ) -> FanOut[MailingAccepted]:
        """`activate` for many mailings, as a `FanOut`: ``async for outcome in altcraft.activate_many(ids)``.

        The arguments hold for each of them. An invalid id yields a `NotSent` outcome; the run continues.

        Args:
            ids: The mailings; taken one by one, as calls end.
            run_now: Also launch each at once (broadcast or regular).
            audience: The recipients of each run instead of the mailing's own; only with ``run_now=True``.
            limit: The sending limit of each run; None keeps the mailing's own.
            content: A JSON object for the ``apicontent`` variables and the API content filter node.
            attachments: Files for the messages.
            options: See `FanOutOptions`.

        Raises:
            TypeError: An argument is unknown or of another type.
            ValueError: An argument is out of range or cannot be sent, or the number of ids is not ``expected``.
        """
        try:
            check_options(AltcraftClient.activate_many, options)
            # A bad argument that all commands share is found here, not once for each.
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
            **options,
        )

    @takes_options(FanOut)
    def launch_many(
        self,
        ids: Iterable[int] | AsyncIterable[int],
        *,
        audience: Audience | None = None,
        limit: int | None = None,
        content: Mapping[str, JsonValue] | None = None,
        attachments: Iterable[Attachment] = (),
        **options: Unpack[FanOutOptions],
    ) -> FanOut[MailingAccepted]:
        """`launch_broadcast` for many broadcasts, as a `FanOut`: ``async for outcome in altcraft.launch_many(ids)``.

        The arguments hold for each of them. An invalid id yields a `NotSent` outcome; the run continues.

        Args:
            ids: The broadcasts; taken one by one, as calls end.
            audience: The recipients of each run instead of the broadcast's own.
            limit: The sending limit of each run; None keeps the broadcast's own.
            content: A JSON object for the ``apicontent`` variables and the API content filter node.
            attachments: Files for the messages.
            options: See `FanOutOptions`.

        Raises:
            TypeError: An argument is unknown or of another type.
            ValueError: An argument is out of range or cannot be sent, or the number of ids is not ``expected``.
        """
        try:
            check_options(AltcraftClient.launch_many, options)
            # A bad argument that all commands share is found here, not once for each.
            model = LaunchBroadcast(1, audience=audience, limit=limit, content=content, attachments=attachments)
        except (TypeError, ValueError) as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same error; the frames below hold the content
        finally:
            del content, attachments  # a traceback shows the locals of this frame
        return FanOut(
            self,
            build_commands(ids, lambda mailing_id: attrs.evolve(model, mailing_id=mailing_id)),
            **options,
        )

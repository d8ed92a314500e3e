"""`AltcraftClient`: the client of the Altcraft platform."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Self, Unpack, cast

from dispatchkit.altcraft.base import AltcraftCommand, AltcraftWire
from dispatchkit.altcraft.check_methods import AltcraftChecks
from dispatchkit.altcraft.codec import WireForm, codec
from dispatchkit.altcraft.commands import ActivateMailing, DeactivateMailing, LaunchBroadcast, LaunchRegular
from dispatchkit.altcraft.many_methods import AltcraftFanOuts
from dispatchkit.altcraft.models import Attachment, Audience, MailingAccepted
from dispatchkit.altcraft.read_methods import AltcraftReads
from dispatchkit.core.call.client import Client
from dispatchkit.core.call.options import ClientOptions, hide_proxy
from dispatchkit.core.call.retry import RetryPolicy
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


class AltcraftClient(AltcraftReads, AltcraftChecks, AltcraftFanOuts):
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

    async def launch_regular(
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
        """Launch an active regular mailing: ``POST /api/v1.1/campaigns/regulars/start``.

        The platform makes one sending at once. The call has no field for the schedule of the mailing.

        Args:
            mailing_id: The regular mailing, a positive integer.
            audience: The recipients of this run instead of the mailing's own.
            limit: The sending limit of this run; None keeps the mailing's own.
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
            command = LaunchRegular(
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

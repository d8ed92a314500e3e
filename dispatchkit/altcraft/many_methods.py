"""The fan-outs of `AltcraftClient`: one launch for each of many mailings."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Unpack

import attrs

from dispatchkit.altcraft.base import AltcraftWire
from dispatchkit.altcraft.commands import ActivateMailing, LaunchBroadcast, LaunchRegular
from dispatchkit.altcraft.models import Attachment, Audience, MailingAccepted
from dispatchkit.core.call.client import Client
from dispatchkit.core.fanout.fan_out import FanOut
from dispatchkit.core.fanout.options import FanOutOptions
from dispatchkit.core.invalid_command import build_commands
from dispatchkit.core.options import check_options, takes_options
from dispatchkit.core.validators import JsonValue

__all__ = ["AltcraftFanOuts"]


class AltcraftFanOuts(Client[AltcraftWire]):
    """The methods of `AltcraftClient` that launch many mailings."""

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
            check_options(AltcraftFanOuts.activate_many, options)
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
            check_options(AltcraftFanOuts.launch_many, options)
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

    @takes_options(FanOut)
    def launch_regular_many(
        self,
        ids: Iterable[int] | AsyncIterable[int],
        *,
        audience: Audience | None = None,
        limit: int | None = None,
        content: Mapping[str, JsonValue] | None = None,
        attachments: Iterable[Attachment] = (),
        **options: Unpack[FanOutOptions],
    ) -> FanOut[MailingAccepted]:
        """`launch_regular` for many mailings: ``async for outcome in altcraft.launch_regular_many(ids)``, a `FanOut`.

        The arguments hold for each of them. An invalid id yields a `NotSent` outcome; the run continues.

        Args:
            ids: The regular mailings; taken one by one, as calls end.
            audience: The recipients of each run instead of the mailing's own.
            limit: The sending limit of each run; None keeps the mailing's own.
            content: A JSON object for the ``apicontent`` variables and the API content filter node.
            attachments: Files for the messages.
            options: See `FanOutOptions`.

        Raises:
            TypeError: An argument is unknown or of another type.
            ValueError: An argument is out of range or cannot be sent, or the number of ids is not ``expected``.
        """
        try:
            check_options(AltcraftFanOuts.launch_regular_many, options)
            # A bad argument that all commands share is found here, not once for each.
            model = LaunchRegular(1, audience=audience, limit=limit, content=content, attachments=attachments)
        except (TypeError, ValueError) as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same error; the frames below hold the content
        finally:
            del content, attachments  # a traceback shows the locals of this frame
        return FanOut(
            self,
            build_commands(ids, lambda mailing_id: attrs.evolve(model, mailing_id=mailing_id)),
            **options,
        )

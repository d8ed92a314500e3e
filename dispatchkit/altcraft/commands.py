"""The commands of Altcraft that act: their paths, their fields and how each is settled.

The provider's pages: https://guides.altcraft.com
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import attrs

from dispatchkit.altcraft.base import AltcraftCommand, AltcraftWire, is_replay
from dispatchkit.altcraft.models import Attachment, Audience, MailingAccepted
from dispatchkit.altcraft.reads import probe_activity, probe_going_out, probe_launch
from dispatchkit.core.command import JSON_FIELD, Evidence, LogProbe, Probe, Response
from dispatchkit.core.validators import (
    JsonValue,
    as_int,
    as_int_or_none,
    flag,
    json_object,
    non_negative,
    positive_id,
)
from dispatchkit.values import shown_as

__all__ = ["ActivateMailing", "DeactivateMailing", "LaunchBroadcast", "LaunchRegular"]


def _accepted(mailing_id: int, response: Response) -> MailingAccepted:
    return MailingAccepted(mailing_id, replayed=is_replay(response))


def _audience(instance: object, attribute: attrs.Attribute[Audience | None], value: object) -> None:
    del instance
    if value is not None and not isinstance(value, Audience):
        raise TypeError(f"{attribute.name} must be an Audience such as Audience('list', 1), not {value!r}")


def _content(value: Mapping[str, JsonValue] | None) -> dict[str, JsonValue] | None:
    return None if value is None else json_object("content", value)


def _keys(content: Mapping[str, JsonValue] | None) -> list[str] | None:
    return None if content is None else list(content)


def _attachments(value: Iterable[Attachment]) -> tuple[Attachment, ...]:
    files = tuple(value)
    for index, file in enumerate(files):
        if not isinstance(file, Attachment):
            raise TypeError(
                f"attachments[{index}] must be an Attachment such as Attachment.from_path('price.pdf'), "
                f"not {type(file).__name__}"
            )
    return files


_ASK = (
    "It may have happened. Look at the mailing's log before you launch it again. Ask the platform's administrator "
    "whether deduplication by Request-ID is on for launches, for how long, and on all nodes. If it is, "
    "deduplicates=True (on the command line: --deduplicates) repeats an unclear launch under its id."
)


@attrs.frozen
class _Launch(AltcraftCommand[MailingAccepted]):
    """The fields that a launch may override for one run."""

    mailing_id: int = attrs.field(converter=as_int, validator=positive_id)
    audience: Audience | None = attrs.field(default=None, validator=_audience, kw_only=True)
    limit: int | None = attrs.field(default=None, converter=as_int_or_none, validator=non_negative, kw_only=True)
    content: Mapping[str, JsonValue] | None = attrs.field(
        default=None,
        converter=_content,
        kw_only=True,
        hash=False,  # a dict has none
        repr=lambda content: "None" if content is None else f"<{len(content)} fields>",
        metadata={**JSON_FIELD, **shown_as("content_keys", _keys)},
    )
    attachments: tuple[Attachment, ...] = attrs.field(default=(), converter=_attachments, kw_only=True)

    @property
    def target(self) -> int:
        """See `Command.target`."""
        return self.mailing_id

    @property
    def log_key(self) -> int | None:
        """See `Command.log_key`: only the mailing's log shows a launch, whatever its audience."""
        return self.mailing_id

    def as_repeated(self, result: object) -> MailingAccepted:
        """See `Command.as_repeated`."""
        del result
        return MailingAccepted(self.mailing_id, repeated=True)

    def unknown_hint(self, wire: AltcraftWire) -> str:
        """See `Command.unknown_hint`: deduplication would have allowed a repeat."""
        return "" if wire.deduplicates or self.log_key is None else _ASK

    def goes_out(self, since: datetime, *, launches: int = 1) -> LogProbe[AltcraftWire, MailingAccepted] | None:
        """See `Command.goes_out`: the log shows a launch. A bare activation launches nothing."""
        return None if self.log_key is None else probe_going_out(self.mailing_id, since, launches=launches)

    def files(self) -> tuple[Attachment, ...]:
        """See `AltcraftCommand.files`."""
        return self.attachments

    def fields(self) -> dict[str, JsonValue]:
        """See `AltcraftCommand.fields`."""
        fields: dict[str, JsonValue] = {"id": self.mailing_id}
        if self.audience is not None:
            fields |= {"override_source_id": self.audience.id, "override_source_type": self.audience.kind}
        if self.limit is not None:
            fields["override_limit"] = self.limit
        if self.content is not None:
            fields["content"] = self.content
        return fields

    def read(self, fields: Mapping[str, object], response: Response, wire: AltcraftWire) -> MailingAccepted:
        """See `AltcraftCommand.read`."""
        del fields, wire
        return _accepted(self.mailing_id, response)


@attrs.frozen
class ActivateMailing(_Launch):
    """Activate a mailing and, with ``run_now``, launch it at once.

    ``POST /api/v1.1/campaigns/activate/``; the same call in v72, v73 and v74.

    Raises:
        TypeError: A field is of another type; the message names it.
        ValueError: ``mailing_id`` is not positive, ``limit`` is negative, ``content`` is no JSON, or an ``audience``
            is given without ``run_now=True``.

    Example:
        >>> async with Sandbox() as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        ...     (await altcraft.perform(ActivateMailing(82, run_now=True, audience=Audience("list", 1)))).mailing_id
        82
    """

    path = "campaigns/activate/"
    run_now: bool | None = attrs.field(default=None, validator=flag, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.audience is not None and self.run_now is not True:
            raise ValueError(
                f"audience={self.audience!r} must go with run_now=True: it holds for one run only, and there is none"
            )

    def fields(self) -> dict[str, JsonValue]:
        """See `AltcraftCommand.fields`."""
        fields = super().fields()
        if self.run_now is not None:
            fields["run_now"] = self.run_now
        return fields

    @property
    def log_key(self) -> int | None:
        """See `Command.log_key`: the status shows a bare activation."""
        return self.mailing_id if self.run_now else None

    def probe(
        self, since: datetime
    ) -> Probe[AltcraftWire, MailingAccepted] | LogProbe[AltcraftWire, MailingAccepted] | None:
        """See `Command.probe`: the log shows a launch, the status shows a bare activation."""
        if self.run_now:
            return probe_launch(self.mailing_id, since)
        if self.limit is not None or self.content is not None or self.attachments:
            return None  # the status does not show them
        return probe_activity(self.mailing_id, {True: Evidence.APPLIED, False: Evidence.NOT_APPLIED})


@attrs.frozen
class LaunchBroadcast(_Launch):
    """Launch an active broadcast.

    ``POST /api/v1.1/campaigns/broadcasts/start``.

    Raises:
        TypeError: A field is of another type; the message names it.
        ValueError: ``mailing_id`` is not positive, ``limit`` is negative, or ``content`` is no JSON.

    Example:
        >>> async with Sandbox(active=[90]) as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        ...     (await altcraft.perform(LaunchBroadcast(90, limit=300))).mailing_id
        90
    """

    path = "campaigns/broadcasts/start"

    def probe(self, since: datetime) -> LogProbe[AltcraftWire, MailingAccepted]:
        """See `Command.probe`: the log shows a launch."""
        return probe_launch(self.mailing_id, since)


@attrs.frozen
class LaunchRegular(_Launch):
    """Launch an active regular mailing: one sending at once.

    ``POST /api/v1.1/campaigns/regulars/start``; the fields of a broadcast's launch, in v72, v73 and v74.

    Raises:
        TypeError: A field is of another type; the message names it.
        ValueError: ``mailing_id`` is not positive, ``limit`` is negative, or ``content`` is no JSON.

    Example:
        >>> async with Sandbox(active=[90], regulars=[90]) as sandbox:
        ...     async with AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        ...         (await altcraft.perform(LaunchRegular(90, limit=300))).mailing_id
        90
    """

    path = "campaigns/regulars/start"

    def probe(self, since: datetime) -> LogProbe[AltcraftWire, MailingAccepted]:
        """See `Command.probe`: the log shows a launch."""
        return probe_launch(self.mailing_id, since)


@attrs.frozen
class DeactivateMailing(AltcraftCommand[MailingAccepted]):
    """Deactivate a mailing.

    ``POST /api/v1.1/campaigns/deactivate``.

    Raises:
        TypeError: A field is of another type; the message names it.
        ValueError: ``mailing_id`` is not positive.

    Example:
        >>> async with Sandbox(active=[90]) as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        ...     (await altcraft.perform(DeactivateMailing(90))).mailing_id
        90
    """

    path = "campaigns/deactivate"
    mailing_id: int = attrs.field(converter=as_int, validator=positive_id)
    abort_if_running: bool | None = attrs.field(default=None, validator=flag, kw_only=True)

    @property
    def target(self) -> int:
        """See `Command.target`."""
        return self.mailing_id

    def fields(self) -> dict[str, JsonValue]:
        """See `AltcraftCommand.fields`."""
        fields: dict[str, JsonValue] = {"id": self.mailing_id}
        if self.abort_if_running is not None:
            fields["abort_if_running"] = self.abort_if_running
        return fields

    def probe(self, since: datetime) -> Probe[AltcraftWire, MailingAccepted]:
        """See `Command.probe`: the status shows a deactivation, but not whether queued messages were aborted."""
        del since
        inactive = Evidence.ABSENT if self.abort_if_running else Evidence.APPLIED
        return probe_activity(self.mailing_id, {True: Evidence.NOT_APPLIED, False: inactive})

    def read(self, fields: Mapping[str, object], response: Response, wire: AltcraftWire) -> MailingAccepted:
        """See `AltcraftCommand.read`."""
        del fields, wire
        return _accepted(self.mailing_id, response)

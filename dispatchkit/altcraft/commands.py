"""The commands of Altcraft: their paths, their fields and the meaning of each response.

The provider's pages: https://guides.altcraft.com
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar, TypeVar, cast
from uuid import uuid4

import attrs

from dispatchkit.altcraft.codec import Codec
from dispatchkit.altcraft.models import Attachment, Audience, LogEntry, MailingAccepted, MailingStatus
from dispatchkit.core.body import Part
from dispatchkit.core.command import (
    JSON_FIELD,
    USER_AGENT,
    Command,
    ContradictoryAnswerError,
    Evidence,
    LogProbe,
    Probe,
    Request,
    Response,
    Settlement,
    TimeWindow,
    UnexpectedResponseError,
    ask_log,
    means_refusal,
)
from dispatchkit.core.decode import structure
from dispatchkit.core.listing import Listing
from dispatchkit.core.secret import Secret
from dispatchkit.core.validators import (
    JsonValue,
    as_int,
    as_int_or_none,
    flag,
    json_object,
    moment,
    non_negative,
    positive_id,
    true_or_false,
)
from dispatchkit.errors import (
    AccessDeniedError,
    IncorrectRequestError,
    RejectedError,
    TariffLimitError,
    TokenRequiredError,
)
from dispatchkit.values import shown_as

__all__ = [
    "ActivateMailing",
    "AltcraftCommand",
    "AltcraftWire",
    "DeactivateMailing",
    "LaunchBroadcast",
    "ReadLog",
    "ReadStatus",
]

R_co = TypeVar("R_co", covariant=True)

_REFUSALS: dict[int, type[RejectedError]] = {
    400: IncorrectRequestError,
    401: TokenRequiredError,
    402: TariffLimitError,
    403: AccessDeniedError,
}


_REMEMBERED = timedelta(hours=23)
"""For how long a request id deduplicates: the platform's one day, less an hour by which clocks may differ."""


_EARLIER = timedelta(seconds=15)
"""The log is read from this long before the launch: only its response shows how far the platform's clock differs."""


_PLACE = uuid4().hex
"""Where the Base64 of a file goes in an encoded body. No caller knows it, so no content holds it."""


def _with_files(body: bytes, attachments: tuple[Attachment, ...]) -> list[bytes | Part]:
    """The parts of a body, with the Base64 of the files in their places."""
    head, *rest = body.split(_PLACE.encode())
    parts: list[bytes | Part] = [head]
    for file, text in zip(attachments, rest, strict=True):
        parts += file.base64(), text
    return parts


def _deduplicates(instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    del instance
    true_or_false(attribute.name, value)


@attrs.frozen
class AltcraftWire:
    """The wire format of an Altcraft account: token, codec, and two limits on the size of a body."""

    token: Secret
    codec: Codec
    body_limit: int = attrs.field(validator=positive_id)
    attachment_limit: int = attrs.field(validator=positive_id)
    deduplicates: bool = attrs.field(validator=_deduplicates)

    def request(
        self,
        path: str,
        fields: Mapping[str, JsonValue],
        attachments: tuple[Attachment, ...],
        request_id: str | None,
        *,
        reads: bool = False,
    ) -> Request:
        """Build the request of a call. A read tells every cache not to answer it.

        Raises:
            ValueError: The body is over the limit, or this format cannot represent it.
        """
        sent = {**fields, "attach": [file.file_object(_PLACE) for file in attachments]} if attachments else fields
        body = self.codec.seal(self.codec.encode(sent), self.token.reveal())
        parts = _with_files(body, attachments)
        size = sum(map(len, parts))
        what, option = ("attachments", "attachment_limit") if attachments else ("content", "body_limit")
        limit = self.attachment_limit if attachments else self.body_limit
        if size > limit:
            raise ValueError(
                f"{what} must keep the body within {limit:,} bytes, not {size:,} "
                f"({option}= changes it, if the platform's administrator has changed it)"
            )
        headers = self._headers(request_id)
        if reads:
            headers["Cache-Control"] = "no-cache"
        return Request("POST", f"/api/v1.1/{path}", headers, parts)

    def _headers(self, request_id: str | None) -> dict[str, str]:
        headers = {
            "Content-Type": self.codec.content_type,
            "Accept": self.codec.content_type,
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
        }
        if request_id is not None:
            # Newer platforms read the first, older ones the second.
            headers |= {"Request-ID": request_id, "X-Request-ID": request_id}
        return headers


class AltcraftCommand(Command[AltcraftWire, R_co]):
    """A command of Altcraft."""

    __slots__ = ()
    provider = "altcraft"
    has_request_id = True
    path: ClassVar[str]
    """Below ``/api/v1.1/``, exactly as documented: the trailing slashes are part of it and inconsistent."""

    def deduplicated(self, wire: AltcraftWire, age: timedelta) -> bool:
        """See `Command.deduplicated`: if the user vouches for it, for one day from the first request."""
        return wire.deduplicates and abs(age) < _REMEMBERED

    def is_replay(self, result: object) -> bool:
        """See `Command.is_replay`."""
        return isinstance(result, MailingAccepted) and result.replayed

    @abstractmethod
    def fields(self) -> dict[str, JsonValue]:
        """The fields of the body without token and files; arguments that were not given are left out."""

    def request(self, wire: AltcraftWire, request_id: str | None) -> Request:
        """See `Command.request`."""
        return wire.request(self.path, self.fields(), self.files(), request_id, reads=self.is_read_only)

    def files(self) -> tuple[Attachment, ...]:
        """The files that go with the call."""
        return ()

    def result(self, response: Response, wire: AltcraftWire) -> R_co:
        """Read a response: a refusal is HTTP 200 with an ``error`` that is not 0."""
        fields = wire.codec.decode(response.body, response.headers.get("Content-Type", ""))
        try:
            error = wire.codec.converter.structure(fields.get("error"), int)
        except TypeError:
            error = None
        if error is None:
            raise UnexpectedResponseError("no integer 'error' in it")
        if error != 0:
            raise _refusal(error, fields, response.status, wire)
        if response.status != 200:
            raise ContradictoryAnswerError("it claims success")
        if self.is_read_only and _is_replay(response):
            # Each read has an id of its own, so a proxy strips ids.
            raise UnexpectedResponseError("it repeats the answer to an earlier request")
        return self.read(fields, response, wire)

    @abstractmethod
    def read(self, fields: Mapping[str, object], response: Response, wire: AltcraftWire) -> R_co:
        """Read the fields of a success.

        Raises:
            UnexpectedResponseError: The fields are something else.
        """


def _refusal(code: int, fields: Mapping[str, object], status: int, wire: AltcraftWire) -> RejectedError:
    try:
        message = wire.codec.converter.structure(fields.get("error_text"), str)
    except TypeError:
        message = ""
    message = wire.token.redact(message or "no reason given")
    if code < 0 or (100 <= code < 600 and not means_refusal(code)):
        raise ContradictoryAnswerError(f"code {code}: {message}")
    if fields.get("data"):
        # A refusal has no data: it may be the result of a launch.
        raise ContradictoryAnswerError(f"data beside code {code}: {message}")
    # An undocumented code is a refusal, too; its message is the platform's.
    error_type = _REFUSALS.get(code, RejectedError)
    return error_type(message, status=status, code=code)


@attrs.frozen
class ReadStatus(AltcraftCommand[MailingStatus]):
    """Read whether a mailing is active: ``POST /api/v1.1/campaigns/get_status``."""

    is_read_only = True
    path = "campaigns/get_status"
    mailing_id: int = attrs.field(converter=as_int, validator=positive_id)

    @property
    def target(self) -> int:
        """See `Command.target`."""
        return self.mailing_id

    def fields(self) -> dict[str, JsonValue]:
        """See `AltcraftCommand.fields`."""
        return {"id": self.mailing_id}

    def read(self, fields: Mapping[str, object], response: Response, wire: AltcraftWire) -> MailingStatus:
        """See `AltcraftCommand.read`."""
        del response
        return structure(wire.codec.converter, fields.get("data"), MailingStatus, "a mailing's status")


@attrs.frozen
class ReadLog(AltcraftCommand[Listing[LogEntry]]):
    """Read a mailing's log, or its entries since a time: ``POST /api/v1.1/campaigns/log_v2``.

    Raises:
        TypeError: A field is of another type; the message names it.
        ValueError: ``mailing_id`` or ``limit`` is not positive, or ``since`` has no time zone.
    """

    is_read_only = True
    path = "campaigns/log_v2"
    mailing_id: int = attrs.field(converter=as_int, validator=positive_id)
    since: datetime | None = attrs.field(default=None, validator=moment)
    limit: int = attrs.field(default=1000, converter=as_int, validator=positive_id)

    @property
    def target(self) -> int:
        """See `Command.target`."""
        return self.mailing_id

    def fields(self) -> dict[str, JsonValue]:
        """See `AltcraftCommand.fields`."""
        fields: dict[str, JsonValue] = {"id": self.mailing_id}
        if self.since is not None:
            since = self.since.astimezone(UTC).replace(tzinfo=None)
            fields["from_time"] = since.isoformat(timespec="milliseconds") + "Z"
        return {**fields, "limit": self.limit}

    def read(self, fields: Mapping[str, object], response: Response, wire: AltcraftWire) -> Listing[LogEntry]:
        """See `AltcraftCommand.read`. No entries come as null; XML may leave a single one bare."""
        del response
        data = fields.get("data")
        entries = [] if data is None else cast("list[object]", data) if isinstance(data, list) else [data]
        try:
            total = wire.codec.converter.structure(fields.get("total_count"), int)
        except TypeError:
            total = None
        return Listing(
            tuple(structure(wire.codec.converter, entry, LogEntry, "a log entry") for entry in entries), total
        )


def _launched(mailing_id: int, since: datetime) -> LogProbe[AltcraftWire, MailingAccepted]:
    """Probe the log for the start of a launch.

    An entry does not say which launch made it, so only a single start in a complete log counts. A missing start proves
    nothing: the platform does not document when an entry appears.
    """
    log = ReadLog(mailing_id, since - _EARLIER)

    def settle(entries: Listing[LogEntry], window: TimeWindow) -> Settlement[MailingAccepted]:
        if entries.total is not None and entries.total != len(entries):
            return Settlement(Evidence.INCONCLUSIVE, f"its log shows {len(entries)} entries and counts {entries.total}")
        if entries.total is None and len(entries) >= log.limit:
            return Settlement(Evidence.INCONCLUSIVE, f"its log shows {len(entries)} entries, and there may be more")
        if any(entry.time.tzinfo is None for entry in entries):
            return Settlement(Evidence.UNAVAILABLE, "its log shows times without a zone")
        # The log's times are in milliseconds.
        first = window.first - timedelta(milliseconds=1)
        # A start after the launch's time window belongs to another launch.
        starts = [entry.time for entry in entries if entry.state == "start" and first <= entry.time <= window.last]
        if not starts:
            return Settlement(Evidence.ABSENT, "its log shows no start at that time")
        if len(starts) > 1:
            return Settlement(
                Evidence.UNAVAILABLE, f"its log shows {len(starts)} starts, which do not say whose they are"
            )
        return Settlement(Evidence.APPLIED, "its log shows a start", MailingAccepted(mailing_id, settled=True))

    return ask_log(log, settle)


def _activity(mailing_id: int, evidence_by_status: Mapping[bool, Evidence]) -> Probe[AltcraftWire, MailingAccepted]:
    """Probe the status for whether a mailing is active."""

    def settle(status: MailingStatus) -> Settlement[MailingAccepted]:
        evidence = evidence_by_status[status.is_active]
        result = MailingAccepted(mailing_id, settled=True) if evidence is Evidence.APPLIED else None
        return Settlement(evidence, f"its state reads {'active' if status.is_active else 'not active'}", result)

    return Probe.of(ReadStatus(mailing_id), settle)


def _is_replay(response: Response) -> bool:
    names = "Duplicate-Request", "X-Duplicate-Request"
    return "true" in {response.headers.get(name, "").lower() for name in names}


def _accepted(mailing_id: int, response: Response) -> MailingAccepted:
    return MailingAccepted(mailing_id, replayed=_is_replay(response))


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
            return _launched(self.mailing_id, since)
        if self.limit is not None or self.content is not None or self.attachments:
            return None  # the status does not show them
        return _activity(self.mailing_id, {True: Evidence.APPLIED, False: Evidence.NOT_APPLIED})


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
        return _launched(self.mailing_id, since)


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
        return _activity(self.mailing_id, {True: Evidence.NOT_APPLIED, False: inactive})

    def read(self, fields: Mapping[str, object], response: Response, wire: AltcraftWire) -> MailingAccepted:
        """See `AltcraftCommand.read`."""
        del fields, wire
        return _accepted(self.mailing_id, response)

"""What all commands of Altcraft share: the wire format, and how a response is read.

The provider's pages: https://guides.altcraft.com
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar, TypeVar
from uuid import uuid4

import attrs

from dispatchkit.altcraft.codec import Codec
from dispatchkit.altcraft.models import Attachment, MailingAccepted
from dispatchkit.core.body import Part
from dispatchkit.core.command import (
    USER_AGENT,
    Command,
    ContradictoryAnswerError,
    Request,
    Response,
    UnexpectedResponseError,
    means_refusal,
)
from dispatchkit.core.secret import Secret
from dispatchkit.core.validators import JsonValue, positive_id, true_or_false
from dispatchkit.errors import (
    AccessDeniedError,
    IncorrectRequestError,
    RejectedError,
    TariffLimitError,
    TokenRequiredError,
)

__all__ = ["AltcraftCommand", "AltcraftWire", "is_replay"]

R_co = TypeVar("R_co", covariant=True)

_REFUSALS: dict[int, type[RejectedError]] = {
    400: IncorrectRequestError,
    401: TokenRequiredError,
    402: TariffLimitError,
    403: AccessDeniedError,
}

_REMEMBERED = timedelta(hours=23)
"""For how long a request id deduplicates: the platform's one day, less an hour by which clocks may differ."""


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
                f"{what} must keep the body within {limit:,} bytes, not {size:,}. {option}= changes the limit, if the "
                "platform's administrator has changed it"
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
        if self.is_read_only and is_replay(response):
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


def is_replay(response: Response) -> bool:
    """Whether the provider marked a response as its answer to an earlier request with the same id."""
    names = "Duplicate-Request", "X-Duplicate-Request"
    return "true" in {response.headers.get(name, "").lower() for name in names}

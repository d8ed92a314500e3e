"""What Altcraft is given and what it answers, as values."""

from __future__ import annotations

import base64
import mimetypes
from datetime import datetime
from os import PathLike, fspath
from pathlib import Path
from typing import Literal

import attrs

from dispatchkit.core.validators import JsonValue, as_int, positive_id

__all__ = ["Attachment", "Audience", "LogEntry", "MailingAccepted", "MailingStatus"]


AudienceKind = Literal["list", "segment"]


def _kind(instance: object, attribute: attrs.Attribute[AudienceKind], value: object) -> None:
    del instance
    if not isinstance(value, str) or value not in {"list", "segment"}:
        raise ValueError(f"audience {attribute.name} must be 'list' (a database) or 'segment', not {value!r}")


@attrs.frozen
class Audience:
    """Whom a launch goes to instead of the mailing's own audience: ``Audience("list", 1)``.

    Raises:
        ValueError: ``kind`` is neither ``"list"`` (a database) nor ``"segment"``, or ``id`` is not positive.
        TypeError: ``id`` is not an integer.
    """

    kind: AudienceKind = attrs.field(validator=_kind)
    id: int = attrs.field(converter=as_int, validator=positive_id)


def _file_name(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    del instance
    if not isinstance(value, str):
        raise TypeError(f"attachment {attribute.name} must be a string, not {type(value).__name__}")
    if not value or not value.isprintable() or "/" in value or "\\" in value:
        raise ValueError(f"attachment {attribute.name} must be a bare file name such as 'price.pdf', not {value!r}")


def _media_type(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    del instance
    if not isinstance(value, str):
        raise TypeError(f"attachment {attribute.name} must be a string, not {type(value).__name__}")
    main, slash, sub = value.partition("/")
    if not (main and slash and sub) or not value.isascii() or not value.isprintable() or set(value) & set(" ;,"):
        raise ValueError(f"attachment {attribute.name} must look like 'application/pdf', not {value!r}")


def _bytes(instance: object, attribute: attrs.Attribute[bytes], value: object) -> None:
    del instance
    if not isinstance(value, bytes):
        raise TypeError(f"attachment {attribute.name} must be bytes, not {type(value).__name__}")


@attrs.frozen
class Attachment:
    """A file for the messages. Made with `from_path` or `from_bytes`; its repr does not show the contents."""

    name: str = attrs.field(validator=_file_name)
    data: bytes = attrs.field(validator=_bytes, repr=lambda data: f"<{len(data)} bytes>")
    media_type: str = attrs.field(validator=_media_type)

    @classmethod
    def from_path(
        cls, path: str | PathLike[str], *, name: str | None = None, media_type: str | None = None
    ) -> Attachment:
        """Read a file now, so that a later change to it cannot change what is sent.

        Args:
            path: The file.
            name: What the recipient sees; the file's own name by default.
            media_type: Guessed from the name by default, ``application/octet-stream`` where it says nothing.

        Raises:
            OSError: The file cannot be read.
            ValueError: ``name`` or ``media_type`` cannot be used.
        """
        file = Path(fspath(path))
        return cls.from_bytes(file.read_bytes(), name=file.name if name is None else name, media_type=media_type)

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str, media_type: str | None = None) -> Attachment:
        """Take the contents as they are.

        Args:
            data: The contents.
            name: What the recipient sees.
            media_type: Guessed from the name by default, ``application/octet-stream`` where it says nothing.

        Raises:
            TypeError: ``data`` is not bytes, or ``name`` not text.
            ValueError: ``name`` or ``media_type`` cannot be used.
        """
        guessed = media_type or mimetypes.guess_type(str(name))[0] or "application/octet-stream"
        return cls(name, data, guessed)

    def file_object(self) -> dict[str, JsonValue]:
        """The platform's File object: a name and a data URL."""
        return {"name": self.name, "data": f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"}


@attrs.frozen
class MailingAccepted:
    """The platform said yes. It says no more than that: a launch has no run id."""

    mailing_id: int
    replayed: bool = False
    """Whether this is the answer to an earlier request with the same id (``Duplicate-Request: true``)."""
    settled: bool = False
    """Whether the answer was lost and the mailing's state shows that it happened."""
    repeated: bool = False
    """Whether an unclear launch was repeated, which ``deduplicates=True`` allows, and the answer does not say that the
    platform recognised the repeat: it may have launched twice."""


@attrs.frozen
class MailingStatus:
    """A mailing's state, as ``campaigns/get_status`` gives it. It shows activation; it cannot prove a launch."""

    is_active: bool
    is_completed: bool | None = None
    status: str | None = None
    """The platform's own word; the set of words is not documented."""


@attrs.frozen
class LogEntry:
    """One line of a mailing's log, as ``campaigns/log_v2`` gives it."""

    time: datetime
    """As the platform says it. It has no zone where the platform says none; such an entry settles no launch."""
    state: str
    """``"start"``, ``"end"`` or empty: the only field to decide by."""
    level: str = ""
    message: str = ""
    value: str = ""

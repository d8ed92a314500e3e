"""The values in Altcraft's requests and responses."""

from __future__ import annotations

import mimetypes
from datetime import datetime
from os import PathLike, fspath
from pathlib import Path
from typing import Literal

import attrs

from dispatchkit.altcraft.base64_part import Base64Part
from dispatchkit.altcraft.regular_file import read_regular_file
from dispatchkit.core.secret import Unshown
from dispatchkit.core.validators import JsonValue, as_int, brief, int_in_range, positive_id
from dispatchkit.values import Value, shown_as

__all__ = ["MAX_FILE_BYTES", "Attachment", "Audience", "LogEntry", "MailingAccepted", "MailingStatus"]


MAX_FILE_BYTES = 75_000_000
"""Bytes of a file that a body of 100 MB, the platform's own limit, can hold in Base64."""
_MAX_NAME = 255

AudienceKind = Literal["list", "segment"]


def _kind(instance: object, attribute: attrs.Attribute[AudienceKind], value: object) -> None:
    del instance
    if not isinstance(value, str) or value not in {"list", "segment"}:
        raise ValueError(f"audience {attribute.name} must be 'list' (a database) or 'segment', not {value!r}")


@attrs.frozen
class Audience(Value):
    """The recipients of a launch instead of the mailing's own audience: ``Audience("list", 1)``.

    Raises:
        ValueError: ``kind`` is neither ``"list"`` (a database) nor ``"segment"``, or ``id`` is not positive.
        TypeError: ``id`` is not an integer.

    Example:
        >>> Audience("segment", 5)
        Audience(kind='segment', id=5)
    """

    kind: AudienceKind = attrs.field(validator=_kind)
    id: int = attrs.field(converter=as_int, validator=positive_id)


def _file_name(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    del instance
    if not isinstance(value, str):
        raise TypeError(f"attachment {attribute.name} must be a string, not {type(value).__name__}")
    allowed = f"attachment {attribute.name} must be a bare file name such as 'price.pdf'"
    if len(value) > _MAX_NAME:
        raise ValueError(f"{allowed} of at most {_MAX_NAME} characters, not of {len(value):,}")
    if not value.strip(". ") or value != value.strip() or not value.isprintable() or set(value) & set("/\\"):
        raise ValueError(f"{allowed}, not {brief(value)}")


def _media_type(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    del instance
    if not isinstance(value, str):
        raise TypeError(f"attachment {attribute.name} must be a string, not {type(value).__name__}")
    main, slash, sub = value.partition("/")
    if not (main and slash and sub) or not value.isascii() or not value.isprintable() or set(value) & set(" ;,"):
        raise ValueError(f"attachment {attribute.name} must look like 'application/pdf', not {value!r}")


class _Encoded:
    """The slot of an attachment's Base64, which is no field: it is neither compared nor stored."""

    __slots__ = ("_base64",)
    _base64: Base64Part


@attrs.frozen(init=False)
class Attachment(_Encoded, Value):
    """A file for the messages, made by `from_path` or `from_bytes`.

    Neither its repr nor its `to_dict` shows the contents.

    Example:
        >>> Attachment.from_bytes(b"%PDF-1.7", name="price.pdf")
        Attachment(name='price.pdf', data=<8 bytes>, media_type='application/pdf')
    """

    name: str = attrs.field(validator=_file_name)
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>", metadata=shown_as("size", len))
    media_type: str = attrs.field(validator=_media_type)

    def __init__(self, name: str, data: bytes, media_type: str) -> None:
        kind, held = type(data), Unshown(data)
        del data  # a traceback would show it
        self.__attrs_init__(name, b"", media_type)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        if not issubclass(kind, bytes):  # callers without a type checker
            raise TypeError(f"attachment data must be bytes, not {kind.__name__}")
        object.__setattr__(self, "data", held.reveal())

    @classmethod
    def from_path(
        cls,
        path: str | PathLike[str],
        *,
        name: str | None = None,
        media_type: str | None = None,
        max_bytes: int = MAX_FILE_BYTES,
    ) -> Attachment:
        """Read a file now, so that a later change to it cannot change what is sent.

        Args:
            path: The file. A symbolic link is followed; a pipe, a device or a directory is refused.
            name: The name that the recipient sees, at most 255 characters; the file's own name by default.
            media_type: The media type; by default guessed from the name, else ``application/octet-stream``.
            max_bytes: The size of the largest file that is read. Default: 75,000,000, which the platform's own limit of
                100 MB leaves. A client checks its ``attachment_limit`` for all files of a launch together.

        Raises:
            OSError: The file cannot be read, is no regular file, or changes while it is read.
            ValueError: The file is too large, or ``name`` or ``media_type`` cannot be used.
            TypeError: An argument is of another type.
        """
        int_in_range("max_bytes", max_bytes, minimum=1)
        file = Path(fspath(path))
        made = cls.from_bytes(b"", name=file.name if name is None else name, media_type=media_type)
        return attrs.evolve(made, data=read_regular_file(file, max_bytes=max_bytes))

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str, media_type: str | None = None) -> Attachment:
        """Make an attachment from its contents.

        Args:
            data: The contents.
            name: The name that the recipient sees.
            media_type: The media type; by default guessed from the name, else ``application/octet-stream``.

        Raises:
            TypeError: ``data`` is not bytes, or ``name`` not text.
            ValueError: ``name`` or ``media_type`` cannot be used.
        """
        held = Unshown(data)
        del data  # a traceback would show it
        guessed = media_type or mimetypes.guess_type(str(name))[0] or "application/octet-stream"
        return cls(name, held.reveal(), guessed)

    def file_object(self, data: str) -> dict[str, JsonValue]:
        """The platform's File object: a name, and a data URL with this Base64."""
        return {"name": self.name, "data": f"data:{self.media_type};base64,{data}"}

    def base64(self) -> Base64Part:
        """The contents in Base64, for one more request. All requests share them."""
        try:
            encoded = self._base64
        except AttributeError:
            encoded = Base64Part(self.data)
            object.__setattr__(self, "_base64", encoded)
        encoded.requests += 1
        return encoded


@attrs.frozen
class MailingAccepted(Value):
    """The platform accepted the call. Its response has no run id of a launch.

    Example:
        >>> async with Sandbox() as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        ...     (await altcraft.activate(82)).replayed
        False
    """

    mailing_id: int
    replayed: bool = False
    """Whether this is the response to an earlier request with the same id (``Duplicate-Request: true``)."""
    settled: bool = False
    """Whether the response was lost and the mailing's state shows that the call had its effect."""
    repeated: bool = False
    """Whether an unclear launch was repeated and the response does not say that the platform recognised the repeat.
    Only ``deduplicates=True`` allows this. The mailing may have been launched twice."""


@attrs.frozen
class MailingStatus(Value):
    """A mailing's state, from ``campaigns/get_status``. It shows activation; it cannot prove a launch.

    Example:
        >>> async with Sandbox(active=[90]) as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        ...     (await altcraft.status(90)).is_active
        True
    """

    is_active: bool
    is_completed: bool | None = None
    status: str | None = None
    """The platform's word; the possible words are not documented."""


@attrs.frozen
class LogEntry(Value):
    """One entry of a mailing's log, from ``campaigns/log_v2``.

    Example:
        >>> async with Sandbox(active=[90]) as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        ...     accepted = await altcraft.launch_broadcast(90)
        ...     [entry.state for entry in await altcraft.log(90)]
        ['start']
    """

    time: datetime
    """The platform's time. It has no time zone if the platform sends none; such an entry settles no launch."""
    state: str
    """``"start"``, ``"end"`` or empty: the only field that settles a launch."""
    level: str = ""
    message: str = ""
    value: str = ""

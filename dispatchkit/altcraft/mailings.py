"""Mailings of Altcraft as the platform lists them: the value, and the commands that read them.

v72 says campaign, v73 and v74 say mailing; the paths are the same. The provider's pages: https://guides.altcraft.com
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, cast

import attrs

from dispatchkit.altcraft.base import AltcraftCommand, AltcraftWire
from dispatchkit.altcraft.lenient import read_lenient
from dispatchkit.core.command import Request, Response, UnexpectedResponseError
from dispatchkit.core.listing import Listing
from dispatchkit.core.validators import JsonValue, as_int, flag, non_empty, positive_id
from dispatchkit.values import Value, shown_as

__all__ = ["PAGE_SIZE", "Mailing", "MailingKind", "ReadMailing", "ReadMailings"]

MailingKind = Literal["broadcast", "regular"]
"""The kinds of mailings that have calls of their own."""

PAGE_SIZE = 1000
"""Mailings of one page: the platform's own default."""

# The slashes are part of the path, and inconsistent.
_LISTS = {None: "campaigns/list", "broadcast": "campaigns/broadcasts/list", "regular": "campaigns/regulars/list/"}
_ONE = {None: "campaigns/get", "broadcast": "campaigns/broadcasts/get", "regular": "campaigns/regulars/get"}


def _kind(instance: object, attribute: attrs.Attribute[MailingKind | None], value: object) -> None:
    del instance
    if value is not None and value not in ("broadcast", "regular"):
        raise ValueError(f"{attribute.name} must be 'broadcast' or 'regular', not {value!r}")


@attrs.frozen(kw_only=True)
class Mailing(Value):
    """A mailing (v72: a campaign) as ``campaigns/get`` and the lists tell of it.

    Only the id is always there. Any other field is None if the platform left it out, or sent another type.

    Example:
        >>> async with Sandbox() as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        ...     (await altcraft.mailing(82)).is_active
        False
    """

    mailing_id: int = attrs.field(validator=positive_id)
    name: str | None = None
    description: str | None = None
    type: str | None = None
    """The platform's word; the possible words are not documented."""
    is_active: bool | None = None
    update_time: datetime | None = None
    """The platform's time. It has no time zone if the platform sends none."""
    extra: Mapping[str, object] = attrs.field(
        factory=dict[str, object],
        hash=False,  # a dict has none
        repr=False,
        metadata=shown_as("extra_keys", list),
    )
    """Unknown fields, and values that are not of their field's type, under the platform's names."""


def _mailing(value: object, wire: AltcraftWire) -> Mailing:
    return read_lenient(wire.codec.converter, value, Mailing, "a mailing", names={"mailing_id": "id"})


@attrs.frozen
class ReadMailing(AltcraftCommand[Mailing]):
    """Read one mailing: ``POST /api/v1.1/campaigns/get``, or the same call of its kind.

    Raises:
        TypeError: ``mailing_id`` is not an integer.
        ValueError: ``mailing_id`` is not positive, or there is no such ``kind``.
    """

    is_read_only = True
    mailing_id: int = attrs.field(converter=as_int, validator=positive_id)
    kind: MailingKind | None = attrs.field(default=None, validator=_kind, kw_only=True)

    @property
    def target(self) -> int:
        """See `Command.target`."""
        return self.mailing_id

    def fields(self) -> dict[str, JsonValue]:
        """See `AltcraftCommand.fields`."""
        return {"id": self.mailing_id}

    def request(self, wire: AltcraftWire, request_id: str | None) -> Request:
        """See `Command.request`."""
        return wire.request(_ONE[self.kind], self.fields(), (), request_id, reads=True)

    def read(self, fields: Mapping[str, object], response: Response, wire: AltcraftWire) -> Mailing:
        """See `AltcraftCommand.read`."""
        del response
        mailing = _mailing(fields.get("data"), wire)
        if mailing.mailing_id != self.mailing_id:
            raise UnexpectedResponseError("it speaks of another mailing")
        return mailing


@attrs.frozen(kw_only=True)
class ReadMailings(AltcraftCommand[Listing[Mailing]]):
    """Read one page of the mailings, by id: ``POST /api/v1.1/campaigns/list``, or the same call of a kind.

    Raises:
        TypeError: A field is of another type; the message names it.
        ValueError: ``from_id`` or ``limit`` is not positive, there is no such ``kind``, or ``mailing_type`` is empty.
    """

    is_read_only = True
    kind: MailingKind | None = attrs.field(default=None, validator=_kind)
    mailing_type: str | None = attrs.field(default=None, validator=non_empty)
    is_active: bool | None = attrs.field(default=None, validator=flag)
    from_id: int = attrs.field(default=1, converter=as_int, validator=positive_id)
    limit: int = attrs.field(default=PAGE_SIZE, converter=as_int, validator=positive_id)

    def fields(self) -> dict[str, JsonValue]:
        """See `AltcraftCommand.fields`."""
        fields: dict[str, JsonValue] = {"from_id": self.from_id, "limit": self.limit}
        if self.mailing_type is not None:
            fields["type"] = self.mailing_type
        if self.is_active is not None:
            fields["is_active"] = self.is_active
        return fields

    def request(self, wire: AltcraftWire, request_id: str | None) -> Request:
        """See `Command.request`."""
        return wire.request(_LISTS[self.kind], self.fields(), (), request_id, reads=True)

    def read(self, fields: Mapping[str, object], response: Response, wire: AltcraftWire) -> Listing[Mailing]:
        """See `AltcraftCommand.read`. No mailings come as null; XML may leave a single one bare."""
        del response
        data = fields.get("data")
        items = [] if data is None else cast("list[object]", data) if isinstance(data, list) else [data]
        try:
            total = wire.codec.converter.structure(fields.get("total_count"), int)
        except TypeError:
            total = None
        return Listing(tuple(_mailing(item, wire) for item in items), total)

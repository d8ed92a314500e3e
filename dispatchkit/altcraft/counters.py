"""The counters of an audience of Altcraft, by channel: the values, and the command that reads them.

The provider's pages: https://guides.altcraft.com
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import attrs

from dispatchkit.altcraft.base import AltcraftCommand, AltcraftWire
from dispatchkit.altcraft.lenient import read_lenient
from dispatchkit.altcraft.models import Audience
from dispatchkit.core.command import Request, Response, UnexpectedResponseError
from dispatchkit.core.decode import fields_of
from dispatchkit.core.listing import Listing
from dispatchkit.core.validators import JsonValue, a_kind, as_int_or_none, positive_id
from dispatchkit.values import Value, shown_as

__all__ = ["AudienceCounts", "ChannelCounters", "ReadCounters"]

_PATHS = {"list": "databases/get_counters", "segment": "segments/get_counters"}


@attrs.frozen(kw_only=True)
class AudienceCounts(Value):
    """The number of subscriptions of an audience in one channel, in all and by state.

    A mailing reaches `subscribed_sendable`, not `all`. Any number is None if the platform left it out.

    Example:
        >>> AudienceCounts(all=10, subscribed=8, subscribed_sendable=7).subscribed_sendable
        7
    """

    subscribed_sendable: int | None = None
    """Those that a mailing can reach. An estimate: a dynamic segment is counted again before every launch."""
    unconfirmed_sendable: int | None = None
    subscribed: int | None = None
    unsubscribed: int | None = None
    complained: int | None = None
    hardbounced: int | None = None
    unconfirmed: int | None = None
    suspended: int | None = None
    invalid: int | None = None
    all: int | None = None
    extra: Mapping[str, object] = attrs.field(
        factory=dict[str, object],
        hash=False,  # a dict has none
        repr=False,
        metadata=shown_as("extra_keys", list),
    )
    """Unknown fields, and values that are not of their field's type, under the platform's names."""


@attrs.frozen
class ChannelCounters(Value):
    """The counters of an audience in one channel, such as ``email``.

    Example:
        >>> async with Sandbox() as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        ...     for counters in await altcraft.counters(Audience("list", 1)):
        ...         print(counters.channel, counters.status.subscribed_sendable)
        email 1000
        sms 400
    """

    channel: str
    status: AudienceCounts


def _optional_id(instance: object, attribute: attrs.Attribute[int | None], value: object) -> None:
    if value is not None:
        positive_id(instance, cast("attrs.Attribute[int]", attribute), value)


def _audience(instance: object, attribute: attrs.Attribute[Audience], value: object) -> None:
    del instance
    a_kind(attribute.name, value, Audience, "an Audience such as Audience('list', 1)")


@attrs.frozen
class ReadCounters(AltcraftCommand[Listing[ChannelCounters]]):
    """Read the counters of an audience: ``POST /api/v1.1/databases/get_counters`` or ``segments/get_counters``.

    Raises:
        TypeError: A field is of another type; the message names it.
        ValueError: An id is not positive, or ``list_id`` is given for a database.
    """

    is_read_only = True
    audience: Audience = attrs.field(validator=_audience)
    resource_id: int | None = attrs.field(default=None, converter=as_int_or_none, validator=_optional_id, kw_only=True)
    list_id: int | None = attrs.field(default=None, converter=as_int_or_none, validator=_optional_id, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.list_id is not None and self.audience.kind != "segment":
            raise ValueError(f"list_id={self.list_id} must go with a segment, not with {self.audience!r}")

    @property
    def target(self) -> int:
        """See `Command.target`: the id of the audience."""
        return self.audience.id

    def fields(self) -> dict[str, JsonValue]:
        """See `AltcraftCommand.fields`."""
        fields: dict[str, JsonValue] = {"id": self.audience.id}
        if self.resource_id is not None:
            fields["resource_id"] = self.resource_id
        if self.list_id is not None:
            fields["list_id"] = self.list_id
        return fields

    def request(self, wire: AltcraftWire, request_id: str | None) -> Request:
        """See `Command.request`."""
        return wire.request(_PATHS[self.audience.kind], self.fields(), (), request_id, reads=True)

    def read(self, fields: Mapping[str, object], response: Response, wire: AltcraftWire) -> Listing[ChannelCounters]:
        """See `AltcraftCommand.read`. No channels come as null; XML may leave a single one bare."""
        del response
        data = fields.get("data")
        items = [] if data is None else cast("list[object]", data) if isinstance(data, list) else [data]
        return Listing(tuple(_counters(item, wire) for item in items))


def _counters(item: object, wire: AltcraftWire) -> ChannelCounters:
    fields = fields_of(item) or {}
    converter = wire.codec.converter
    try:
        channel = converter.structure(fields.get("channel"), str)
    except TypeError:
        channel = ""
    if not channel:
        raise UnexpectedResponseError("not the counters of a channel")
    return ChannelCounters(channel, read_lenient(converter, fields.get("status"), AudienceCounts, "counters"))

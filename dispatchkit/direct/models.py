"""The responses of Direct, as values.

The provider's pages: https://api.docs.direct.i-dgtl.ru
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NewType

import attrs

from dispatchkit.core.decode import register_lenient, strict_converter
from dispatchkit.core.validators import positive_id
from dispatchkit.values import Value, shown_as

__all__ = [
    "Dispatch",
    "DispatchBase",
    "DispatchCounts",
    "DispatchSource",
    "LocalTime",
    "StartedDispatch",
    "direct_converter",
]


@attrs.frozen
class StartedDispatch(Value):
    """A dispatch whose start the provider has accepted.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     (await direct.start(7)).dispatch_id
        7
    """

    dispatch_id: int
    settled: bool = False
    """Whether the response was lost and the dispatch's status shows that it started."""


LocalTime = NewType("LocalTime", datetime)
"""A date and time without a time zone, as the provider sends it."""


def _local(value: object, _: type[LocalTime]) -> LocalTime:
    moment = datetime.fromisoformat(direct_converter.structure(value, str))
    if moment.tzinfo is not None:
        raise ValueError("a time without a zone expected")
    return LocalTime(moment)


@attrs.frozen(kw_only=True)
class _Open(Value):
    extra: Mapping[str, object] = attrs.field(
        factory=dict[str, object],
        hash=False,  # a dict has none
        repr=False,
        metadata=shown_as("extra_keys", list),
    )
    """Unknown fields, and values that are not of their field's type, under the provider's names."""


@attrs.frozen(kw_only=True)
class DispatchCounts(_Open):
    """The number of parts or messages of a dispatch, in all and by state.

    Example:
        >>> DispatchCounts(total=1000, delivered=990, undelivered=10).delivered
        990
    """

    total: int | None = None
    delivered: int | None = None
    undelivered: int | None = None
    unsent: int | None = None
    sent: int | None = None
    sending: int | None = None


@attrs.frozen(kw_only=True)
class DispatchSource(_Open):
    """A source of recipients, such as a file.

    Example:
        >>> DispatchSource(type="FILE", name="customers.csv")
        DispatchSource(type='FILE', name='customers.csv')
    """

    type: str | None = None
    """``FILE`` in the provider's own example."""
    name: str | None = None


@attrs.frozen(kw_only=True)
class DispatchBase(_Open):
    """The recipients of a dispatch.

    Example:
        >>> DispatchBase(included=DispatchSource(type="FILE", name="customers.csv")).excluded is None
        True
    """

    included: DispatchSource | None = None
    excluded: DispatchSource | None = None


def _length(text: str | None) -> int | None:
    return None if text is None else len(text)


@attrs.frozen(kw_only=True)
class Dispatch(_Open):
    """A dispatch as ``GET /dispatch`` lists it.

    Only the id and the status are always there. Any other field is None if the provider left it out, or sent another
    type. `extra` has each value of another type. Neither the repr nor `to_dict` shows the message.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     (await direct.dispatch(7)).status
        'initiated'
    """

    dispatch_id: int = attrs.field(validator=positive_id)
    status: str
    """``initiated``, ``changing``, ``scheduled``, ``sending``, ``awaiting``, ``done``, ``paused``, ``stopped``; an
    unknown word is passed on as it is."""
    dispatch_name: str | None = None
    created: datetime | None = None
    """UTC."""
    local_send_time: LocalTime | None = None
    local_completion_time: LocalTime | None = None
    use_local_time: bool | None = None
    source: str | None = None
    """The name of the sender."""
    message: str | None = attrs.field(
        default=None,
        repr=lambda text: "None" if text is None else f"<{len(text)} characters>",
        metadata=shown_as("message_length", _length),
    )
    traffic_center_id: int | None = None
    traffic_center_name: str | None = None
    base: DispatchBase | None = None
    parts: DispatchCounts | None = None
    messages: DispatchCounts | None = None


direct_converter = strict_converter()
direct_converter.register_structure_hook(LocalTime, _local)
for kind in (DispatchCounts, DispatchSource, DispatchBase, Dispatch):
    register_lenient(direct_converter, kind)

"""What Direct answers, as values.

The provider's pages: https://api.docs.direct.i-dgtl.ru
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NewType

import attrs

from dispatchkit.core.decode import register_lenient, rename, strict_converter
from dispatchkit.core.validators import positive_id

__all__ = [
    "Dispatch",
    "DispatchBase",
    "DispatchCounts",
    "DispatchSource",
    "LocalTime",
    "StartedBody",
    "StartedDispatch",
    "direct_converter",
]


@attrs.frozen
class StartedDispatch:
    """A dispatch whose start the provider has accepted."""

    dispatch_id: int
    settled: bool = False
    """Whether the answer was lost and the dispatch's status shows that it started."""


@attrs.frozen
class StartedBody:
    """What a start is answered with."""

    dispatch_id: int


LocalTime = NewType("LocalTime", datetime)
"""A time of day without a zone, as the provider says it."""


def _local(value: object, _: type[LocalTime]) -> LocalTime:
    moment = datetime.fromisoformat(direct_converter.structure(value, str))
    if moment.tzinfo is not None:
        raise ValueError("a time without a zone expected")
    return LocalTime(moment)


@attrs.frozen(kw_only=True)
class _Open:
    extra: Mapping[str, object] = attrs.field(factory=dict[str, object], hash=False, repr=False)  # a dict has no hash
    """What else the provider said, under its own names: unknown fields, and what is not of its field's type."""


@attrs.frozen(kw_only=True)
class DispatchCounts(_Open):
    """How many parts or messages of a dispatch there are, and what became of them.

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
    """Where recipients come from: a file, say.

    Example:
        >>> DispatchSource(type="FILE", name="customers.csv")
        DispatchSource(type='FILE', name='customers.csv')
    """

    type: str | None = None
    """``FILE`` in the provider's own example."""
    name: str | None = None


@attrs.frozen(kw_only=True)
class DispatchBase(_Open):
    """Whom a dispatch goes to.

    Example:
        >>> DispatchBase(included=DispatchSource(type="FILE", name="customers.csv")).excluded is None
        True
    """

    included: DispatchSource | None = None
    excluded: DispatchSource | None = None


@attrs.frozen(kw_only=True)
class Dispatch(_Open):
    """A dispatch as ``GET /dispatch`` lists it.

    Only the id and the status are always there. Any other field is None where the provider left it out, or said
    something that is not of its type; then `extra` still has what it said. The repr does not show the message.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     (await direct.dispatch(7)).status
        'initiated'
    """

    dispatch_id: int = attrs.field(validator=positive_id)
    status: str
    """``initiated``, ``changing``, ``scheduled``, ``sending``, ``awaiting``, ``done``, ``paused``, ``stopped``; a word
    that is not among them is passed on as it is."""
    dispatch_name: str | None = None
    created: datetime | None = None
    """UTC."""
    local_send_time: LocalTime | None = None
    local_completion_time: LocalTime | None = None
    use_local_time: bool | None = None
    source: str | None = None
    """The name of the sender."""
    message: str | None = attrs.field(
        default=None, repr=lambda text: "None" if text is None else f"<{len(text)} characters>"
    )
    traffic_center_id: int | None = None
    traffic_center_name: str | None = None
    base: DispatchBase | None = None
    parts: DispatchCounts | None = None
    messages: DispatchCounts | None = None


direct_converter = strict_converter()
rename(direct_converter, StartedBody, dispatch_id="dispatchId")
direct_converter.register_structure_hook(LocalTime, _local)
for kind in (DispatchCounts, DispatchSource, DispatchBase, Dispatch):
    register_lenient(direct_converter, kind)

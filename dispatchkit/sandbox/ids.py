"""Which numbers a provider knows, at the price of writing them down."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Ids:
    """A fixed collection of ids in which a ``range`` stays a range.

    Ten million known dispatches cost as much as ten: nothing is stored for an id until something happens to it.

    Example:
        >>> 10000000125 in Ids(range(1, 100_001), [10000000125])
        True

    Args:
        *parts: Ranges and other ``Ids`` are kept as they are, anything else is read once and copied.
    """

    __slots__ = ("_parts",)

    def __init__(self, *parts: Iterable[int]) -> None:
        # A dict, not a set: it keeps the order in which the ids were named.
        self._parts = tuple(part if isinstance(part, range | Ids) else dict.fromkeys(part) for part in parts)

    def __contains__(self, number: int) -> bool:
        return any(number in part for part in self._parts)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._parts)

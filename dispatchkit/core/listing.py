"""`Listing`: the items of a provider's list, and its total."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar, overload

import attrs

from dispatchkit.values import SHOWN, Value

__all__ = ["Listing"]

T_co = TypeVar("T_co", covariant=True)


@attrs.frozen
class Listing(Value, Sequence[T_co], Generic[T_co]):
    """A provider's list: a sequence (``for dispatch in listing``) that knows whether it is complete.

    Example:
        >>> listing = Listing(("a", "b"), total=3)
        >>> len(listing), listing[0], listing.missing
        (2, 'a', 1)
    """

    __to_dict_also__: ClassVar[tuple[str, ...]] = ("missing",)

    items: tuple[T_co, ...]
    total: int | None = None
    """The provider's own count; None if it gave none."""
    received: int = attrs.field(
        default=attrs.Factory(lambda listing: len(listing.items), takes_self=True),
        eq=False,
        repr=False,
        metadata=SHOWN,
    )
    """Number of items in the answer, including those that a local filter dropped."""

    @property
    def missing(self) -> int:
        """Number of items that the provider counts but did not list."""
        return max(0, (self.total or 0) - len(self.items))

    @overload
    def __getitem__(self, index: int) -> T_co: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[T_co, ...]: ...

    def __getitem__(self, index: int | slice) -> T_co | tuple[T_co, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

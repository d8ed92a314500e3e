"""`Listing`: the items of a provider's list, and its total."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar, overload

import attrs

from dispatchkit.core.reprs import RichRepr, html_table
from dispatchkit.json_rows import Json
from dispatchkit.values import SHOWN, Value

__all__ = ["Listing"]

T_co = TypeVar("T_co", covariant=True)


_SHOWN_ITEMS = 3
"""Items that the repr of a list shows. A list may have hundreds of thousands."""
_SHOWN_ROWS = 50
"""Rows that a notebook shows."""


@attrs.frozen(repr=False)
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

    def __rich_repr__(self) -> RichRepr:
        yield "items", self.items
        yield "total", self.total, None

    def __repr__(self) -> str:
        shown = [repr(item) for item in self.items[:_SHOWN_ITEMS]]
        if len(self) > _SHOWN_ITEMS:
            shown.append(f"... {len(self) - _SHOWN_ITEMS:,} more")
        total = "" if self.total is None else f", total={self.total}"
        return f"Listing([{', '.join(shown)}]{total})"

    def _repr_html_(self) -> str:
        rows = [_row(item) for item in self.items[:_SHOWN_ROWS]]
        columns = [name for name in dict.fromkeys(name for row in rows for name in row) if _is_filled(name, rows)]
        caption = f"{len(self):,} items"
        if len(self) > _SHOWN_ROWS:
            caption += f", the first {_SHOWN_ROWS} shown"
        if self.missing:
            caption += f"; the provider counts {self.missing:,} more"
        return html_table(caption, columns, ([row.get(name) for name in columns] for row in rows))


def _row(item: object) -> dict[str, Json]:
    """What a notebook shows of an item: no content, and of an unknown type its name only."""
    return {**item.to_dict(flat=True)} if isinstance(item, Value) else {"type": type(item).__name__}


def _is_filled(name: str, rows: Sequence[dict[str, Json]]) -> bool:
    return any(row.get(name) not in {None, ""} for row in rows)

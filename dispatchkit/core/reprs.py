"""One description of an object for three readers: ``repr``, rich and notebooks.

A class lists what it shows in ``__rich_repr__``, as rich documents it. An entry is a value, or a name with its value
and its default. `describe` makes a repr of the same list, without defaults.
`html_table` makes a table for ``_repr_html_``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Protocol, TypeAlias, cast

from dispatchkit.json_rows import Json

__all__ = ["RichRepr", "describe", "html_table"]

RichRepr: TypeAlias = Iterator[object | tuple[str, object] | tuple[str, object, object]]
"""What ``__rich_repr__`` yields."""


class _Described(Protocol):
    def __rich_repr__(self) -> RichRepr: ...


def describe(value: _Described) -> str:
    """The repr of an object with ``__rich_repr__``: ``Class(value, name=value)``, without defaults."""
    parts: list[str] = []
    for entry in value.__rich_repr__():
        given = cast("tuple[object, ...]", entry) if isinstance(entry, tuple) else (entry,)
        if len(given) == 1:
            parts.append(repr(given[0]))
        elif len(given) == 2 or given[1] != given[2]:
            parts.append(f"{given[0]}={given[1]!r}")
    return f"{type(value).__name__}({', '.join(parts)})"


def html_table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Json]]) -> str:
    """An HTML table for notebooks. All text is escaped; None is an empty cell."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Json) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td style="text-align: right">{value:,}</td>'
    return f"<td>{'' if value is None else escape(str(value))}</td>"

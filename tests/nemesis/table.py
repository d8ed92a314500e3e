"""The table of what came of all runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["bad", "table"]

_SUMS = ("fired", "dropped", "double", "lost", "false", "unknown", "errors")


def bad(row: dict[str, Any]) -> bool:
    """Whether an attempt broke the promise, or was the last one of its run and proves nothing."""
    missed = not row["fired"] and not row["dropped"]
    return bool(row["double"] or row["lost"] or row["false"] or row["errors"] or missed)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Fault x store x kind, in Markdown; below it, which runs were bad, and why.

    Every attempt counts. One whose fault did not fire is judged like the others, and tried again: it was dropped.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["fault"], row["store"], row["kind"]), []).append(row)
    lines = [
        "| fault | store | kind | attempts | fired | dropped | double | lost | false | unknown | errors | bad |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for names, members in sorted(groups.items()):
        sums = [sum(int(row[key]) for row in members) for key in _SUMS]
        cells = [*names, len(members), *sums, sum(map(bad, members))]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    failed = [row for row in rows if bad(row)]
    if failed:
        lines += ["", f"{len(failed)} of {len(rows)} runs are bad. One of each kind:", ""]
    seen = set()
    for row in failed:
        names = (row["fault"], row["store"], row["kind"])
        if names not in seen:
            seen.add(names)
            lines.append(
                f"- {' '.join(names)} #{row['number']} ({row['loop']}, seed {row['seed']!r}): "
                + "; ".join([*row["proof"][:2], *row["notes"][:2]])
            )
    return "\n".join(lines)

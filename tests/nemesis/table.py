"""The table of what came of all runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["bad", "table", "within_window"]

_SUMS = ("fired", "dropped", "double", "lost", "false", "unknown", "errors")
_SUSPENDS = frozenset({"stop_run", "takeover", "takeover_repeat"})
"""Faults that suspend a process at full speed and let it wake once nothing of it may be launched."""


def within_window(row: dict[str, Any]) -> bool:
    """Whether one request was late because its process was suspended between the last check and the system call.

    The README names these microseconds. A process has one thread that sends, so it is one request a run, never two.
    """
    return row["fault"] in _SUSPENDS and row["double"] + row["false"] == 1


def bad(row: dict[str, Any]) -> bool:
    """Whether an attempt broke the promise, or was the last one of its run and proves nothing."""
    missed = not row["fired"] and not row["dropped"]
    broken = (row["double"] or row["false"]) and not within_window(row)
    return bool(broken or row["lost"] or row["errors"] or missed)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Fault x store x kind, in Markdown; below it, which runs were bad, and why.

    Every attempt counts. One whose fault did not fire is judged like the others, and tried again: it was dropped.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["fault"], row["store"], row["kind"]), []).append(row)
    lines = [
        f"| fault | store | kind | attempts | {' | '.join(_SUMS)} | window | bad |",
        f"| --- | --- | --- |{' ---: |' * (len(_SUMS) + 3)}",
    ]
    for names, members in sorted(groups.items()):
        sums = [sum(int(row[key]) for row in members) for key in _SUMS]
        cells = [*names, len(members), *sums, sum(map(within_window, members)), sum(map(bad, members))]
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

"""Questions that a person at the terminal must answer before anything is sent."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING

import attrs
import typer

from dispatchkit.cli.fitted import fitted
from dispatchkit.cli.text import escape_control, write
from dispatchkit.cli.translate import _, ngettext

if TYPE_CHECKING:
    from dispatchkit.cli.input.ids import Targets

__all__ = ["DECLINED", "PRODUCTION", "Description", "ask", "confirm", "describe_ids", "is_asked"]

DECLINED = 4
"""The exit status after the answer no."""

_NOTHING_SENT = _("Nothing was sent.")

PRODUCTION = _(" (production)")
"""Stands after a host whose launches reach real people."""
_RED = "\x1b[1;31m{}\x1b[0m"

_NAMED = 10
"""Ids, or ranges of ids, that are named one by one."""


@attrs.frozen
class Description:
    """Description of a command, for the question before it and for the report after it."""

    action: str
    """The action and its ids, such as ``start 2 dispatches: 5, 7``."""
    details: tuple[tuple[str, str], ...]
    """The host, the account and the overrides of a launch, without values of a content."""

    def __str__(self) -> str:
        width = max((len(name) for name, _value in self.details), default=0)
        lines = [f"  {name:{width}}  {value}" for name, value in self.details]
        return "\n".join(map(escape_control, [f"{self.action[0].upper()}{self.action[1:]}", *lines]))

    def with_rows(self, rows: Iterable[tuple[str, str]]) -> Description:
        """The same, with more details."""
        return attrs.evolve(self, details=(*self.details, *rows))

    @property
    def in_one_line(self) -> str:
        """The same, for a log."""
        return "; ".join([self.action, *(f"{name} {value}" for name, value in self.details)])


def describe_ids(targets: Targets) -> str:
    """The ids as text: each of them up to ten, else the first, the last, and the gaps between them."""
    runs = islice(_runs(targets), _NAMED)
    if len(targets) <= _NAMED:
        return ", ".join(runs)
    # A range has no gaps; it is not walked through.
    gaps = sum(
        0 if isinstance(part, range) else sum(high != low + 1 for low, high in pairwise(part)) for part in targets.parts
    ) + sum(before[-1] + 1 != after[0] for before, after in pairwise(targets.parts))
    if not gaps:
        return _("first {first}, last {last}, no gaps").format(first=targets.first, last=targets.last)
    return ngettext(
        "first {first}, last {last}, {count:,} gap: {ids}", "first {first}, last {last}, {count:,} gaps: {ids}", gaps
    ).format(
        first=targets.first,
        last=targets.last,
        count=gaps,
        ids=f"{', '.join(runs)}{', ...' if gaps >= _NAMED else ''}",
    )


def _runs(targets: Targets) -> Iterator[str]:
    """The ids as runs of consecutive ones, in their order."""
    first = last = None
    for low, high in chain(targets.after(0), [(0, 0)]):
        if last is not None and low == last + 1:
            last = high
            continue
        if first is not None and last is not None:
            yield str(first) if first == last else f"{first}{', ' if last == first + 1 else '-'}{last}"
        first, last = low, high


def is_asked() -> bool:
    """Whether a question has a terminal to stand on."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(description: Description, *, more: str = "", nothing: str = _NOTHING_SENT) -> None:
    """Ask whether to do it; without a terminal, refuse and name the option that answers.

    Args:
        description: What is to be done.
        more: Further lines, between the description and the question.
        nothing: What is said after any other answer than yes.

    Raises:
        typer.Exit: It is not to be done.
    """
    confirm(
        f"{description}\n{more}" + _("Go ahead?"),
        _(
            "this needs a yes, and there is no terminal to ask: {action}. {nothing} To go ahead without a "
            "question, pass --yes"
        ).format(action=description.in_one_line, nothing=nothing),
        nothing=nothing,
    )


def _coloured(line: str) -> str:
    """A line of a question. The host of a production account is red, unless ``NO_COLOR`` is set."""
    text = escape_control(line)
    is_red = text.endswith(PRODUCTION) and text.lstrip().startswith(_("host") + " ") and not os.environ.get("NO_COLOR")
    return _RED.format(text) if is_red else text


def confirm(question: str, refusal: str, *, nothing: str = _NOTHING_SENT) -> None:
    """Ask a question; without a terminal, refuse.

    Args:
        question: What is asked. Only yes goes on.
        refusal: What is said without a terminal.
        nothing: What is said after any other answer than yes.

    Raises:
        typer.Exit: With status 4 after no, 2 without a terminal, 130 after Ctrl-C.
    """
    if not is_asked():
        write(sys.stderr, fitted(sys.stderr, f"dispatchkit: {escape_control(refusal)}\n"))
        raise typer.Exit(2)
    lines = "\n".join(map(_coloured, fitted(sys.stderr, question).splitlines()))
    try:  # Ctrl-C may come as soon as the question is seen
        write(sys.stderr, f"{lines} [y/N] ")
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        write(sys.stderr, f"\n{nothing}\n")
        raise typer.Exit(130) from None
    if answer.strip().lower() not in {"y", "yes"}:
        write(sys.stderr, f"{nothing}\n")
        raise typer.Exit(DECLINED)

"""Text of values, failures and outcomes.

A terminal shows text of the provider. Control characters and markup in it must have no effect.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dispatchkit.cli.option_names import as_options
from dispatchkit.cli.streams import ignore_broken_pipe, write
from dispatchkit.cli.translate import _, ngettext
from dispatchkit.redaction import redact_urls

if TYPE_CHECKING:
    from dispatchkit import Outcome

__all__ = [
    "counted",
    "escape_control",
    "format_failure",
    "format_value",
    "ignore_broken_pipe",
    "labelled",
    "left_out_repeats",
    "redact_urls",
    "state_word",
    "utc",
    "write",
]


def escape_control(text: str) -> str:
    """The text with everything that does not print written as an escape: controls, line ends, direction marks."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun, in the right number: ``1 id``, ``1,000 ids``.

    Args:
        count: How many.
        one: The noun for one, in English. Catalogues have it, if it is a literal or a provider's noun.
        many: The noun for any other count; None adds an s. A catalogue has only nouns that give both.
    """
    noun = ngettext(one, many or one + "s", count)
    return f"{count:,} {noun}"


def left_out_repeats(count: int) -> str:
    """The line that says how many ids stood more than once."""
    text = ngettext("Left out {count:,} repeated id.", "Left out {count:,} repeated ids.", count)
    return text.format(count=count) + "\n"


def state_word(state: str) -> str:
    """The word for the state of a target, where it is shown and not read by a program."""
    return _(state.replace("_", " "))


def format_value(value: object) -> str:
    """A value as a table shows it."""
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return "-" if value is None else str(value)


def utc(moment: datetime | None) -> str | None:
    """A moment as a table shows it. Which zone is meant by one without, only its provider knows."""
    if moment is not None and moment.tzinfo is None:
        return moment.isoformat(" ", "seconds")
    try:
        return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "seconds")
    except OverflowError:  # in the year 1 or 9999
        return str(moment)


def labelled(moment: datetime) -> str:
    """A moment with its zone: UTC, unless only its provider knows which one is meant."""
    text = utc(moment) or ""
    return text if moment.tzinfo is None else f"{text} UTC"


def format_failure(outcome: Outcome[object]) -> str:
    """A failure in one line: which id, which outcome, why."""
    why = "" if outcome.error is None else as_options(outcome.error.summary)
    return escape_control(f"{outcome.target}: {state_word(outcome.state.value)}: {why}")

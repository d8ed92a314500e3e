"""Reasons why a text is not an id, with the fix in a spreadsheet."""

from __future__ import annotations

import re
import unicodedata

from dispatchkit.cli.translate import _

__all__ = ["EXCEL_ERROR", "describe", "looks_damaged", "shown"]

_MAX_SHOWN = 60

EXCEL_ERROR = re.compile(
    r"#{2,}|#(REF|N/A|VALUE|NAME|DIV/0|NULL|NUM|SPILL|CALC|GETTING_DATA|BUSY|FIELD|UNKNOWN|CONNECT|BLOCKED"
    r"|ССЫЛКА|\u041d/\u0414|ЗНАЧ|ИМЯ|ДЕЛ/0|ПУСТО|ЧИСЛО|ПЕРЕНОС|ВЫЧИСЛ)[!?]?",
    re.IGNORECASE,
)
"""An error of a formula, in English and in Russian, or a number that did not fit into its column."""

_AS_NUMBER = _("in Excel, format the column as Number with 0 decimals and no separators. Save it again")
_AS_TEXT = _("in Excel, format the column as Text, and then enter the ids again")

_CASES: tuple[tuple[str | re.Pattern[str], str], ...] = (
    (r"#{2,}", _("the column was too narrow for the number: widen it in Excel, and save it again")),
    (EXCEL_ERROR, _("a formula failed: correct it in Excel, or paste the id itself as a value")),
    (
        r"[+-]?\d+([.,]\d*)?[eE\u0435\u0415][+-]?\d+",
        _("Excel has shortened the number, and its last digits are lost. Go back to the original: {remedy}").format(
            remedy=_AS_NUMBER
        ),
    ),
    (
        r"[+-]?\d{1,3}(?:[.,'\u2019_ \u00a0\u2007\u2009\u202f]\d{3})+([.,]\d*)?",
        _("it has thousands separators: {remedy}").format(remedy=_AS_NUMBER),
    ),
    (r"\d+[.,]0*", _("it has decimals: {remedy}").format(remedy=_AS_NUMBER)),
    (r"\d+[.,]\d+", _("a number with decimals is not an id: look at the row, its columns may be shifted")),
    (
        r"['`\u2019\u2018]\d+['`\u2019\u2018]?",
        _("an apostrophe marks it as text: in Excel, use Data, Text to Columns, Finish on the column. Save it again"),
    ),
    (r"=.*", _("it is a formula: in Excel, paste the column as values, and save it again")),
    (r"[+\-\u2010-\u2015\u2212]\s*\d+", _("it has a sign: an id has digits only")),
    (
        r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}( .*)?|\d{1,2}[-. ][^\W\d]{3,}\.?([-. ]\d{2,4})?",
        _("Excel has made a date of it. Go back to the original: {remedy}").format(remedy=_AS_TEXT),
    ),
    (r"\d+-\d+", _("a range is given as an argument, such as 1-1000, not in a list of ids")),
    (r"0+[1-9]\d*", _("it begins with 0, which an id never does: it looks like another column")),
    (r"0+", _("no mailing has the id 0")),
    (r"\d{19,}", _("it is too large for an id")),
)
"""Patterns with their reasons. `re` compiles a pattern when it first needs it, and keeps it."""


def shown(text: str) -> str:
    """A text as messages quote it: in one line, and not without end."""
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…")


def describe(text: str) -> str:
    """Describe why a text is not an id, in the terms of a spreadsheet."""
    return _("{text} is not an id, a positive integer of at most 63 bits: {reason}").format(
        text=shown(text), reason=_reason(text)
    )


def looks_damaged(text: str) -> bool:
    """Whether a text is an id that a spreadsheet has damaged, and not just another word."""
    return any(re.fullmatch(pattern, text) for pattern, _ in _CASES) or _strange_character(text) is not None


def _reason(text: str) -> str:
    if not text:
        return _("the cell is empty: fill it in, or delete the row")
    plain = text.isascii()
    for pattern, reason in _CASES:
        if re.fullmatch(pattern, text) and (plain or not any(map(_is_foreign_digit, text))):
            return reason
    strange = _strange_character(text)
    if strange is not None:
        return strange
    if re.search("[,;\t]", text):
        return _("it holds several fields; a CSV needs --column NAME")
    return _("look at the row")


def _strange_character(text: str) -> str | None:
    """Describe a foreign digit or an invisible character in a text with digits; None if there is none."""
    if not any(character.isdigit() for character in text):
        return None
    for character in text:
        if _is_foreign_digit(character):
            return _("{character} is a digit of another script: type the id again with 0 to 9").format(
                character=_named(character)
            )
        if character in "\u00a0\u2007\u202f" or (unicodedata.category(character) == "Zs" and character != " "):
            return _("it holds {character}, a special space: in Excel, replace it with nothing (Ctrl+H)").format(
                character=_named(character)
            )
        if unicodedata.category(character) in {"Cf", "Cc"} and character != "\t":
            return _(
                "it holds {character}, which cannot be seen: type the id again, or clean it in Excel (CLEAN)"
            ).format(character=_named(character))
    return None


def _is_foreign_digit(character: str) -> bool:
    return character.isdigit() and not character.isascii()


def _named(character: str) -> str:
    name = unicodedata.name(character, "") or _("control character")
    return f"U+{ord(character):04X} {name}"

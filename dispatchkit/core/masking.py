"""Mask values in a text that may quote them: as they are, escaped, in another case, or in part.

A provider may quote what it refuses. A text without any such quote stays as it is.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote, quote_plus, unquote

__all__ = ["MASK", "MIN_MASKED", "WITHHELD", "is_field_name", "mask", "specific_words"]

MASK = "***"
MIN_MASKED = 4
"""Characters of the shortest value that is masked. A shorter one would mask parts of ordinary words."""
WITHHELD = "the provider's text is not shown, since it quotes what was sent"
"""Stands for a text that quotes a value in a form that cannot be masked alone."""

_MAX_TEXT = 10_000
"""Characters of a text that is searched. The rest is cut off."""
_MAX_ESCAPED = 4096
"""Characters of the longest value whose escaped forms are made."""
_GRAM = 6
_MIN_RUN = 2 * _GRAM
"""Characters of the shortest part of a value that is masked: less is found in unrelated texts, too."""
_MAX_STEPS = 200_000
"""Characters that are compared for parts of values, about 0.05 s of work."""
_MIN_WORD = 5
_ROUNDS = 3
"""Escapings of escaped text that are undone."""
_PLAIN = re.compile(r"[A-Za-z0-9 ]+")
_WORD = re.compile(r"[\w.+@-]+")
_DIGIT = re.compile(r"[\d@]")
_MAX_NAME = 40
_MAX_DIGITS = 3
_JSON_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_JSON_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


def mask(text: str, values: Iterable[str], *, shown: frozenset[str] = frozenset()) -> str:
    """Replace every quote of a value in a text by ``***``.

    Args:
        text: The text. If there is a value, only its first 10,000 characters are kept.
        values: What must not show. Those of fewer than 4 characters are left alone.
        shown: Words that may show, although a value holds them.

    Returns:
        The masked text; `WITHHELD` if a value shows once the text is unescaped.
    """
    hidden = [*dict.fromkeys(value for value in values if len(value.strip()) >= MIN_MASKED)]
    if not hidden or not text:
        return text
    if len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT]}..."
    folded = [*map(_fold, hidden)]
    forms = [*dict.fromkeys((*folded, *_variants(hidden)))]
    try:
        masked = _replaced(text, _spans(_fold(text), forms, shown))
        return WITHHELD if any(_spans(view, folded, shown) for view in _unescaped(masked)) else masked
    except OverflowError:
        return WITHHELD


def is_field_name(key: str) -> bool:
    """Whether a message may show a key: a name such as ``"price_2"``, but no phone number or address."""
    return len(key) <= _MAX_NAME and "@" not in key and sum(map(str.isdigit, key)) <= _MAX_DIGITS


def specific_words(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Words such as phone numbers, addresses and codes, with their places. They identify a person or an object."""
    for word in _WORD.finditer(text):
        core = word[0].strip(".+-")
        if len(core) >= _MIN_WORD and _DIGIT.search(core) is not None:
            yield core, word.span()


def _fold(text: str) -> str:
    """The text without case; every character stays where it is."""
    lower = text.lower()
    return (
        lower if len(lower) == len(text) else "".join(low if len(low := char.lower()) == 1 else char for char in text)
    )


def _spans(text: str, values: Sequence[str], shown: frozenset[str]) -> list[tuple[int, int]]:
    """The parts of a folded text that quote folded values.

    Raises:
        OverflowError: It holds too many short parts of them to tell.
    """
    spans = [*_occurrences(text, values)]
    together = "\0".join(values)
    spans += [span for core, span in specific_words(text) if core not in shown and core in together]
    covered = bytearray(len(text))
    for first, last in spans:
        covered[first:last] = b"\1" * (last - first)
    return [*spans, *_runs(text, values, covered)]


def _occurrences(text: str, values: Iterable[str]) -> Iterator[tuple[int, int]]:
    for value in values:
        start = text.find(value)
        while start >= 0:
            yield start, start + len(value)
            start = text.find(value, start + len(value))


def _runs(text: str, values: Iterable[str], covered: bytearray) -> Iterator[tuple[int, int]]:
    """The parts of values that the text holds: it may be cut short, or quote only what it complains about."""
    places: dict[str, list[int]] = {}
    for start in range(len(text) - _GRAM + 1):
        if not covered[start]:
            places.setdefault(text[start : start + _GRAM], []).append(start)
    left = _MAX_STEPS
    for value in values:
        # Each run of twice the length of a gram holds one that starts at a multiple of it.
        for at in range(0, len(value) - _GRAM + 1, _GRAM):
            starts = places.get(value[at : at + _GRAM])
            if starts is None:
                continue
            for start in starts:
                first, last = _extended(text, start, value, at)
                left -= last - first
                if left < 0:
                    raise OverflowError
                if last - first >= _MIN_RUN:
                    covered[first:last] = b"\1" * (last - first)
                    run = text[first:last]
                    yield first + len(run) - len(run.lstrip()), last - len(run) + len(run.rstrip())
            if any(covered[start] for start in starts):
                starts[:] = [start for start in starts if not covered[start]]
                if not starts:
                    del places[value[at : at + _GRAM]]


def _extended(text: str, start: int, value: str, at: int) -> tuple[int, int]:
    """The span in a text of the longest part of a value around a gram. The text and the value share the gram."""
    first, before = start, at
    while first and before and text[first - 1] == value[before - 1]:
        first, before = first - 1, before - 1
    last, after = start + _GRAM, at + _GRAM
    while last < len(text) and after < len(value) and text[last] == value[after]:
        last, after = last + 1, after + 1
    return first, last


def _variants(values: Iterable[str]) -> Iterator[str]:
    """The escaped forms of values, without case."""
    for value in values:
        if len(value) > _MAX_ESCAPED:
            continue  # what is left of it shows in the unescaped text
        if _PLAIN.fullmatch(value) is not None and "  " not in value:
            if " " in value:
                yield from map(_fold, {quote(value), quote_plus(value)})
            continue
        once = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
        once |= {form.replace("/", "\\/") for form in once}
        twice = {json.dumps(form)[1:-1] for form in once}
        marked = html.escape(value)
        web = {marked, html.escape(value, quote=False), marked.replace("&#x27;", "&#39;"), html.escape(marked)}
        escaped = once | twice | web | {quote(value, safe=""), quote(value), quote_plus(value), " ".join(value.split())}
        yield from (folded for form in escaped if len(folded := _fold(form)) >= MIN_MASKED)


def _replaced(text: str, spans: Iterable[tuple[int, int]]) -> str:
    parts: list[str] = []
    end = 0
    for first, last in sorted(spans):
        if last <= end:
            continue
        if first >= end:
            parts += text[end:first], MASK
        end = last
    return "".join((*parts, text[end:])) if parts else text


def _unescaped(text: str) -> Iterator[str]:
    """Undo the escapes of HTML, URLs and JSON in a text, also one inside another."""
    view = text
    for _ in range(_ROUNDS):
        before = view
        view = html.unescape(unquote(_JSON_ESCAPE.sub(_json_escape, view)))
        if view == before:
            break
        yield _fold(view)
    if (joined := " ".join(view.split())) != view:
        yield _fold(joined)


def _json_escape(escape: re.Match[str]) -> str:
    code, char = escape.groups()
    return chr(int(code, 16)) if code is not None else _JSON_CONTROLS.get(char, char)

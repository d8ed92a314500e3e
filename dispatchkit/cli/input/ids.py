"""Parsers of ids and of ranges, and `Targets`, the ids in their order, each once.

A range stays a range: ``1-1000000000`` costs nothing until its ids are taken.
"""

from __future__ import annotations

import re
import shlex
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from dispatchkit.cli.input.damage import describe, shown
from dispatchkit.cli.translate import _
from dispatchkit.core.fanout.id_set import IdSet

__all__ = ["Collector", "Targets", "from_arguments", "parse_id", "parse_id_or_range"]

_MAX_ID = 2**63 - 1
_ID = re.compile(r"[1-9][0-9]{0,18}")
_PADDED = re.compile(r"0+[1-9][0-9]*")
_RANGE = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")

# A shorter range is kept as single ids, so that the intervals stay few.
_LONG = 1024
_MAX_SUGGESTED = 200

# What people type for a hyphen, and between two ids.
_HYPHEN = re.compile(r"\s*(?:[\u2010-\u2015\u2212]|\.{2,3}|\u2026|-)\s*")
_COMMA = re.compile(r"[\s,;]+")


class Targets:
    """Ids in the order in which they were first named, each of them once.

    Attributes:
        parts: The ids, as ranges and as arrays of single ids.
        dropped: How many repeats were left out.
        done: How many were left out because the file says that they are done.
        unknown: How many were left out because they may have been launched already.
        notes: What else to say about the ids before they are launched, one sentence each.
    """

    def __init__(self, spans: Iterable[tuple[int, int]] = (), *, collector: Collector | None = None) -> None:
        collector = Collector() if collector is None else collector
        for low, high in spans:
            collector.add(low, high)
        self.parts = tuple(collector.parts)
        self.dropped = collector.dropped
        self.done = 0
        self.unknown = 0
        self.notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.parts)

    @property
    def first(self) -> int:
        """The id that comes first. There must be one."""
        return self.parts[0][0]

    @property
    def last(self) -> int:
        """The id that comes last. There must be one."""
        return self.parts[-1][-1]

    def without(self, ids: IdSet) -> Targets:
        """The ids that are not in a set."""
        left = Targets(self._gaps(ids))
        left.dropped, left.done, left.unknown, left.notes = self.dropped, self.done, self.unknown, self.notes
        return left

    def _gaps(self, ids: IdSet) -> Iterator[tuple[int, int]]:
        for low, high in self.after(0):
            start = low
            for number in ids.between(low, high):
                if start < number:
                    yield start, number - 1
                start = number + 1
            if start <= high:
                yield start, high

    def after(self, count: int) -> Iterator[tuple[int, int]]:
        """The ids after the first so many, as ranges with both ends included."""
        for part in self.parts:
            if isinstance(part, range):
                if rest := part[count:]:
                    yield rest[0], rest[-1]
            else:
                for number in islice(part, count, None):
                    yield number, number
            count = max(0, count - len(part))


class Collector:
    """Takes ids and ranges, and drops what it has seen.

    Attributes:
        parts: What was new, as ranges and as arrays of single ids.
        dropped: How many were not.
    """

    def __init__(self) -> None:
        self.parts: list[range | array[int]] = []
        self.dropped = 0
        self._single = IdSet()
        # The long ranges: sorted, apart, both ends included. An id of `_single` may lie inside one; it counts once.
        self._lows: list[int] = []
        self._highs: list[int] = []

    def add(self, low: int, high: int) -> None:
        """Take a range with both ends included."""
        if high - low < _LONG:
            self.add_all(range(low, high + 1))
        else:
            self._add_range(low, high)

    def add_all(self, numbers: Sequence[int]) -> None:
        """Take single ids."""
        given = len(numbers)
        new = self._single.add_new(self._outside(numbers) if self._lows else numbers)
        self.dropped += given - len(new)
        if not new:
            return
        if self.parts and isinstance(last := self.parts[-1], array):
            last.extend(new)
        else:
            self.parts.append(array("q", new))

    def forget_parts(self) -> int:
        """Keep what was taken as seen, but not as part of the result. Returns how many ids that were."""
        count = sum(map(len, self.parts))
        self.parts, self.dropped = [], 0
        return count

    def count_new(self, spans: Iterable[tuple[int, int]]) -> int:
        """How many ids of these ranges were not taken yet. They count as seen from now on."""
        parts, dropped = self.parts, self.dropped
        self.parts = []
        for low, high in spans:
            self.add(low, high)
        count = self.forget_parts()
        self.parts, self.dropped = parts, dropped
        return count

    def _outside(self, numbers: Iterable[int]) -> Iterator[int]:
        """Those that lie in no long range."""
        for number in numbers:
            position = bisect_left(self._highs, number)  # the first range that does not end before it
            if position == len(self._lows) or self._lows[position] > number:
                yield number

    def _add_range(self, low: int, high: int) -> None:
        first, after = bisect_left(self._highs, low), bisect_left(self._lows, high + 1)
        taken = [*zip(self._lows[first:after], self._highs[first:after], strict=True)]
        inside = [(number, number) for number in self._single.between(low, high)]
        new = 0
        begin = low
        for taken_low, taken_high in [*sorted(taken + inside), (high + 1, high + 1)]:
            if begin < taken_low:
                self.parts.append(range(begin, taken_low))
                new += taken_low - begin
            begin = max(begin, taken_high + 1)
        self.dropped += high - low + 1 - new
        merged = [low, high, *chain.from_iterable(taken)]
        self._lows[first:after], self._highs[first:after] = [min(merged)], [max(merged)]


def from_arguments(texts: Iterable[str]) -> Targets:
    """The ids of the command line: ids, ranges with both ends included, and lists of them with commas.

    Raises:
        ValueError: One of them is neither; the message names it, and what was probably meant.
    """
    texts = [*texts]
    try:
        return Targets(_span(part) for text in texts for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{error}{_suggestion(texts)}") from None


def _suggestion(texts: Sequence[str]) -> str:
    """The probable meaning of arguments that are not ids; empty if it is not known."""
    for text in texts:
        if not text[:1].isdigit() and _is_file(text):
            return _(". {text} is a file: did you mean --from {name}?").format(text=shown(text), name=shlex.quote(text))
    given = " ".join(texts)
    meant = _COMMA.sub(",", _HYPHEN.sub("-", given)).strip(",")
    if meant == given or len(meant) > _MAX_SUGGESTED:
        return ""
    try:
        for part in meant.split(","):
            _span(part)
    except ValueError:
        return ""
    return _("; did you mean {meant}?").format(meant=meant)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # no file can be called so
        return False


def parse_id(text: str) -> int:
    """One id of a file.

    Raises:
        ValueError: It is no id. The message names it, says what is wrong, and what to do about it.
    """
    if _ID.fullmatch(text) is None or not 0 < (number := int(text)) <= _MAX_ID:
        raise ValueError(describe(text))
    return number


def parse_id_or_range(text: str) -> tuple[int, int]:
    """One id, or a range with both ends included, of a file that dispatchkit wrote.

    Raises:
        ValueError: It is neither.
    """
    if _RANGE.fullmatch(text) is not None:
        return _span(text)
    number = parse_id(text)
    return number, number


def _span(text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    low, high = match.groups() if match else (text, text)
    if any(map(_PADDED.fullmatch, (low, high))):
        raise ValueError(
            _("{text} begins with 0, which an id never does: it looks like another column").format(text=shown(text))
        )
    if any(_ID.fullmatch(end) is None or not 0 < int(end) <= _MAX_ID for end in (low, high)):
        raise ValueError(
            _(
                "{text} is neither an id nor a range: give positive integers of at most 63 bits. Examples: 7 or 1-1000"
            ).format(text=shown(text))
        )
    if int(low) > int(high):
        raise ValueError(
            _("{text} is a range that ends before it begins: did you mean {high}-{low}?").format(
                text=shown(text), high=high, low=low
            )
        )
    return int(low), int(high)

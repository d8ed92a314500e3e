"""Which ids are meant. Pure: text in, `Targets` out.

A launch cannot be called back, so everything is read and checked before the first one, and an id that is named twice is
launched once. A range stays a range: ``1-1000000000`` costs nothing until its ids are taken.
"""

from __future__ import annotations

import csv
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain, islice

__all__ = ["Targets", "from_arguments", "from_lines"]

_MAX_ID = 2**63 - 1
_AGAIN = ("rejected", "not_sent", "not_started", "unknown")
_ID = re.compile(r"[0-9]{1,19}")
_RANGE = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")

# A shorter range is kept as single ids: sets are quicker than intervals.
_LONG = 1024


class Targets:
    """Ids in the order in which they were first named, each of them once.

    Attributes:
        parts: The ids, as ranges and as arrays of single ids.
        dropped: How many repeats were left out.
        unknown: How many were left out because nobody knows whether they were launched already.
    """

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        collector = _Collector()
        for low, high in spans:
            collector.add(low, high)
        self.parts = tuple(collector.parts)
        self.dropped = collector.dropped
        self.unknown = 0

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

    def after(self, count: int) -> Iterator[tuple[int, int]]:
        """What follows the first so many ids, as ranges with both ends included."""
        for part in self.parts:
            if isinstance(part, range):
                if rest := part[count:]:
                    yield rest[0], rest[-1]
            else:
                for number in islice(part, count, None):
                    yield number, number
            count = max(0, count - len(part))


class _Collector:
    """Takes ids and ranges, and drops what it has seen."""

    def __init__(self) -> None:
        self.parts: list[range | array[int]] = []
        self.dropped = 0
        self._single = set[int]()
        # The long ranges: sorted, apart, both ends included. An id of `_single` may lie inside one; it counts once.
        self._lows: list[int] = []
        self._highs: list[int] = []

    def add(self, low: int, high: int) -> None:
        if high - low < _LONG:
            for number in range(low, high + 1):
                self._add_single(number)
        else:
            self._add_range(low, high)

    def _add_single(self, number: int) -> None:
        position = bisect_left(self._highs, number)  # the first range that does not end before it
        if number in self._single or (position < len(self._lows) and self._lows[position] <= number):
            self.dropped += 1
            return
        self._single.add(number)
        if not self.parts or isinstance(self.parts[-1], range):
            self.parts.append(array("q"))
        self.parts[-1].append(number)  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def _add_range(self, low: int, high: int) -> None:
        first, after = bisect_left(self._highs, low), bisect_left(self._lows, high + 1)
        taken = [*zip(self._lows[first:after], self._highs[first:after], strict=True)]
        inside = [(number, number) for number in self._single if low <= number <= high]
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
        ValueError: One of them is neither; the message names it.
    """
    return Targets(_span(part) for text in texts for part in text.split(","))


def from_lines(
    lines: Iterable[bytes], name: str, column: str | None = None, *, include_unknown: bool = False
) -> Targets:
    """The ids of a file.

    A CSV with a column ``outcome``, as ``--failures`` writes it, gives those that may be tried again, and may hold
    ranges of ids.

    Args:
        lines: The file, in UTF-8, with or without a byte order mark.
        name: What messages call it.
        column: None reads one id a line, where ``#`` starts a comment, unless the first line names the columns ``id``
            and ``outcome``. A name reads a CSV with a header row, its fields separated by commas, semicolons or tabs,
            and takes the ids from that column.
        include_unknown: Whether also those are taken whose outcome is unknown.

    Raises:
        ValueError: It holds no id, or something else in place of one; the message names file, line and value.
    """
    texts = _decoded(lines, name)
    header = next(texts, "")
    texts = chain([header], texts)
    if column is None and {"id", "outcome"} <= {field.strip(' "') for field in re.split("[,;\t]", header.strip())}:
        column = "id"
    unknown = 0

    def spans() -> Iterator[tuple[int, int]]:
        nonlocal unknown
        rows = _uncommented(texts) if column is None else _rows(texts, name, column)
        for line, text, outcome in rows:
            where = f"{name}, line {line}"
            if outcome is None:
                yield _one(text, where, column)
                continue
            if outcome not in _AGAIN:
                raise ValueError(f"{where}: {_shown(outcome)} is no outcome to be tried again: {', '.join(_AGAIN)}")
            low, high = _one_or_range(text, where, column)
            if outcome == "unknown" and not include_unknown:
                unknown += high - low + 1
            else:
                yield low, high

    targets = Targets(spans())
    targets.unknown = unknown
    if not targets.parts:
        but = f" but {unknown:,} whose outcome is unknown: --include-unknown takes them" if unknown else ""
        raise ValueError(f"{name} holds no ids{but}")
    return targets


def _decoded(lines: Iterable[bytes], name: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{name}, line {number}: this is not text in UTF-8") from None


def _uncommented(lines: Iterable[str]) -> Iterator[tuple[int, str, None]]:
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            yield number, text, None


def _rows(lines: Iterator[str], name: str, column: str) -> Iterator[tuple[int, str, str | None]]:
    """Of each row its line, its id, and its outcome where the file tells it."""
    header = next(lines, "").strip()
    for delimiter in ",;\t":
        names = [field.strip() for field in _fields(header, delimiter, name)]
        if column in names:
            break
    else:
        raise ValueError(f"{name}, line 1: the header names no column {column!r}: {_shown(header)}")
    if names.count(column) > 1:
        raise ValueError(f"{name}, line 1: the header names {column!r} more than once")
    position = names.index(column)
    # A capital letter must not launch again what may have happened.
    outcomes = [index for index, field_name in enumerate(names) if field_name.casefold() == "outcome"]
    if len(outcomes) > 1:
        raise ValueError(f"{name}, line 1: the header names 'outcome' more than once")
    outcome = outcomes[0] if outcomes else None
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for row in rows:
            if any(field.strip() for field in row):
                line = rows.line_num + 1
                if outcome is not None and len(row) != len(names):
                    # Half a row may end in half an id, which is another dispatch.
                    raise ValueError(f"{name}, line {line}: this row has {len(row)} fields of {len(names)}")
                text = row[position].strip() if position < len(row) else ""
                yield line, text, None if outcome is None else row[outcome].strip()
    except csv.Error as error:
        raise ValueError(f"{name}, line {rows.line_num + 1}: this is not CSV: {error}") from None


def _fields(header: str, delimiter: str, name: str) -> list[str]:
    try:
        return next(csv.reader([header], delimiter=delimiter), list[str]())
    except csv.Error as error:
        raise ValueError(f"{name}, line 1: this is not CSV: {error}") from None


def _one(text: str, where: str, column: str | None) -> tuple[int, int]:
    if _ID.fullmatch(text) is None or not 0 < int(text) <= _MAX_ID:
        hint = "; a CSV needs --column NAME" if column is None and re.search("[,;\t]", text) else ""
        raise ValueError(f"{where}: {_shown(text)} is not an id, a positive integer of at most 63 bits{hint}")
    return int(text), int(text)


def _one_or_range(text: str, where: str, column: str | None) -> tuple[int, int]:
    if _RANGE.fullmatch(text) is None:
        return _one(text, where, column)
    try:
        return _span(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _span(text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    low, high = match.groups() if match else (text, text)
    if any(_ID.fullmatch(end) is None or not 0 < int(end) <= _MAX_ID for end in (low, high)):
        raise ValueError(
            f"{_shown(text)} is neither an id nor a range: give positive integers of at most 63 bits, "
            "such as 7, or two with a hyphen, such as 1-1000"
        )
    if int(low) > int(high):
        raise ValueError(f"{_shown(text)} is a range that ends before it begins: did you mean {high}-{low}?")
    return int(low), int(high)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:59]}…")

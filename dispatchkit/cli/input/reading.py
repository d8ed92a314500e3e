"""Read a file of ids into `Targets`, without the ids that are done or may have been launched.

A launch cannot be called back, so the whole file is read and checked before the first one. One bad row refuses it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Literal

import attrs

from dispatchkit.cli.input.bad_rows import BadRows
from dispatchkit.cli.input.columns import Header, find_header, is_sep, no_such_column, split_fields
from dispatchkit.cli.input.damage import shown
from dispatchkit.cli.input.encoding import text_blocks
from dispatchkit.cli.input.files import Bytes, is_workbook, open_bytes
from dispatchkit.cli.input.ids import Collector, Targets, parse_id, parse_id_or_range
from dispatchkit.cli.input.json_lines import looks_like_json, read_json_lines
from dispatchkit.cli.input.origin import ForeignCommandError, Origin, Reader
from dispatchkit.cli.input.table import Row, read_list, read_table
from dispatchkit.cli.input.workbook import open_sheet
from dispatchkit.cli.translate import _, ngettext

__all__ = ["FileOptions", "from_file"]

_AGAIN = ("rejected", "not_sent", "not_started", "planned")
"""States of what did not happen. Those of a ledger are among them."""
_LEFT = ("not_sent", "planned")
"""States of what a resume launches."""
_UNCLEAR = ("unknown", "sending")
"""States of what may have happened: it is launched only on request."""
_DONE = "done"
_BATCH_SIZE = 4096


@attrs.frozen(kw_only=True)
class FileOptions:
    """Options for reading a file."""

    column: str | None = None
    """The column of a table with the ids. None: the file has one id a line, or is what dispatchkit has written."""
    sheet: str | None = None
    """The sheet of a workbook."""
    encoding: str | None = None
    """The encoding of a text. None: UTF-8, or that of a byte order mark."""
    include_unknown: bool = False
    """Whether ids with an unknown outcome are taken, too."""
    reader: Reader | None = None
    """The command that takes the ids. None: rows of any command count as its own."""
    again: Callable[[str], str] = lambda options: _("add {options}").format(options=options)
    """The command to type, with more options."""


def from_file(path: str, options: FileOptions) -> Targets:
    """The ids of a file, a pipe, or standard input for ``-``.

    The content is text, CSV, JSON Lines or .xlsx, also compressed by gzip.

    Raises:
        ValueError: It holds no id, or something else in place of one; the message names file, row and value.
        ImportError: It is a workbook, and the reader of workbooks is not installed.
        OSError: It cannot be read.
    """
    with open_bytes(path) as source:
        if is_workbook(source):
            if options.encoding is not None:
                raise ValueError(
                    _("--encoding is for text: {name} is a workbook, which says its own. Leave --encoding out").format(
                        name=source.name
                    )
                )
            sheet = open_sheet(source, options.sheet, options.column)
            bad = BadRows(source.name, sheet.place)
            taking, rows = _Taking(options, bad), sheet.rows(bad)
            return _finish(taking.take_by_state(rows) if sheet.has_state else taking.take(rows), bad, sheet.notes)
        if options.sheet is not None:
            raise ValueError(
                _("--sheet is for workbooks: {name} is not one. Leave --sheet out").format(name=source.name)
            )
        return _from_text(source, options)


def _from_text(source: Bytes, options: FileOptions) -> Targets:
    blocks = text_blocks(source, options.encoding, options.again)
    first = next(blocks, "")
    if not first:
        raise ValueError(_("{name} holds no ids: the file is empty. Name another file").format(name=source.name))
    blocks = chain([first], blocks)
    bad = BadRows(source.name)
    taking = _Taking(options, bad)
    if looks_like_json(first):
        id_key = None if options.reader is None else options.reader.id_key
        return _finish(taking.take_by_state(read_json_lines(blocks, options.column, bad, id_key=id_key)), bad)
    header = _header(first, source.name, options.column)
    notes: list[str] = []
    if header is not None and header.titles:
        notes.append(_("Took line {line} for the header, and left out what stands above it.").format(line=header.line))
    if header is not None and header.columns.count > 1:
        rows = read_table(blocks, header, bad)
        has_state = header.columns.state is not None
        return _finish(taking.take_by_state(rows) if has_state else taking.take(rows), bad, notes)
    skip = header.line if header is not None else int(is_sep(first.partition("\n")[0]))
    read_list(blocks, skip, taking.collector, bad)
    return _finish(taking, bad, notes)


def _header(first: str, name: str, column: str | None) -> Header | None:
    lines = first.split("\n")
    try:
        header = find_header(lines, column)
    except ValueError as error:
        raise ValueError(f"{name}, {error}") from None
    if header is None and column is not None:
        given = [line for line in lines[:20] if line.strip()]
        number = lines.index(given[0]) + 1 if given else 1
        raise ValueError(
            _("{name}, line {number}: {problem}").format(
                name=name, number=number, problem=no_such_column(_split(given), column)
            )
        )
    return header


def _split(lines: Iterable[str]) -> Iterator[list[str]]:
    for line in lines:
        delimiter = max(",;\t", key=line.count)
        try:
            yield split_fields(line, delimiter)
        except ValueError:
            yield [line]


class _Taking:
    """Takes the ids of rows, and leaves out what is done or may have happened."""

    def __init__(self, options: FileOptions, bad: BadRows) -> None:
        self._include_unknown = options.include_unknown
        self._reader = options.reader
        self._only_reads = options.reader is not None and options.reader.only_reads
        self._origins: dict[str, Origin] = {}
        self._bad = bad
        self.collector = Collector()
        self.done = 0
        self.unknown = 0
        self.left = 0
        self.is_of_ledger = False
        """Whether a row has a state that only a ledger knows."""
        self.notes: list[str] = []

    def take(self, rows: Iterable[Row]) -> _Taking:
        """Take rows that tell no state."""
        ids: list[int] = []
        for number, text, _state, _command in rows:
            try:
                ids.append(parse_id(text))
            except ValueError as error:
                self._bad.add(number, str(error))
            if len(ids) == _BATCH_SIZE:
                self.collector.add_all(ids)
                ids = []
        self.collector.add_all(ids)
        return self

    def take_by_state(self, rows: Iterable[Row]) -> _Taking:
        """Take rows by their states. An id that is done, or unclear, in one row is left out in all of them.

        Raises:
            ForeignCommandError: A row is of another provider's command.
        """
        spans = {name: _Spans() for name in ("launch", "unclear", "started", "maybe", "never")}
        for number, text, state, command in rows:
            try:
                use = self._use(state, command, number)
                # dispatchkit did not write a row without a state, so the row must be one id.
                low, high = (parse_id(text),) * 2 if state is None else parse_id_or_range(text)
            except ForeignCommandError:
                raise
            except ValueError as error:
                self._bad.add(number, str(error))
                continue
            if use == "done":
                self.collector.add(low, high)
            else:
                spans[use].add(low, high)
            if (
                use == "launch"
                and not self._only_reads
                and state is not None
                and state.casefold() in _LEFT
                and self._origin(command, number) == "same"
            ):
                self.left += high - low + 1
                self.is_of_ledger = self.is_of_ledger or state.casefold() == "planned"
        self.done = self.collector.forget_parts()
        for low, high in spans["unclear"]:
            self.collector.add(low, high)
        self.unknown = self.collector.forget_parts()
        for low, high in chain(spans["launch"], spans["started"], spans["maybe"]):
            self.collector.add(low, high)
        if self._reader is not None and not self._only_reads:
            self._tell_of_others(self._reader, maybe=spans["maybe"], never=spans["never"])
        return self

    def _use(self, state: str | None, command: str | None, number: int) -> str:
        """The use of a row: a word of `_kind`.

        A row of a command that is to be stopped is ``"never"``, ``"maybe"`` or ``"started"``: whether it started.

        Raises:
            ValueError: No outcome is called so.
        """
        kind, origin = _kind(state), self._origin(command, number)
        if self._only_reads:
            return "launch"
        if origin == "stopped":
            return {"launch": "never", "unclear": "maybe", "done": "started"}[kind]
        return "launch" if origin == "other" or (kind == "unclear" and self._include_unknown) else kind

    def _origin(self, command: str | None, number: int) -> Origin:
        """The origin of a row.

        Raises:
            ForeignCommandError: It is of another provider's command.
        """
        if self._reader is None or command is None:
            return "same"
        origin = self._origins.get(command)
        if origin is None:
            try:
                origin = self._origins[command] = self._reader.origin(command)
            except ForeignCommandError as error:
                raise ForeignCommandError(f"{self._bad.name}, {self._bad.place(number)}: {error}") from None
        return origin

    def _tell_of_others(self, reader: Reader, *, maybe: _Spans, never: _Spans) -> None:
        """Note which rows of other commands were taken, and which were not."""
        taken = sum(map(len, self.collector.parts))
        if others := self._named("other", reader):
            self.notes.append(
                ngettext(
                    "The file is of {others}, not of {name!r}: all {count:,} id are taken, whatever their state.",
                    "The file is of {others}, not of {name!r}: all {count:,} ids are taken, whatever their state.",
                    taken,
                ).format(others=others, name=reader.name, count=taken)
            )
        if stopped := self._named("stopped", reader):
            unknown = Collector().count_new(maybe)
            are = (
                ngettext(" {count:,} of them is unknown.", " {count:,} of them are unknown.", unknown)
                if unknown
                else ""
            )
            note = ngettext(
                "The file is of {stopped}: {name!r} takes the {count:,} id that it started or may have started.",
                "The file is of {stopped}: {name!r} takes the {count:,} ids that it started or may have started.",
                taken,
            ).format(stopped=stopped, name=reader.name, count=taken)
            self.notes.append(note + are.format(count=unknown))
            if left_out := self.collector.count_new(never):
                self.notes.append(
                    ngettext(
                        "Left out {count:,} id that {stopped} did not start.",
                        "Left out {count:,} ids that {stopped} did not start.",
                        left_out,
                    ).format(count=left_out, stopped=stopped)
                )

    def _named(self, origin: Origin, reader: Reader) -> str:
        """The commands of this origin; empty if there is none."""
        return _(" and ").join(
            repr(reader.names[command]) for command, found in self._origins.items() if found == origin
        )


class _Spans:
    """Ranges of ids, in 16 bytes each."""

    def __init__(self) -> None:
        self._lows, self._highs = array("q"), array("q")

    def add(self, low: int, high: int) -> None:
        self._lows.append(low)
        self._highs.append(high)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._lows, self._highs, strict=True)


def _kind(state: str | None) -> Literal["launch", "unclear", "done"]:
    """The use of a row of this state.

    Raises:
        ValueError: No outcome is called so.
    """
    if state is None:
        return "launch"
    word = state.casefold()
    if word in _AGAIN:
        return "launch"
    if word in _UNCLEAR:
        return "unclear"
    if word == _DONE:
        return "done"
    raise ValueError(
        _("{state} is no outcome: {names}; if the column is not about launches, give it another name").format(
            state=shown(state), names=", ".join((_DONE, *_AGAIN, *_UNCLEAR))
        )
    )


def _finish(taking: _Taking, bad: BadRows, notes: Iterable[str] = ()) -> Targets:
    """The targets, if all rows are good.

    Raises:
        UnusableFileError: Some are not.
        ValueError: Nothing is left.
    """
    bad.check()
    targets = Targets(collector=taking.collector)
    targets.done, targets.unknown = taking.done, taking.unknown
    left = (
        (
            _("{left:,} of these are left in a run of a ledger, and a resume of that run launches them too.").format(
                left=taking.left
            ),
        )
        if taking.is_of_ledger
        else ()
    )
    targets.notes = (*notes, *taking.notes, *left)
    if targets.parts:
        return targets
    if taking.unknown:
        raise ValueError(
            _("{name} holds no ids but {unknown:,} whose outcome is unknown: --include-unknown takes them").format(
                name=bad.name, unknown=taking.unknown
            )
        )
    if taking.done:
        raise ValueError(
            _("{name} holds no ids but {done:,} that are done: there is nothing to launch").format(
                name=bad.name, done=taking.done
            )
        )
    if taking.notes:
        raise ValueError(_("{name} holds no ids to stop. {notes}").format(name=bad.name, notes=" ".join(taking.notes)))
    raise ValueError(_("{name} holds no ids: name another file").format(name=bad.name))

from __future__ import annotations

import time
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dispatchkit.cli.input import ids
from dispatchkit.cli.input.ids import Targets, from_arguments, from_lines
from tests.strategies import LETTERS

MAX_ID = 2**63 - 1

spans = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 25)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=12
)


@settings(deadline=None)
@given(spans, st.sampled_from([0, 1, 4, 10, 100]))
def test_every_id_comes_once_in_the_order_of_its_first_naming(given_spans: list[tuple[int, int]], long: int) -> None:
    with patch.object(ids, "_LONG", long):
        targets = Targets(given_spans)
    named = [number for low, high in given_spans for number in range(low, high + 1)]
    assert list(targets) == list(dict.fromkeys(named))
    assert len(targets) == len(set(named))
    assert targets.dropped == len(named) - len(set(named))
    if named:
        assert (targets.first, targets.last) == (named[0], [*targets][-1])


@settings(deadline=None)
@given(st.lists(st.integers(1, MAX_ID), min_size=1))
def test_a_file_gives_what_was_written_to_it(numbers: list[int]) -> None:
    lines = [f"{number}\n".encode() for number in numbers]
    assert list(from_lines(lines, "f")) == list(dict.fromkeys(numbers))


@settings(deadline=None)
@given(st.text(LETTERS, max_size=20))
def test_any_text_is_ids_or_a_value_error(text: str) -> None:
    try:
        targets = from_arguments([text])
    except ValueError:
        return
    assert targets.first >= 1


@example([b"\r\x00"], "id")
@example([b"\n\x00"], "id")
@example([b"a\rb"], "id")
@example([b"id\x00"], "id")
@settings(deadline=None)
@given(st.lists(st.binary(max_size=20)), st.sampled_from([None, "id"]))
def test_any_file_is_ids_or_a_value_error_that_names_it(lines: list[bytes], column: str | None) -> None:
    try:
        targets = from_lines(lines, "some.file", column)
    except ValueError as error:
        named = str(error).startswith("some.file")
    else:
        named = targets.first >= 1
    assert named


def test_arguments_mix_ids_ranges_and_commas() -> None:
    assert list(from_arguments(["7", "1-3", "9,11-12", "007"])) == [7, 1, 2, 3, 9, 11, 12]


def test_a_huge_range_costs_nothing_until_it_is_taken() -> None:
    began = time.perf_counter()
    targets = from_arguments([f"1-{MAX_ID}", "5-1000000000", "77"])
    assert len(targets) == MAX_ID
    assert targets.dropped == 1000000000 - 4 + 1
    assert next(iter(targets)) == 1
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1-", "x", "1-0", "0-5", "9-3", "1.0", "\uff11", "1,,2", f"{MAX_ID + 1}", "1" * 30]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither an id nor a range|ends before it begins"):
        from_arguments(["1", text])


def test_a_range_the_wrong_way_round_is_explained() -> None:
    with pytest.raises(ValueError, match="did you mean 3-9"):
        from_arguments(["9-3"])


def test_a_file_may_hold_blanks_comments_and_a_byte_order_mark() -> None:
    lines = ["\ufeff1\r\n".encode(), b"\n", b"# no\n", b"  2  # yes\n", b"3"]
    assert list(from_lines(lines, "f")) == [1, 2, 3]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_gives_the_column_by_name(delimiter: str) -> None:
    rows = [["name", "id", "x"], ['"a, b; c\n"', "5", ""], [], ["", "", ""], ["b", " 6 ", ""]]
    lines = "".join(f"{delimiter.join(row)}\n" for row in rows).encode().splitlines(keepends=True)
    assert list(from_lines(lines, "f.csv", "id")) == [5, 6]


@pytest.mark.parametrize(
    ("lines", "column", "message"),
    [
        (["1", "x2", "3"], None, r"f, line 2: 'x2' is not an id"),
        (["1", "0"], None, r"f, line 2: '0' is not an id"),
        (["1", "5-9"], None, r"f, line 2: '5-9' is not an id"),
        (["id,name"], None, r"f, line 1: 'id,name' is not an id.*--column NAME"),
        (["# nothing", ""], None, r"f holds no ids"),
        ([], "id", r"f, line 1: the header names no column 'id': ''"),
        (["a,b"], "id", r"f, line 1: the header names no column 'id': 'a,b'"),
        (["id,id"], "id", r"f, line 1: the header names 'id' more than once"),
        (["a,id", "x,1", "x"], "id", r"f, line 3: '' is not an id"),
        (["a,id", "x,1", "x,5x"], "id", r"f, line 3: '5x' is not an id"),
        (["a,id", 'x,"1"2'], "id", r"f, line 2: this is not CSV"),
        (["1", "y" * 100], None, r"f, line 2: 'y{59}…' is"),
    ],
)
def test_a_bad_line_is_named_with_file_line_and_value(lines: list[str], column: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_lines((f"{line}\n".encode() for line in lines), "f", column)


def test_a_file_that_is_not_utf_8_is_named() -> None:
    with pytest.raises(ValueError, match="f, line 2: this is not text in UTF-8"):
        from_lines([b"1\n", b"\xff\xfe"], "f")

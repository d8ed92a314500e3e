from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dispatchkit.cli.input import ids
from dispatchkit.cli.input.ids import Targets, from_arguments
from dispatchkit.cli.input.reading import FileOptions, from_file
from tests.strategies import LETTERS

MAX_ID = 2**63 - 1


@contextlib.contextmanager
def written(content: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


spans = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 25)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=12
)


@settings(deadline=None)
@given(spans, st.sampled_from([0, 1, 4, 10, 100]))
def test_ids_keep_their_first_order(given_spans: list[tuple[int, int]], long: int) -> None:
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
def test_file_gives_written_ids(numbers: list[int]) -> None:
    with written("".join(f"{number}\n" for number in numbers).encode()) as path:
        assert list(from_file(path, FileOptions())) == list(dict.fromkeys(numbers))


@settings(deadline=None)
@given(st.text(LETTERS, max_size=20))
def test_any_text_is_handled(text: str) -> None:
    try:
        targets = from_arguments([text])
    except ValueError:
        return
    assert targets.first >= 1


@example(b"\r\x00", "id")
@example(b"\n\x00", "id")
@example(b"a\rb", "id")
@example(b"id\x00", "id")
@example(b"PK\x03\x04", "id")
@example(b"\x1f\x8b", "id")
@example(b'id,state\n"', "id")
@settings(deadline=None)
@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from(["id", "state", "done", ",", ";", '"', "\n", "5", "#", "sep=", "{", "\ufeff", "}"])).map(
        lambda parts: "".join(parts).encode()
    ),
    st.sampled_from([None, "id"]),
)
def test_any_file_is_handled(content: bytes, column: str | None) -> None:
    with written(content) as path:
        try:
            targets = from_file(path, FileOptions(column=column))
        except ValueError as error:
            named = str(error).startswith(path)
        else:
            named = targets.first >= 1
    assert named


def test_arguments_mix_ids_and_ranges() -> None:
    assert list(from_arguments(["7", "1-3", "9,11-12", "7"])) == [7, 1, 2, 3, 9, 11, 12]


def test_huge_range_costs_nothing() -> None:
    targets = from_arguments([f"1-{MAX_ID}", "5-1000000000", "77"])
    assert len(targets) == MAX_ID
    assert targets.dropped == 1000000000 - 4 + 1
    assert next(iter(targets)) == 1
    assert sum(isinstance(part, range) for part in targets.parts) == len(targets.parts) == 1


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1-", "x", "1-0", "0-5", "9-3", "1.0", "\uff11", "1,,2", f"{MAX_ID + 1}", "1" * 30]
)
def test_non_ids_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither an id nor a range|ends before it begins"):
        from_arguments(["1", text])


@pytest.mark.parametrize("text", ["011", "007-9", "1-09"])
def test_leading_zero_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="begins with 0, which an id never does"):
        from_arguments(["1", text])
    file = tmp_path / "ids"
    for content in (f"{text}\n", f"12345\n{text}\n", f"id,state\n{text},planned\n"):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"begins with 0|a range is given"):
            from_file(str(file), FileOptions())


@pytest.mark.parametrize(
    ("texts", "meant"),
    [
        (["1\u20135"], "1-5"),
        (["1\u20145"], "1-5"),
        (["1-", "5"], "1-5"),
        (["1", "-", "5"], "1-5"),
        (["1 - 5"], "1-5"),
        (["1..5"], "1-5"),
        (["1,", "2"], "1,2"),
        (["1,,2"], "1,2"),
        (["1;2"], "1,2"),
    ],
)
def test_range_is_suggested(texts: list[str], meant: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {meant}\\?"):
        from_arguments(texts)


def test_file_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ids.csv").write_text("1\n")
    with pytest.raises(ValueError, match=r"is a file: did you mean --from ids\.csv\?"):
        from_arguments(["ids.csv"])


def test_reversed_range_is_explained() -> None:
    with pytest.raises(ValueError, match="did you mean 3-9"):
        from_arguments(["9-3"])

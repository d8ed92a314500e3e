"""Options of texts are taken as they are, all others as Typer converts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer

from dispatchkit.cli.lazy import CommandRef
from dispatchkit.cli.options import Options

TAKEN: list[Any] = []


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Some(Options):
    words: Annotated[list[str] | None, typer.Argument()] = None
    text: Annotated[str | None, typer.Option()] = None
    named: Annotated[str, typer.Option()] = "x"
    each: Annotated[list[str] | None, typer.Option()] = None
    number: Annotated[int | None, typer.Option(min=1)] = None
    numbers: Annotated[list[int] | None, typer.Option()] = None
    flag: Annotated[bool, typer.Option("--flag")] = False


def take(options: Some) -> None:
    TAKEN.append({name: value for name, value in vars(options).items() if name != "invocation"})


def invoke(*words: str) -> int:
    ref = CommandRef(help="", options=f"{__name__}:Some", body=f"{__name__}:take")
    with pytest.raises(SystemExit) as ended:
        ref.build("some").main([*words])
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("", {}),
        ("a 7", {"words": ["a", "7"]}),
        ("--text 7 --named= --each a --each 2", {"text": "7", "named": "", "each": ["a", "2"]}),
        ("--number 7 --numbers 1 --numbers 2 --flag", {"number": 7, "numbers": [1, 2], "flag": True}),
    ],
)
def test_values_have_their_types(line: str, given: dict[str, Any]) -> None:
    assert invoke(*line.split()) == 0
    defaults = {"words": None, "text": None, "named": "x", "each": None, "number": None, "numbers": None, "flag": False}
    assert TAKEN.pop() == {**defaults, **given}


@pytest.mark.parametrize("number", ["0", "a", ""])
def test_wrong_number_is_refused(number: str) -> None:
    assert invoke("--number", number) == 2

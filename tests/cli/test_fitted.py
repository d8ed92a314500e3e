"""Long lines on a terminal: prose wraps between words, and a line to type stays one line."""

from __future__ import annotations

import io

import pytest

from dispatchkit.cli.fitted import fit, fitted

LINE = "dispatchkit resume --run easter --canary 3 --canary-timeout 5s --profile retail"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", "short"),
        (f"281 are left. To resume the run: {LINE}", f"281 are left. To resume the run:\n{LINE}"),
        (f"to resume     {LINE}", f"to resume\n{LINE}"),
        (
            "  left out  16 launched before, 9 done in run 'fri', the latest at 10:07 UTC",
            "  left out  16 launched before, 9 done in\n            run 'fri', the latest at 10:07\n            UTC",
        ),
        (f"dispatchkit: no such run. To go on: {LINE}", f"dispatchkit: no such run. To go on:\n{LINE}"),
        (LINE, LINE),
        ("a" * 60, "a" * 60),
        ("one two\n" + "three " * 9, "one two\nthree three three three three three three\nthree three"),
    ],
)
def test_long_lines_are_wrapped(text: str, expected: str) -> None:
    assert fit(text, 42) == expected


def test_log_keeps_its_lines() -> None:
    assert fitted(io.StringIO(), "word " * 90) == "word " * 90

"""The text of a summary: a file and a terminal get the same words."""

from __future__ import annotations

import io

import pytest

from dispatchkit.cli.output.summary import Count, _styled, summary_text

COUNTS = [Count("done", 1_234_567, "green"), Count("not sent", 0, "dim"), Count("отклонено", 12)]
BEFORE, AFTER = ["Start 2 dispatches: 5, 7\n  host  a"], ["x" * 200, "[bold] :smile:"]


@pytest.mark.parametrize("counts", [COUNTS, COUNTS[1:2], [Count("完了", 1)]])
def test_plain_table_equals_rich(counts: list[Count], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    plain = summary_text(io.StringIO(), BEFORE, counts, AFTER)
    assert plain == _styled(io.StringIO(), BEFORE, counts, AFTER)
    assert plain.endswith(f"{'x' * 200}\n[bold] :smile:\n")


def test_forced_colour_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[" in summary_text(io.StringIO(), [], COUNTS, [])

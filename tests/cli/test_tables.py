"""Tables on a narrow terminal."""

from __future__ import annotations

import os
import sys

import pytest

from dispatchkit.cli.output import tables
from dispatchkit.cli.output.tables import PlainTable
from dispatchkit.cli.views.ledger import _COUNTS, _OPTIONAL, _RUN, _TARGET

LONG = "рассылка-ко-дню-города-" * 4
RUN = (LONG, "unfinished", "2026-01-01 00:00:00", 500_000, 400_000, 3, 0, 12, 0, 99_985)
TARGET = (3, 10000000125, "StartDispatch", "rejected", 4031, "Inappropriate " * 9, "0" * 36, 1, "2026-01-01 00:00:00")


@pytest.fixture(params=[80, 100, 300])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(tables, "get_terminal_size", lambda: os.terminal_size((request.param, 24)))
    return int(request.param)


def test_runs_fit_a_terminal(width: int) -> None:
    table = PlainTable(_RUN, optional=("created",), flexible=("run", "state"))
    header, line = table.lines([_RUN, RUN]).splitlines()
    assert max(map(len, (header, line))) <= width
    assert header.startswith("run ")
    assert line.startswith(LONG[:5])
    for count in (3, 12, 400_000):
        assert str(count) in line.split()
    assert ("created" in header) is (width == 300)
    assert len(table.lines([RUN] * 2).splitlines()[1]) <= width


def test_targets_fit_a_terminal(width: int) -> None:
    table = PlainTable(_TARGET, optional=_OPTIONAL, flexible=("summary", "state"))
    header, line = table.lines([_TARGET, TARGET]).splitlines()
    assert max(map(len, (header, line))) <= width
    assert "10000000125" in line
    assert "Inapp" in line


def test_file_gets_all_of_it() -> None:
    table = PlainTable(_RUN, optional=("created", *_COUNTS), flexible=("run", "state"))
    header, line = table.lines([_RUN, RUN]).splitlines()
    assert (header.split(), line.split()[0]) == ([*_RUN], LONG)

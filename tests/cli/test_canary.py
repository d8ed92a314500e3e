"""A canary and the hours of a launch on the command line."""

from __future__ import annotations

import os
import re
import shlex
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dispatchkit.cli.commands.direct import DirectOptions
from dispatchkit.cli.hours import parse_window
from dispatchkit.core.fanout.window import in_words
from tests.cli.conftest import Played, Result, run, start_child, wait_until
from tests.cli.test_runs import counts

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
"""15:00 in Moscow."""


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "launch.db"


def start(played: Played, *more: object, ids: str = "1-100") -> Result:
    return run("direct", "start", ids, "--yes", "--base-url", played.url, *more)


def options(**given: str) -> DirectOptions:
    return DirectOptions(**given)  # type: ignore[arg-type]


def test_canary_releases_rest(played: Played) -> None:
    result = start(played, "--no-ledger", "--canary", 2)
    assert result.code == 0
    assert counts(result.out)["done"] == 100
    assert "  canary   2 dispatches first, and the rest once they go out, within 10 min\n" in result.out
    assert "Canary: all go out (1: its state reads 'scheduled'; 2: its state reads 'scheduled');" in result.err


def test_failed_canary_tells_more(played: Played, ledger: Path) -> None:
    played.sandbox.direct.stuck[2] = "initiated"
    canary = ("--canary", 3, "--canary-timeout", "0.2s")
    result = start(played, "--ledger", ledger, "--run", "friday", *canary)
    assert result.code == 1
    assert (counts(result.out)["done"], counts(result.out)["not started"]) == (3, 97)
    assert (
        "The canary failed, so the rest was not started: 2: its state reads 'initiated', after 0.2 s (--canary 3). "
        "Look at it at the provider before you launch the rest; --canary 0 resumes it all the same.\n"
    ) in result.err
    line = f"dispatchkit resume {ledger} --run friday --canary 3 --canary-timeout 0.2s"
    assert result.out.endswith(f"97 dispatches are left. To resume the run: {line}\n")
    again = run(*shlex.split(line)[1:], "--yes")
    assert (again.code, counts(again.out)["not started"]) == (1, 97)
    without = run("resume", ledger, "--run", "friday", "--canary-timeout", "0.2s", "--yes")
    assert (without.code, counts(without.out)["not started"]) == (1, 97)
    assert "  canary   3 dispatches first" in without.out
    smaller = run("resume", ledger, "--run", "friday", "--canary", 1, "--canary-timeout", "0.2s", "--yes")
    assert (smaller.code, counts(smaller.out)["not started"]) == (1, 97)
    assert "  canary   1 dispatch first" in smaller.out
    too_large = run("resume", ledger, "--run", "friday", "--canary", 100, "--yes")
    assert (too_large.code, "99 at most" in too_large.err) == (2, True)
    forced = run("resume", ledger, "--run", "friday", "--canary", 0, "--yes")
    assert (forced.code, counts(forced.out)["done"]) == (0, 100)
    assert set(played.sandbox.launches.values()) == {1}


@pytest.mark.second_stage
def test_killed_canary_is_verified(played: Played, ledger: Path) -> None:
    played.sandbox.direct.stuck[1] = "initiated"
    command = ("direct", "start", "1-100", "--yes", "--base-url", played.url, "--ledger", ledger, "--run", "friday")
    with start_child(*command, "--canary", 1) as child:
        wait_until(lambda: played.sandbox.requests >= 3)
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    resumed = run("resume", ledger, "--run", "friday", "--canary-timeout", "0.2s", "--yes")
    assert (resumed.code, counts(resumed.out)["not started"]) == (1, 99)
    assert played.sandbox.launches == {1: 1}
    played.sandbox.direct.stuck.clear()
    assert run("resume", ledger, "--run", "friday", "--yes").code == 0
    assert set(played.sandbox.launches.values()) == {1}


def test_log_error_fails_canary(played: Played) -> None:
    played.sandbox.altcraft.errors[5] = "hunter2"
    result = run("altcraft", "launch", "5-20", "--yes", "--no-ledger", "--canary", 1)
    assert result.code == 1
    assert "not started: 5: its log shows an ERROR entry (--canary 1)." in result.err
    assert "--canary 0" not in result.err, "there is no run to resume"
    assert "hunter2" not in result.err
    assert played.sandbox.launches == {5: 1}


@pytest.mark.parametrize(
    ("command", "name"), [(("direct", "stop"), "StopDispatch"), (("altcraft", "activate"), "ActivateMailing")]
)
def test_stateless_command_is_refused(played: Played, command: tuple[str, str], name: str) -> None:
    result = run(*command, "1-9", "--yes", "--no-ledger", "--base-url", played.url, "--canary", 1)
    assert result.code == 2
    assert f"--canary needs launches whose state shows that they go out, and this {name} has none" in result.err
    assert played.sandbox.requests == 0


@pytest.mark.parametrize("last", ["--dry-run", "--yes", "--sandbox"])
@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("1", "--canary 3 holds nothing back: 1 id is to be launched. Nothing was sent. Launch without --canary\n"),
        (
            "1-3",
            "3 ids are to be launched. Nothing was sent. Give a smaller one, 2 at most, or launch without --canary",
        ),
    ],
)
def test_canary_is_smaller(monkeypatch: pytest.MonkeyPatch, ids: str, message: str, last: str) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "t")
    host = () if last == "--sandbox" else ("--no-ledger", "--base-url", "http://127.0.0.1:9")
    result = run("direct", "start", ids, "--canary", 3, last, *host)
    assert result.code == 2
    assert message in result.err


def test_left_out_shrinks_canary(played: Played, ledger: Path) -> None:
    assert start(played, "--ledger", ledger, ids="1-4").code == 0
    before = played.sandbox.requests
    result = start(played, "--ledger", ledger, "--canary", 2, ids="1-6")
    assert result.code == 2
    assert "2 ids are to be launched" in result.err
    assert played.sandbox.requests == before
    assert start(played, "--ledger", ledger, "--run", "friday", "--canary", 1, ids="1-6").code == 0


@pytest.mark.parametrize(
    "option",
    [
        ("--canary", "0"),
        ("--canary-timeout", "5m"),
        ("--not-before", "9:00"),
        ("--not-after", "9:00"),
        ("--zone", "UTC"),
    ],
)
def test_plan_takes_no_guard(option: tuple[str, str]) -> None:
    result = run("plan", "--ledger", "postgresql://x", "--run", "r", "direct", "start", "1-9", *option)
    assert result.code == 2
    assert f"{option[0]} does not go with plan" in result.err


# Hours


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("21:00", "Europe/Moscow", "2026-01-31 18:00:00 UTC (21:00:00 Europe/Moscow)"),
        ("2026-02-01T09:30", "Europe/Moscow", "2026-02-01 06:30:00 UTC (09:30:00 Europe/Moscow)"),
        ("2026-02-01 09:30:15+03:00", None, "2026-02-01 06:30:15 UTC (09:30:15 +0300)"),
        ("2026-02-01T09:30Z", "Europe/Moscow", "2026-02-01 09:30:00 UTC (12:30:00 Europe/Moscow)"),
        ("23:59", "UTC", "2026-01-31 23:59:00 UTC"),
        ("0:30", "Asia/Vladivostok", None),
        ("2:30", "Pacific/Kiritimati", "2026-01-31 12:30:00 UTC (2026-02-01 02:30:00 Pacific/Kiritimati)"),
    ],
)
def test_hours_are_read(text: str, zone: str | None, expected: str | None) -> None:
    given = {"not_after": text} | ({} if zone is None else {"zone": zone})
    if expected is None:
        with pytest.raises(ValueError, match="is past today"):
            parse_window(options(**given), NOW)
        return
    window = parse_window(options(**given), NOW)
    assert window is not None
    assert window.not_after is not None
    assert in_words(window.not_after) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"not_after": "21:00"}, "--not-after 21:00 needs --zone"),
        ({"not_after": "2026-02-01T21:00"}, "needs its offset, such as 2026-02-01T21:00+03:00, or --zone"),
        (
            {"not_after": "14:00", "zone": "Europe/Moscow"},
            "--not-after 14:00 is past today: it was 2026-01-31 11:00:00",
        ),
        ({"not_before": "14:00", "zone": "Europe/Moscow"}, "To start now, leave it out"),
        ({"not_after": "2026-01-31T11:00Z"}, "--not-after 2026-01-31T11:00Z is past: it was"),
        ({"not_after": "25:00", "zone": "UTC"}, "--not-after must be a time such as 21:00"),
        ({"not_after": "2026-02-01", "zone": "UTC"}, "--not-after must be a time such as 21:00"),
        ({"not_after": "tonight", "zone": "UTC"}, "--not-after must be a time such as 21:00"),
        ({"zone": "UTC"}, "--zone is the zone of --not-before and --not-after"),
        ({"not_after": "21:00", "zone": "Mars/Base"}, "--zone must be a time zone such as Europe/Moscow or UTC"),
        ({"not_after": "21:00", "zone": "moscow"}, "not 'moscow'. Did you mean Europe/Moscow?"),
        ({"not_after": "21:00", "zone": "../etc"}, "--zone must be a time zone"),
        ({"not_after": "21:00", "zone": "Europe"}, "--zone must be a time zone"),
        ({"not_after": "21:00", "zone": ""}, "--zone must be a time zone"),
        ({"not_before": "22:00", "not_after": "16:00", "zone": "Europe/Moscow"}, "--not-after must be later than"),
        ({"not_after": "2026-03-29T02:30", "zone": "Europe/Berlin"}, "does not exist in Europe/Berlin on 2026-03-29"),
        (
            {"not_after": "2026-10-25T02:30", "zone": "Europe/Berlin"},
            "occurs twice in Europe/Berlin on 2026-10-25: give 2026-10-25T02:30+02:00 or ",
        ),
    ],
)
def test_unclear_hours_are_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_window(options(**given), NOW)


def test_past_opening_day_is_open() -> None:
    window = parse_window(options(not_before="2026-01-30T09:00Z"), NOW)
    assert window is not None
    assert window.opens_in(NOW) < 0


def test_no_hours_are_none() -> None:
    assert parse_window(options(), NOW) is None


def test_past_end_sends_nothing(played: Played) -> None:
    result = start(played, "--no-ledger", "--not-after", "2026-01-31T21:00", "--zone", "Europe/Moscow")
    assert result.code == 2
    assert "--not-after 2026-01-31T21:00 is past: it was 2026-01-31 18:00:00 UTC (21:00:00 Europe/Moscow)" in result.err
    assert played.sandbox.requests == 0


@pytest.mark.second_stage
def test_window_ends_launch(played: Played, ledger: Path) -> None:
    end = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    result = start(played, "--ledger", ledger, "--run", "friday", "--rate", 20, "--not-after", end)
    assert result.code == 1
    found = counts(result.out)
    assert 1 <= found["done"] <= 60
    assert found["done"] + found["not started"] == 100
    assert re.search(r"^Stopped: the window ended at .* UTC \(--not-after\); \d+ targets were not started", result.err)
    assert "  not after  " in result.out
    assert result.out.endswith(f"To resume the run: dispatchkit resume {ledger} --run friday --rate 20\n")
    resumed = run("resume", ledger, "--run", "friday", "--yes")
    assert (resumed.code, counts(resumed.out)["done"]) == (0, 100)


@pytest.mark.second_stage
def test_launch_waits_for_opening(played: Played) -> None:
    opening = datetime.now(UTC) + timedelta(seconds=1.5)
    result = start(played, "--no-ledger", "--not-before", opening.isoformat(), ids="1-3")
    assert result.code == 0
    assert f"Window: nothing starts until {opening:%Y-%m-%d %H:%M:%S} UTC.\n" in result.err
    assert min(act.at for act in played.sandbox.acts) >= opening.timestamp()


def test_ctrl_c_ends_wait(played: Played) -> None:
    opening = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    command = ("direct", "start", "1-3", "--yes", "--base-url", played.url, "--no-ledger", "--not-before", opening)
    with start_child(*command) as child:
        assert child.stderr is not None
        assert child.stderr.readline().startswith("Window: nothing starts until ")
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=10)
    assert (child.returncode, counts(out)["not started"]) == (130, 3), err
    assert played.sandbox.requests == 0


def test_missing_zones_name_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoneinfo.available_timezones", set)
    with pytest.raises(ValueError, match="pip install tzdata"):
        parse_window(options(not_after="21:00", zone="No/Zone"), NOW)


def test_rest_has_no_canary(played: Played, ledger: Path) -> None:
    line = ("--ledger", ledger, "--run", "friday", "--canary", 2)
    assert start(played, *line, "--max-launches", 5, "--concurrency", 1).code == 1
    rest = start(played, *line)
    assert rest.code == 0
    assert "Start the rest of run 'friday': 95 of 100 dispatches are left" in rest.out
    assert "canary  " not in rest.out


def test_rest_names_planned_canary(played: Played, ledger: Path) -> None:
    line = ("--ledger", ledger, "--run", "friday")
    assert start(played, *line, "--canary", 3, "--max-launches", 1, "--concurrency", 1).code == 1
    assert "canary   3 dispatches first" in start(played, *line).out

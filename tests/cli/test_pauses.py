"""A pause that a provider asked for by mistake: workers say until when they wait, and a person lifts it."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from dispatchkit import Ledger
from dispatchkit.core.secret import account_key
from dispatchkit.sandbox import Fault
from tests.cli.conftest import Terminal, run, start_child
from tests.workers.conftest import Field, Lines, wait_until

EPOCH = "1767225600"
"""1 January 2026 as an epoch, which some servers send as ``Retry-After``: 56 years, read as seconds."""


def pause(field: Field, key: str = "a" * 64, interval: str = "30 minutes") -> None:
    field.execute(f"INSERT INTO dispatchkit.account VALUES ('{key}', now() + interval '{interval}')")


@pytest.mark.second_stage
def test_lifted_pause_resumes_workers(field: Field) -> None:
    field.sandbox.latency = 0.02
    field.plan(1000, size=500)
    told = [Lines(field.worker("--concurrency", 2)) for _ in range(2)]
    wait_until(lambda: field.launched() >= 50)
    field.sandbox.order(Fault.throttled(EPOCH))
    wait_until(lambda: all("account is paused until" in worker.text for worker in told))
    assert any("max_pause (3600 s) ends before the provider's pause at 20" in worker.text for worker in told)
    time.sleep(1)
    assert [worker.text.count("account is paused until") for worker in told] == [1, 1], "once a pause"
    before = field.launched()
    assert before < 1000
    shown = run("ledger", "show")
    assert re.search(
        r"paused until  20\S+ \d\d:\d\d:\d\d UTC \(by Retry-After\)\. To lift the pause: dispatchkit", shown.out
    )
    asked = run("ledger", "lift-pause", field.dsn)
    assert asked.code == 2
    assert re.search(r"Account \w{12} \(provider direct, http://127\S+; runs 'r'\) is paused until 20.* UTC", asked.out)
    assert "pass --yes" in asked.err
    assert field.launched() == before
    lifted = run("ledger", "lift-pause", field.dsn, "--yes")
    assert (lifted.code, lifted.err) == (0, "")
    assert "1 pause lifted" in lifted.out
    wait_until(lambda: field.launched() == 999, seconds=20)
    assert all("The pause of the account was lifted." in worker.text for worker in told)
    assert run("ledger", "lift-pause", field.dsn, "--yes").out == "No account is paused.\n"


@pytest.mark.second_stage
def test_long_pause_survives_restarts(field: Field) -> None:
    field.plan(20)
    [key] = _keys(field)
    pause(field, key, "10 years")
    told = Lines(field.worker())
    wait_until(lambda: "account is paused until" in told.text)
    shown = run("ledger", "lift-pause", field.dsn).out
    found = re.search(r"is paused until (\S+ \S+) UTC", shown)
    assert found is not None
    until = time.mktime(time.strptime(found[1], "%Y-%m-%d %H:%M:%S")) - time.timezone
    assert 3500 < until - time.time() <= 3600


def _keys(field: Field) -> list[str]:
    async def read() -> list[str]:
        async with Ledger(field.dsn) as ledger:
            return [run.fingerprint for run in await ledger.runs()]

    return asyncio.run(read())


def test_one_account_is_lifted(field: Field) -> None:
    field.plan(1, queue=False)
    field.execute("UPDATE dispatchkit.run SET account = 'shop'")
    pause(field, account_key("direct", field.sandbox.url, "shop"))
    pause(field, "b" * 64)
    pause(field, "c" * 64, "-1 minute")
    both = run("ledger", "lift-pause", field.dsn)
    assert "'shop' (provider direct" in both.out
    assert "Account bbbbbbbbbbbb is paused" in both.out
    assert "cccc" not in both.out
    assert "lift the pause of 2 accounts" in both.err
    assert run("ledger", "lift-pause", field.dsn, "--account", "nobody", "--yes").out == "No such account is paused.\n"
    assert "1 pause lifted" in run("ledger", "lift-pause", field.dsn, "--account", "shop", "--yes").out
    assert "shop" not in run("ledger", "lift-pause", field.dsn).out
    assert "1 pause lifted" in run("ledger", "lift-pause", field.dsn, "--account", "bbbb", "--yes").out


def test_file_holds_no_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPATCHKIT_LEDGER", raising=False)
    assert run("ledger", "init", tmp_path / "launch.db").code == 0
    refused = run("ledger", "lift-pause", tmp_path / "launch.db")
    assert refused.code == 2
    assert "a ledger in a file stores no pauses" in refused.err


def test_terminal_confirms_lift(field: Field) -> None:
    field.plan(1, queue=False)
    pause(field)
    terminal = Terminal("ledger", "lift-pause", field.dsn)
    terminal.read_until("Go ahead? [y/N]")
    terminal.type("y\r")
    assert terminal.end() == 0
    assert "1 pause lifted" in terminal.screen


def test_no_lifts_no_pause(field: Field) -> None:
    field.plan(1, queue=False)
    pause(field)
    terminal = Terminal("ledger", "lift-pause", field.dsn)
    terminal.read_until("Go ahead? [y/N]")
    terminal.type("n\r")
    assert terminal.end() == 4
    assert "No pause was lifted." in terminal.screen
    refused = run("ledger", "lift-pause", field.dsn)
    assert refused.code == 2
    assert "No pause was lifted." in refused.err
    assert "sent" not in terminal.screen + refused.err


def test_paused_command_shows_end(field: Field) -> None:
    field.sandbox.order(Fault.throttled(EPOCH))
    words = ("direct", "start", "1-9", "--yes", "--concurrency", 1, "--base-url", field.sandbox.url, "--run", "friday")
    with start_child(*words) as child:
        lines = Lines(child)
        wait_until(lambda: "The account is paused until" in lines.text)
        wait_until(lambda: re.search(r"Paused until \d\d:\d\d:\d\d UTC \((1 h|5\d min)", lines.text) is not None)
        # Others know of it a moment later.
        wait_until(lambda: "1 pause lifted" in run("ledger", "lift-pause", field.dsn, "--yes").out)
        assert child.wait(20) == 1
    assert field.launched() == 8

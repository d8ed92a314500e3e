"""The command line of a provider outside of the package: its group, and the commands that `plan` takes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dispatchkit import providers
from dispatchkit.cli.app import app
from dispatchkit.provider import Provider, register
from tests.launcher import COMMAND, complete
from tests.providers.example_provider import SmsClient, StartSms

ROOT = Path(__file__).parents[2]
KIT = """
from dispatchkit.provider import Provider
from tests.providers.example_provider import SmsClient, StartSms

SMS = Provider(
    name="sms", client=SmsClient, commands={"start": StartSms}, token_variable="SMS_TOKEN",
    command_line="sms_line:app", help="Start campaigns.",
)
"""
LINE = """
import typer

app = typer.Typer()

@app.command()
def start(number: int):
    print("started", number)

@app.command("list")
def list_():
    print("listed")
"""
PLAN = ("plan", "--ledger", "x", "--run", "x", "sms")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder of installed packages: one brings the provider sms, another one is broken."""
    info = tmp_path / "kits-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kits\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dispatchkit.providers]\nsms = sms_kit:SMS\nfax = no_such_module:FAX\n")
    (tmp_path / "sms_kit.py").write_text(KIT)
    (tmp_path / "sms_line.py").write_text(LINE)
    return tmp_path


def run(packages: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(packages), str(ROOT)))
    return complete([*COMMAND, *arguments], env={**os.environ, "PYTHONPATH": path})


@pytest.mark.second_stage
def test_help_lists_the_provider(packages: Path) -> None:
    shown = run(packages, "--help")
    rows = [line.split(maxsplit=1) for line in shown.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    assert [row[0] for row in rows[:4]] == ["direct", "altcraft", "sms", "ledger"]
    assert rows[2][1] == "Start campaigns."
    assert (shown.returncode, shown.stderr) == (0, "")  # the broken one does no harm


@pytest.mark.second_stage
def test_provider_has_its_group(packages: Path) -> None:
    assert run(packages, "sms", "start", "7").stdout == "started 7\n"
    assert run(packages, "sms", "list").stdout == "listed\n"


@pytest.mark.second_stage
def test_plan_takes_its_commands_only(packages: Path) -> None:
    shown = run(packages, *PLAN, "--help").stdout
    assert "start" in shown
    assert "list" not in shown
    refused = run(packages, *PLAN, "list")
    assert refused.returncode == 2
    assert refused.stdout == ""


def test_broken_package_is_told(packages: Path) -> None:
    refused = run(packages, "fax", "send")
    assert refused.returncode == 2
    assert "the provider 'fax' cannot be loaded from no_such_module:FAX" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_provider_replaces_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_registered", {})
    table = app.info.cls.table  # type: ignore[union-attr]
    before = table["resume"]
    register(
        Provider(
            name="resume",
            client=SmsClient,
            commands={"start": StartSms},
            token_variable="T",
            command_line="sms_line:app",
        )
    )
    assert table["resume"] is before

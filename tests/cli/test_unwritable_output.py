"""Output that is lost is a failing exit status; a reader that is gone is not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.launcher import COMMAND

FULL = Path("/dev/full")


@pytest.mark.second_stage
@pytest.mark.skipif(not FULL.exists(), reason="Linux only")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("--help",),
        ("direct", "start", "--help"),
        ("direct", "start", "1-5", "--dry-run"),
        ("direct", "start", "1-5", "--sandbox"),
        ("direct", "start", "1-5", "--sandbox", "--json"),
    ],
)
def test_full_disk_exits_1(arguments: tuple[str, ...]) -> None:
    with FULL.open("w") as full:
        ended = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.endswith("dispatchkit: not all of the output could be written: No space left on device.\n")
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.skipif(not FULL.exists(), reason="Linux only")
def test_worse_status_outranks_full_disk() -> None:
    with FULL.open("w") as full:
        ended = subprocess.run([*COMMAND, "direct", "start", "5x"], stdout=full, stderr=full, check=False)
    assert ended.returncode == 2


@pytest.mark.parametrize("arguments", [("--help",), ("direct", "start", "1-5", "--sandbox")])
def test_closed_pipe_is_no_failure(arguments: tuple[str, ...]) -> None:
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        err = child.stderr.read()
        assert child.wait(20) in {0, 1}
    assert b"could not be written" not in err
    assert b"Traceback" not in err

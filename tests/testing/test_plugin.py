"""The pytest plugin, as a program's own tests use it: in processes of their own, with each plugin for asyncio."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dispatchkit.sandbox import Fault
from tests.test_readme import block

SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")
SHARED = """
import asyncio

import pytest
from dispatchkit.sandbox import Fault


def test_blocking_client(sync_direct, sync_altcraft, dispatchkit_sandbox, dispatchkit_clock):
    dispatchkit_sandbox.order(Fault.dropped())
    assert not sync_direct.start(7).settled
    sync_altcraft.activate(8, run_now=True)
    assert dispatchkit_sandbox.launches == {7: 1, 8: 1}
    assert dispatchkit_clock.time > 60
    assert sync_direct.start_many(range(100, 200)).finish().done == 100
"""
ASYNCIO = """
LOOPS = []


@pytest.mark.asyncio
async def test_both_clients(direct, altcraft, dispatchkit_sandbox):
    await direct.start(7)
    await altcraft.activate(8, run_now=True)
    assert dispatchkit_sandbox.launches == {7: 1, 8: 1}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("number", [1, 2])
async def test_shared_loop(direct, dispatchkit_sandbox, number):
    async def close(real=direct.close):
        LOOPS.append(asyncio.get_running_loop())
        await real()

    direct.close = close
    await direct.start(7)
    assert dispatchkit_sandbox.launches == {7: 1}
    assert LOOPS == [asyncio.get_running_loop()] * (number - 1)  # the first client was closed on this loop


class TestOptions:
    @pytest.fixture
    def dispatchkit_options(self):
        return {"attempt_timeout": 0.02}

    @pytest.mark.asyncio
    async def test_silence(self, direct, dispatchkit_sandbox):
        dispatchkit_sandbox.order(Fault.silent())
        assert (await direct.start(7)).settled


def test_client_is_made(direct):
    assert repr(direct).startswith("DirectClient")
"""
ANYIO = """
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_anyio(direct, altcraft, dispatchkit_sandbox):
    await direct.start(7)
    await altcraft.activate(8, run_now=True)
    assert dispatchkit_sandbox.launches == {7: 1, 8: 1}
"""
OPTIONS = """
import pytest


@pytest.fixture
def dispatchkit_options():
    return {"attempt_timeout": 0.3}
"""


def run_tests(folder: Path, source: str, *options: str) -> str:
    """Run the tests of a user. Warnings are errors."""
    (folder / "test_user.py").write_text(source, encoding="utf-8")
    (folder / "conftest.py").write_text(OPTIONS, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # trio, which the suite needs, warns when hypothesis loads it.
    done = subprocess.run(
        [*command, "-p", "no:hypothesispytest", "--durations=0", "--durations-min=0", "-vv", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("source", "options", "passed"),
    [
        (SHARED + ASYNCIO + ANYIO, (*SCOPE, "-o", "asyncio_mode=strict"), 7),
        (SHARED + ASYNCIO, (*SCOPE, "-o", "asyncio_mode=auto"), 6),
        (SHARED + ANYIO, ("-p", "no:asyncio"), 2),
    ],
    ids=["strict", "auto", "anyio"],
)
@pytest.mark.second_stage
def test_fixtures_with_each_plugin(tmp_path: Path, source: str, options: tuple[str, ...], passed: int) -> None:
    output = run_tests(tmp_path, source, *options)
    assert f"{passed} passed" in output, output


@pytest.mark.second_stage
def test_missing_plugin_is_named(tmp_path: Path) -> None:
    output = run_tests(tmp_path, "def test_it(direct): ...\n", "-p", "no:asyncio", "-p", "no:anyio")
    assert "the fixture 'direct' needs pytest-asyncio" in output


@pytest.mark.second_stage
def test_two_loops_are_refused(tmp_path: Path) -> None:
    output = run_tests(tmp_path, SHARED + ANYIO, *SCOPE, "-o", "asyncio_mode=auto")
    assert "the fixture 'direct' cannot serve two event loops" in output, output
    assert "1 passed, 1 error" in output


EXAMPLES = {
    "def test_a_lost_answer_is_settled": 1,
    "def test_a_lost_request_is_repeated": 2,
    "def test_no_fault_launches_twice": len(Fault.all()),
    "def test_a_lost_answer_in_a_run": 1,
    "def test_a_mock_raises": 1,
    "def test_campaign_survives_faults": 2,
}
"""The examples of README and docs, and the number of tests in each."""


@pytest.mark.second_stage
def test_examples_take_milliseconds(tmp_path: Path) -> None:
    source = "".join(block("python", holding) for holding in EXAMPLES)
    output = run_tests(tmp_path, source, *SCOPE, "-o", "asyncio_mode=auto")
    assert f"{sum(EXAMPLES.values())} passed" in output, output
    durations = re.findall(r"^([0-9.]+)s call +test_user.py::(.*)$", output, re.MULTILINE)
    assert len(durations) == sum(EXAMPLES.values())
    assert [name for seconds, name in durations if float(seconds) > 30] == [], output


def test_readme_shows_six_lines() -> None:
    source = block("python", "def test_a_lost_answer_is_settled")
    assert len([line for line in source.splitlines() if line]) == 6


def test_plugin_imports_little() -> None:
    script = (
        "import sys, pytest\nbefore = {*sys.modules}\nimport dispatchkit.testing.plugin\n"
        "print(sorted(name for name in {*sys.modules} - before if not name.startswith('dispatchkit')))\n"
        "print(sorted(name for name in {*sys.modules} - before if name.startswith('dispatchkit')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    foreign, ours = done.stdout.splitlines()
    assert foreign == "[]"
    assert ours == "['dispatchkit', 'dispatchkit._version', 'dispatchkit.testing', 'dispatchkit.testing.plugin']"

"""The README's examples are run, so that none of them can rot."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import prometheus_client
import pytest

from dispatchkit import DirectClient
from dispatchkit.sandbox import Sandbox
from tests.launcher import COMMAND, complete

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / ".github/docs").glob("*.md"))]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", "\n".join([README, *DOCS]), re.DOTALL | re.MULTILINE)


def block(language: str, holding: str) -> str:
    (source,) = [text for name, text in BLOCKS if name == language and holding in text]
    return source


def environment(sandbox: Sandbox) -> dict[str, str]:
    return {
        **os.environ,
        "DISPATCHKIT_DIRECT_TOKEN": sandbox.direct_token,
        "DISPATCHKIT_ALTCRAFT_TOKEN": sandbox.altcraft_token,
    }


def run_python(source: str, env: dict[str, str]) -> str:
    command = [sys.executable, "-W", "error", "-c", source]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def namespace(source: str) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(source, names)
    return names


def test_asyncio_example_runs() -> None:
    output = run_python(block("python", "# For your own account"), dict(os.environ))
    assert output == (
        "StartedDispatch(dispatch_id=10000000125, settled=False)\nCounter({10000000125: 1, 82: 1, 90: 1})\n"
    )


def test_read_example_runs() -> None:
    assert run_python(block("python", "direct.dispatches("), dict(os.environ)) == "scheduled\nTrue\n['start']\n"


def test_fan_out_example_runs() -> None:
    output = run_python(block("python", "# in the order of completion"), dict(os.environ))
    assert (
        output
        == "Report(done=1000, rejected=0, not_sent=0, unknown=0, not_started=0, previously_finished=0, repeats=0)\n"
    )


def test_task_group_example_runs() -> None:
    assert run_python(block("python", "asyncio.TaskGroup"), dict(os.environ)) == (
        "cancelled: True launches: 1\n"
        "Report(done=1, rejected=1, not_sent=0, unknown=0, not_started=0, previously_finished=0, repeats=0)\n"
    )


def test_observer_example_runs() -> None:
    assert run_python(block("python", "case AttemptEnded("), dict(os.environ)).splitlines() == [
        "StartDispatch 7: attempt 1: unknown",
        "StartDispatch 7: attempt 2: done",
        "StartDispatch 7: done after 2 attempts",
    ]


async def test_prometheus_example_counts() -> None:
    source = block("python", "from prometheus_client import")
    assert len([line for line in source.splitlines() if line]) <= 16
    observer = namespace(source)["prometheus"]
    async with Sandbox() as played:
        direct = DirectClient(played.direct_token, base_url=played.url, observers=[observer])  # type: ignore[list-item]
        await direct.start_many([1, 2, 100001]).finish()
        await direct.close()
    labels = {"provider": "direct", "command": "StartDispatch"}
    value = prometheus_client.REGISTRY.get_sample_value
    assert value("dispatchkit_calls_total", {**labels, "outcome": "done"}) == 2
    assert value("dispatchkit_calls_total", {**labels, "outcome": "rejected"}) == 1
    assert value("dispatchkit_in_flight", {"provider": "direct"}) == 0
    assert value("dispatchkit_attempt_seconds_count", {"provider": "direct", "outcome": "done"}) == 2


def test_instrumentor_example_runs() -> None:
    assert run_python(block("python", "Instrumentor().instrument()"), dict(os.environ)) == ""


def test_rows_example_runs() -> None:
    output = run_python(block("python", "to_dict(flat=True)"), dict(os.environ))
    assert sorted(output.splitlines()) == sorted(
        [
            '{"dispatch_id": 1, "settled": false}',
            "null",
            "target,state,error_code",
            "1,done,",
            "100001,rejected,4040",
        ]
    )


def test_ledger_example_runs() -> None:
    output = run_python(block("python", "Ledger(f"), dict(os.environ))
    assert output.splitlines() == [
        "Counts(planned=700, sending=0, done=300, rejected=0, not_sent=0, unknown=0)",
        "Report(done=1000, rejected=0, not_sent=0, unknown=0, not_started=0, previously_finished=300, repeats=0)",
        "Report(done=1000, rejected=0, not_sent=0, unknown=0, not_started=0, previously_finished=1000, repeats=0)",
        "1",
    ]


def test_blocking_example_runs(sandbox: Sandbox) -> None:
    source = block("python", "from dispatchkit import Audience, sync").replace("http://127.0.0.1:8080", sandbox.url)
    assert run_python(source, environment(sandbox)) == "StartedDispatch(dispatch_id=10000000125, settled=False)\n"
    assert dict(sandbox.launches) == {10000000125: 1, 82: 1, 90: 1}


@pytest.mark.second_stage
def test_shell_examples_run(sandbox: Sandbox) -> None:
    answered = re.sub("$", " --yes", block("sh", "dispatchkit direct start 10000000125").strip(), flags=re.MULTILINE)
    run_shell(answered, 6, sandbox)
    assert dict(sandbox.launches) == {10000000125: 1, 82: 1, 90: 1}


@pytest.mark.second_stage
def test_kill_switch_example_runs(sandbox: Sandbox) -> None:
    sandbox.direct.scheduled = 0
    run_shell("dispatchkit direct start 7,9 --yes", 1, sandbox)
    run_shell(block("sh", "dispatchkit direct stop --status"), 4, sandbox)
    assert [sandbox.direct.status(number) for number in (7, 8, 9)] == ["stopped", "initiated", "stopped"]


def test_input_example_is_read(tmp_path: Path) -> None:
    (sample,) = re.findall(r"^  ```text\n(  id;.*?)^  ```$", README, re.DOTALL | re.MULTILINE)
    (tmp_path / "ids.csv").write_text(textwrap.dedent(sample), encoding="utf-8")
    done = complete([*COMMAND, "direct", "start", "--from", "ids.csv", "--column", "id", "--dry-run"], cwd=tmp_path)
    assert re.findall(r"dispatch/(\d+)/start", done.stdout) == ["10000000125", "10000000126"]


def test_command_line_ledger_example_runs(sandbox: Sandbox, tmp_path: Path) -> None:
    run_shell(block("sh", "dispatchkit stop-run"), 7, sandbox, tmp_path)
    assert dict(sandbox.launches) == dict.fromkeys(range(1, 1001), 1)


def run_shell(source: str, count: int, sandbox: Sandbox, directory: Path | None = None) -> None:
    lines = source.splitlines()
    assert len(lines) == count
    for line in lines:
        words = shlex.split(line.removeprefix("dispatchkit ").replace("https://your-platform", sandbox.url))
        if words[0] == "direct":
            words += ["--base-url", sandbox.url]
        done = complete([*COMMAND, *words], env=environment(sandbox), cwd=directory)
        assert done.returncode == 0, (line, done.stderr)


async def test_outcome_example_covers_all() -> None:
    start = namespace(block("python", "async def start(direct"))["start"]
    async with Sandbox() as played:
        async with DirectClient(played.direct_token, base_url=played.url) as direct:
            assert await start(direct, 7) == "started"  # type: ignore[operator]
        async with DirectClient("wrong", base_url=played.url) as direct:
            assert await start(direct, 7) == "no: Bad credentials (4012)"  # type: ignore[operator]


def test_mocking_example_passes(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(block("python", "def fix_aioresponses("))
    (tmp_path / "test_mock.py").write_text(block("python", "async def test_a_refusal_is"))
    done = complete([sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", str(tmp_path)], cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout


def test_the_remaining_python_examples_run() -> None:
    namespace(block("python", "retry=RetryPolicy("))


def test_every_example_is_run() -> None:
    assert [language for language, _ in BLOCKS].count("python") == 33
    assert [language for language, _ in BLOCKS].count("sh") == 5


def test_readme_stays_short() -> None:
    assert len(README.splitlines()) <= 450


def test_links_have_their_targets() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).strip().replace(" ", "-")
        for line in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([a-z0-9-]+)\)", README)) <= headings
    linked = set(re.findall(r"blob/main/(\S+)$", README, re.MULTILINE))
    assert linked
    assert all((ROOT / path).exists() for path in linked)
    used = set(re.findall(r"\]\[(\w+)\]", README))
    assert used == set(re.findall(r"^\[(\w+)\]: ", README, re.MULTILINE))

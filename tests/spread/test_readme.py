"""The README's examples of workers: the command line as it stands, of the engines what runs without them."""

from __future__ import annotations

import ast
import asyncio
import shlex
from pathlib import Path

import pytest

from dispatchkit import AltcraftClient, LaunchBroadcast
from dispatchkit.sandbox import Sandbox
from dispatchkit.spread import plan_chunks
from tests.launcher import COMMAND, complete
from tests.spread.conftest import Field
from tests.test_readme import block


def test_the_command_line_of_workers_runs_against_a_sandbox(field: Field, tmp_path: Path) -> None:
    export, spread, worker = block("sh", "dispatchkit spread").splitlines()
    assert export.startswith("export DISPATCHKIT_LEDGER=postgresql://")
    (tmp_path / "ids.csv").write_text("\n".join(map(str, range(1, 51))))
    words = [*shlex.split(spread)[1:], "--base-url", field.sandbox.url]
    complete([*COMMAND, *words], cwd=tmp_path, env=field.environment()).check_returncode()
    assert worker == "dispatchkit worker"
    field.worker()
    field.wait_until_done(50, "black-friday")


@pytest.mark.parametrize(("engine", "given"), [("celery", ("black-friday", 0)), ("airflow", (0,))])
def test_the_tasks_of_other_engines_launch_a_chunk(
    engine: str, given: tuple[object, ...], dsn: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHKIT_LEDGER", dsn)
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_URL", sandbox.url)
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_TOKEN", sandbox.altcraft_token)

    async def plan() -> None:
        async with AltcraftClient() as altcraft:
            await altcraft.activate(7)
            await plan_chunks(dsn, "black-friday", altcraft, [LaunchBroadcast(7)])

    asyncio.run(plan())
    tree = ast.parse(block("python", f"from {engine}"))
    (task,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "launch"]
    task.decorator_list = []
    ours = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    ours = [node for node in ours if engine not in ast.unparse(node)]
    names: dict[str, object] = {}
    exec(compile(ast.Module([*ours, task], []), engine, "exec"), names)
    assert names["launch"](*given) == 1  # type: ignore[operator]

"""A ledger and its workers behind a real PgBouncer."""

# ruff: noqa: ASYNC110 - it looks at servers, logs and small files
from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dispatchkit import Ledger, LedgerError
from dispatchkit.ledger.postgres.store import PostgresStore
from dispatchkit.sandbox import Sandbox
from tests.faults.tls import CERTIFICATE, KEY, LEAF
from tests.ledger.test_store import run_plan
from tests.pgbouncer import PgBouncer
from tests.postgres import Server
from tests.workers.conftest import Field

pytestmark = pytest.mark.second_stage


async def test_session_mode_works_by_default(postgres: Server, dsn: str) -> None:
    with PgBouncer(str(postgres.folder), pool_mode="session") as pooler:
        async with Ledger(pooler.dsn()) as ledger:
            assert await ledger.runs() == []


async def test_session_has_direct_settings(postgres: Server, dsn: str) -> None:
    with PgBouncer(str(postgres.folder), pool_mode="session") as pooler:
        store = PostgresStore(pooler.dsn())
        await store.open()
        names = ("jit", "enable_seqscan", "plan_cache_mode", "synchronous_commit", "application_name", "TimeZone")
        found = [
            await store.connection.run(lambda connection, name=name: connection.fetchval(f"SHOW {name}"))  # type: ignore[misc]
            for name in names
        ]
        await store.close()
        assert store.settings.is_pooled
    assert found == ["off", "off", "force_generic_plan", "on", "dispatchkit", "UTC"]


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize(
    "settings", [{}, {"server_round_robin": 1}, {"min_pool_size": 5}], ids=["plain", "robin", "idle"]
)
async def test_transaction_mode_is_refused(postgres: Server, dsn: str, mode: str, settings: dict[str, Any]) -> None:
    with PgBouncer(str(postgres.folder), pool_mode=mode, **settings) as pooler:
        with pytest.raises(
            LedgerError, match=r"pooler in transaction or statement mode.*pool_mode = session"
        ) as caught:
            async with Ledger(pooler.dsn()) as ledger:
                await ledger.runs()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [1, 2])
async def test_small_pool_names_the_number(
    postgres: Server, dsn: str, size: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with PgBouncer(str(postgres.folder), pool_mode="session", default_pool_size=size) as pooler:
        store = PostgresStore(f"{pooler.dsn()}?connect_timeout=2")
        if size == 1:
            with pytest.raises(LedgerError, match=r"no connection left .* needs 4, and each worker 9"):
                await store.open()
        else:
            await store.open()
            run = await store.begin(run_plan("a"))
            asking = asyncio.create_task(store._claims.run(lambda connection: connection.fetchval("SELECT 1")))
            also = asyncio.create_task(store._records.run(lambda connection: connection.fetchval("SELECT 1")))
            while not caplog.records:
                await asyncio.sleep(0.05)
            assert run.number
            assert "has no connection left" in caplog.text
            assert "needs 4" in caplog.text
            for task in (asking, also):
                task.cancel()
            await asyncio.wait([asking, also])
        await store.close()


def test_workers_launch_behind_session_mode(postgres: Server, dsn: str, sandbox: Sandbox) -> None:
    with PgBouncer(str(postgres.folder), pool_mode="session") as pooler:
        field = Field(pooler.dsn(), sandbox)
        try:
            field.plan(20, size=10)
            field.worker()
            field.wait_until_done(20)
        finally:
            field.end()


PASSWORD = "50%off@:/?# '\\\\x"


@pytest.mark.parametrize("form", ["url", "keywords"])
def test_any_password_works_everywhere(postgres: Server, dsn: str, sandbox: Sandbox, form: str) -> None:
    with PgBouncer(str(postgres.folder), users={"app": PASSWORD}, pool_mode="session") as pooler:
        where = pooler.dsn(f"app:{quote(PASSWORD, safe='')}")
        if form == "keywords":
            quoted = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
            where = f"host=127.0.0.1 port={pooler.port} dbname=postgres user=app password='{quoted}'"
        field = Field(where, sandbox)
        try:
            field.plan(20, size=10)
            field.worker()
            field.wait_until_done(20)
        finally:
            field.end()


def test_wrong_password_is_told_unseen(postgres: Server, dsn: str, tmp_path: Path) -> None:
    with PgBouncer(str(postgres.folder), users={"app": PASSWORD}, pool_mode="session") as pooler:
        where = pooler.dsn("app:hunter2")
        command = [sys.executable, "-m", "dispatchkit", "worker", "--ledger", where]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert ended.returncode == 2, ended
    assert "hunter2" not in ended.stdout + ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.fixture
def certificates() -> Iterator[Path]:
    """Files that the pooler, which is another user, can read too."""
    folder = Path(tempfile.mkdtemp(prefix="tls-"))
    folder.chmod(0o755)
    for name, text in {"authority": CERTIFICATE, "leaf": LEAF, "server-key": KEY, "client-key": KEY}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600 if name == "client-key" else 0o644)
    yield folder
    shutil.rmtree(folder)


def test_certificates_work_everywhere(postgres: Server, dsn: str, sandbox: Sandbox, certificates: Path) -> None:
    demanding = {
        "client_tls_sslmode": "verify-ca",
        "client_tls_key_file": certificates / "server-key",
        "client_tls_cert_file": certificates / "leaf",
        "client_tls_ca_file": certificates / "authority",
    }
    with PgBouncer(str(postgres.folder), pool_mode="session", **demanding) as pooler:  # type: ignore[arg-type]
        trusting = f"{pooler.dsn()}?sslmode=verify-full&sslrootcert={certificates}/authority"
        field = Field(f"{trusting}&sslcert={certificates}/leaf&sslkey={certificates}/client-key", sandbox)
        try:
            field.plan(20, size=10)
            field.worker()
            field.wait_until_done(20)
        finally:
            field.end()
        with pytest.raises(LedgerError, match="cannot be reached"):
            asyncio.run(_look(trusting))  # it shows no certificate


def test_worker_reports_missing_connections(postgres: Server, dsn: str, sandbox: Sandbox) -> None:
    settings = {"pool_mode": "session", "default_pool_size": 1, "query_wait_timeout": 3}
    Field(dsn, sandbox).plan(20, size=10)
    with PgBouncer(str(postgres.folder), **settings) as pooler:  # type: ignore[arg-type]
        command = [sys.executable, "-m", "dispatchkit", "worker", "--ledger", f"{pooler.dsn()}?connect_timeout=2"]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2, ended
    assert "has no connection left" in ended.stderr
    assert "each worker 9" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_worker_reports_role_limit(postgres: Server, dsn: str, sandbox: Sandbox) -> None:
    field = Field(dsn, sandbox)
    field.plan(20, size=10)
    field.execute(
        "CREATE ROLE few LOGIN CONNECTION LIMIT 1; GRANT ALL ON ALL TABLES IN SCHEMA dispatchkit TO few; "
        "GRANT USAGE ON SCHEMA dispatchkit TO few"
    )
    try:
        worker = field.worker(dsn=dsn.replace("postgres@", "few@"))
        assert worker.stderr is not None
        line = worker.stderr.readline()
        assert line.startswith("the ledger's database has no connection left (")
        assert "each worker 9" in line
        assert "psycopg" not in line
    finally:
        field.end()
        field.execute("DROP OWNED BY few; DROP ROLE few")


async def _look(where: str) -> None:
    async with Ledger(where) as ledger:
        await ledger.runs()

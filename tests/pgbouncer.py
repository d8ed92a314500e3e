"""A real PgBouncer in front of the tests' PostgreSQL, where it is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import pytest

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def require_pgbouncer() -> str:
    """Where the program is. Where it is not, the test is skipped; in CI it fails."""
    if PROGRAM is None:
        if os.environ.get("CI"):
            pytest.fail("pgbouncer is not installed")
        pytest.skip("needs PgBouncer: apt-get install pgbouncer")
    return PROGRAM


class PgBouncer:
    """A pooler with its default settings, but for those given.

    Args:
        folder: Of the server's socket.
        users: Names and passwords; "" for those that need none.
        settings: Lines of its configuration.
    """

    def __init__(self, folder: str, *, users: dict[str, str] | None = None, **settings: object) -> None:
        self._program = require_pgbouncer()
        self._folder = Path(tempfile.mkdtemp(prefix="pgb-"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        names = users or {"postgres": ""}
        (self._folder / "users").write_text(
            "".join(f'"{name}" "{word.replace(chr(34), chr(34) * 2)}"\n' for name, word in names.items())
        )
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "md5" if users else "trust",
            "auth_file": self._folder / "users",
            "logfile": self._folder / "log",
            **settings,
        }
        text = "\n".join(f"{name} = {value}" for name, value in lines.items())
        # Each client that is let in becomes the server's superuser.
        server = f"host={folder} port=5432 user=postgres"
        (self._folder / "ini").write_text(f"[databases]\n* = {server}\n[pgbouncer]\n{text}\n")
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user is not None:
            for path in (self._folder, *self._folder.iterdir()):
                shutil.chown(path, self._user)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [self._program, self._folder / "ini"], user=self._user, stderr=subprocess.DEVNULL, cwd=self._folder
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                assert time.monotonic() < deadline, (self._folder / "log").read_text()
                time.sleep(0.02)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder)

    def dsn(self, user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/postgres"

"""``dispatchkit web``: where it listens, and what it prints."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import run
from tests.faults.tls import CERTIFICATE, KEY, LEAF
from tests.launcher import COMMAND, Process

LINK = re.compile(r"This link opens it in one browser, once: (https?://(\S+):(\d+)/open\?token=\S{43})\n")


@contextmanager
def served(*words: str) -> Iterator[tuple[str, str]]:
    """The command as a process, with its first two lines. Ctrl-C ends it, with status 0."""
    process = Process(
        [*COMMAND, "web", "--port", "0", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline(), process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    assert (process.returncode, "Traceback" in rest) == (0, False), rest


def status_of(address: str, context: ssl.SSLContext | None = None) -> int:
    try:
        with urllib.request.urlopen(address, timeout=10, context=context) as response:
            return int(response.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def test_loopback_serves_own_ledger() -> None:
    with served() as (first, second):
        assert re.fullmatch(r"The control room of .*launches\.db, until Ctrl-C\.\n", first)
        found = LINK.fullmatch(second)
        assert found is not None
        assert found[2] == "127.0.0.1"
        assert status_of(f"http://127.0.0.1:{found[3]}/") == 403


def test_certificate_serves_tls(tmp_path: Path) -> None:
    (tmp_path / "leaf").write_text(LEAF)
    (tmp_path / "key").write_text(KEY)
    context = ssl.create_default_context(cadata=CERTIFICATE)
    context.check_hostname = False
    with served("--tls-cert", str(tmp_path / "leaf"), "--tls-key", str(tmp_path / "key")) as (_, second):
        found = LINK.fullmatch(second)
        assert found is not None
        request = urllib.request.Request(found[1].partition("/open")[0])
        assert found[1].startswith("https://")
        assert status_of(request.full_url, context) == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_network_needs_tls(host: str) -> None:
    result = run("web", "--host", host)
    assert result.code == 2
    assert f"--host {host} lets other machines in: add --tls-cert PATH, or --insecure" in result.err


def test_insecure_serves_network() -> None:
    with served("--host", "0.0.0.0", "--insecure") as (_, second):
        found = LINK.fullmatch(second)
        assert found is not None
        assert status_of(f"http://127.0.0.1:{found[3]}/") == 403


WRONG = {
    "key alone": (["--tls-key", "{folder}/key"], "--tls-key goes with --tls-cert"),
    "no file": (["--tls-cert", "{folder}/nothing"], "nothing: No such file or directory"),
    "no certificate": (["--tls-cert", "{folder}/none"], "--tls-cert must be a certificate in PEM with its key"),
    "no key": (["--tls-cert", "{folder}/leaf"], "--tls-cert must be a certificate in PEM with its key"),
    "kind of ledger": (["--ledger", "mysql://me:hunter2@db/x"], "ledger"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_option_is_refused(tmp_path: Path, words: list[str], message: str) -> None:
    for name, text in {"leaf": LEAF, "key": KEY, "none": "no PEM"}.items():
        (tmp_path / name).write_text(text)
    result = run("web", "--port", "0", *(word.format(folder=tmp_path) for word in words))
    assert result.code == 2
    assert message in result.err
    assert "hunter2" not in result.err


def test_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = run("web", "--port", other.getsockname()[1])
    assert result.code == 2
    assert "Address already in use" in result.err

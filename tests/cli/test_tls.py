"""``--ca-file``, ``--client-cert`` and ``--client-key``."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatchkit.cli.tls import tls_context
from tests.cli.conftest import run
from tests.faults.tls import CERTIFICATE, KEY, LEAF

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 24\r\nConnection: close\r\n\r\n{"total": 0, "items":[]}'


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "key")
    for name, text in {"ca": CERTIFICATE, "leaf": LEAF, "key": KEY, "both": LEAF + KEY, "none": "no PEM"}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def server(files: Path) -> Iterator[str]:
    """A server that asks for a certificate, and answers every request with an empty list."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files / "ca"))
    context.load_cert_chain(files / "both")
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(connection, server_side=True) as secure:
                        secure.recv(65536)
                        secure.sendall(ANSWER)
                except OSError:
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.mark.parametrize("client", [("--client-cert", "both"), ("--client-cert", "leaf", "--client-key", "key")])
def test_given_authority_is_trusted(files: Path, server: str, client: tuple[str, ...]) -> None:
    given = [word if word.startswith("--") else files / word for word in client]
    result = run("direct", "list", "--base-url", server, "--ca-file", files / "ca", *given)
    assert (result.code, result.err) == (0, "")


def test_another_authority_is_not_trusted(server: str) -> None:
    result = run("direct", "list", "--base-url", server, "--timeout", 1)
    assert result.code == 1
    assert "certificate" in result.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ca-file", "none"), "--ca-file must be certificates in PEM"),
        (("--ca-file", "missing"), "missing: No such file or directory"),
        (("--client-cert", "none"), "--client-cert must be a certificate in PEM"),
        (("--client-cert", "leaf"), "--client-cert must be a certificate in PEM"),
        (("--client-cert", "leaf", "--client-key", "missing"), "missing: No such file or directory"),
        (("--client-cert", "leaf", "--client-key", "ca"), "do not fit"),
        (("--client-key", "key"), "--client-key goes with --client-cert"),
        (("--ca-file", "."), "Is a directory"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_mistake_is_one_line(files: Path, options: tuple[str, ...], message: str, dry: tuple[str, ...]) -> None:
    given = [word if word.startswith("--") else files / word for word in options]
    result = run("direct", "start", 7, "--yes", "--base-url", "https://127.0.0.1:1", *given, *dry)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert message in result.err


def test_no_options_no_context() -> None:
    assert tls_context(None, None, None) is None


def test_certificate_error_names_option(files: Path, server: str) -> None:
    reach = ("--base-url", server, "--timeout", 1)
    told = run("direct", "list", *reach).err
    told += run("direct", "start", 5, "--yes", *reach, "--failures", files / "failed.csv").err
    told += (files / "failed.csv").read_text()
    assert told.count("--ca-file") == 3, told
    assert "ssl=" not in told

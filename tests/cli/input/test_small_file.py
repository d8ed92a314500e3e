"""Files that options name: bounded, and no device."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from dispatchkit.cli.input.small_file import read_small_file
from tests.cli.conftest import Terminal, run

SPOILT = "http://127.0.0.1:1"


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("direct", "list", "--token-file"),
        ("direct", "start", "7", "--yes", "--token-file"),
        ("altcraft", "launch", "7", "--yes", "--content"),
        ("direct", "list", "--ca-file"),
        ("direct", "list", "--client-cert"),
        ("direct", "list", "--client-cert", "cert", "--client-key"),
        ("altcraft", "launch", "7", "--yes", "--attach"),
        ("direct", "start", "--yes", "--from"),
    ],
)
def test_devices_are_refused(
    arguments: tuple[str, ...], device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cert").write_text("x")
    for name in ("DIRECT_TOKEN", "ALTCRAFT_TOKEN"):
        monkeypatch.setenv(f"DISPATCHKIT_{name}", "token")
    at = "@" if arguments[-1] == "--content" else ""
    result = run(*arguments, f"{at}{device}", "--base-url", SPOILT)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert device in result.err
    assert "device" in result.err


@pytest.mark.parametrize("option", ["--ca-file", "--client-cert", "--token-file"])
def test_folders_are_refused(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "token")
    result = run("direct", "list", option, tmp_path, "--base-url", SPOILT)
    assert (result.code, result.err) == (2, f"dispatchkit: {tmp_path}: Is a directory. Name a file in it\n")


def test_size_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_small_file("--x", str(path), max_bytes=10) == b"x" * 10
    with pytest.raises(ValueError, match=r"^--x takes at most 9 bytes, and .* holds more: name another file$"):
        read_small_file("--x", str(path), max_bytes=9)


def test_pipe_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(ValueError, match="is a pipe: name the file itself"):
        read_small_file("--x", str(path), max_bytes=10)
    for size in (10, 200_000):
        writer = threading.Thread(target=lambda size=size: _fill(path, size))
        writer.start()
        if size == 10:
            assert read_small_file("--x", str(path), max_bytes=10, pipe=True) == b"x" * 10
        else:
            with pytest.raises(ValueError, match="takes at most 10 bytes"):
                read_small_file("--x", str(path), max_bytes=10, pipe=True)
        writer.join()


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as pipe:
        try:
            pipe.write(b"x" * size)
            pipe.flush()
        except BrokenPipeError:
            pipe.raw.close()  # what is left is dropped


def test_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(ValueError, match="is a socket"):
            read_small_file("--x", str(tmp_path / "s"), max_bytes=10, pipe=True)


def test_endless_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("direct", "list", "--token-file", "-", "--base-url", SPOILT, stdin="x" * 70_000)
    assert result.code == 2
    assert "--token-file takes at most 65,536 bytes, and standard input holds more" in result.err


def test_token_is_typed() -> None:
    command = Terminal("direct", "list", "--token-file", "/dev/stdin", "--base-url", "nonsense")
    command.type("token\n\x04")
    assert command.end() == 2
    assert "base-url" in command.screen

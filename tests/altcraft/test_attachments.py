"""Which files can be attached. No other file is read, opened or waited for."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatchkit import AltcraftClient, Attachment, LaunchBroadcast
from dispatchkit.altcraft import regular_file
from dispatchkit.altcraft.base64_part import Base64Part
from dispatchkit.altcraft.models import MAX_FILE_BYTES
from dispatchkit.cli.providers.attachments import read_attachments


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (os.mkfifo, OSError, "must be a regular file"),
        (bound_socket, OSError, "must be a regular file"),
        (os.mkdir, IsADirectoryError, "s a directory"),
        (lambda path: path.symlink_to("/dev/zero"), OSError, "must be a regular file"),
        (lambda path: path.symlink_to(path), OSError, "symbolic links"),
        (lambda path: None, FileNotFoundError, "No such file"),
    ],
    ids=["pipe", "socket", "directory", "link to a device", "link to itself", "nothing"],
)
def test_non_files_are_refused(make: Callable[[Path], None], error: type[OSError], text: str, tmp_path: Path) -> None:
    make(path := tmp_path / "a")
    with pytest.raises(error, match=text) as refusal:
        Attachment.from_path(path)
    assert refusal.value.filename == str(path) or error is FileNotFoundError


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
def test_swapped_in_pipe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(path := tmp_path / "pipe")
    file = sparse(tmp_path / "file", 1).stat()
    monkeypatch.setattr(Path, "stat", lambda self: file)
    with pytest.raises(OSError, match="must be a regular file"):
        Attachment.from_path(path)


def test_link_to_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.pdf").write_bytes(b"%PDF")
    (link := tmp_path / "price.pdf").symlink_to("real.pdf")
    assert Attachment.from_path(link) == Attachment.from_bytes(b"%PDF", name="price.pdf")


def test_large_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sparse(tmp_path / "big", 300 * 2**20)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(ValueError, match=r"at most 75,000,000 bytes, not 314,572,800"):
        Attachment.from_path(path)


@pytest.mark.parametrize("size", [0, 9, 10])
def test_largest_file_is_read(size: int, tmp_path: Path) -> None:
    assert len(Attachment.from_path(sparse(tmp_path / "a", size), max_bytes=10).data) == size


@pytest.mark.parametrize("bound", [0, -1, True, 1.5, "1"])
def test_bound_is_positive_integer(bound: object, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError), match="max_bytes must be an integer from 1 up"):
        Attachment.from_path(tmp_path, max_bytes=bound)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change", [b"", b"1234567", b"123456789", b"87654321"], ids=["emptied", "less", "more", "same"]
)
def test_file_that_changes_is_refused(change: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "a.txt").write_bytes(b"12345678")
    os.utime(path, (1, 1))
    check = regular_file._check
    calls: list[int] = []

    def changed(*arguments: object) -> None:
        check(*arguments)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 2:
            path.write_bytes(change)

    monkeypatch.setattr(regular_file, "_check", changed)
    with pytest.raises(OSError, match="changed while it was read"):
        Attachment.from_path(path)


def test_file_of_kernel_is_refused() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("no such file here")
    with pytest.raises(OSError, match="changed while it was read"):
        Attachment.from_path("/proc/self/status")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "...",
        " ",
        "a/b",
        "a\\b",
        "/a",
        "a\nb",
        "a\x00",
        "a\x7f",
        "a\u202eb",
        " a",
        "a ",
        "a\t",
        "\ud800",
        "x" * 256,
    ],
)
def test_odd_names_are_refused(name: str, tmp_path: Path) -> None:
    path = sparse(tmp_path / "a", 1)
    for make in (lambda: Attachment.from_path(path, name=name), lambda: Attachment.from_bytes(b"", name=name)):
        with pytest.raises(ValueError, match="attachment name must be a bare file name") as refusal:
            make()
        assert len(str(refusal.value)) < 250


@pytest.mark.parametrize("name", ["a", ".env", "Прайс лист.pdf", "a..b", "x" * 255])
def test_any_other_name_is_taken(name: str) -> None:
    assert Attachment.from_bytes(b"", name=name).name == name


def test_name_is_checked_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sparse(tmp_path / "a", 1)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(ValueError, match="media_type"):
        Attachment.from_path(path, media_type="no type")


def test_files_are_bounded_before_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Attachment.from_bytes(bytes(600), name="a")
    monkeypatch.setattr(Base64Part, "pieces", lambda _: pytest.fail("it was encoded"))
    client = AltcraftClient("https://example.com", "token", attachment_limit=1000)
    with pytest.raises(ValueError, match="attachments must keep the body within 1,000 bytes, not 1,7"):
        client._call(LaunchBroadcast(9, attachments=[file, file]))


def test_attached_files_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = sparse(tmp_path / "big", 8)
    monkeypatch.setattr("dispatchkit.cli.providers.attachments.MAX_FILE_BYTES", 10)
    assert [file.name for file in read_attachments([big])] == ["big"]
    with pytest.raises(ValueError, match=r"^--attach .*at most 2 bytes, not 8 after 8 bytes of other files$"):
        read_attachments([big, big])
    assert MAX_FILE_BYTES * 4 // 3 == 100_000_000

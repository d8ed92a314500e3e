"""Errors of the operating system about a file say what to do next."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dispatchkit.cli.input.os_errors import describe_os_error


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (errno.EACCES, "Allow this user to use it, or name another file"),
        (errno.EISDIR, "Name a file in it"),
        (errno.EROFS, "Name a file on another disk"),
        (errno.ENOSPC, "Free some space, or name a file on another disk"),
        (errno.ELOOP, "Name another file"),
    ],
)
def test_next_step_is_told(number: int, step: str) -> None:
    assert describe_os_error(OSError(number, os.strerror(number), "ids.csv")) == (
        f"ids.csv: {os.strerror(number)}. {step}"
    )


def test_missing_folder_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "none"
    text = describe_os_error(FileNotFoundError(errno.ENOENT, "No such file or directory", gone / "ids.csv"))
    assert text.endswith(f"No such file or directory. There is no folder {gone}: make it, or name another file")
    text = describe_os_error(FileNotFoundError(errno.ENOENT, "No such file or directory", str(gone)))
    assert text.endswith(f"No such file or directory. Check its name: it was looked for in {tmp_path}")


def test_other_errors_stay_short() -> None:
    assert describe_os_error(OSError(errno.EADDRINUSE, "Address already in use")) == "Address already in use"
    assert describe_os_error(OSError("cannot")) == "cannot"

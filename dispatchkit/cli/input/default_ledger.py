"""The user's own ledger: one SQLite file in the state folder, where the command line names no other."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from dispatchkit.cli.translate import _

__all__ = ["default_ledger", "make_writable"]

_OTHERS = 0o077


def default_ledger() -> Path:
    """The file. It need not exist."""
    return platformdirs.user_state_path("dispatchkit", appauthor=False) / "launches.db"


def make_writable(file: Path) -> None:
    """Make the folder of a ledger, for its owner only.

    Raises:
        ValueError: The folder or the file cannot be written.
    """
    folder = file.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (mode := folder.stat().st_mode) & _OTHERS:
            folder.chmod(mode & 0o7777 & ~_OTHERS)
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        closed = next((path for path in (folder, file) if path.exists() and not os.access(path, os.W_OK)), None)
        if closed is None:
            return
        reason = _("{closed} is read-only").format(closed=closed)
    raise ValueError(
        _("launches are recorded in {file}, which cannot be written ({reason}): nothing was sent").format(
            file=file, reason=reason
        )
    )

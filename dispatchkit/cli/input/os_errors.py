"""Errors of the operating system about a file, with what to do next."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from dispatchkit.cli.translate import N_, _

__all__ = ["describe_os_error"]

_STEPS = {
    errno.EISDIR: N_("name a file in it"),
    errno.EACCES: N_("allow this user to use it, or name another file"),
    errno.EPERM: N_("allow this user to use it, or name another file"),
    errno.EROFS: N_("name a file on another disk"),
    errno.ENOSPC: N_("free some space, or name a file on another disk"),
    errno.EDQUOT: N_("free some space, or name a file on another disk"),
}
_OTHER_STEP = N_("name another file")


def describe_os_error(error: OSError) -> str:
    """The error in one line. If it is about a file, the line says what to do next."""
    reason = error.strerror or str(error)
    if not error.filename:
        return reason
    named: object = error.filename
    name = os.fsdecode(named) if isinstance(named, bytes) else str(named)
    return f"{name}: {reason}. {_capital(_next_step(error.errno or 0, Path(name)))}"


def _next_step(number: int, path: Path) -> str:
    if number == errno.ENOENT:
        folder = path.absolute().parent
        if not folder.is_dir():
            return _("there is no folder {folder}: make it, or name another file").format(folder=folder)
        return _("check its name: it was looked for in {folder}").format(folder=folder)
    return _(_STEPS.get(number, _OTHER_STEP))


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"

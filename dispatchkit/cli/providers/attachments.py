"""``--attach``: the files of a launch. They are read before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dispatchkit import Attachment
from dispatchkit.altcraft.models import MAX_FILE_BYTES
from dispatchkit.cli.translate import _

__all__ = ["read_attachments"]


def read_attachments(paths: Sequence[Path]) -> list[Attachment]:
    """Read the files. Together they are bounded as one is, so that none is read for nothing.

    Raises:
        OSError: See `Attachment.from_path`.
        ValueError: A file, or all of them together, are too large, or a name cannot be used.
    """
    left, files = MAX_FILE_BYTES, list[Attachment]()
    for path in paths:
        try:
            file = Attachment.from_path(path, max_bytes=max(1, left))
        except ValueError as error:
            before = _(" after {count:,} bytes of other files").format(count=MAX_FILE_BYTES - left) if files else ""
            raise ValueError(
                _("--attach {path}: {error}{before}").format(path=path, error=error, before=before)
            ) from None
        left -= len(file.data)
        files.append(file)
    return files

"""The command line. `main` is its entry point; everything heavier is imported once it is known to be needed."""

from __future__ import annotations

import io
import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> None:
    """Run the command line. Without the extra ``cli``, say how to install it and exit with status 2."""
    if any(find_spec(name) is None for name in ("typer", "rich")):
        sys.stderr.write("The command line needs an extra: pip install 'dispatchkit[cli]'\n")
        raise SystemExit(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a letter must not end a run half-way.
            stream.reconfigure(errors="backslashreplace")
    from dispatchkit.cli.app import app  # noqa: PLC0415 - typer is an extra

    app(prog_name="dispatchkit")

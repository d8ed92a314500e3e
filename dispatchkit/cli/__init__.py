"""The command line. `main` is its entry point; everything heavier is imported once it is known to be needed."""

from __future__ import annotations

import io
import os
import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> None:
    """Run the command line. Without the extra ``cli``, say how to install it and exit with status 2."""
    if any(find_spec(name) is None for name in ("typer", "rich")):
        sys.stderr.write("The command line needs an extra: pip install 'dispatchkit[cli]'\n")
        raise SystemExit(2)
    _fill_gaps()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a letter must not end a run half-way.
            stream.reconfigure(errors="backslashreplace")
    from dispatchkit.cli.app import app  # noqa: PLC0415 - typer is an extra

    app(prog_name="dispatchkit")


def _fill_gaps() -> None:
    """Put something in the place of each standard stream that whoever started us has closed.

    The next socket would get its number, and what is printed. And libuv ends the whole process when it has to close
    such a one.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - for as long as we live

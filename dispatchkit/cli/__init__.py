"""The command line. `main` is its entry point. A command imports what it needs once the command line names it."""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module
from importlib.util import find_spec

from dispatchkit.cli.collector import postpone_collections
from dispatchkit.cli.streams import UNWRITABLE, ignore_broken_pipe, unwritable, write
from dispatchkit.cli.translate import _

__all__ = ["main"]


def main() -> None:
    """Run the command line. Without the extra ``cli``, say how to install it and exit with status 2."""
    if any(find_spec(name) is None for name in ("typer", "rich", "platformdirs")):
        sys.stderr.write(_("The command line needs an extra: pip install 'dispatchkit[cli]'") + "\n")
        raise SystemExit(2)
    postpone_collections()
    _fill_gaps()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a letter must not end a run half-way.
            stream.reconfigure(errors="backslashreplace")
    app = import_module("dispatchkit.cli.app").app  # needs typer, which is an extra
    status: object = None
    try:
        app(prog_name="dispatchkit")
    except SystemExit as ended:
        status = ended.code
    except OSError as error:  # of Typer, which writes a help page
        if error.errno not in UNWRITABLE:
            raise
        with ignore_broken_pipe(sys.stdout):
            raise
    if reason := unwritable():
        text = _("not all of the output could be written: {reason}.").format(reason=reason)
        write(sys.stderr, f"dispatchkit: {text}\n")
        status = status or 1
    raise SystemExit(status)


def _fill_gaps() -> None:
    """Open the null device in place of each standard stream that was closed when the process started.

    Otherwise the next socket gets the number of the stream, and receives all printed output. Also, libuv ends the
    process when it closes such a stream.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - for as long as we live

"""Values of options: ids and token. All are read before the first request is sent."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from dispatchkit.cli.fitted import fitted
from dispatchkit.cli.input.bad_rows import UnusableFileError
from dispatchkit.cli.input.ids import Targets, from_arguments
from dispatchkit.cli.input.origin import Reader
from dispatchkit.cli.input.small_file import read_small_file
from dispatchkit.cli.option_names import as_options
from dispatchkit.cli.text import escape_control, redact_urls, write
from dispatchkit.cli.translate import _
from dispatchkit.errors import LedgerError

if TYPE_CHECKING:
    from dispatchkit.cli.options import ConnectionOptions, ReadIdsOptions, RunOptions

__all__ = ["exit_on_user_error", "read_targets", "token"]

_MAX_TOKEN = 64 * 1024
"""Bytes of a file with a token."""

# The library speaks of its parameters, the command line of its options. In quotes, it is a key of a profile.
_PARAMETER = re.compile(r"\bbase_url\b(?!')|^(timeout|attempt_timeout|account|proxy|limit|content|wire)\b")


@contextmanager
def exit_on_user_error() -> Generator[None]:
    """Turn the user's mistakes, and a ledger that cannot be used, into text on standard error and exit status 2.

    It is one line; several bad rows of a file take one each.
    """
    try:
        yield
    except UnusableFileError as error:
        message = "\n".join(map(escape_control, error.lines))
        write(sys.stderr, fitted(sys.stderr, f"dispatchkit: {redact_urls(message)}\n"))
        raise typer.Exit(2) from None
    except OSError as error:
        from dispatchkit.cli.input.os_errors import describe_os_error  # noqa: PLC0415 - most commands have none

        message = describe_os_error(error)
    except (ValueError, TypeError, ImportError) as error:
        message = _PARAMETER.sub(lambda match: f"--{match[0].replace('_', '-')}", as_options(str(error)))
    except LedgerError as error:
        message = str(error)
    else:
        return
    write(sys.stderr, fitted(sys.stderr, f"dispatchkit: {escape_control(redact_urls(message))}\n"))
    raise typer.Exit(2)


def read_targets(options: RunOptions | ReadIdsOptions, reader: Reader) -> Targets:
    """The ids of a command.

    Args:
        options: What was typed.
        reader: The command that takes them.

    Raises:
        ValueError: There are none, one is not an id, or the options contradict each other.
        OSError: The file cannot be read.
    """
    if options.from_ == options.token_file == "-":
        raise ValueError(_("--from - and --token-file - cannot both read standard input"))
    if options.ids and options.from_ is not None:
        raise ValueError(_("give the ids either as arguments or with --from, not both"))
    if options.from_ is None:
        for name in ("column", "sheet", "encoding", "include_unknown"):
            if getattr(options, name, None):
                raise ValueError(_("--{option} goes with --from FILE").format(option=name.replace("_", "-")))
        if not options.ids:
            all_of = _(", or --status sending") if hasattr(options, "status") else ""
            raise ValueError(
                _("no ids: add them, such as 7 or 1-1000, or add --from FILE{all_of}").format(all_of=all_of)
            )
        return from_arguments(options.ids)
    from dispatchkit.cli.input.reading import FileOptions, from_file  # noqa: PLC0415 - ids as arguments need no readers

    file_options = FileOptions(
        column=options.column,
        sheet=options.sheet,
        encoding=options.encoding,
        include_unknown=getattr(options, "include_unknown", False),
        reader=reader,
        again=lambda more: options.invocation.again(*shlex.split(more)),
    )
    return from_file(options.from_, file_options)


def token(options: ConnectionOptions, variable: str) -> str:
    """The token from the file, the environment or the profile; never from an option, which ``ps`` would show.

    Raises:
        ValueError: There is none.
        OSError: The file cannot be read.
    """
    if options.token_file is None:
        profile = options.invocation.profile
        value = os.environ.get(variable) or ("" if profile is None else profile.read_token() or "")
        if not value:
            raise ValueError(_("no token: set {variable}, or add --token-file PATH").format(variable=variable))
        return value
    raw = read_small_file("--token-file", options.token_file, max_bytes=_MAX_TOKEN, pipe=True)
    # Other letters than ASCII become a character that no token may have, which the client refuses.
    value = raw.decode("ascii", "replace").strip()
    if not value:
        raise ValueError(
            _("no token: {token_file} is empty. Put the token into it, or name another file").format(
                token_file=options.token_file
            )
        )
    return value

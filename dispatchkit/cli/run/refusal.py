"""A launch that is refused before anything of it is prepared: ``--notify`` runs for it, too."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.lazy import load

if TYPE_CHECKING:
    from dispatchkit.cli.options import RunOptions

__all__ = ["refused_on_user_error"]


@contextmanager
def refused_on_user_error(options: RunOptions) -> Generator[None]:
    """Like `exit_on_user_error`, and run ``--notify`` for a refusal. The block must launch nothing.

    Raises:
        typer.Exit: With status 2, after an error.
    """
    try:
        with exit_on_user_error():
            yield
    except typer.Exit:
        if options.notify is None or options.dry_run:
            raise
        with exit_on_user_error():
            notifier = load("dispatchkit.cli.output.notify:notifier_of")(options)
        with load("dispatchkit.cli.output.notify:refusal_told")(notifier, options.run):
            raise

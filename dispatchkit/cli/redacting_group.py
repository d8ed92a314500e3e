"""Keep passwords out of the messages about wrong usage, which quote what was typed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup

from dispatchkit.redaction import redact_typed

__all__ = ["RedactingGroup"]


class RedactingGroup(TyperGroup):
    """A group whose usage errors show no password: an address may stand where none is expected."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """See `click.Command.make_context`."""
        with _redacted():
            return super().make_context(*args, **kwargs)

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        """See `click.Group.invoke`."""
        with _redacted():
            return super().invoke(*args, **kwargs)


@contextmanager
def _redacted() -> Generator[None]:
    try:
        yield
    except Exception as error:
        message = getattr(error, "message", None)  # of click's errors
        if isinstance(message, str):
            vars(error)["message"] = redact_typed(message)
        raise

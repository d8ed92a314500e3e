"""Log records of a call. A filter or handler that raises must not change the call's outcome."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping

__all__ = ["log", "logger"]

logger = logging.getLogger("dispatchkit")
logger.addHandler(logging.NullHandler())  # a library prints nothing unless logging is configured

_reported = False


def log(
    target: logging.Logger,
    level: int,
    text: str,
    *args: object,
    extra: Callable[[], Mapping[str, object]] | None = None,
    exc_info: BaseException | None = None,
) -> None:
    """Write one record.

    An `Exception` of a filter, a handler or a repr is dropped, and reported once per process. Other exceptions pass,
    such as a `KeyboardInterrupt`.

    Args:
        target: The logger.
        level: A level of `logging`.
        text: The message, with ``%`` placeholders.
        *args: The values of the placeholders.
        extra: Makes the attributes of the record.
        exc_info: The exception that the record describes.
    """
    try:
        if target.isEnabledFor(level):
            target.log(level, text, *args, exc_info=exc_info, extra=None if extra is None else extra())
    except Exception as error:  # noqa: BLE001 - filters and handlers are the caller's code
        _report(error)


def _report(error: Exception) -> None:
    global _reported  # noqa: PLW0603
    if _reported:
        return
    _reported = True
    with contextlib.suppress(Exception):  # the same filter may raise again
        logger.error("a log filter or handler raised %s: the record was dropped", type(error).__name__)

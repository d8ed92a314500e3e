"""The import of what launches, with one read of the system's certificate authorities instead of two.

aiohttp makes two TLS contexts when it is imported. One of them accepts any certificate, and reads the authorities all
the same. That takes 20 ms of CPU time, a twentieth of a launch of one target.
"""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from dispatchkit.cli.lazy import load

__all__ = ["load_launch"]


def load_launch(reference: str) -> Any:
    """The object that ``"module:attribute"`` names, whose module imports aiohttp. See `load`."""
    with _read_where_used():
        return load(reference)


@contextmanager
def _read_where_used() -> Generator[None]:
    """Leave the authorities out of a context that verifies nothing. Every other context reads them."""
    read = ssl.SSLContext.set_default_verify_paths

    def read_where_used(context: ssl.SSLContext) -> None:
        if context.verify_mode is not ssl.CERT_NONE:
            read(context)

    ssl.SSLContext.set_default_verify_paths = read_where_used  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ssl.SSLContext.set_default_verify_paths = read  # type: ignore[method-assign]

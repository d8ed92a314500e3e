"""Tell by its form what a ledger's address is: a file or a PostgreSQL database.

An address that is neither is refused, because it would become a file that is named after a password. No message quotes
an address before its form is known.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import NoReturn

from dispatchkit.ledger.dsn import KEYWORDS, DsnError, Parameters, parse_keywords, parse_url
from dispatchkit.redaction import redact_urls

__all__ = ["Address"]

_SCHEMES = ("postgresql://", "postgres://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
# What is left of a URL without its scheme: //user:password@host and user:password@host.
_CREDENTIALS = re.compile(r"^[^/\\]*:.*@|//[^@]*:.*@", re.DOTALL)
_PAIR = re.compile(r"\s*([A-Za-z_]+)\s*=")
# Keywords of other drivers, and typing errors of a keyword: without blanks they would look like a file's name.
_FOREIGN = frozenset(
    {"database", "data source", "datasource", "driver", "pass", "passwd", "pwd", "server", "uid", "url"}
)
_FORMS = "a ledger must be a file or 'postgresql://...'"
_HIDDEN = "It is not shown, as it may hold a password"


class Address:
    """A file or a database, as `Ledger` takes it. Its repr and its text never show a password.

    Build the address, drop the raw text, then call `check`. `of` never raises, so no frame that still holds the raw
    text gets into a traceback.

    Example:
        ``Address.of("postgresql://app:secret@db/launches")`` prints as ``postgresql://app:***@db/launches``.
    """

    __slots__ = ("_error", "_text", "parameters")

    def __init__(self, text: str, *, parameters: Parameters | None = None, error: Exception | None = None) -> None:
        self._text = text
        self._error = error
        self.parameters = parameters
        """What a database's address says; None for a file."""

    @staticmethod
    def of(where: str | os.PathLike[str] | Address) -> Address:
        """Read an address. What is wrong with it is kept for `check`."""
        if isinstance(where, Address):
            return where
        if not isinstance(where, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
            return Address("", error=TypeError(f"{_FORMS}, not {type(where).__name__}. {_HIDDEN}"))
        text = os.fspath(where)
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - a path of bytes
            return Address("", error=TypeError(f"{_FORMS}, not a path of {type(text).__name__}"))
        return _read(text)

    @property
    def is_database(self) -> bool:
        """Whether it is a database; else it is a file."""
        return self.parameters is not None

    @property
    def file(self) -> str:
        """The name of the file."""
        return "" if self.is_database else self._text

    def check(self) -> None:
        """Refuse what is neither a file nor a database.

        Raises:
            TypeError: It is no text and no path.
            ValueError: It is empty, or another kind of address, or says something that is not supported.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)

    def __str__(self) -> str:
        if getattr(self, "_error", self) is not None:  # refused, or half built
            return "***"
        return redact_urls(self._text) if self.is_database else self._text

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an address is not pickled, as it may hold a password: make the Ledger where it is used")


def _read(text: str) -> Address:
    if not text:
        return _refused(f"{_FORMS}, not nothing")
    if text.startswith(_SCHEMES):
        return _database(text, parse_url)
    if "\0" in text:
        return _refused(f"{_FORMS}, not text with a NUL character. {_HIDDEN}")
    pair = _PAIR.match(text)
    if pair is not None and pair[1] in KEYWORDS:
        return _database(text, parse_keywords)
    if pair is not None and (text.split("=", 1)[0].strip().lower() in KEYWORDS | _FOREIGN or ";" in text):
        return _refused(f"{_FORMS}, not the address of something else. {_HIDDEN}")
    if "=" in text and re.search(r"\s", text):
        return _refused(
            f"{_FORMS}, not text with '=' and blanks that is not libpq's 'host=... dbname=...'. {_HIDDEN}. If it is a "
            "file, rename it"
        )
    if _DRIVE.match(text):
        return Address(text)
    if "://" in text or _SCHEME.match(text) or _CREDENTIALS.search(text) or text.startswith(":"):
        return _refused(
            f"{_FORMS}, not another URL or a mistyped one (lower case, with two slashes). {_HIDDEN}. If it is a file, "
            "write it with its folder, such as ./name"
        )
    return Address(text)


def _database(text: str, parse: Callable[[str], Parameters]) -> Address:
    try:
        return Address(text, parameters=parse(text))
    except DsnError as error:
        message = f"the ledger's address is not one of PostgreSQL: {error}. {_HIDDEN}"
    return _refused(message)


def _refused(message: str) -> Address:
    return Address("", error=ValueError(message))

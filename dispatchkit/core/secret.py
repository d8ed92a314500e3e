"""A token that no repr, log or traceback shows."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, NoReturn, TypeVar

from dispatchkit.core.masking import mask

__all__ = ["Secret", "Token", "Unshown", "account_key"]

T = TypeVar("T")

Token = str | Callable[[], str]
"""A token, or a callable that returns it. Every request calls it, so a rotated token takes effect at once."""

# Visible ASCII only: safe in a header, and needs no escape in a body.
_TOKEN = re.compile(r"[\x21-\x7e]+")


_REMEMBERED = 256

FINGERPRINT_ROUNDS = 200_000
"""Rounds of PBKDF2 for a fingerprint: 0.1 s of CPU time."""


class Secret:
    """Holds a token that only `reveal` returns.

    ``repr``, ``str`` and ``vars`` do not show it, and it refuses to be pickled. The constructor never raises: a
    traceback would show the frame with the raw text. So build it, drop the text, then call `check`.

    Example:
        >>> secret = Secret("c2VjcmV0", environment="DISPATCHKIT_DIRECT_TOKEN")
        >>> secret.check()
        >>> "c2VjcmV0" in repr(secret), secret.redact("no c2VjcmV0 here")
        (False, 'no *** here')
    """

    __slots__ = ("_environment", "_fingerprints", "_revealed", "_source")

    def __init__(self, token: Token | None, *, environment: str) -> None:
        self._environment = environment
        # Recent tokens of a callable, for `redact`: an answer may quote a token that was rotated since.
        self._revealed: deque[str] = deque(maxlen=_REMEMBERED)
        self._source: object = os.environ.get(environment) if token is None else token
        self._fingerprints: dict[tuple[bytes, str], str] = {}

    def check(self) -> None:
        """Validate the token without showing it. A callable is not called.

        Raises:
            ValueError: The token is missing or holds an invalid character.
            TypeError: The token is neither text nor a callable.
        """
        if callable(self._source):
            return
        if self._source is None or self._source == "":
            raise ValueError(f"no token: pass token=, or set {self._environment}")
        if not isinstance(self._source, str):
            raise TypeError(f"token must be a string or a callable that returns one, not {type(self._source).__name__}")
        if _TOKEN.fullmatch(self._source) is None:
            raise _unusable()

    def reveal(self) -> str:
        """The token itself.

        Raises:
            ValueError: The callable returned no valid token.
        """
        if isinstance(self._source, str):
            return self._source  # validated by `check`
        token = self._source() if callable(self._source) else None
        if not isinstance(token, str):
            raise ValueError(f"token= must return a string, not {type(token).__name__}")  # noqa: TRY004 - seen in a call
        if _TOKEN.fullmatch(token) is not None:
            if token not in self._revealed:
                self._revealed.append(token)
            return token
        del token
        raise _unusable()

    def account(self) -> str:
        """In-process account key; does not reveal the token."""
        if isinstance(self._source, str):
            return hashlib.sha256(self._source.encode()).hexdigest()
        return f"callable {id(self._source)}"

    def fingerprint(self, salt: str) -> str:
        """Account key that is equal on every machine; does not reveal the token. It costs 0.1 s of CPU time.

        Others may read the stored key, and a token may contain a password. So PBKDF2 makes guessing slow.

        Raises:
            ValueError: The callable returned no valid token.
        """
        token = self.reveal().encode()
        key = hashlib.sha256(token).digest(), salt
        if key not in self._fingerprints:
            self._fingerprints[key] = hashlib.pbkdf2_hmac("sha256", token, salt.encode(), FINGERPRINT_ROUNDS).hex()
        return self._fingerprints[key]

    def redact(self, text: str) -> str:
        """Mask the token in a text: a provider may quote the token that it refuses. See `mask`.

        No callable is called, since it may raise.
        """
        known = [self._source] if isinstance(self._source, str) else self._revealed
        return mask(text, (secret for token in known for secret in (token, *_decoded(token))))

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token is not pickled: build the client where it is used, from that process's configuration")


class Unshown(Generic[T]):
    """Holds a value that may contain a password, such as a URL. No frame and no repr shows the value."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("what may hold a password is not pickled: build the client where it is used")


def account_key(provider: str, base_url: str, account: str) -> str:
    """Account key of a named account: equal on every machine and for every token."""
    return hashlib.sha256(f"{provider} {base_url} {account}".encode()).hexdigest()


def _decoded(token: str) -> Iterator[str]:
    """The parts of a token that is the Base64 of ``id:password``."""
    try:
        pair = base64.b64decode(token, validate=True).decode()
    except ValueError:
        return
    _, colon, password = pair.partition(":")
    if colon and len(password) >= 4:  # a shorter password would mask parts of ordinary words
        yield pair
        yield password


def _unusable() -> ValueError:
    return ValueError(
        "token must be visible ASCII characters only: remove spaces, line breaks and a scheme such as 'Basic '"
    )

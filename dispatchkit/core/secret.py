"""The token that never prints."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, NoReturn, TypeVar

__all__ = ["Secret", "Token", "Unshown", "account_key"]

T = TypeVar("T")

Token = str | Callable[[], str]
"""A token, or a callable that returns it: asked for every request, so a rotated token is taken up at once."""

# What may stand in a header and needs no escape in a body: visible ASCII. A line break would be a header of its own.
_TOKEN = re.compile(r"[\x21-\x7e]+")


_REMEMBERED = 256

FINGERPRINT_ROUNDS = 200_000
"""Rounds of PBKDF2 for a fingerprint: a tenth of a second of work."""


class Secret:
    """Holds a token so that only `reveal` gives it away.

    It is not in ``repr``, ``str`` or ``vars``, and it refuses to be pickled: what is on disk or on its way to another
    process is out of our hands. Building one never raises, so that no frame of ours which still holds the raw text can
    end up in a traceback: build it, drop the text, then `check`.
    """

    __slots__ = ("_environment", "_fingerprints", "_revealed", "_source")

    def __init__(self, token: Token | None, *, environment: str) -> None:
        self._environment = environment
        # What a callable gave lately: it may give another token by the time an answer quotes this one.
        self._revealed: deque[str] = deque(maxlen=_REMEMBERED)
        self._source: object = os.environ.get(environment) if token is None else token
        self._fingerprints: dict[tuple[bytes, str], str] = {}

    def check(self) -> None:
        """Say what is wrong with the token, without showing it. A callable is first asked when a request needs it.

        Raises:
            ValueError: There is no token, or it holds a character that cannot be part of one.
            TypeError: It is neither text nor a callable.
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
            ValueError: A callable returned something that is not a token.
        """
        if isinstance(self._source, str):
            return self._source  # `check` has seen it
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
        """What tells this token's account from others in this process; says nothing of the token."""
        if isinstance(self._source, str):
            return hashlib.sha256(self._source.encode()).hexdigest()
        return f"callable {id(self._source)}"

    def fingerprint(self, salt: str) -> str:
        """What tells this token's account from others on every machine; costs a tenth of a second of work.

        It is kept where others may read it, and a token may be made of a password: so it is slow to guess.

        Raises:
            ValueError: A callable returned something that is not a token.
        """
        token = self.reveal().encode()
        key = hashlib.sha256(token).digest(), salt
        if key not in self._fingerprints:
            self._fingerprints[key] = hashlib.pbkdf2_hmac("sha256", token, salt.encode(), FINGERPRINT_ROUNDS).hex()
        return self._fingerprints[key]

    def redact(self, text: str) -> str:
        """The text with the token masked: a provider may quote the token that it refuses.

        It asks no callable: the answer is here already, and nothing may fail any more.
        """
        known = [self._source] if isinstance(self._source, str) else self._revealed
        for token in sorted(known, key=len, reverse=True):
            for secret in (token, *_decoded(token)):
                text = text.replace(secret, "***")
        return text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token is not pickled: build the client where it is used, from that process's configuration")


class Unshown(Generic[T]):
    """Holds a value that may contain a password, such as a URL, so that no frame and no repr shows it."""

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
    """The key of an account that has a name: the same on every machine, whatever token it has."""
    return hashlib.sha256(f"{provider} {base_url} {account}".encode()).hexdigest()


def _decoded(token: str) -> Iterator[str]:
    """What a token says that is the Base64 of ``id:password``."""
    try:
        pair = base64.b64decode(token, validate=True).decode()
    except ValueError:
        return
    _, colon, password = pair.partition(":")
    if colon and len(password) >= 4:  # a shorter one would mask half of every word
        yield pair
        yield password


def _unusable() -> ValueError:
    return ValueError(
        "token must be visible ASCII characters only: it holds a space, a line break, a control or another character "
        "(a stray newline from a file, or a scheme such as 'Basic ' before the key?)"
    )

"""A token that no repr, log or traceback shows."""

from __future__ import annotations

import base64
import hashlib
import inspect
import math
import os
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, NoReturn, TypeVar, cast

import attrs

from dispatchkit.core.masking import mask

__all__ = ["ExpiringToken", "Secret", "Token", "Unshown", "account_key", "is_asynchronous"]

T = TypeVar("T")


def _lifetime(instance: object, attribute: attrs.Attribute[float], value: object) -> None:
    del instance
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{attribute.name} must be a number of seconds, not {type(value).__name__}")
    if not value >= 0:
        raise ValueError(f"{attribute.name} must be a number of seconds from 0 up, not {value:g}")


@attrs.frozen(repr=False)
class ExpiringToken:
    """A token that a callable returns with its lifetime. Its repr does not show it.

    Raises:
        TypeError: ``expires_in`` is not a number.
        ValueError: ``expires_in`` is negative.

    >>> ExpiringToken("c2VjcmV0", expires_in=3600)
    ExpiringToken(***, expires_in=3600)
    """

    text: str
    """The token itself."""
    expires_in: float = attrs.field(kw_only=True, validator=_lifetime)
    """Seconds until it expires. It is asked for again 30 s earlier, or a tenth of a shorter lifetime. With 0, each
    request asks."""

    def __repr__(self) -> str:
        return f"ExpiringToken(***, expires_in={self.expires_in:g})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token is not pickled")


AnyToken = str | ExpiringToken
Token = str | Callable[[], AnyToken | Awaitable[AnyToken]]
"""A token, or a callable that returns it, also an asynchronous one.

A callable is called before the first request. Its token is kept until the provider refuses it, or until it expires
(`ExpiringToken`). Concurrent calls share one call of it. A plain callable runs in a thread, so it may block.
"""

# Visible ASCII only: safe in a header, and needs no escape in a body.
_TOKEN = re.compile(r"[\x21-\x7e]+")


_REMEMBERED = 256

_EARLY = 30.0
"""Seconds before its expiry at which a token is asked for again; at most a tenth of its lifetime."""

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

    __slots__ = (
        "_cached",
        "_environment",
        "_expires_at",
        "_failure",
        "_fingerprints",
        "_revealed",
        "_source",
        "generation",
        "is_renewable",
        "now",
    )

    def __init__(self, token: Token | None, *, environment: str) -> None:
        self._environment = environment
        self.now: Callable[[], float] = time.monotonic
        """Tells when a token has expired. A client gives it its clock's ``boottime``."""
        self.generation = 0
        """How many tokens a callable has returned."""
        self._cached: str | None = None
        self._expires_at = math.inf
        """By `now`."""
        self._failure: Exception | None = None
        """What the callable raised, until it gives a token."""
        # Recent tokens of a callable, for `redact`: an answer may quote a token that was rotated since.
        self._revealed: deque[str] = deque(maxlen=_REMEMBERED)
        self._source: object = os.environ.get(environment) if token is None else token
        self._fingerprints: dict[tuple[bytes, str], str] = {}
        self.is_renewable = callable(self._source)
        """Whether a callable gives the token, so that it can be asked for again."""

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
        """The token itself. Without a kept one, a plain callable is called here. A request asks before.

        Raises:
            ValueError: The callable returned no valid token.
            RuntimeError: The callable is asynchronous, and was not asked yet.
            Exception: The asynchronous callable raised it when it was last asked.
        """
        if isinstance(self._source, str):
            return self._source  # validated by `check`
        if self._cached is not None:
            return self._cached
        if is_asynchronous(self.source):
            raise self._failure or RuntimeError(
                "the token comes from an asynchronous callable: it is known once a call was awaited"
            )
        return self.accept(self.source())

    def accept(self, token: object) -> str:
        """Check and keep what the callable returned."""
        expires_at = math.inf
        if isinstance(token, ExpiringToken):
            lifetime = token.expires_in
            expires_at = self.now() + lifetime - min(_EARLY, lifetime / 10)
            token = token.text
        if not isinstance(token, str):
            raise ValueError(f"token= must return a string, not {type(token).__name__}")  # noqa: TRY004 - seen in a call
        if _TOKEN.fullmatch(token) is None:
            del token
            raise _unusable()
        if token not in self._revealed:
            self._revealed.append(token)
        self.generation += token != self._cached
        self._cached, self._expires_at, self._failure = token, expires_at, None
        return token

    @property
    def is_due(self) -> bool:
        """Whether a callable has to be asked before the next request: no token is kept, or it has expired."""
        return self.is_renewable and (self._cached is None or self.now() >= self._expires_at)

    @property
    def source(self) -> Callable[[], object]:
        """The callable that gives the token, if `is_renewable`."""
        return cast("Callable[[], object]", self._source)

    def fail(self, error: Exception) -> None:
        """Keep what the callable raised, until it gives a token."""
        self._failure = error.with_traceback(None)  # its frames hold the token

    def account(self) -> str:
        """In-process account key; does not reveal the token."""
        token = self._source if isinstance(self._source, str) else self._cached
        return f"callable {id(self._source)}" if token is None else hashlib.sha256(token.encode()).hexdigest()

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


def is_asynchronous(source: Callable[[], object]) -> bool:
    """Whether a token callable has to be awaited."""
    return inspect.iscoroutinefunction(source) or inspect.iscoroutinefunction(getattr(source, "__call__", None))  # noqa: B004


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

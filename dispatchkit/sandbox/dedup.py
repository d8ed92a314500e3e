"""How Altcraft recognises a request that it has already answered.

Two generations of the platform use different header names. A client that must work with both sends its id in both.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from attrs import evolve, frozen

if TYPE_CHECKING:
    from dispatchkit.sandbox.wire import Call, Reply

WINDOW: Final = 86_400.0
"""Seconds for which an answer is remembered, counted from the first request."""

Generation: TypeAlias = Literal["newer", "older"]
"""Which headers the platform honours: ``Request-ID`` or ``X-Request-ID``."""


@frozen
class _Headers:
    request_id: str
    duplicate: str
    key: str


_HEADERS: dict[Generation, _Headers] = {
    "newer": _Headers("Request-ID", "Duplicate-Request", "Duplicate-Key"),
    "older": _Headers("X-Request-ID", "X-Duplicate-Request", "X-Duplicate-Key"),
}


class Deduplication:
    """The answers of one day, by the key of the request that they answered.

    Args:
        generation: Whose header names to use.

    Raises:
        ValueError: There is no such generation.
    """

    __slots__ = ("_answers", "_generation", "_headers")

    def __init__(self, generation: Generation) -> None:
        if generation not in _HEADERS:
            raise ValueError(f'replay_generation must be "newer" or "older", not {generation!r}')
        self._generation = generation
        self._headers = _HEADERS[generation]
        # Oldest first, because an answer enters at the end and its age never changes.
        self._answers: dict[str, tuple[float, Reply]] = {}

    def request_id(self, call: Call) -> str | None:
        """The id that the caller gave the request, if it came in the header that this generation honours."""
        return call.header(self._headers.request_id) or None

    def key(self, call: Call, *, checksum: bool) -> str | None:
        """What identifies a request: its id, or else a checksum of it if ``checksum`` and the generation allow.

        Only the id counts, not the rest of the request: this is the strictest reading of "identifies".
        """
        request_id = self.request_id(call)
        if request_id is not None or not checksum or self._generation == "older":
            return request_id
        digest = hashlib.sha256(call.path.encode())
        for name, value in sorted((name.lower(), value) for name, value in call.headers.items()):
            digest.update(f"\n{name}:{value}".encode())
        digest.update(b"\n\n" + call.body)
        return digest.hexdigest()

    def recall(self, key: str, now: float) -> Reply | None:
        """The answer that this key already got, marked as a replay; None if there was none within the window."""
        self._forget(now)
        kept = self._answers.get(key)
        if kept is None:
            return None
        marks = {self._headers.duplicate: "true", self._headers.key: key}
        return evolve(kept[1], headers={**kept[1].headers, **marks})

    def keep(self, key: str, reply: Reply, now: float) -> None:
        """Remember the answer to a first request."""
        self._answers[key] = (now, reply)

    def _forget(self, now: float) -> None:
        while self._answers:
            oldest = next(iter(self._answers))
            if now - self._answers[oldest][0] < WINDOW:
                return
            del self._answers[oldest]

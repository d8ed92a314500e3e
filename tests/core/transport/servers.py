"""Random servers for the learned shape: their order of header fields stays, changes, or is made to deceive.

Each server first answers plainly, until the recogniser has a pattern. Then its responses are mutated, above all where
the pattern was learned: its fields twice, in another order, in another spelling, or with another field between them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from itertools import islice

from tests.core.transport.responses import (
    BODIES,
    ODD_BYTES,
    ODD_FIELDS,
    ODD_LENGTHS,
    ODD_STATUS,
    STATUS,
)

__all__ = ["LEARNED_AFTER", "PLAIN", "server", "steady", "streams"]

LEARNED_AFTER = 8
"""The number of responses before the first pattern of these servers' recognisers: ``Shape.first``."""
PLAIN = 24
"""Plain responses at the start of each server's."""

# Names that contain each other, that a regular expression could misread, and that nearly mean something.
_NAMES = (
    b"Server", b"Date", b"Content-Type", b"Connection", b"X-Request-Id", b"Keep-Alive", b"X", b"X-", b"-X", b"x-a",
    b"X-B", b"X_Under", b"9", b"_", b"--", b"ETag", b"Vary", b"Set-Cookie", b"Content", b"Length", b"Content-Length-",
    b"Type", b"Content-Typ", b"Content_Type", b"X-Content-Length", b"Content_Length", b"CF-RAY", b"Age", b"Via",
    b"Allow",
)  # fmt: skip
_VALUES = (
    b" nginx", b" application/json; charset=utf-8", b"", b" ", b"\t a b \t ", b" a=b; Path=/", b" Content-Length: 5",
    b":", b" ::", b" \\d+", b" 5", b" keep-alive", b"x", b" Thu, 26 Nov 2026 22:00:00 GMT", b" close", b" \x20~",
)  # fmt: skip
_KEEP_ALIVE = (b" keep-alive", b" Keep-Alive", b" KEEP-ALIVE")
_ODD_VALUES = (
    b" a\nX: b",
    b" a\0",
    b" a\x7f",
    b" \xe9",
    b" a\r",
    b" close",
    b" keep-alive, close",
    b" chunked",
    b" gzip",
)
_LONG_VALUES = (8_000, 8_190, 65_000, 66_560, 70_000)
_WATCHED = frozenset({b"connection", b"content-type"})
"""Fields whose value the pattern of a shape reads, besides the length."""
_LENGTH_NAMES = (b"Content-Length", b"content-length", b"CONTENT-LENGTH", b"Content-length")

Field = tuple[bytes, bytes]
"""A field's name and value."""


class _Server:
    """A server that writes its fields in one order, and leaves some out."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        names = rng.sample(_NAMES, k=rng.randrange(1, 12))
        if rng.random() < 0.8 and b"Content-Type" not in names:
            names.append(b"Content-Type")
        self.length = rng.choice(_LENGTH_NAMES)
        self.order = [self._spelt(name) for name in names]
        self.order.insert(rng.randrange(len(self.order) + 1), self.length)
        self.presence = rng.choice((0.3, 0.7, 0.95, 1.0))

    def _spelt(self, name: bytes) -> bytes:
        turn = self._rng.random()
        return name.lower() if turn < 0.2 else name.upper() if turn < 0.3 else name

    def fields(self, body: bytes) -> list[Field]:
        """The fields of a plain response."""
        chance, choice = self._rng.random, self._rng.choice
        found: list[Field] = []
        for name in self.order:
            if name == self.length:
                found.append((name, b" %d" % len(body) if chance() < 0.9 else b"%d" % len(body)))
            elif chance() < self.presence:
                is_connection = name.lower() == b"connection"
                found.append((name, choice(_KEEP_ALIVE if is_connection else _VALUES)))
        return found

    def change(self) -> None:
        """Write the fields otherwise from now on."""
        turn = int(self._rng.random() * 6)
        if turn == 0:
            self._rng.shuffle(self.order)
        elif turn < 4:
            at = self._rng.randrange(len(self.order))
            name = self.order[at]
            self.order[at] = name.swapcase()
            self.length = self.order[at] if name == self.length else self.length
        elif turn == 4:
            spare = [name for name in _NAMES if name.lower() not in {known.lower() for known in self.order}]
            self.order.insert(self._rng.randrange(len(self.order) + 1), self._rng.choice(spare))
        elif len(self.order) > 1:
            self.order.remove(self._rng.choice([name for name in self.order if name != self.length]))


def steady(rng: random.Random) -> Iterator[bytes]:
    """Plain responses without end of a server whose order stays."""
    made = _Server(rng)
    while True:
        body = rng.choice(BODIES)
        yield _response(rng.choice(STATUS), made.fields(body), body)


def server(rng: random.Random, *, changes: float, odd: float) -> Iterator[bytes]:
    """Responses without end of one server.

    Args:
        rng: The source of random numbers.
        changes: How often its fields change.
        odd: How often a response is not plain, after the first ones.
    """
    made = _Server(rng)
    chance, choice = rng.random, rng.choice
    for number in itertools.count():
        if chance() < changes:
            made.change()
        body = choice(BODIES)
        fields, status, ending = made.fields(body), choice(STATUS), b"\r\n"
        if number < PLAIN or chance() >= odd:
            yield _response(status, fields, body)
            continue
        turn, at = int(chance() * 12), int(chance() * len(fields))
        name, value = fields[at]
        if turn == 0:  # twice, side by side or apart
            fields.insert(choice((at, at + 1, int(chance() * (len(fields) + 1)))), (name, choice((value, *_VALUES))))
        elif turn == 1:  # twice, in two spellings
            fields.insert(int(chance() * (len(fields) + 1)), (choice((name.lower(), name.swapcase())), value))
        elif turn == 2:
            fields.insert(int(chance() * (len(fields) + 1)), (made.length, b" %d" % (len(body) + choice((0, 1, -1)))))
        elif turn == 3:
            rng.shuffle(fields)
        elif turn == 4:
            watched = [n for n, _ in fields if n.lower() in _WATCHED]
            name = choice(watched) if watched and chance() < 0.5 else name
            fields = [(n, choice(_ODD_VALUES)) if n == name else (n, v) for n, v in fields]
        elif turn == 5:
            length = b"" if chance() < 0.1 else choice(ODD_LENGTHS) % len(body)
            fields = [(n, length if n == made.length else v) for n, v in fields]
        elif turn == 6:
            status = choice(ODD_STATUS)
        elif turn == 7:
            body = body[:-1] if chance() < 0.5 else body + choice((*ODD_BYTES, *BODIES))
        elif turn == 8:
            ending = choice((b"\n", b"\r", b"\r\r\n", b" \r\n"))
        elif turn == 9 and chance() < 0.1:
            fields[at] = name, value + b"x" * choice(_LONG_VALUES)
        elif turn == 10 and chance() < 0.1:
            fields *= choice((9, 30, 90))
        elif turn == 11:  # a whole line in the place of a field, or between two
            odd_name, _, odd_value = choice(ODD_FIELDS).partition(b":")
            fields[at : at + (chance() < 0.5)] = [(odd_name, odd_value)]
        data = _response(status, fields, body, ending)
        while chance() < 0.2:
            at = int(chance() * (len(data) + 1))
            data = data[:at] + choice(ODD_BYTES) + data[at + (chance() < 0.5) :]
        yield data


def streams(seed: int, *, each: int = 400) -> Iterator[Iterator[bytes]]:
    """Servers without end. Each sends so many responses."""
    rng = random.Random(seed)
    for number in itertools.count():
        # Two of three keep their order, as real ones do: a pattern is used only then.
        changes = (0.0, 0.0, 0.02)[number % 3]
        yield islice(server(rng, changes=changes, odd=0.5), each)


def _response(status: bytes, fields: list[Field], body: bytes, ending: bytes = b"\r\n") -> bytes:
    return status + ending + b"".join(name + b":" + value + ending for name, value in fields) + ending + body

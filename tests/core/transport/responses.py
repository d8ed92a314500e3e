"""Random responses for the recogniser: near to plain ones, and mutated."""

from __future__ import annotations

import random
from collections.abc import Iterator

STATUS = (b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 200 Very Well\t!")
ODD_STATUS = (
    b"HTTP/1.1 200", b"HTTP/1.1  200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.2 200 OK", b"HTTP/2 200 OK", b"http/1.1 200 OK",
    b"HTTP/1.1 2000 OK", b"HTTP/1.1 201 Created", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 Switching", b"HTTP/1.1 429 Slow", b"HTTP/1.1 200 \xd0\x9e\xd0\x9a",
    b"HTTP/1.1\t200 OK", b"ICY 200 OK", b"HTTP/1.1 200 OK\0", b"\r\nHTTP/1.1 200 OK", b"HTTP/1.1 200 O\nK",
)  # fmt: skip
_FIELDS = (
    b"Server: nginx", b"Date: Thu, 26 Nov 2026 22:00:00 GMT", b"Content-Type: application/json; charset=utf-8",
    b"Connection: keep-alive", b"connection:Keep-Alive", b"X-Request-Id: 8f1c", b"Keep-Alive: timeout=5", b"X-Empty:",
    b"X-Spaces: \t a b \t ", b"Set-Cookie: a=b; Path=/", b"ETag: \"x\"", b"Vary: *", b"X_Under: 1", b"9: 9",
)  # fmt: skip
ODD_FIELDS = (
    b"Connection: close", b"Connection: keep-alive, close", b"Connection: Upgrade", b"Connection: keep-alive ",
    b"Connection:", b"Proxy-Connection: close", b"Upgrade: h2c", b"Upgrade: websocket", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity", b"transfer-encoding:\tchunked", b"Trailer: X", b"Content-Encoding: gzip",
    b"Content-Encoding:", b"Sec-WebSocket-Key1: x", b"Content-Length: 5", b"Content-Length: 0", b"Content-Length : 5",
    b"Content-Length: -1", b"Content-Length: +5", b"Content-Length: 0x5", b"Content-Length: 5, 5", b"Content-Length:",
    b"Content-Length: 99999999999999999999", b"content-length: 005", b"Content_Length: 5", b"Server: other",
    b" folded: yes", b"\tfolded", b": no name", b"no colon", b"Na me: x", b"X\xc3\xa9: x", b"X: \xd0\xb0", b"X: a\0b",
    b"X: a\x01b", b"X: a\x7fb", b"X: a\nY: b", b"X: a\nContent-Length: 5", b"X: a\rb", b"X: a\r", b"X(y): z", b"",
    b"X: a\n Transfer-Encoding: chunked", b"X: a\nTransfer-Encoding: chunked",
)  # fmt: skip
BODIES = (
    b"",
    b"{}",
    b'{"dispatchId":7}',
    b"\r\n\r\n",
    b"x" * 300,
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"0",
)
ODD_BYTES = (
    b"\0",
    b"\n",
    b"\r",
    b"\r\n",
    b" ",
    b"\t",
    b":",
    b"\x7f",
    b"\xff",
    b"5",
    b"\r\n\r\n",
    b"Content-Length: 5\r\n",
)


ODD_LENGTHS = (
    b"+%d", b"-%d", b"0%d", b" 00%d", b"\t%d", b"  %d", b" %d ", b" %d\t", b"%d.0", b"0x%d", b" %d, 5", b"%d;", b"%dx",
    b'"%d"', b" %d\0", b" %d\n", b"%d\r", b" 1%d",
)  # fmt: skip


def responses(seed: int) -> Iterator[bytes]:
    """Responses without end. Half of them are plain."""
    rng = random.Random(seed)
    chance, choice = rng.random, rng.choice
    while True:
        body = choice(BODIES)
        length = b"%b%d" % (choice((b"Content-Length: ", b"content-length:", b"CONTENT-LENGTH: ")), len(body))
        fields = rng.choices(_FIELDS, k=int(chance() * 5))
        fields.insert(int(chance() * (len(fields) + 1)), length)
        status, ending = choice(STATUS), b"\r\n"
        if chance() < 0.5:
            turn = int(chance() * 8)
            if turn == 0:
                status = choice(ODD_STATUS)
            elif turn == 1:
                fields.insert(int(chance() * (len(fields) + 1)), choice(ODD_FIELDS))
            elif turn == 2:
                fields.insert(int(chance() * (len(fields) + 1)), choice(fields))
            elif turn == 3:
                body = body[:-1] if chance() < 0.5 else body + choice(ODD_BYTES)
            elif turn == 4 and chance() < 0.05:
                fields += [b"X-%d: x" % place for place in range(choice((90, 100, 250, 260, 300)))]
            elif turn == 4 and chance() < 0.05:
                fields.append(b"X-Long: " + b"x" * choice((8100, 8190, 65_600, 70_000)))
            elif turn == 6:
                fields[fields.index(length)] = b"Content-Length:" + choice(ODD_LENGTHS) % len(body)
            elif turn == 5:
                ending = choice((b"\n", b"\r", b"\r\r\n", b" \r\n"))
        data = status + ending + b"".join(field + ending for field in fields) + ending + body
        while chance() < 0.25:
            at = int(chance() * (len(data) + 1))
            data = data[:at] + choice(ODD_BYTES) + data[at + (chance() < 0.5) :]
        yield data

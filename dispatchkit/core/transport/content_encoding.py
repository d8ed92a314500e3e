"""Decode the Content-Encoding of a body, up to the maximum size of a response.

Requests ask for ``identity``, but some servers and proxies compress anyway.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import cast

from dispatchkit.core.command import MAX_RESPONSE_BYTES, Response
from dispatchkit.core.transport.slices import LARGE_BODY

__all__ = ["TooLargeError", "decoded"]

_INPUT_STEP = 64 * 1024
_OUTPUT_STEP = 256 * 1024
"""Bytes decoded per iteration of the event loop: about 1 ms of work."""
_MAX_MEMBERS = 64
"""Maximum number of members of a gzip file. A body of thousands of empty members is an attack."""
_GZIP, _ZLIB, _RAW = 31, 15, -15


class TooLargeError(Exception):
    """The response is larger than it may be.

    Args:
        limit: The most bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


async def decoded(response: Response, encoding: str, limit: int = MAX_RESPONSE_BYTES) -> Response:
    """Decode a response. If that is impossible, ``undecoded`` of the result tells why. A large body is a bytearray.

    Args:
        response: The raw response.
        encoding: Its Content-Encoding: gzip, deflate or identity.
        limit: The most bytes of the decoded body.

    Raises:
        TooLargeError: The decoded body is larger.
    """
    name = encoding.strip().lower()
    if name in {"", "identity"} or not response.body:
        return response
    if name in {"gzip", "x-gzip"}:
        window = _GZIP
    elif name == "deflate":
        # HTTP's deflate is the zlib format, but some servers send a raw deflate stream.
        window = _ZLIB if _is_zlib(response.body) else _RAW
    else:
        return Response(response.status, response.headers, response.body, "its Content-Encoding is unknown")
    try:
        body = await _decompressed(response.body, window, limit)
    except zlib.error:
        return Response(response.status, response.headers, response.body, f"its body is not {name}")
    return Response(response.status, response.headers, body)


def _is_zlib(body: bytes) -> bool:
    return body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0


async def _decompressed(body: bytes, window: int, limit: int) -> bytes:
    output = bytearray()
    stream, members = zlib.decompressobj(window), 1
    piece, position = b"", 0
    while True:
        if not piece:
            piece = body[position : position + _INPUT_STEP]
            position += len(piece)
        before = len(output)
        output += stream.decompress(piece, _OUTPUT_STEP)
        if len(output) > limit:
            raise TooLargeError(limit)
        if not stream.eof:
            if not piece and len(output) == before:
                raise zlib.error("cut off")
            piece = stream.unconsumed_tail
        else:
            piece = stream.unused_data
            if not piece and position == len(body):
                return cast("bytes", output) if len(output) > LARGE_BODY else bytes(output)
            members += 1
            if window != _GZIP or members > _MAX_MEMBERS:
                raise zlib.error("more than one stream")
            stream = zlib.decompressobj(window)
        await asyncio.sleep(0)

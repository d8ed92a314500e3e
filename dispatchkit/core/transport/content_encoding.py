"""Undo the Content-Encoding of a body, within the bound that holds for every body.

We ask for ``identity``. Some servers, and proxies in front of them, compress all the same.
"""

from __future__ import annotations

import asyncio
import zlib

from dispatchkit.core.command import Response

__all__ = ["MAX_RESPONSE_BYTES", "TooLargeError", "decoded"]

MAX_RESPONSE_BYTES = 8 * 1024 * 1024
_INPUT_STEP = 64 * 1024
_OUTPUT_STEP = 256 * 1024
"""Bytes between two turns of the event loop: about a millisecond of work."""
_MAX_MEMBERS = 64
"""Members of one gzip file. A body of thousands of empty ones is an attack."""
_GZIP, _ZLIB, _RAW = 31, 15, -15


class TooLargeError(Exception):
    """The answer has more bytes than any that a provider documents."""


async def decoded(response: Response, encoding: str) -> Response:
    """The answer without its Content-Encoding, or with the reason why it could not be undone in ``undecoded``.

    Args:
        response: As it came.
        encoding: What its Content-Encoding says: gzip and deflate are known, and identity.

    Raises:
        TooLargeError: The body has more bytes than any that a provider documents.
    """
    name = encoding.strip().lower()
    if name in {"", "identity"} or not response.body:
        return response
    if name in {"gzip", "x-gzip"}:
        window = _GZIP
    elif name == "deflate":
        # HTTP means the form of zlib; some servers send the bare stream.
        window = _ZLIB if _is_zlib(response.body) else _RAW
    else:
        return Response(response.status, response.headers, response.body, "its Content-Encoding is unknown")
    try:
        body = await _decompressed(response.body, window)
    except zlib.error:
        return Response(response.status, response.headers, response.body, f"its body is not {name}")
    return Response(response.status, response.headers, body)


def _is_zlib(body: bytes) -> bool:
    return body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0


async def _decompressed(body: bytes, window: int) -> bytes:
    output = bytearray()
    stream, members = zlib.decompressobj(window), 1
    piece, position = b"", 0
    while True:
        if not piece:
            piece = body[position : position + _INPUT_STEP]
            position += len(piece)
        before = len(output)
        output += stream.decompress(piece, _OUTPUT_STEP)
        if len(output) > MAX_RESPONSE_BYTES:
            raise TooLargeError
        if not stream.eof:
            if not piece and len(output) == before:
                raise zlib.error("cut off")
            piece = stream.unconsumed_tail
        else:
            piece = stream.unused_data
            if not piece and position == len(body):
                return bytes(output)
            members += 1
            if window != _GZIP or members > _MAX_MEMBERS:
                raise zlib.error("more than one stream")
            stream = zlib.decompressobj(window)
        await asyncio.sleep(0)

"""A file is encoded once, piece by piece, and its Base64 is shared by all requests that send it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import pickle
from collections.abc import Iterator

import pytest

from dispatchkit import AltcraftClient, Attachment, LaunchBroadcast
from dispatchkit.altcraft.base64_part import Base64Part
from dispatchkit.altcraft.codec import WireForm, codec
from dispatchkit.core.body import PIECE, Body, join, pieces
from dispatchkit.core.command import Request
from tests.wire import Listener, http

_SLICE = PIECE // 4 * 3
SIZES = (0, 1, 2, 3, _SLICE - 1, _SLICE, _SLICE + 1, 3 * _SLICE + 100)
YES = {"json": http(200, b'{"error": 0}'), "xml": http(200, b"<xml><error>0</error></xml>")}


def contents(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(size % 251)


def joined(form: WireForm, number: int, files: list[Attachment]) -> bytes:
    """The body as it is encoded in one piece."""
    attach = [
        {"name": file.name, "data": f"data:{file.media_type};base64,{base64.b64encode(file.data).decode()}"}
        for file in files
    ]
    return codec(form).seal(codec(form).encode({"id": number, "limit": 5, "attach": attach}), "token")  # type: ignore[dict-item]


@pytest.mark.parametrize("size", SIZES)
def test_pieces_are_the_base64(size: int) -> None:
    part = Base64Part(contents(size))
    made = [*part.pieces()]
    assert b"".join(made) == base64.b64encode(contents(size))
    assert len(part) == sum(map(len, made))
    assert all(0 < len(piece) <= PIECE for piece in made)


@pytest.mark.parametrize("form", ["json", "xml"])
@pytest.mark.parametrize("sizes", [(0,), (1, 2), (_SLICE,), (_SLICE + 1, 3, 5 * _SLICE), (2 * _SLICE, 3, 3)])
async def test_wire_bytes_are_the_same(form: WireForm, sizes: tuple[int, ...]) -> None:
    files = [
        Attachment.from_bytes(contents(size), name=f'"ё"&<{index}.bin', media_type='x/"y\\<&')
        for index, size in enumerate(sizes)
    ]
    async with Listener(YES[form]) as listener, AltcraftClient(listener.url, "token", wire=form) as altcraft:
        for number in (1, 2):
            await altcraft.launch_broadcast(number, limit=5, attachments=files)
    expected = [joined(form, number, files).replace(b"limit", b"override_limit") for number in (1, 2)]
    assert [request.body for request in listener.requests] == expected
    lengths = [request.headers["Content-Length"] for request in listener.requests]
    assert lengths == [str(len(body)) for body in expected]


async def test_file_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = binascii.b2a_base64

    def counted(data: memoryview, *, newline: bool) -> bytes:
        calls.append(len(data))
        return real(data, newline=newline)

    monkeypatch.setattr("dispatchkit.altcraft.base64_part.b2a_base64", counted)
    file = Attachment.from_bytes(contents(4 * _SLICE), name="a.bin")
    async with Listener(YES["json"]) as listener, AltcraftClient(listener.url, "token") as altcraft:
        report = await altcraft.launch_many(range(1, 9), attachments=[file], concurrency=4).finish()
    assert report.done == 8
    assert calls == [_SLICE] * 4


async def test_single_request_keeps_no_file() -> None:
    file = Attachment.from_bytes(contents(4 * _SLICE), name="a.bin")
    async with Listener(YES["json"]) as listener, AltcraftClient(listener.url, "token") as altcraft:
        await altcraft.launch_broadcast(1, attachments=[file])
        assert file._base64._pieces == [None] * 4
        await altcraft.launch_broadcast(2, attachments=[file])
    assert [len(piece or b"") for piece in file._base64._pieces] == [PIECE] * 4
    assert listener.requests[1].body.partition(b"base64,")[2] == listener.requests[0].body.partition(b"base64,")[2]


async def test_loop_turns_between_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, seen = 0, list[int]()
    real = Base64Part.pieces

    def watched(part: Base64Part) -> Iterator[memoryview]:
        for piece in real(part):
            seen.append(turns)
            yield piece

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(Base64Part, "pieces", watched)
    file = Attachment.from_bytes(contents(30 * _SLICE), name="a.bin")
    async with Listener(YES["json"]) as listener, AltcraftClient(listener.url, "token") as altcraft:
        counting = asyncio.create_task(count())
        await altcraft.launch_broadcast(1, attachments=[file])
        counting.cancel()
    assert len(set(seen)) == len(seen) == 30


def test_requests_share_the_base64() -> None:
    file = Attachment.from_bytes(b"1", name="a.bin")
    client = AltcraftClient("https://example.com", "token")
    requests = [client._call(LaunchBroadcast(number, attachments=[file])).request for number in (1, 2)]
    assert [request.parts and request.parts[1] for request in requests] == [file._base64] * 2
    assert file._base64.requests == 2
    assert [request.body_size for request in requests] == [len(request.body or b"") for request in requests]


def test_copied_attachment_is_the_same() -> None:
    file = Attachment.from_bytes(b"abc", name="a.bin")
    file.base64()
    copy = pickle.loads(pickle.dumps(file))
    assert copy == file
    assert [*map(bytes, copy.base64().pieces())] == [b"YWJj"]
    assert "base64" not in json.dumps(file.to_dict())


def test_parts_show_no_contents() -> None:
    request = Request("POST", "/", {}, [b"secret", Base64Part(b"secret")])
    assert "secret" not in repr(request.parts)
    assert repr(request.parts) == "(<6 bytes>, <8 bytes>)"
    assert repr(request.body) == "<14 bytes>"
    assert repr(request) == "Request(POST /, {}, 14 bytes)"


def test_long_part_is_cut() -> None:
    parts = (Body(bytes(2 * PIECE + 1)), Body(b""), Body(b"1"))
    assert [len(piece) for piece in pieces(parts)] == [PIECE, PIECE, 1, 1]
    assert join(parts) == bytes(2 * PIECE + 1) + b"1"
    assert join((parts[0],)) is parts[0]

"""What Altcraft is sent, byte for byte, in both wire forms."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest
from tenacity import wait_none

from dispatchkit import AltcraftClient, Attachment, Audience, LaunchBroadcast, RetryPolicy
from dispatchkit.altcraft.codec import WireForm
from dispatchkit.core.validators import JsonValue
from tests.wire import Listener, Received, http

TOKEN = "abcdefghijklmnqrstuvwxyz"
YES = {
    "json": b'{"data": null, "error": 0, "error_text": "Successful operation"}',
    "xml": b"<xml><data/><error>0</error><error_text>Successful operation</error_text></xml>",
}
FORMS: list[WireForm] = ["json", "xml"]

Act = Callable[[AltcraftClient], Awaitable[object]]


async def sent(act: Act, form: WireForm, token: str = TOKEN) -> Received:
    async with Listener(http(200, YES[form])) as listener, AltcraftClient(listener.url, token, wire=form) as altcraft:
        await act(altcraft)
    (request,) = listener.requests
    assert request.headers["Host"] == listener.host
    return request


def in_json(sample: str) -> bytes:
    """A sample of the contract without its blanks: the same fields in the same order."""
    return json.dumps(json.loads(sample), ensure_ascii=False, separators=(",", ":")).encode()


SAMPLES: list[tuple[str, Act, str, str]] = [
    (
        "/api/v1.1/campaigns/activate/",
        lambda altcraft: altcraft.activate(82, run_now=True, audience=Audience("list", 1)),
        '{"token": "abcdefghijklmnqrstuvwxyz", "id": 82, "override_source_id": 1, "override_source_type": "list", "run_now": true}',  # noqa: E501
        (
            "<xml><token>abcdefghijklmnqrstuvwxyz</token><id>82</id><override_source_id>1</override_source_id>"
            "<override_source_type>list</override_source_type><run_now>true</run_now></xml>"
        ),
    ),
    (
        "/api/v1.1/campaigns/activate/",
        lambda altcraft: altcraft.activate(10000000125),
        '{"token": "abcdefghijklmnqrstuvwxyz", "id": 10000000125}',
        "<xml><token>abcdefghijklmnqrstuvwxyz</token><id>10000000125</id></xml>",
    ),
    (
        "/api/v1.1/campaigns/broadcasts/start",
        lambda altcraft: altcraft.launch_broadcast(90, audience=Audience("list", 1)),
        '{"token": "abcdefghijklmnqrstuvwxyz", "id": 90, "override_source_id": 1, "override_source_type": "list"}',
        (
            "<xml><token>abcdefghijklmnqrstuvwxyz</token><id>90</id><override_source_id>1</override_source_id>"
            "<override_source_type>list</override_source_type></xml>"
        ),
    ),
    (
        "/api/v1.1/campaigns/regulars/start",
        lambda altcraft: altcraft.launch_regular(91, audience=Audience("segment", 5), limit=300),
        '{"token": "abcdefghijklmnqrstuvwxyz", "id": 91, "override_source_id": 5, "override_source_type": "segment", "override_limit": 300}',  # noqa: E501
        (
            "<xml><token>abcdefghijklmnqrstuvwxyz</token><id>91</id><override_source_id>5</override_source_id>"
            "<override_source_type>segment</override_source_type><override_limit>300</override_limit></xml>"
        ),
    ),
    (
        "/api/v1.1/campaigns/deactivate",
        lambda altcraft: altcraft.deactivate(82),
        '{"token": "abcdefghijklmnqrstuvwxyz", "id": 82}',
        "<xml><token>abcdefghijklmnqrstuvwxyz</token><id>82</id></xml>",
    ),
    (
        "/api/v1.1/campaigns/deactivate",
        lambda altcraft: altcraft.deactivate(82, abort_if_running=True),
        '{"token": "abcdefghijklmnqrstuvwxyz", "id": 82, "abort_if_running": true}',
        "<xml><token>abcdefghijklmnqrstuvwxyz</token><id>82</id><abort_if_running>true</abort_if_running></xml>",
    ),
    (
        "/api/v1.1/campaigns/activate/",
        lambda altcraft: altcraft.activate(1, run_now=False, limit=0, content={}),
        '{"token": "abcdefghijklmnqrstuvwxyz", "id": 1, "override_limit": 0, "content": {}, "run_now": false}',
        (
            "<xml><token>abcdefghijklmnqrstuvwxyz</token><id>1</id><override_limit>0</override_limit><content></content>"
            "<run_now>false</run_now></xml>"
        ),
    ),
]


@pytest.mark.parametrize(("path", "act", "as_json", "as_xml"), SAMPLES)
async def test_requests_match_documentation(path: str, act: Act, as_json: str, as_xml: str) -> None:
    bodies: dict[WireForm, bytes] = {"json": in_json(as_json), "xml": as_xml.encode()}
    for form, body in bodies.items():
        request = await sent(act, form)
        headers = request.headers
        assert request.line == f"POST {path} HTTP/1.1"
        assert request.body == body
        assert headers["Content-Type"] == headers["Accept"] == f"application/{form}"
        assert headers["Content-Length"] == str(len(body))
        assert headers["Request-ID"] == headers["X-Request-ID"] == str(UUID(headers["Request-ID"]))
        assert set(headers) == {
            "Host",
            "Content-Type",
            "Accept",
            "Accept-Encoding",
            "Content-Length",
            "Request-ID",
            "X-Request-ID",
            "User-Agent",
        }


@pytest.mark.parametrize("form", FORMS)
async def test_calls_have_own_request_id(form: WireForm) -> None:
    async with Listener(http(200, YES[form])) as listener, AltcraftClient(listener.url, TOKEN, wire=form) as altcraft:
        for _ in range(3):
            await altcraft.launch_broadcast(90)
    assert len({request.headers["Request-ID"] for request in listener.requests}) == 3


def test_token_is_not_in_target() -> None:
    client = AltcraftClient("https://example.com", TOKEN)
    assert TOKEN not in client._call(LaunchBroadcast(1)).request.target


CONTENT: dict[str, JsonValue] = {
    "скидка": 15.5,
    "deep": {"list": [1, {"a": None}, "ё"], "yes": True},
    "none": None,
    "empty": "",
}


async def test_json_has_all_optional_fields() -> None:
    request = await sent(
        lambda altcraft: altcraft.activate(
            82,
            run_now=True,
            audience=Audience("segment", 5),
            limit=300,
            content=CONTENT,
            attachments=[Attachment.from_bytes(b"%PDF\x00\xff", name="Полис.pdf")],
        ),
        "json",
    )
    assert list(json.loads(request.body).items()) == [
        ("token", TOKEN),
        ("id", 82),
        ("override_source_id", 5),
        ("override_source_type", "segment"),
        ("override_limit", 300),
        ("content", CONTENT),
        ("run_now", True),
        ("attach", [{"name": "Полис.pdf", "data": "data:application/pdf;base64,JVBERgD/"}]),
    ]
    assert "Полис.pdf".encode() in request.body, "UTF-8 as it is, not escaped"


async def test_xml_has_all_optional_fields() -> None:
    request = await sent(
        lambda altcraft: altcraft.launch_broadcast(
            90,
            audience=Audience("segment", 5),
            limit=300,
            content={"field": "a<b & c", "one": [1], "two": [1, "ё"], "deep": {"x": {"y": False}}, "none": None},
            attachments=[Attachment.from_bytes(b"1", name="Полис.pdf"), Attachment.from_bytes(b"2", name="b.bin")],
        ),
        "xml",
    )
    assert request.body.decode() == (
        f"<xml><token>{TOKEN}</token><id>90</id><override_source_id>5</override_source_id>"
        "<override_source_type>segment</override_source_type><override_limit>300</override_limit>"
        "<content><field>a&lt;b &amp; c</field><one array='true'>1</one><two>1</two><two>ё</two>"
        "<deep><x><y>false</y></x></deep><none/></content>"
        "<attach><name>Полис.pdf</name><data>data:application/pdf;base64,MQ==</data></attach>"
        "<attach><name>b.bin</name><data>data:application/octet-stream;base64,Mg==</data></attach></xml>"
    )


async def test_single_attachment_is_an_array() -> None:
    files = [Attachment.from_bytes(b"1", name="a.pdf")]
    request = await sent(lambda altcraft: altcraft.launch_broadcast(90, attachments=files), "xml")
    assert b"<attach array='true'><name>a.pdf</name>" in request.body
    request = await sent(lambda altcraft: altcraft.launch_broadcast(90, attachments=files), "json")
    assert len(json.loads(request.body)["attach"]) == 1


async def test_attachment_keeps_file_as_read(tmp_path: Path) -> None:
    file = tmp_path / "прайс.pdf"
    file.write_bytes(bytes(range(256)))
    attachment = Attachment.from_path(file)
    file.write_bytes(b"changed")
    request = await sent(lambda altcraft: altcraft.launch_broadcast(90, attachments=[attachment]), "json")
    (sent_file,) = json.loads(request.body)["attach"]
    assert sent_file["name"] == "прайс.pdf"
    assert base64.b64decode(sent_file["data"].removeprefix("data:application/pdf;base64,")) == bytes(range(256))


@pytest.mark.parametrize("form", FORMS)
async def test_token_with_markup_is_escaped(form: WireForm) -> None:
    token = "a&b<c>\"d\\'e"
    body = (await sent(lambda altcraft: altcraft.deactivate(1), form, token)).body
    if form == "json":
        assert json.loads(body)["token"] == token
    else:
        assert b"<token>a&amp;b&lt;c&gt;" in body


async def test_later_changes_are_not_sent() -> None:
    content: dict[str, object] = {"a": [1]}
    command = LaunchBroadcast(1, content=content)  # type: ignore[arg-type]
    content["a"].append(2)  # type: ignore[attr-defined]
    request = await sent(lambda altcraft: altcraft.perform(command), "json")
    assert json.loads(request.body)["content"] == {"a": [1]}


@pytest.mark.parametrize("name", ["Duplicate-Request", "X-Duplicate-Request", "duplicate-request"])
@pytest.mark.parametrize("form", FORMS)
async def test_a_replayed_answer_says_so(form: WireForm, name: str) -> None:
    answers = [http(502), http(200, YES[form], **{name: "true"}), http(200, YES[form])]
    async with (
        Listener(*answers) as listener,
        AltcraftClient(
            listener.url, TOKEN, wire=form, deduplicates=True, retry=RetryPolicy(wait=wait_none())
        ) as altcraft,
    ):
        assert (await altcraft.launch_broadcast(90)).replayed is True
        assert (await altcraft.launch_broadcast(90)).replayed is False


async def test_url_and_token_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Listener(http(200, YES["json"])) as listener:
        monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_URL", listener.url)
        monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_TOKEN", "from-env")
        async with AltcraftClient() as altcraft:
            await altcraft.deactivate(1)
    assert json.loads(listener.requests[0].body)["token"] == "from-env"

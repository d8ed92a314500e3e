"""What Altcraft's answers mean in both wire forms, and that nothing but the documented success is one."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatchkit import (
    ActivateMailing,
    AltcraftClient,
    DeactivateMailing,
    DispatchkitError,
    LaunchBroadcast,
    OutcomeUnknownError,
    RejectedError,
)
from dispatchkit.altcraft.base import AltcraftCommand, AltcraftWire
from dispatchkit.altcraft.codec import WireForm, codec
from dispatchkit.altcraft.models import MailingAccepted
from dispatchkit.core.call.classify import classify
from dispatchkit.core.clock import SYSTEM
from dispatchkit.core.command import Response
from dispatchkit.core.secret import Secret
from dispatchkit.errors import (
    AccessDeniedError,
    IncorrectRequestError,
    TariffLimitError,
    ThrottledError,
    TokenRequiredError,
)
from tests.wire import Listener, failure, http, once

FORMS: list[WireForm] = ["json", "xml"]
WIRES: Mapping[WireForm, AltcraftWire] = {
    form: AltcraftWire(Secret("c2VjcmV0", environment="NONE"), codec(form), 1000, 1000, deduplicates=True)
    for form in FORMS
}
COMMANDS = [ActivateMailing(82), LaunchBroadcast(82), DeactivateMailing(82)]


def said(form: WireForm, error: object, text: str) -> bytes:
    if form == "json":
        return json.dumps({"data": None, "error": error, "error_text": text}, ensure_ascii=False).encode()
    return f"<xml><data/><error>{error}</error><error_text>{text}</error_text></xml>".encode()


def read(form: WireForm, status: int, body: bytes, command: AltcraftCommand[MailingAccepted] = COMMANDS[0]) -> object:
    return classify(command, Response(status, {}, body), WIRES[form], SYSTEM)


DOCUMENTED = [
    (400, "incorrect request", IncorrectRequestError),
    (401, "token required", TokenRequiredError),
    (402, "tariff limit reached", TariffLimitError),
    (403, "no access", AccessDeniedError),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", [200, 400, 401, 402, 403, 404])
@pytest.mark.parametrize(("code", "text", "error_type"), DOCUMENTED)
def test_documented_code_maps_to_error(
    form: WireForm, status: int, code: int, text: str, error_type: type[RejectedError]
) -> None:
    for command in COMMANDS:
        error = read(form, status, said(form, code, text), command)
        assert type(error) is error_type
        assert (error.status, error.code, error.message) == (status, code, text)


@pytest.mark.parametrize("form", FORMS)
async def test_refusal_in_200_is_rejected(form: WireForm) -> None:
    response = http(200, said(form, 402, "Лимит исчерпан"))
    async with Listener(response) as listener, AltcraftClient(listener.url, "t", wire=form, **once()) as altcraft:
        error = await failure(altcraft.launch_broadcast(90))
    assert type(error) is TariffLimitError
    assert error.message == "Лимит исчерпан"
    assert error.command == LaunchBroadcast(90)
    assert len(error.attempts) == len(listener.requests) == 1
    assert error.request_id == listener.requests[0].headers["Request-ID"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("code", [440, 1, 407, 600, 429, 10**18])
def test_unknown_code_is_rejected(form: WireForm, code: int) -> None:
    error = read(form, 200, said(form, code, "что-то ещё"))
    assert type(error) is RejectedError
    assert (error.status, error.code, error.message) == (200, code, "что-то ещё")


@pytest.mark.parametrize("text", ["null", "3", "[]", "{}", "true"])
def test_refusal_without_message_is_rejected(text: str) -> None:
    error = read("json", 200, f'{{"error": 400, "error_text": {text}}}'.encode())
    assert type(error) is IncorrectRequestError
    assert error.message
    for body in (b"<xml><error>400</error></xml>", b"<xml><error>400</error><error_text><b>1</b></error_text></xml>"):
        error = read("xml", 200, body)
        assert type(error) is IncorrectRequestError
        assert error.message


YES: Mapping[WireForm, bytes] = {
    "json": b'{"data": null, "error": 0, "error_text": "Successful operation"}',
    "xml": b"<xml><data/><error>0</error><error_text>Successful operation</error_text></xml>",
}


@pytest.mark.parametrize("form", FORMS)
def test_the_documented_success_is_one(form: WireForm) -> None:
    for command in COMMANDS:
        assert read(form, 200, YES[form], command) == MailingAccepted(82)


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("json", b'{"error": 0}'),
        ("json", b'{"more": {"x": [1]}, "data": {"id": 1}, "error": 0, "error_text": ""}'),
        ("xml", b"<xml><error>0</error></xml>"),
        (
            "xml",
            b'<?xml version="1.0" encoding="UTF-8"?>\n<xml>\n  <error>"0"</error>\n <more a="1"><x/><x/></more></xml>\n',  # noqa: E501
        ),
        ("xml", b"<xml><error> 0 </error><!-- ok --></xml>"),
    ],
)
def test_unexpected_fields_are_accepted(form: WireForm, body: bytes) -> None:
    assert read(form, 200, body) == MailingAccepted(82)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", [201, 202, 204, 206, 301, 302, 304, 400, 404])
def test_only_200_is_a_success(form: WireForm, status: int) -> None:
    assert type(read(form, status, YES[form])) is OutcomeUnknownError


UNREADABLE: list[tuple[WireForm, bytes]] = [
    *(
        ("json", body)
        for body in (
            b"",
            b" ",
            b"<html>",
            b"null",
            b"0",
            b"[]",
            b'"error"',
            b"{}",
            b'{"data": null}',
            b'{"error": null}',
            b'{"error": "0"}',
            b'{"error": 0.0}',
            b'{"error": false}',
            b'{"error": true}',
            b'{"error": []}',
            b'{"error": {"code": 0}}',
            b'{"Error": 0}',
            b'{"data": {"error": 0}}',
            b'[{"error": 0}]',
            b'{"error": 0}x',
            b'{"error": 0}{"error": 400}',
            b'{"error": 400, "error": 0}',
            b'{"error": 0, "error_text": "\xff"}',
            '{"error": 0}'.encode("utf-16-le"),
            b'{"error": 0, "x": NaN}',
            b'{"error":' + b"[" * 100_000,
            YES["xml"],
        )
    ),
    *(
        ("xml", body)
        for body in (
            b"",
            b" ",
            b"null",
            b"<html><body>502</body></html>",
            b"<xml/>",
            b"<xml>0</xml>",
            b"<xml><data/></xml>",
            b"<xml><error/></xml>",
            b"<xml><error></error></xml>",
            b'<xml><error>""</error></xml>',
            b"<xml><error>0x0</error></xml>",
            b"<xml><error>0.0</error></xml>",
            b"<xml><error>-0</error></xml>",
            b"<xml><error>00</error></xml>",
            b"<xml><error>+0</error></xml>",
            b"<xml><error>0_0</error></xml>",
            "<xml><error>٠</error></xml>".encode(),  # noqa: RUF001
            b"<xml><error>false</error></xml>",
            b"<xml><error><code>0</code></error></xml>",
            b"<xml><error array='true'>0</error></xml>",
            b"<xml><error>0</error><error>0</error></xml>",
            b"<xml><error>400</error><error>0</error></xml>",
            b"<xml><data><error>0</error></data></xml>",
            b"<XML><error>0</error></XML>",
            b"<xml xmlns='urn:x'><error>0</error></xml>",
            b"<response><error>0</error></response>",
            b"<xml><error>0</error>",
            b"<xml><error>0</error></xml><xml/>",
            b"<xml><error>0</error></xml>text",
            b"<xml><error>0</error><error_text>\xff</error_text></xml>",
            "<xml><error>0</error><error_text>привет</error_text></xml>".encode("cp1251"),
            b'<?xml version="1.0" encoding="nope"?><xml><error>0</error></xml>',
            b'<?xml version="1.0" encoding="base64"?><xml><error>0</error></xml>',
            b'<?xml version="1.0" encoding="unicode_escape"?><xml><error>0</error></xml>',
            b'<?xml version="1.0" encoding="utf-16"?><xml><error>0</error></xml>',
            b"<!DOCTYPE xml><xml><error>0</error></xml>",
            b'<!DOCTYPE xml SYSTEM "http://127.0.0.1:1/x.dtd"><xml><error>0</error></xml>',
            b'<!DOCTYPE xml [<!ENTITY z "0">]><xml><error>&z;</error></xml>',
            b'<!DOCTYPE xml [<!ENTITY z SYSTEM "file:///etc/hostname">]><xml><error>0</error><error_text>&z;</error_text></xml>',
            (
                b'<!DOCTYPE xml [<!ENTITY a "0"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
                b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><xml><error>0</error><x>&c;</x></xml>'
            ),
            b"<xml><error>0</error><error_text>&nope;</error_text></xml>",
            b"<xml><error>0</error>" + b"<a>" * 50_000 + b"</a>" * 50_000 + b"</xml>",
            b"<xml><error>0</error>" + b"<a>" * 200 + b"</a>" * 200 + b"</xml>",
            YES["json"],
        )
    ),
]


@pytest.mark.parametrize(("form", "body"), UNREADABLE, ids=lambda value: repr(value)[:60])
@pytest.mark.parametrize("status", [200, 302, 400])
def test_nearly_right_response_is_unknown(form: WireForm, body: bytes, status: int) -> None:
    error = read(form, status, body)
    assert type(error) is OutcomeUnknownError
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("form", "body"),
    [unreadable for unreadable in UNREADABLE if b"ENTITY" in unreadable[1] or len(unreadable[1]) in {0, 12}],
)
async def test_unreadable_response_is_unknown(form: WireForm, body: bytes) -> None:
    async with (
        Listener(http(200, body)) as listener,
        AltcraftClient(listener.url, "t", wire=form, **once()) as altcraft,
    ):
        assert type(await failure(altcraft.launch_broadcast(90))) is OutcomeUnknownError
    assert len([request for request in listener.requests if "broadcasts/start" in request.line]) == 1


def test_huge_response_never_crashes() -> None:
    text = "x" * 5_000_000
    assert read("xml", 200, said("xml", 0, text)) == MailingAccepted(82)
    error = read("xml", 200, said("xml", 400, text))
    assert type(error) is IncorrectRequestError
    assert len(str(error)) < 1000


@pytest.mark.parametrize("form", FORMS)
def test_truncated_response_is_unknown(form: WireForm) -> None:
    for end in range(len(YES[form])):
        assert type(read(form, 200, YES[form][:end])) is OutcomeUnknownError, end


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("end", range(0, len(http(200, YES["json"])), 9))
async def test_truncated_wire_response_is_unknown(form: WireForm, end: int) -> None:
    cut = http(200, YES[form], Connection="close")[:end]
    if not cut.endswith(b"\r\nConnection: close\r\n\r\n") and b"\r\nConnection: close\r\n" not in cut:
        cut += b"\r\nConnection: close\r\n"
    async with Listener(cut) as listener, AltcraftClient(listener.url, "t", wire=form, **once()) as altcraft:
        assert type(await failure(altcraft.launch_broadcast(90))) is OutcomeUnknownError


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_server_error_proves_nothing(form: WireForm, status: int) -> None:
    for body in (b"", b"<html>", YES[form], said(form, 403, "no access")):
        assert type(read(form, status, body)) is OutcomeUnknownError


@pytest.mark.parametrize("form", FORMS)
def test_429_is_always_throttled(form: WireForm) -> None:
    for body, code in ((b"", None), (b"<html>", None), (said(form, 403, "slow down"), 403)):
        error = read(form, 429, body)
        assert type(error) is ThrottledError
        assert (error.status, error.code) == (429, code)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(status: int) -> None:
    async with (
        Listener(http(200, YES["json"])) as elsewhere,
        Listener(http(status, Location=f"{elsewhere.url}/api/v1.1/campaigns/broadcasts/start")) as listener,
        AltcraftClient(listener.url, "t", **once()) as altcraft,
    ):
        assert type(await failure(altcraft.launch_broadcast(90))) is OutcomeUnknownError
    assert elsewhere.requests == []


statuses = st.sampled_from([200, 201, 204, 301, 400, 401, 403, 404, 429, 500, 503]) | st.integers(200, 599)
pieces = st.sampled_from(
    [
        b"<xml>",
        b"</xml>",
        b"<error>",
        b"</error>",
        b"0",
        b"400",
        b"<data/>",
        b"{",
        b"}",
        b'"error"',
        b":",
        b",",
        b"&",
        b'"',
    ]
)
bodies = st.binary(max_size=60) | st.lists(pieces, max_size=12).map(b"".join)


@given(status=statuses, body=bodies)
@settings(max_examples=300, deadline=None)
def test_only_documented_success_is_done(status: int, body: bytes) -> None:
    for form in FORMS:
        attempt_outcome = read(form, status, body)
        if isinstance(attempt_outcome, DispatchkitError):
            assert attempt_outcome.state in {"rejected", "unknown"}
            assert len(str(attempt_outcome).splitlines()) <= 2
        else:
            assert status == 200
            assert b"error" in body
            assert b"0" in body

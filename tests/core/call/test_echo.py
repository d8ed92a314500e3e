"""A refusal of the provider that quotes what was sent, in any form, shows none of it."""

from __future__ import annotations

import html
import json
import pickle
from base64 import b64encode
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from dispatchkit import ActivateMailing, AltcraftClient, Attachment, LaunchBroadcast, RejectedError
from dispatchkit.core.call.echo import mask_echo
from dispatchkit.core.masking import WITHHELD, mask
from dispatchkit.core.secret import Secret
from dispatchkit.errors import ThrottledError
from tests.wire import Listener, failure, http, once

NAME = 'Иван "Ваня" Петров <b>&/'
LONG = "Здравствуйте, Мария Сергеевна, ваш заказ собран и ждёт вас"
CONTENT: dict[str, Any] = {
    "phone": "+79990001122",
    "name": NAME,
    "deep": [{"code": 90412377, "rate": 1234.5, "kept": "abc", "yes": True}],
    "letter": f"{LONG}\n  купите ещё",
    "mail": "Anna@Example.com",
}
COMMAND = LaunchBroadcast(9, content=CONTENT)
MARKS = ("79990001122", "Ваня", "90412377", "1234.5", "Мария", "anna@example")


def client(url: str, wire: Any = "json") -> AltcraftClient:
    return AltcraftClient(url, "token", wire=wire, **once())


FORMS: dict[str, Any] = {
    "as it is": str,
    "upper": str.upper,
    "lower": str.lower,
    "json": json.dumps,
    "json, not ascii": lambda text: json.dumps(text, ensure_ascii=False),
    "json twice": lambda text: json.dumps(json.dumps(text)),
    "json upper": lambda text: json.dumps(text).replace("\\u04", "\\U04").lower(),
    "slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "html": html.escape,
    "html twice": lambda text: html.escape(html.escape(text)),
    "html numbers": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "url": quote,
    "url plus": quote_plus,
    "url lower": lambda text: quote(text, safe="").lower(),
    "url twice": lambda text: quote(quote(text)),
    "repr": repr,
    "one line": lambda text: " ".join(text.split()),
    "cut": lambda text: text[: max(6, len(text) - 3)],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("value", ["+79990001122", NAME, "90412377", "1234.5", CONTENT["letter"], "Anna@Example.com"])
def test_a_quoted_value_is_masked(form: Any, value: str) -> None:
    message = mask_echo(f"bad field: {form(value)} is wrong", COMMAND)
    assert "***" in message or message == WITHHELD
    assert not any(mark.lower() in message.lower() for mark in MARKS), message
    assert message == WITHHELD or (message.startswith("bad field: ") and "is wrong" in message)


@pytest.mark.parametrize("encode", [json.dumps, lambda fields: json.dumps(fields, ensure_ascii=False), str])
def test_a_quoted_body_is_masked(encode: Any) -> None:
    message = mask_echo("bad: " + encode({"id": 9, "content": CONTENT}), COMMAND)
    assert not any(mark in message for mark in MARKS), message
    assert "abc" in message  # too short to tell from an ordinary word


def test_an_ordinary_message_stays() -> None:
    for text in ("mailing 9 is not active", "Рассылка не найдена", "x" * 20_000, "limit of 1000 reached"):
        assert mask_echo(text, ActivateMailing(9)) == text
    assert mask_echo("Рассылка 9 не найдена", COMMAND) == "Рассылка 9 не найдена"
    assert mask_echo("the field name is wrong", COMMAND) == "the field name is wrong"


def test_the_target_may_show() -> None:
    command = LaunchBroadcast(10000000125, content={"link": "https://example.com/10000000125"})
    assert mask_echo("mailing 10000000125 is not active", command) == "mailing 10000000125 is not active"


@pytest.mark.parametrize("size", [1, 500_000], ids=["short", "long"])
def test_a_quoted_file_is_masked(size: int) -> None:
    data = b"phone;name\n" + b"79990000000;nobody\n" * (size // 19) + "79991112233;Мария Сергеевна\n".encode()
    command = ActivateMailing(82, run_now=True, attachments=[Attachment.from_bytes(data, name="people.csv")])
    message = mask_echo(f"row 9: 79991112233 in {b64encode(data)[:60].decode()}", command)
    assert message == "row 9: *** in ***"


def test_odd_key_is_masked() -> None:
    command = LaunchBroadcast(9, content={"prices": {"+79990001122": 1}})
    assert mask_echo("prices.+79990001122 is wrong", command) == "prices.*** is wrong"


def test_token_is_masked_everywhere() -> None:
    secret = Secret("a/b+c=d&e<f", environment="NONE")
    for form in (str, json.dumps, html.escape, lambda text: quote(text, safe=""), str.upper):
        assert secret.redact(f"no {form(secret.reveal())} here").strip('"') in {"no *** here", 'no "***" here'}


def test_short_value_is_left_alone() -> None:
    assert mask("abc and abcd", ["abc", "abcd"]) == "abc and ***"


@pytest.mark.parametrize("status", [200, 400, 429])
@pytest.mark.parametrize("wire", ["json", "xml"])
async def test_errors_quote_no_content(status: int, wire: Any) -> None:
    text = "bad phone %2B79990001122, name Anna@example.com" + " x" * 200 + " 90412377"
    answer = json.dumps({"error": 400, "error_text": text})
    if wire == "xml":
        answer = f"<xml><error>400</error><error_text>{text}</error_text></xml>"
    content = {key: value for key, value in CONTENT.items() if key != "deep"}
    async with Listener(http(status, answer)) as listener, client(listener.url, wire=wire) as altcraft:
        error = await failure(altcraft.launch_broadcast(9, content=content))
    assert isinstance(error, RejectedError)
    shown = f"{error} {error!r} {error.args} {vars(error)} {error.to_dict()} {pickle.loads(pickle.dumps(error))}"
    assert "79990001122" not in shown.replace(repr(error.command.content), "")  # type: ignore[attr-defined]
    assert "xample" not in str(error) + error.message + error.summary + str(error.to_dict())
    assert error.message.startswith("bad phone ***, name *** x")
    assert f"code 400, HTTP {status}" in error.summary


async def test_contradictory_answer_quotes_no_content() -> None:
    answer = json.dumps({"error": 400, "error_text": "phone +79990001122", "data": {"id": 1}})
    async with Listener(http(200, answer)) as listener, client(listener.url) as altcraft:
        error = await failure(altcraft.launch_broadcast(9, content=CONTENT, timeout=1))
    assert error.state == "unknown"
    assert "7999" not in f"{error} {error.summary}"


def test_new_message_keeps_summary() -> None:
    error = ThrottledError("a b", retry_after=1.0)
    error.summary += "; come back later"
    assert error.with_message("a ***").summary == "a *** (HTTP 429); come back later"
    assert (error.message, error.args) == ("a ***", ("a *** (HTTP 429)",))

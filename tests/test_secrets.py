"""Neither a token nor a message's content shows where people and machines look: reprs, logs, tracebacks, pickles."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import itertools
import logging
import pickle
import re
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest

import dispatchkit
from dispatchkit import (
    AltcraftClient,
    Attachment,
    DirectClient,
    DispatchkitError,
    LaunchBroadcast,
    Ledger,
    RejectedError,
    StartDispatch,
    sync,
)
from dispatchkit.core.call.client import Client
from dispatchkit.core.command import Command
from dispatchkit.core.secret import Secret, Unshown
from dispatchkit.core.transport.url import origin, proxy_url
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.postgres.driver_settings import DriverSettings
from tests.wire import Instant, Listener, failure, http, once

TOKEN = "TOKEN-hunter2-TOKEN"
BODY = "BODY-marker-BODY"
CONTENT: dict[str, Any] = {"deep": {BODY: [BODY]}}
FILE = Attachment.from_bytes(BODY.encode(), name="a.pdf")
MADE = {"media_type": "application/pdf"}
FILE_ON_THE_WIRE = "Qk9EWS1tYXJrZXItQk9EWQ=="
MARKS = ("hunter2", "marker-BODY", FILE_ON_THE_WIRE[:16])
OURS = ("dispatchkit", "aiohttp", "attrs generated", "tenacity")


@pytest.fixture(scope="module")
def _few_to_collect() -> None:
    """Keep `gc.collect` from looking through what all tests before have made."""
    gc.collect()
    gc.freeze()


def shows_nothing(*texts: object) -> None:
    for text in texts:
        for mark in MARKS:
            assert mark not in str(text), str(text)


def frames_show_nothing(error: BaseException) -> None:
    """Search the locals of every frame of our code, in the error and in all that it references."""
    seen = 0
    chain = [traceback.TracebackException.from_exception(error, capture_locals=True)]
    while chain:
        one = chain.pop()
        shows_nothing(*one.format_exception_only())
        for frame in one.stack:
            if any(name in frame.filename for name in OURS) and "/tests/" not in frame.filename:
                seen += 1
                shows_nothing(frame.locals)
        chain += [linked for linked in (one.__cause__, one.__context__) if linked is not None]
    assert seen, "a traceback without any frame of ours proves nothing"


def test_secret_never_shows_itself() -> None:
    for secret in (Secret(TOKEN, environment="NONE"), Secret(lambda: TOKEN, environment="NONE")):
        assert secret.reveal() == TOKEN
        shows_nothing(repr(secret), str(secret), f"{secret}", f"{secret!r:>30}", [secret], {"a": secret})
        assert not hasattr(secret, "__dict__")
        for leak in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="a token is not pickled") as refusal:
                leak(secret)
            shows_nothing(refusal.value)


async def test_client_parts_hide_token() -> None:
    async with Listener(http(200)) as listener, DirectClient(TOKEN, base_url=listener.url) as direct:
        await direct.stop(1)
        for client in (direct, AltcraftClient("https://example.com", TOKEN)):
            shows_nothing(repr(client), vars(client))
            for part in vars(client).values():
                shows_nothing(repr(part), getattr(part, "__dict__", ""))
                shows_nothing(*(repr(getattr(part, name, "")) for name in getattr(type(part), "__slots__", ())))
            with pytest.raises(TypeError):
                pickle.dumps(client)
    shows_nothing(repr(sync.DirectClient(TOKEN)), vars(sync.DirectClient(TOKEN)))


def test_command_and_request_hide_content() -> None:
    command = LaunchBroadcast(82, content=CONTENT, attachments=[FILE])
    shows_nothing(repr(command), str(command), repr(FILE))
    for client in (
        AltcraftClient("https://example.com", TOKEN),
        AltcraftClient("https://example.com", TOKEN, wire="xml"),
    ):
        call = client._call(command)
        assert TOKEN.encode() in (call.request.body or b"")
        shows_nothing(repr(call), repr(call.request), str(call.request))
    request = DirectClient(TOKEN)._call(StartDispatch(1)).request
    assert request.headers["Authorization"] == f"Basic {TOKEN}"
    shows_nothing(repr(request))
    assert "POST /api/v1/dispatch/1/start" in repr(request)


Act = Callable[[DirectClient, AltcraftClient], Awaitable[object]]
CALLS: dict[str, Act] = {
    "start": lambda direct, _: direct.start(1),
    "stop": lambda direct, _: direct.stop(1),
    "activate": lambda _, altcraft: altcraft.activate(82, content=CONTENT, attachments=[FILE]),
    "launch": lambda _, altcraft: altcraft.launch_broadcast(90, content=CONTENT, attachments=[FILE]),
    "launch_regular": lambda _, altcraft: altcraft.launch_regular(90, content=CONTENT, attachments=[FILE]),
}
DIRECT = (CALLS["start"], CALLS["stop"])
"""They have one wire form."""
ANSWERS: dict[str, bytes] = {
    "refused": http(403, f'{{"error": {{"code": 4030, "msg": "no {TOKEN} here"}}}}'),
    "refused in 200": http(200, f'{{"error": 402, "error_text": "no {TOKEN} here"}}'),
    "refused in xml": http(200, f"<xml><error>402</error><error_text>no {TOKEN} here</error_text></xml>"),
    "throttled": http(429, f'{{"error": 402, "error_text": "no {TOKEN} here"}}', Retry_After="5"),
    "html": http(200, f"<html>{TOKEN} {BODY}</html>"),
    "server": http(502, f"{TOKEN} {BODY}"),
    "no http": f"{TOKEN} {BODY}\r\nConnection: close\r\n\r\n".encode(),
    "bad header": f"HTTP/1.1 200 OK\r\nX {TOKEN}: \x00{BODY}\r\nConnection: close\r\n\r\n".encode(),
    "cut": f"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nConnection: close\r\n\r\n{TOKEN}{BODY}".encode(),
    "bad chunk": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{TOKEN}".encode(),
}


def pair(url: str, wire: Any = "json") -> tuple[DirectClient, AltcraftClient]:
    return DirectClient(TOKEN, base_url=url, **once()), AltcraftClient(url, TOKEN, wire=wire, **once())


@pytest.mark.usefixtures("_few_to_collect")
@pytest.mark.parametrize(
    ("act", "answer"),
    [
        pytest.param(
            CALLS[act], ANSWERS[answer], id=f"{act}-{answer}", marks=[pytest.mark.second_stage] if number % 3 else []
        )
        for number, (act, answer) in enumerate(itertools.product(CALLS, ANSWERS))
    ],
)
async def test_failed_call_shows_nothing(
    act: Act,
    answer: bytes,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0  # every callback is logged
    monkeypatch.setattr("asyncio.constants.DEBUG_STACK_DEPTH", 1)  # but not the source lines that it came by
    wires = ("json",) if act in DIRECT else ("json", "xml")
    async with Listener(answer) as listener:
        for wire in wires:
            direct, altcraft = pair(listener.url, wire)
            with caplog.at_level(logging.DEBUG):
                async with direct, altcraft:
                    error = await failure(act(direct, altcraft))
            shows_nothing(error, repr(error), vars(error) | {"command": repr(error.command)}, error.attempts)
            shows_nothing(pickle.dumps(error.attempts), pickle.dumps(vars(error) | {"command": None}))
            assert b"hunter2" not in pickle.dumps(error)
            frames_show_nothing(error)
    gc.collect()
    assert caplog.records
    logged = [f"{record.getMessage()} {vars(record)}" for record in caplog.records if record.name != "tests"]
    # asyncio in debug mode logs tasks by their name and this test's own ones by their code.
    shows_nothing(*logged)
    shows_nothing(*capsys.readouterr())


async def test_quoted_token_is_masked() -> None:
    async with Listener(ANSWERS["refused"]) as listener, pair(listener.url)[0] as direct:
        error = await failure(direct.start(1))
    assert isinstance(error, RejectedError)
    assert error.message == "no *** here"


def raising() -> str:
    raise OSError("vault")


@pytest.mark.parametrize("then", [lambda: "another", lambda: "bad token", raising], ids=["new", "bad", "raises"])
async def test_rotated_token_is_masked(then: Any) -> None:
    turns = iter([lambda: TOKEN])
    async with Listener(ANSWERS["refused"]) as listener:  # noqa: SIM117
        async with DirectClient(next(turns, then), base_url=listener.url, **once()) as direct:
            error = await failure(direct.start(1))
    assert isinstance(error, RejectedError)
    assert error.message == "no *** here"


@pytest.mark.parametrize("act", CALLS.values(), ids=CALLS)
async def test_unsent_call_shows_nothing(act: Act) -> None:
    async with Listener() as listener:
        url = listener.url
    direct, altcraft = pair(url)
    async with direct, altcraft:
        error = await failure(act(direct, altcraft))
    assert error.state == "not_sent"
    shows_nothing(error, repr(error), vars(error) | {"command": ""})
    frames_show_nothing(error)


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"], ids=["silent", "half"])
@pytest.mark.parametrize("act", CALLS.values(), ids=CALLS)
async def test_cancelled_call_shows_nothing(act: Act, answer: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    async with Listener(answer) as listener:
        direct, altcraft = pair(listener.url)
        async with direct, altcraft:
            with caplog.at_level(logging.DEBUG):
                task = asyncio.ensure_future(act(direct, altcraft))
                await listener.arrived.wait()
                await asyncio.sleep(0.005)
                task.cancel()
                with pytest.raises(asyncio.CancelledError) as cancelled:
                    await task
    frames_show_nothing(cancelled.value)
    shows_nothing(*(vars(record) for record in caplog.records))


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("act", CALLS.values(), ids=CALLS)
async def test_early_cancelled_call_shows_nothing(act: Act, turns: int) -> None:
    async with Listener(None) as listener:
        direct, altcraft = pair(listener.url)
        async with direct, altcraft:
            task = asyncio.ensure_future(act(direct, altcraft))
            for _ in range(turns + 1):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await task
    frames_show_nothing(cancelled.value)


async def test_timed_out_call_shows_nothing() -> None:
    async with Listener(None) as listener:
        for wire in ("json", "xml"):
            settings: Any = {**once(), "attempt_timeout": 0.25, "timeout": 1.0}
            async with AltcraftClient(listener.url, TOKEN, wire=wire, **settings) as altcraft:
                error = await failure(altcraft.activate(82, content=CONTENT, attachments=[FILE]))
            assert error.state == "unknown"
            frames_show_nothing(error)


@pytest.mark.parametrize(
    "mistake",
    [
        {"content": {BODY: float("nan")}},
        {"content": {"a": [{BODY}]}},
        {"content": {"a": BODY, "b": {1: 2}}},
        {"content": CONTENT, "attachments": [1]},
        {"content": CONTENT, "limit": -1},
        {"content": CONTENT, "attachments": [FILE] * 20},
        {"content": {**CONTENT, "a b": BODY}},
        {"content": {**CONTENT, "a": "\ud800"}},
    ],
    ids=["nan", "set", "key", "attachments", "limit", "size", "name", "surrogate"],
)
@pytest.mark.parametrize("method", ["activate", "launch_broadcast", "launch_regular"])
async def test_user_mistake_hides_locals(method: str, mistake: dict[str, Any]) -> None:
    async with AltcraftClient("https://example.com", TOKEN, wire="xml", attachment_limit=100) as altcraft:
        with pytest.raises((TypeError, ValueError)) as refusal:
            await getattr(altcraft, method)(82, **mistake)
    frames = traceback.TracebackException.from_exception(refusal.value, capture_locals=True).stack
    ours = [
        frame for frame in frames if any(name in frame.filename for name in OURS) and "/tests/" not in frame.filename
    ]
    assert ours
    shows_nothing(*(frame.locals for frame in ours))


@pytest.mark.parametrize("make", [DirectClient, AltcraftClient, sync.DirectClient, sync.AltcraftClient])
@pytest.mark.parametrize(
    "wrong", [{"timeout": -1}, {"base_url": "ftp://x"}, {"base_url": ""}, {}], ids=["timeout", "url", "empty", "token"]
)
def test_failed_construction_hides_token(make: Any, wrong: dict[str, Any]) -> None:
    settings = {"token": TOKEN if wrong else f"{TOKEN}\n", "base_url": "https://example.com", **wrong}
    with pytest.raises(ValueError, match=r".") as refusal:
        make(**settings)
    frames_show_nothing(refusal.value)


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("vault"),
        OSError("vault"),
        KeyError("vault"),
        RuntimeError("vault"),
    ],
)
async def test_callable_error_sends_nothing(raised: Exception) -> None:
    def token() -> str:
        raise raised

    async with Listener() as listener, AltcraftClient(listener.url, token) as altcraft:
        with pytest.raises(type(raised)) as caught:
            await altcraft.activate(82, content=CONTENT, attachments=[FILE])
    assert listener.requests == []
    frames_show_nothing(caught.value)


async def test_blocking_call_shows_nothing() -> None:
    async with Listener(ANSWERS["html"]) as listener:
        settings: Any = {**once(), "clock": Instant()}

        def call() -> DispatchkitError:
            with sync.AltcraftClient(listener.url, TOKEN, **settings) as altcraft:
                with pytest.raises(DispatchkitError) as caught:
                    altcraft.activate(82, content=CONTENT, attachments=[FILE])
                with pytest.raises(TypeError) as mistake:
                    altcraft.activate(82, content=CONTENT, no_such=CONTENT)  # type: ignore[call-arg]
            frames_show_nothing(mistake.value)
            return caught.value

        error = await asyncio.to_thread(call)
    frames_show_nothing(error)


def test_parts_of_request_show_nothing() -> None:
    direct, altcraft = DirectClient(TOKEN), AltcraftClient("https://example.com", TOKEN)
    command = LaunchBroadcast(82, content=CONTENT, attachments=[FILE])
    for request in (direct._call(StartDispatch(1)).request, altcraft._call(command).request):
        fields = attrs.asdict(request)
        shows_nothing(fields, attrs.astuple(request), *fields.values())
        with_frozen = attrs.asdict(request, recurse=False)
        shows_nothing(with_frozen)
    for client in (direct, altcraft):
        shows_nothing(attrs.asdict(client._context.wire))
    assert request.body is not None
    assert TOKEN.encode() in request.body


PROXY = "http://user:hunter2@127.0.0.1:9"


@pytest.mark.parametrize("make", [DirectClient, AltcraftClient, sync.DirectClient, sync.AltcraftClient])
@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": -1},
        {"base_url": "https://user:hunter2@example.com"},
        {"base_url": "https://user:hunter2@[example.com"},
        {"base_url": "user:hunter2@example.com"},
        {"base_url": "ftp://user:hunter2@example.com"},
        {"proxy": "socks5://user:hunter2@proxy"},
        {"proxy": "user:hunter2@proxy"},
        {"account": ""},
    ],
    ids=["timeout", "credentials", "bracket", "no scheme", "ftp", "socks", "proxy without scheme", "account"],
)
def test_failed_client_shows_no_url(make: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        make(**{"token": "x", "base_url": "https://example.com", "proxy": PROXY, **wrong})
    frames_show_nothing(refusal.value)


@pytest.mark.parametrize("check", [origin, proxy_url])
def test_checked_url_is_not_shown(check: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match="must be") as refusal:
        check("ftp://user:hunter2@example.com")
    frames_show_nothing(refusal.value)


@pytest.mark.parametrize("make", [Ledger, lambda where: Address.of(where).check(), origin, proxy_url])
@pytest.mark.parametrize("wrong", [b"host=h password=hunter2", ["host=h password=hunter2"]], ids=["bytes", "list"])
def test_wrong_typed_address_is_hidden(make: Any, wrong: object) -> None:
    with pytest.raises(TypeError, match=f"not {type(wrong).__name__}") as refusal:
        make(wrong)
    frames_show_nothing(refusal.value)


async def test_failing_proxy_shows_no_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with DirectClient("x", base_url="https://example.com", proxy=PROXY, **once()) as direct:
        transport: Any = direct._context.transport
        shows_nothing(repr(direct), *(repr(getattr(transport, name)) for name in type(transport).__slots__[1:]))
        error = await failure(direct.start(1))
    frames_show_nothing(error)
    shows_nothing(error, vars(error), *(vars(record) for record in caplog.records))


def every_class_of(base: type) -> Iterator[type]:
    for cls in base.__subclasses__():
        yield cls
        yield from every_class_of(cls)


@pytest.mark.parametrize("base", [Command, Client, sync.DirectClient.__mro__[1]], ids=["command", "client", "sync"])
def test_half_built_value_has_repr(base: type) -> None:
    found = {cls for cls in every_class_of(base) if cls.__module__.startswith("dispatchkit")}
    found = {cls for cls in found if not inspect.isabstract(cls)}
    assert found
    for cls in found:
        assert repr(object.__new__(cls))
    assert repr(StartDispatch(7)) == "StartDispatch(dispatch_id=7)"


@pytest.mark.parametrize("cls", [DriverSettings, Address, Secret, Unshown])
def test_half_built_part_has_repr(cls: type) -> None:
    assert repr(object.__new__(cls))


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (BODY, {"name": "a.pdf"}),
        (bytearray(BODY.encode()), {"name": "a.pdf"}),
        (BODY.encode(), {"name": ""}),
        (BODY.encode(), {"name": b"x"}),
        (BODY.encode(), {"name": "a.pdf", "media_type": "x"}),
    ],
    ids=["text", "bytearray", "empty name", "bytes as name", "media type"],
)
@pytest.mark.parametrize("make", [Attachment.from_bytes, lambda data, **given: Attachment(data=data, **MADE | given)])
def test_failed_attachment_shows_no_content(make: Any, data: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="attachment") as refusal:
        make(data, **wrong)
    frames_show_nothing(refusal.value)


def test_the_marks_would_be_seen() -> None:
    assert dispatchkit.__file__
    assert aiohttp.__file__
    with pytest.raises(AssertionError):
        shows_nothing(f"x{TOKEN}")
    with pytest.raises(AssertionError):
        shows_nothing({"content": CONTENT})


def test_fingerprints_stay_slow() -> None:
    source = Path(inspect.getfile(Secret)).read_text(encoding="utf-8")  # what the tests set is lower
    assert int(re.findall(r"^FINGERPRINT_ROUNDS = ([\d_]+)$", source, re.MULTILINE)[0]) >= 200_000

"""A mock in place of aiohttp's session: what it plays is an outcome, and its own errors are raised."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aioresponses import CallbackResult, aioresponses

from dispatchkit import AltcraftClient, DirectClient, NotSentError, OutcomeUnknownError, RetryPolicy
from dispatchkit.core.transport.http import Http
from dispatchkit.sandbox import Sandbox
from dispatchkit.testing import FakeClock

START = "https://direct.i-dgtl.ru/api/v1/dispatch/7/start"
ONCE = RetryPolicy(attempts=1, repeat_unclear=False)


def missing(*_: Any, **__: Any) -> CallbackResult:
    raise KeyError("missing")


async def test_wrong_signature_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    async def broken(self: aiohttp.ClientSession, method: str) -> None:
        raise AssertionError

    async def count(*args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        await broken(*args, **kwargs)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", count)
    async with DirectClient("key", clock=FakeClock()) as direct:
        with pytest.raises(TypeError, match="unexpected keyword argument 'headers'") as raised:
            await direct.start(7)
        assert direct.statistics().pace.in_flight == 0
    assert calls == 1
    assert "test_mocks.py" in "".join(raised.value.__notes__)


@pytest.mark.parametrize("error", [AssertionError("wrong body"), KeyError("x"), AttributeError("y")], ids=repr)
async def test_callback_error_is_raised(error: Exception) -> None:
    def callback(_: Any, **__: Any) -> CallbackResult:
        raise error

    with aioresponses() as provider:
        provider.post(START, callback=callback)
        async with DirectClient("key", clock=FakeClock()) as direct:
            with pytest.raises(type(error)) as raised:
                await direct.start(7)
    assert raised.value is error


async def test_broken_answer_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Response:
        status = 200

    async def answers(*_: Any, **__: Any) -> Response:
        return Response()

    monkeypatch.setattr(aiohttp.ClientSession, "_request", answers)
    async with DirectClient("key", clock=FakeClock()) as direct:
        with pytest.raises(AttributeError, match="'Response' object has no attribute 'headers'"):
            await direct.start(7)


async def test_broken_mock_ends_run() -> None:
    with aioresponses() as provider:
        provider.post(START, callback=missing)
        async with DirectClient("key", clock=FakeClock()) as direct:
            fan_out = direct.start_many([7])
            with pytest.raises(KeyError, match="missing"):
                await fan_out.finish()
            assert fan_out.report.total == 1


async def test_broken_state_read_raises() -> None:
    with aioresponses() as provider:
        provider.post("https://x.example/api/v1.1/campaigns/broadcasts/start", status=502)
        provider.post("https://x.example/api/v1.1/campaigns/log_v2", callback=missing)
        async with AltcraftClient("https://x.example", "key", clock=FakeClock()) as altcraft:
            with pytest.raises(KeyError, match="missing"):
                await altcraft.launch_broadcast(82)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (aiohttp.ServerDisconnectedError(), OutcomeUnknownError),
        (TimeoutError(), OutcomeUnknownError),
        (ConnectionResetError(), OutcomeUnknownError),
        (asyncio.IncompleteReadError(b"", 2), OutcomeUnknownError),
        (aiohttp.InvalidURL("x"), OutcomeUnknownError),
        (aiohttp.ClientConnectorError(None, OSError(111, "refused")), NotSentError),  # type: ignore[arg-type]
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
async def test_played_failures_are_outcomes(error: Exception, expected: type[Exception]) -> None:
    with aioresponses() as provider:
        provider.post(START, exception=error, repeat=True)
        async with DirectClient("key", retry=ONCE, clock=FakeClock()) as direct:
            with pytest.raises(expected):
                await direct.start(7)


async def test_real_session_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Http._write

    def breaks(*given: Any) -> None:
        write(*given)
        raise TypeError("a bug of ours, after the first byte")

    monkeypatch.setattr(Http, "_write", breaks)
    async with Sandbox() as played, DirectClient("key", base_url=played.url, retry=ONCE, clock=FakeClock()) as direct:
        with pytest.raises(OutcomeUnknownError):
            await direct.start(7)

"""What Direct is sent, byte for byte."""

from __future__ import annotations

import pytest

from dispatchkit import DirectClient, ExpiringToken, __version__
from tests.wire import Listener, http

KEY = "a2V5X2lkOnBhc3N3b3Jk"


async def test_start_matches_documentation() -> None:
    async with (
        Listener(http(200, {"dispatchId": 10000000125})) as listener,
        DirectClient(KEY, base_url=listener.url) as direct,
    ):
        started = await direct.start(10000000125)
    assert started.dispatch_id == 10000000125
    (request,) = listener.requests
    assert request.line == "POST /api/v1/dispatch/10000000125/start HTTP/1.1"
    assert request.headers.pop("Content-Length", "0") == "0"
    assert {name: text for name, text in request.headers.items() if name != "Content-Length"} == {
        "Host": listener.host,
        "Authorization": f"Basic {KEY}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"dispatchkit/{__version__}",
    }
    assert request.body == b""


async def test_stop_matches_documentation() -> None:
    async with Listener(http(200)) as listener, DirectClient(KEY, base_url=listener.url) as direct:
        assert await direct.stop(10000000125) is None
    (request,) = listener.requests
    assert request.line == "POST /api/v1/dispatch/10000000125/stop HTTP/1.1"
    assert request.headers["Authorization"] == f"Basic {KEY}"
    assert not {"Content-Type", "Request-ID", "X-Request-ID"} & set(request.headers)
    assert request.body == b""


async def test_empty_chunked_stop_is_done() -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    async with Listener(answer) as listener, DirectClient(KEY, base_url=listener.url) as direct:
        assert await direct.stop(1) is None


async def test_callable_gives_each_key() -> None:
    keys = iter(["first", "second"])

    def key() -> ExpiringToken:
        return ExpiringToken(next(keys), expires_in=0)

    async with Listener(http(200)) as listener, DirectClient(key, base_url=listener.url) as direct:
        await direct.stop(1)
        await direct.stop(1)
    assert [request.headers["Authorization"] for request in listener.requests] == ["Basic first", "Basic second"]


@pytest.mark.parametrize("largest", [2**31, 2**53 + 1, 2**63 - 1])
async def test_ids_go_out_whole(largest: int) -> None:
    async with (
        Listener(http(200, {"dispatchId": largest})) as listener,
        DirectClient(KEY, base_url=listener.url) as direct,
    ):
        assert (await direct.start(largest)).dispatch_id == largest
    assert f"/dispatch/{largest}/start " in listener.requests[0].line


async def test_key_comes_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "from-env")
    async with Listener(http(200)) as listener, DirectClient(base_url=listener.url) as direct:
        await direct.stop(1)
    assert listener.requests[0].headers["Authorization"] == "Basic from-env"

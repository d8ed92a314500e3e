"""The sandbox over HTTP: one server, two providers, faults to order."""

from __future__ import annotations

import asyncio
import io
import logging
import time

import aiohttp
import pytest

from dispatchkit.sandbox import Call, Fault, Sandbox
from tests.sandbox.scripts import DIRECT_HEADERS, Clock


@pytest.fixture
async def sandbox():
    async with Sandbox(clock=Clock()) as sandbox:
        yield sandbox


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as http:
        yield http


async def start(sandbox: Sandbox, http: aiohttp.ClientSession, dispatch_id: int = 5) -> tuple[int, bytes]:
    headers = {"Authorization": f"Basic {sandbox.direct_token}"}
    async with http.post(f"{sandbox.url}/api/v1/dispatch/{dispatch_id}/start", headers=headers) as response:
        return response.status, await response.read()


async def activate(sandbox: Sandbox, http: aiohttp.ClientSession, mailing_id: int = 82) -> dict[str, object]:
    body = {"token": sandbox.altcraft_token, "id": mailing_id, "run_now": True}
    async with http.post(f"{sandbox.url}/api/v1.1/campaigns/activate/", json=body) as response:
        return await response.json()


async def test_providers_share_one_address(sandbox, http):
    assert await start(sandbox, http, 10000000125) == (200, b'{"dispatchId": 10000000125}')
    assert (await activate(sandbox, http))["error"] == 0
    assert sandbox.launches == {10000000125: 1, 82: 1}
    assert [act.provider for act in sandbox.acts] == ["direct", "altcraft"]
    assert sandbox.requests == 2


async def test_launches_of_providers_are_summed(sandbox, http):
    await start(sandbox, http, 82)
    await activate(sandbox, http, 82)
    assert sandbox.launches == {82: 2}
    assert sandbox.direct.launches == sandbox.altcraft.launches == {82: 1}


async def test_acts_are_in_clock_order(http):
    clock = Clock()
    async with Sandbox(clock=clock) as sandbox:
        for step in (activate, start, activate):
            await step(sandbox, http)
            clock.pass_(1)
            sandbox.altcraft.deduplicates = False
        assert [act.action for act in sandbox.acts] == ["launch", "start", "launch"]


async def test_query_and_header_case_survive(sandbox, http):
    await start(sandbox, http)
    url = f"{sandbox.url}/api/v1/dispatch?dispatch_id=5&dispatch_name=рассылка+5"
    async with http.get(url, headers={"AUTHORIZATION": DIRECT_HEADERS["Authorization"]}) as response:
        answer = await response.json()
    assert [item["dispatchId"] for item in answer["items"]] == [5]


async def test_stop_has_no_body(sandbox, http):
    await start(sandbox, http)
    async with http.post(f"{sandbox.url}/api/v1/dispatch/5/stop", headers=DIRECT_HEADERS) as response:
        assert (response.status, await response.read(), response.headers["Content-Length"]) == (200, b"", "0")


async def test_large_body_reaches_provider(sandbox, http):
    body = io.BytesIO(bytes(101 * 1024 * 1024))
    async with http.post(f"{sandbox.url}/api/v1.1/campaigns/activate/", data=body) as response:
        assert response.status == 413


async def test_settings_reach_providers(http):
    async with Sandbox(
        dispatches=[1], mailings=[2], active=[2], direct_token="a2V5", altcraft_token="key", second_start="refused"
    ) as sandbox:
        assert (await start(sandbox, http, 1))[0] == 200
        assert (await start(sandbox, http, 1))[0] == 403
        assert (await start(sandbox, http, 2))[0] == 404
        assert (await activate(sandbox, http, 2))["error"] == 0
        assert (await activate(sandbox, http, 1))["error"] == 400


async def test_latency_delays_response_only(sandbox, http):
    sandbox.latency = 0.05
    begun = time.perf_counter()
    waiting = asyncio.create_task(start(sandbox, http))
    await until(lambda: sandbox.launches[5] == 1)
    assert not waiting.done()
    await waiting
    assert time.perf_counter() - begun >= 0.05


async def until(holds, seconds=5):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("fault", "raised", "launched"),
    [
        (Fault.lost_answer(), aiohttp.ServerDisconnectedError, 1),
        (Fault.dropped(), aiohttp.ServerDisconnectedError, 0),
        (Fault.reset(), aiohttp.ClientOSError, 1),
        (Fault.reset(acts=False), aiohttp.ClientOSError, 0),
        (Fault.cut(), aiohttp.ClientPayloadError, 1),
        (Fault.cut(acts=False), aiohttp.ClientPayloadError, 0),
    ],
)
async def test_broken_connection_acts_as_ordered(sandbox, http, caplog, fault, raised, launched):
    sandbox.order(fault)
    with pytest.raises(raised):
        await start(sandbox, http)
    assert sandbox.launches[5] == launched
    assert await start(sandbox, http) == (200, b'{"dispatchId": 5}')
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_bodyless_response_is_cut(sandbox, http):
    await start(sandbox, http)
    sandbox.order(Fault.cut())
    reader, writer = await asyncio.open_connection(*sandbox.url.removeprefix("http://").split(":"))
    writer.write(
        b"POST /api/v1/dispatch/5/stop HTTP/1.1\r\nHost: x\r\nAuthorization: Basic c2FuZGJveDpzYW5kYm94\r\n\r\n"
    )
    head = await reader.read()
    writer.close()
    assert head.startswith(b"HTTP/1.1 200")
    assert b"\r\n\r\n" not in head
    assert sandbox.direct.status(5) == "stopped"


@pytest.mark.parametrize(
    ("fault", "status", "launched"),
    [
        (Fault.http(503), 503, 0),
        (Fault.http(500, b"oops", {"X-Why": "fault"}, acts=True), 500, 1),
        (Fault.throttled(), 429, 0),
        (Fault.garbage(), 200, 1),
        (Fault.garbage(acts=False), 200, 0),
        (Fault.html(), 502, 1),
        (Fault.html(200, acts=False), 200, 0),
        (Fault.slow(0.001), 200, 1),
    ],
)
async def test_spoiled_response_acts_as_ordered(sandbox, http, fault, status, launched):
    sandbox.order(fault)
    answered, body = await start(sandbox, http)
    assert answered == status
    assert (body == b'{"dispatchId": 5}') is (fault.name == "slow")
    assert sandbox.launches[5] == launched


async def test_throttling_sends_retry_after(sandbox, http):
    sandbox.order(Fault.throttled(7))
    async with http.get(sandbox.url) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "7")


async def test_slow_response_follows_act(sandbox, http):
    sandbox.order(Fault.slow(60))
    waiting = asyncio.create_task(start(sandbox, http))
    await until(lambda: sandbox.launches[5] == 1)
    waiting.cancel()


@pytest.mark.parametrize("acts", [True, False])
async def test_silence_lasts_until_disconnect(sandbox, http, acts):
    sandbox.order(Fault.silent(acts=acts))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):
            await start(sandbox, http)
    assert sandbox.requests == 1
    assert sandbox.launches[5] == acts


async def test_silence_ends_at_close(http):
    async with Sandbox() as sandbox:
        sandbox.order(Fault.silent())
        waiting = asyncio.create_task(start(sandbox, http))
        await until(lambda: sandbox.launches[5] == 1)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await waiting


async def test_faults_are_used_in_order(sandbox, http):
    sandbox.order(Fault.http(501), times=2, path_contains="/start")
    sandbox.order(Fault.http(502))
    sandbox.order(Fault.http(502))
    assert sandbox.faults_left == 4
    async with http.get(sandbox.url) as response:
        assert response.status == 502
    assert [(await start(sandbox, http))[0] for _ in range(4)] == [501, 501, 502, 200]
    assert sandbox.faults_left == 0


def test_fault_count_is_positive():
    with pytest.raises(ValueError, match="times"):
        Sandbox().order(Fault.dropped(), times=0)


def test_time_does_not_run_backwards():
    with pytest.raises(ValueError, match="negative"):
        Fault.slow(-1)


async def test_close_does_not_wait(http):
    sandbox = Sandbox(latency=60)
    await sandbox.open()
    idle = await asyncio.open_connection(*sandbox.url.removeprefix("http://").split(":"))
    waiting = asyncio.create_task(start(sandbox, http))
    await until(lambda: sandbox.requests == 1)
    begun = time.perf_counter()
    await sandbox.close()
    await sandbox.close()
    assert time.perf_counter() - begun < 20  # the answer takes a minute
    assert await idle[0].read() == b""
    idle[1].close()
    with pytest.raises(aiohttp.ClientConnectionError):
        await waiting


async def test_state_outlives_the_server(http):
    sandbox = Sandbox()
    for launches in (1, 2):
        async with sandbox:
            await start(sandbox, http)
        assert sandbox.launches == {5: launches}


async def test_sandbox_opens_once(sandbox):
    with pytest.raises(RuntimeError, match="open already"):
        await sandbox.open()
    with pytest.raises(RuntimeError, match="not open"):
        _ = Sandbox().url


async def test_taken_port_leaves_nothing_behind(sandbox):
    second = Sandbox(port=int(sandbox.url.rpartition(":")[2]))
    with pytest.raises(OSError, match="address already in use"):
        await second.open()
    with pytest.raises(RuntimeError):
        _ = second.url


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", ""])
def test_only_loopback_will_do(host):
    with pytest.raises(ValueError, match="loopback"):
        Sandbox(host=host)
    Sandbox(host=host, allow_remote=True)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2", "::1"])
def test_every_loopback_will_do(host):
    Sandbox(host=host)


async def test_an_ipv6_address_wears_brackets(http):
    try:
        async with Sandbox(host="::1") as sandbox:
            assert sandbox.url.startswith("http://[::1]:")
            assert (await start(sandbox, http))[0] == 200
    except OSError:
        pytest.skip("no IPv6 here")


def test_call_without_http_is_answered():
    sandbox = Sandbox()
    assert sandbox.answer(Call("POST", "/api/v1/dispatch/5/start", {}, DIRECT_HEADERS)).status == 200
    assert sandbox.answer(Call("POST", "/api/v1.1/nothing")).headers["Content-Type"] == "text/html"
    assert sandbox.launches == {5: 1}

"""A run starts with one call, so what refuses all of them costs one request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import (
    AccessDeniedError,
    AltcraftClient,
    AuthenticationError,
    DirectClient,
    FanOut,
    Ledger,
    Outcome,
    Pace,
    RejectedError,
    Report,
    RetryPolicy,
)
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.errors import TariffLimitError
from tests.fake_transport import throttled
from tests.harness import hide_state, played, refusal, starts
from tests.wire import Listener, http

XML = "<xml><error>{}</error><error_text>no</error_text></xml>"


def direct(status: int, code: int) -> bytes:
    return http(status, {"error": {"code": code, "msg": "no"}})


def altcraft(wire: str, code: int) -> bytes:
    if wire == "xml":
        return http(200, XML.format(code), Content_Type="application/xml")
    return http(200, {"data": None, "error": code, "error_text": "no"}, Content_Type="application/json")


def many(client: Any, **settings: Any) -> FanOut[Any]:
    if isinstance(client, DirectClient):
        return client.start_many(range(1, 1001), **settings)
    return client.activate_many(range(1, 1001), run_now=True, **settings)


def connect(kind: str, url: str) -> DirectClient | AltcraftClient:
    if kind == "direct":
        return DirectClient("key", base_url=url)
    return AltcraftClient(url, "key", wire=kind)  # type: ignore[arg-type]


REFUSED = [
    ("direct", direct(401, 4010), AuthenticationError),
    ("direct", direct(401, 4012), AuthenticationError),
    ("direct", direct(403, 4030), AccessDeniedError),
    *(
        (wire, altcraft(wire, code), kind)
        for wire in ("json", "xml")
        for code, kind in ((401, AuthenticationError), (402, TariffLimitError), (403, AccessDeniedError))
    ),
]


@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize(("kind", "answer", "error"), REFUSED)
async def test_refused_token_costs_one_request(
    kind: str, answer: bytes, error: type[RejectedError], remembered: bool, tmp_path: Path
) -> None:
    async with Listener(answer) as server, connect(kind, server.url) as client:
        settings: dict[str, Any] = {}
        if remembered:
            settings = {"ledger": Ledger(tmp_path / "a.db"), "run": "a"}
        run = many(client, concurrency=64, **settings)
        with pytest.raises(error):
            await run.finish()
        assert len(server.requests) == 1
        assert run.report == Report(rejected=1, not_started=999)
        assert run.stop_reason is not None
        assert run.stop_reason.kind == "refused"
        if remembered:
            # What was refused proves nothing: the next process begins with one call, too.
            again = many(client, concurrency=64, **settings)
            with pytest.raises(error):
                await again.finish()
            assert len(server.requests) == 2
            await settings["ledger"].close()


async def test_later_access_denied_ends_nothing() -> None:
    client, _ = played(says=lambda _, number: refusal(4030) if number % 2 == 0 else None)
    run = FanOut(client, list(starts(range(1, 21))), concurrency=4)
    assert await run.finish() == Report(done=10, rejected=10, not_started=0)
    assert run.stop_reason is None


async def test_later_token_refusal_ends_run() -> None:
    client, transport = played(says=lambda _, number: refusal(4012, 401) if number > 20 else None)
    run = FanOut(client, list(starts(range(1, 101))), concurrency=4)
    with pytest.raises(AuthenticationError):
        await run.finish()
    assert run.report.done == 20
    assert len(transport.seen) <= 24
    assert run.stop_reason is not None
    assert run.stop_reason.kind == "refused"


async def test_refused_targets_allow_growth() -> None:
    client, transport = played(takes=lambda _: 1.0, says=lambda *_: refusal(4031))
    run = FanOut(client, list(starts(range(1, 8))), concurrency=64)
    assert (await run.finish()).rejected == 7
    assert [at for at, _ in transport.seen] == [0.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]


async def test_account_refusals_prevent_growth() -> None:
    client, transport = played(takes=lambda _: 1.0, says=lambda _, number: refusal(4030) if number > 1 else None)
    run = FanOut(client, list(starts(range(1, 8))), concurrency=64)
    assert await run.finish() == Report(done=1, rejected=6, not_started=0)
    assert [at for at, _ in transport.seen] == [0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize("pace", [None, Pace(concurrency="auto")])
async def test_run_doubles_from_one_call(pace: Pace | None) -> None:
    client, transport = played(takes=lambda _: 1.0, pace=pace)
    await FanOut(client, list(starts(range(1, 64))), concurrency=64).finish()
    counts = [[at for at, _ in transport.seen].count(float(second)) for second in range(6)]
    assert counts == [1, 2, 4, 8, 16, 32]


async def test_idle_account_starts_with_one() -> None:
    client, transport = played(takes=lambda _: 1.0)
    for first in (1, 101):
        transport.seen.clear()
        began = transport.clock.time
        await FanOut(client, list(starts(range(first, first + 63))), concurrency=64).finish()
        assert [at for at, _ in transport.seen].count(began) == 1


async def test_single_calls_never_ramp() -> None:
    client, transport = played(takes=lambda _: 1.0)
    await asyncio.gather(*(client.start(number) for number in range(1, 33)))
    await FanOut(client, list(starts(range(1, 3))), concurrency=64).finish()
    began = transport.clock.time
    await asyncio.gather(*(client.start(number) for number in range(1, 33)))
    times = [at for at, _ in transport.seen]
    assert (times.count(0.0), times.count(began)) == (32, 32)


async def test_busy_account_skips_ramp() -> None:
    client, transport = played(takes=lambda _: 1.0)
    call = asyncio.ensure_future(client.start(1))
    await asyncio.sleep(0)
    run = FanOut(client, list(starts(range(2, 34))), concurrency=32)
    await asyncio.gather(call, run.finish())
    assert [at for at, _ in transport.seen] == [0.0] * 33


async def test_resumed_results_skip_ramp(tmp_path: Path) -> None:
    async with (
        Listener(http(200, {"dispatchId": 1}), None) as server,
        DirectClient("key", base_url=server.url) as client,
        Ledger(tmp_path / "a.db") as ledger,
    ):
        settings: Any = {"ledger": ledger, "run": "a", "concurrency": 16}
        assert (await client.start_many(range(1, 33), max_launches=1, **settings).finish()).done == 1
        run = client.start_many(range(1, 33), **settings)
        finishing = asyncio.ensure_future(run.finish())
        async with asyncio.timeout(1.5):  # less than a silence
            while len(server.requests) < 17:  # noqa: ASYNC110 - the server counts them
                await asyncio.sleep(0.01)
        await run.close()
        await finishing


@pytest.mark.parametrize(
    "fault",
    [
        lambda: TransportFailure("no connection", sent=False),
        lambda: TransportFailure("reset", sent=True),
        lambda: throttled(3),
    ],
)
async def test_waiting_call_yields_its_slot(fault: Callable[[], Any]) -> None:
    failed: list[int] = []

    def says(_: object, number: int) -> Any:
        if number <= 3 and failed.count(number) == 0:
            failed.append(number)
            return fault()
        return None

    client, transport = played(says=says, pace=Pace(concurrency=1), retry=RetryPolicy(state_lag=1.0))
    hide_state(transport)
    outcomes: list[Outcome[Any]] = [each async for each in FanOut(client, list(starts(range(1, 9))), concurrency=8)]
    assert len(outcomes) == 8
    assert sum(outcome.state == "done" for outcome in outcomes) >= 5

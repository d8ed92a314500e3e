"""A client of Direct on a played provider, in virtual time: what the tests of the fan-out share."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dispatchkit import DirectClient, StartDispatch
from dispatchkit.core.call.context import RunSettings
from dispatchkit.core.command import Request, Response
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.ledger.run import RunPlan
from dispatchkit.testing import FakeClock
from tests.fake_transport import FakeTransport


def played(clock: FakeClock | None = None, *, token: str = "t", **settings: Any) -> tuple[DirectClient, FakeTransport]:
    """A client, and what stands in for its transport. ``takes`` and ``says`` are the transport's."""
    clock = clock or FakeClock()
    transport = FakeTransport(clock, **{name: settings.pop(name) for name in ("takes", "says") if name in settings})
    client = DirectClient(token, clock=clock, **settings)
    client._context.transport = transport  # type: ignore[assignment]
    return client, transport


def hide_state(transport: FakeTransport) -> None:
    """Let no question about state be answered."""
    real = transport.send

    async def send(request: Request, tracker: object, **settings: Any) -> Response | TransportFailure:
        if request.method == "GET":
            return TransportFailure("no answer", sent=True)
        return await real(request, tracker, **settings)

    transport.send = send  # type: ignore[method-assign]


def starts(ids: Iterable[int]) -> Iterator[StartDispatch]:
    return (StartDispatch(number) for number in ids)


def run_settings(
    settings: Mapping[str, str] | None = None,
    *,
    account: str | None = None,
    token: str = "t",
    attempt_timeout: float = 70.0,
    repeat_window: float | None = None,
) -> RunSettings:
    return RunSettings(
        settings=settings or {},
        account=account,
        fingerprint=lambda: token,
        attempt_timeout=attempt_timeout,
        repeat_window=repeat_window,
    )


def run_plan(name: str = "a", **settings: Any) -> RunPlan:
    given = {"settings": "{}", "host": "", "account": None, "fingerprint": "t", "attempt_timeout": 70.0}
    return RunPlan(name=name, **{**given, **settings})


def refusal(code: int, status: int = 403) -> Response:
    return Response(status, {}, b'{"error": {"code": %d, "msg": "no"}}' % code)


async def acquire(pacer: Pacer, *, until: float = math.inf) -> int:
    """Wait for a permit as a gate does, with no stop. 0 if none comes in time."""
    place = pacer.line_up(until)
    return place if isinstance(place, int) else await pacer.wait(place)


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - anything may be waited for
            await asyncio.sleep(0)

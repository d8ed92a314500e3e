"""A token from a callable is kept until it is refused or expires, and nothing waits for it twice."""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import (
    AltcraftClient,
    DirectClient,
    ExpiringToken,
    Ledger,
    NotSentError,
    OutcomeUnknownError,
    Pace,
    RejectedError,
    RetryPolicy,
)
from dispatchkit.core.command import Request, Response
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.errors import BadCredentialsError
from dispatchkit.testing import FakeClock
from tests.fake_transport import FakeTransport
from tests.harness import refusal, until

TRACE = f"00-{1:032x}-{2:016x}-01"


class Vault:
    """Gives tokens one after another, the last one for ever, and counts how often it is asked."""

    def __init__(self, *tokens: str | ExpiringToken) -> None:
        self.tokens = tokens
        self.asked = 0

    def __call__(self) -> str | ExpiringToken:
        self.asked += 1
        return self.tokens[min(self.asked, len(self.tokens)) - 1]


class Provider(FakeTransport):
    """Accepts some tokens, and refuses all others."""

    def __init__(self, clock: FakeClock, *valid: str, **settings: Any) -> None:
        super().__init__(clock, **settings)
        self.valid = set(valid)
        self.requests: list[Request] = []

    async def send(self, request: Request, tracker: object, **settings: Any) -> Response | TransportFailure:
        self.requests.append(request)
        token = request.headers["Authorization"].removeprefix("Basic ")
        reply = await super().send(request, tracker, **settings)
        return reply if token in self.valid else refusal(4012, 401)


def made(token: Any, *valid: str, clock: FakeClock | None = None, **settings: Any) -> tuple[DirectClient, Provider]:
    clock = clock or FakeClock()
    client, provider = DirectClient(token, clock=clock, **settings), Provider(clock, *valid)
    client._context.transport = provider  # type: ignore[assignment]
    return client, provider


async def test_token_is_kept() -> None:
    vault = Vault("a")
    client, provider = made(vault, "a")
    for number in (1, 2, 3):
        await client.start(number)
    assert (vault.asked, len(provider.requests)) == (1, 3)


async def give() -> str:
    return "a"


class Giver:
    async def __call__(self) -> str:
        return "a"


@pytest.mark.parametrize("source", [give, Giver(), functools.partial(lambda called: called(), give)])
async def test_callable_may_be_asynchronous(source: Callable[[], Any]) -> None:
    client, _ = made(source, "a")
    assert (await client.start(1)).dispatch_id == 1
    assert (await client.start_many([1, 2]).finish()).done == 2


async def test_plain_callable_may_block() -> None:
    opened = threading.Event()

    def blocks() -> str:
        assert opened.wait(10)
        return "a"

    client, _ = made(blocks, "a")
    starting = asyncio.create_task(client.start(1))
    await asyncio.sleep(0)
    opened.set()  # this line is reached, so the loop is free
    assert (await starting).dispatch_id == 1


async def test_concurrent_calls_ask_once() -> None:
    vault = Vault("a", "b")
    client, _ = made(vault, "a", "b")
    await asyncio.gather(*(client.start(number) for number in range(1, 11)))
    assert vault.asked == 1


async def test_cancelled_caller_ends_no_other() -> None:
    opened = asyncio.Event()

    async def waits() -> str:
        await opened.wait()
        return "a"

    client, _ = made(waits, "a")
    first, second = (asyncio.create_task(client.start(number)) for number in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    opened.set()
    assert (await second).dispatch_id == 2


async def test_expired_token_is_asked_again() -> None:
    clock, vault = FakeClock(jumps=False), Vault(ExpiringToken("a", expires_in=600), ExpiringToken("b", expires_in=100))
    client, provider = made(vault, "a", "b", clock=clock)
    provider.takes = lambda _: 0.0
    asked = []
    for seconds in (0, 569, 2, 89, 2):
        clock.advance(seconds)
        starting = asyncio.create_task(client.start(1))
        await until(lambda: bool(clock._sleepers))
        clock.advance(0)
        await starting
        asked.append(vault.asked)
    assert asked == [1, 1, 2, 2, 3]


async def test_refused_token_is_renewed() -> None:
    vault = Vault("old", "new")
    client, provider = made(vault, "new")
    assert (await client.start(1)).dispatch_id == 1
    assert (vault.asked, len(provider.requests)) == (2, 2)
    await client.start(2)
    assert (vault.asked, len(provider.requests)) == (2, 3)


async def test_traced_call_renews_token() -> None:
    class Tracer:
        def __call__(self, event: object) -> None: ...

        def trace_headers(self, event: object) -> dict[str, str]:
            return {"traceparent": TRACE}

    vault = Vault("old", "new")
    direct, provider = made(vault, "new", observers=[Tracer()])
    await direct.start(7)
    assert vault.asked == 2
    assert [request.headers["traceparent"] for request in provider.requests] == [TRACE] * 2


async def test_same_token_stays_refused() -> None:
    vault = Vault("wrong")
    client, provider = made(vault)
    with pytest.raises(BadCredentialsError) as caught:
        await client.start(1)
    assert (vault.asked, len(provider.requests), len(caught.value.attempts)) == (2, 1, 1)


async def test_second_refusal_is_final() -> None:
    vault = Vault("one", "two", "three")
    client, provider = made(vault)
    with pytest.raises(BadCredentialsError) as caught:
        await client.start(1)
    assert (vault.asked, len(provider.requests), len(caught.value.attempts)) == (2, 2, 2)


async def test_failing_renewal_keeps_refusal() -> None:
    tokens: Iterator[str] = iter(["wrong"])
    client, _ = made(lambda: next(tokens))
    with pytest.raises(BadCredentialsError):
        await client.start(1)


async def _wrong() -> str:
    return "wrong"


@pytest.mark.parametrize("source", ["wrong", _wrong])
async def test_wrong_token_costs_one_request(source: Any) -> None:
    client, provider = made(source)
    with pytest.raises(BadCredentialsError):
        await client.start_many(range(1, 1001)).finish()
    assert len(provider.requests) == 1


@pytest.mark.usefixtures("no_ramp")
async def test_token_may_rotate_during_run() -> None:
    vault = Vault("a", "b")
    client, provider = made(vault, "a")
    run = client.start_many(range(1, 101), concurrency=16)
    for _ in range(20):
        await anext(run)
    provider.valid = {"b"}
    report = await run.finish()
    assert (report.done, vault.asked) == (100, 2)
    assert len(provider.requests) <= 100 + 16


async def test_late_token_keeps_pace() -> None:
    clock = FakeClock()
    text, _ = made("a", "a", clock=clock)
    asked = iter([True, True])

    def token() -> str:
        if next(asked, False):
            raise OSError("vault")
        return "a"

    client, provider = made(token, "a", clock=clock)
    report = await client.start_many([1, 2, 3], concurrency=1).finish()
    assert (report.done, report.not_sent, provider.most) == (2, 1, 1)
    assert client._pacer is not text._pacer
    assert client.statistics().pace.in_flight == text.statistics().pace.in_flight == 0


@pytest.mark.parametrize("known", [False, True])
async def test_stop_ends_wait_for_token(known: bool) -> None:
    async def waits() -> ExpiringToken:
        if vault.asked:
            await asyncio.Event().wait()
        vault.asked += 1
        return ExpiringToken("a", expires_in=0)

    vault = Vault()
    vault.asked = 0 if known else 1
    client, provider = made(waits, "a")
    run = client.start_many([1, 2])
    finishing = asyncio.create_task(run.finish())
    for _ in range(50):
        await asyncio.sleep(0)
    run.stop()
    assert (await finishing).total == 0
    assert provider.requests == []


async def test_stop_ends_renewal() -> None:
    async def gives() -> str:
        if client._context.secret.generation:
            await asyncio.Event().wait()
        return "old"

    client, provider = made(gives)
    run = client.start_many([1, 2], concurrency=1)
    finishing = asyncio.create_task(run.finish())
    await until(lambda: client._context.renewal.is_under_way and bool(provider.requests))
    run.stop()
    assert (await finishing).rejected == 1
    assert (len(provider.requests), client.statistics().pace.in_flight) == (1, 0)


async def test_close_ends_wait_for_token() -> None:
    async def waits() -> str:
        return await asyncio.Event().wait() and ""

    client, _ = made(waits)
    starting = asyncio.create_task(client.start(1))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(RuntimeError, match="is closed"):
        await starting


async def test_vault_error_refuses_ledger(tmp_path: Path) -> None:
    async def fails() -> str:
        raise OSError("the vault is sealed")

    client, _ = made(fails)
    async with Ledger(tmp_path / "launch.db") as ledger:
        with pytest.raises(OSError, match="sealed"):
            await client.start_many([1], ledger=ledger, run="all").finish()


async def test_other_calls_wait_for_renewal() -> None:
    vault = Vault("old", "new")
    client, provider = made(vault, "new")
    await client._have_token()
    provider.takes = lambda played: 0.1 * len(played.seen)  # the refusals come one after another
    await asyncio.gather(*(client.start(number) for number in range(1, 4)))
    assert vault.asked == 2


async def test_ledger_claims_new_attempt(tmp_path: Path) -> None:
    client, provider = DirectClient(Vault("old", "new")), Provider(FakeClock(), "new")
    client._context.transport = provider  # type: ignore[assignment]
    async with Ledger(tmp_path / "launch.db") as ledger:
        report = await client.start_many([1, 2, 3], ledger=ledger, run="all").finish()
        assert report.done == (await ledger.counts("all")).done == 3
    assert len(provider.requests) == 4


async def test_new_attempt_has_own_id() -> None:
    clock, requests = FakeClock(), list[Request]()
    altcraft = AltcraftClient("https://altcraft.test", Vault("old", "new"), clock=clock)

    class Platform:
        async def send(self, request: Request, tracker: Any, **_: object) -> Response:
            tracker.sent = True
            requests.append(request)
            error = 401 if b'"old"' in (request.body or b"") else 0
            return Response(200, {"Content-Type": "application/json"}, b'{"data": {}, "error": %d}' % error)

    altcraft._context.transport = Platform()  # type: ignore[assignment]
    await altcraft.launch_broadcast(7)
    first, second = (request.headers["Request-ID"] for request in requests)
    assert first != second


async def test_doubt_changes_no_token() -> None:
    vault = Vault("old", "new")
    client, provider = made(vault, "new", retry=RetryPolicy(attempts=2))

    async def send(request: Request, tracker: Any, **_: object) -> Response | TransportFailure:
        tracker.sent = True
        provider.requests.append(request)
        if request.method == "GET":
            return refusal(4012, 401)
        return TransportFailure("no answer", sent=True)

    provider.send = send  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknownError):
        await client.start(1)
    reads = [request.headers["Authorization"] for request in provider.requests if request.method == "GET"]
    assert reads[:2] == ["Basic old", "Basic new"]


async def test_refusal_in_doubt_changes_nothing() -> None:
    vault = Vault("old", "new")
    client, provider = made(vault)

    async def send(request: Request, tracker: Any, **_: object) -> Response | TransportFailure:
        tracker.sent = True
        if request.method == "GET":
            return Response(200, {}, b'{"total": 1, "items": [{"dispatchId": 1, "status": "initiated"}]}')
        provider.requests.append(request)
        return refusal(4012, 401) if provider.requests[1:] else TransportFailure("no answer", sent=True)

    provider.send = send  # type: ignore[method-assign]
    with pytest.raises(BadCredentialsError):
        await client.start(1)
    assert [request.headers["Authorization"] for request in provider.requests] == ["Basic old", "Basic old"]
    assert vault.asked == 1


async def test_stop_by_callable_ends_renewal() -> None:
    async def gives() -> str:
        if client._context.secret.generation:
            run.stop()
            return "new"
        return "old"

    client, provider = made(gives, "new")
    run = client.start_many([1], concurrency=1)
    assert (await run.finish()).rejected == 1
    assert len(provider.requests) == 1


async def test_cancelled_renewal_is_refused() -> None:
    tokens = iter(["old"])

    async def gives() -> str:
        for token in tokens:
            return token
        return await asyncio.Event().wait() and ""

    client, provider = made(gives)
    await client._have_token()
    starting = asyncio.create_task(client.start(1))
    await until(lambda: bool(provider.requests))
    for _ in range(50):
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await starting
    assert "4012" in caught.value.__notes__[0]


async def test_silent_callable_is_given_up() -> None:
    async def waits() -> str:
        await asyncio.Event().wait()
        return ""

    client, _ = made(waits, timeout=0.01)
    with pytest.raises(NotSentError, match=r"no token within 0\.01 s"):
        await client.start(1)


async def test_call_timeout_bounds_callable() -> None:
    async def waits() -> str:
        await asyncio.Event().wait()
        return ""

    client, _ = made(waits, timeout=50.0)
    with pytest.raises(NotSentError, match=r"no token within 0\.01 s"):
        await client.start(1, timeout=0.01)


async def test_callable_takes_time_of_call() -> None:
    clock = FakeClock()

    async def slow() -> str:
        clock.advance(7.0)
        return "a"

    client, provider = made(slow, "a", clock=clock)
    with pytest.raises(NotSentError, match="only after 5 s"):
        await client.start(1, timeout=5.0)
    assert not provider.requests
    await client.start(1, timeout=5.0)  # the token is kept
    assert len(provider.requests) == 1


async def test_timeout_is_checked_before_callable() -> None:
    vault = Vault("a")
    client, _ = made(vault, "a")
    with pytest.raises(ValueError, match="timeout"):
        await client.start(1, timeout=-1.0)
    assert not vault.asked


async def test_callable_waits_not_for_itself() -> None:
    async def waits() -> str:
        await client.start(1)
        return ""

    client, _ = made(waits)
    with pytest.raises(RuntimeError, match="needs its own token"):
        await client.start(1)


async def test_account_has_one_pace() -> None:
    clock = FakeClock()
    text, _ = made("a", "a", clock=clock)
    first, _ = made(Vault("a"), "a", clock=clock, pace=Pace(rate=5))
    second, _ = made(give, "a", clock=clock)
    other, _ = made(Vault("b"), "b", clock=clock)
    run = second.start_many([1, 2])
    await first.start(1)
    await run.finish()
    await other.start(1)
    assert text._pacer is first._pacer is second._pacer is not other._pacer
    assert text.statistics().pace.started == 3
    assert text.statistics().pace.in_flight == 0


async def test_new_token_keeps_pace() -> None:
    clock = FakeClock()
    client, _ = made(Vault("old", "new"), "new", clock=clock)
    await client.start(1)
    later, _ = made("new", clock=clock)
    assert later._pacer is client._pacer


async def test_options_share_connections() -> None:
    client, provider = made("a", "a", timeout=50.0)
    derived = client.with_options(timeout=5.0)
    assert type(derived) is DirectClient
    await derived.start(1)
    assert len(provider.requests) == 1
    assert derived.statistics() == client.statistics()
    assert (derived._pacer, derived._timeout, client._timeout) == (client._pacer, 5.0, 50.0)
    await derived.close()
    await client.start(2)
    await client.close()
    with pytest.raises(RuntimeError, match="is closed"):
        await derived.start(3)
    with pytest.raises(ValueError, match="timeout"):
        client.with_options(timeout=-1)


def test_expiring_token_is_hidden() -> None:
    token = ExpiringToken("c2VjcmV0", expires_in=60)
    assert "c2VjcmV0" not in repr(token) + str(token)
    for copies in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="not pickled"):
            copies(token)
    for wrong in (-1, float("nan"), "60", True):
        with pytest.raises((TypeError, ValueError), match="expires_in must be a number"):
            ExpiringToken("c2VjcmV0", expires_in=wrong)  # type: ignore[arg-type]


async def test_refusals_of_others_are_final() -> None:
    vault = Vault("a")
    client, provider = made(vault, "a")
    provider.says = lambda *_: refusal(4040, 404)
    with pytest.raises(RejectedError):
        await client.start(1)
    assert (vault.asked, len(provider.requests)) == (1, 1)

"""A token that rotates changes no byte of a call that may be repeated: its request is built once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from dispatchkit import AltcraftClient, DirectClient, DispatchkitError, ExpiringToken, State
from dispatchkit.altcraft.codec import WireForm
from dispatchkit.errors import BadCredentialsError
from tests.core.call.test_settling import (
    LOST,
    REPLAYED,
    STARTED,
    UNSENT,
    Clock,
    Reply,
    ScriptedTransport,
    log,
    refused,
    response,
    status,
)
from tests.wire import Instant, Listener, http

FORMS: list[WireForm] = ["json", "xml"]
UNAUTHORIZED = refused(4012, 401)
DENIED = response(200, {"data": None, "error": 401, "error_text": "token required"})
SAID = {
    "json": (b'{"error": 500}', b'{"data": [], "error": 0}', b'{"error": 0}'),
    "xml": (b"<xml><error>500</error></xml>", b"<xml><data/><error>0</error></xml>", b"<xml><error>0</error></xml>"),
}


def rotating() -> Callable[[], ExpiringToken]:
    numbers = itertools.count(1)
    return lambda: ExpiringToken(f"token-{next(numbers)}", expires_in=0)


async def outcome(
    client: DirectClient | AltcraftClient, script: ScriptedTransport
) -> tuple[State, DispatchkitError | None]:
    client._context.transport = script  # type: ignore[assignment]
    try:
        await (client.start(7) if isinstance(client, DirectClient) else client.launch_broadcast(7))
    except DispatchkitError as error:
        return error.state, error
    return State.DONE, None


@pytest.mark.parametrize("form", FORMS)
async def test_altcraft_attempts_send_same_bytes(form: WireForm) -> None:
    failed, _, done = SAID[form]
    script = [http(200, failed), http(200, done)]
    async with (
        Listener(*script) as listener,
        AltcraftClient(listener.url, rotating(), wire=form, clock=Instant(), deduplicates=True) as altcraft,
    ):
        await altcraft.launch_broadcast(9, content={"a": 1})
    first, *repeats = [request for request in listener.requests if "broadcasts/start" in request.line]
    assert repeats == [first]
    assert b"token-1" in first


@pytest.mark.parametrize("form", FORMS)
async def test_altcraft_probe_uses_new_token(form: WireForm) -> None:
    failed, nothing, _ = SAID[form]
    dated = {"Date": format_datetime(datetime.now(UTC), usegmt=True)}
    script = [http(200, failed), *[http(200, nothing, **dated)] * 30]
    async with (
        Listener(*script) as listener,
        AltcraftClient(listener.url, rotating(), wire=form, clock=Instant()) as altcraft,
    ):
        with pytest.raises(DispatchkitError):
            await altcraft.launch_broadcast(9)
    reads = [request for request in listener.requests if "log_v2" in request.line]
    assert [b"token-2" in reads[0], b"token-3" in reads[1]] == [True, True]


async def test_direct_attempts_send_same_bytes() -> None:
    initiated = http(200, {"total": 1, "items": [{"dispatchId": 7, "status": "initiated"}]})
    script = [http(502), *[initiated] * 30]
    async with (
        Listener(*script) as listener,
        DirectClient(rotating(), base_url=listener.url, clock=Instant()) as direct,
    ):
        with pytest.raises(DispatchkitError):
            await direct.start(7)
    first, *repeats = [request for request in listener.requests if request.startswith(b"POST")]
    assert repeats
    assert set(repeats) == {first}
    assert first.headers["Authorization"] == "Basic token-1"
    reads = [request.headers["Authorization"] for request in listener.requests if request.startswith(b"GET")]
    assert len(set(reads)) == len(reads) > 3


@pytest.mark.parametrize("form", FORMS)
async def test_unsent_attempt_keeps_token(form: WireForm) -> None:
    clock = Clock()
    script = ScriptedTransport(clock, [UNSENT, UNSENT, response(500)], [response(500)])
    client = AltcraftClient("https://altcraft.test", rotating(), wire=form, clock=clock, deduplicates=True)
    await outcome(client, script)
    assert len({request.body for _, request in script.sent}) == 1


# Of the first attempt nothing is known. Its repeat is refused, perhaps since the token has rotated meanwhile.
@pytest.mark.parametrize(
    ("reads", "expected"),
    [
        ([status("initiated")] * 40, State.REJECTED),
        ([*[status("initiated")] * 12, status("sending")], State.DONE),
        ([*[status("initiated")] * 12, UNAUTHORIZED], State.UNKNOWN),
        ([*[status("initiated")] * 12, response(502)], State.UNKNOWN),
    ],
)
async def test_state_decides_repeated_401(reads: list[Reply], expected: State) -> None:
    clock = Clock()
    script = ScriptedTransport(clock, [LOST, UNAUTHORIZED], list(reads))
    state, error = await outcome(DirectClient(rotating(), clock=clock), script)
    assert state is expected
    assert len(script.sent) == 2
    assert isinstance(error, BadCredentialsError) == (expected is State.REJECTED)


@pytest.mark.parametrize(
    ("reads", "expected"),
    [([log()], State.UNKNOWN), ([log(), DENIED], State.UNKNOWN), ([log(), response(500)], State.UNKNOWN)],
)
async def test_repeated_launch_401_is_unknown(reads: list[Reply], expected: State) -> None:
    clock = Clock()
    script = ScriptedTransport(clock, [LOST, DENIED], list(reads))
    client = AltcraftClient("https://altcraft.test", rotating(), clock=clock, deduplicates=True)
    assert (await outcome(client, script))[0] is expected
    assert len(script.sent) == 2


async def test_new_call_uses_new_token() -> None:
    clock = Clock()
    script = ScriptedTransport(clock, [STARTED], [status("sending")])
    client = DirectClient(rotating(), clock=clock)
    for _ in range(2):
        await outcome(client, script)
    assert [request.headers["Authorization"] for _, request in script.sent] == ["Basic token-1", "Basic token-2"]
    replay = ScriptedTransport(clock, [REPLAYED], [log()])
    platform = AltcraftClient("https://altcraft.test", rotating(), clock=clock)
    for _ in range(2):
        await outcome(platform, replay)
    assert [b"token-1" in (replay.sent[0][1].body or b""), b"token-2" in (replay.sent[1][1].body or b"")] == [True] * 2

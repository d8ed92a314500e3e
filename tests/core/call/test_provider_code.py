"""What a provider's own code raises hides no outcome, and ends no fan-out."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from dispatchkit import FanOut, OutcomeUnknownError, RetryPolicy, StartDispatch, State, ThrottledError
from dispatchkit.core.command import Command
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.testing.clock import START
from tests.harness import played

RAISED = [KeyError, asyncio.CancelledError]
ONCE = RetryPolicy(repeat_unclear=False)
FOREVER = (datetime(9999, 12, 31, tzinfo=UTC) - START).total_seconds()


@attrs.frozen
class Start(StartDispatch):
    """A command of a provider whose code a test breaks."""


def broken(method: str, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> Start:
    """A command of the id 1, whose method raises, as no other command's does."""
    real: Any = getattr(Start, method)

    def raises(self: Start, *given: object) -> object:
        if self.dispatch_id == 1:
            raise raised("mine")
        return real(self, *given)

    monkeypatch.setattr(Start, method, raises)
    return Start(1)


@pytest.mark.parametrize("raised", RAISED)
async def test_raising_hint_keeps_outcome(raised: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    command = broken("unknown_hint", raised, monkeypatch)
    client, _ = played(says=lambda *_: TransportFailure("reset", sent=True), retry=ONCE)
    with pytest.raises(OutcomeUnknownError, match="reset") as caught:
        await client.perform(command)
    assert caught.value.hint.startswith(OutcomeUnknownError.hint)
    assert len(caught.value.attempts) == 1


async def test_other_typed_hint_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Start, "unknown_hint", lambda *_: 5)
    client, _ = played(says=lambda *_: TransportFailure("reset", sent=True), retry=ONCE)
    with pytest.raises(OutcomeUnknownError) as caught:
        await client.perform(Start(1))
    assert caught.value.hint.startswith(OutcomeUnknownError.hint)


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [
        (math.inf, FOREVER),
        (1e300, FOREVER),
        (10**400, FOREVER),
        (-5, 0.0),
        (7, 7.0),
        (None, None),
        (math.nan, None),
        ("soon", None),
        (True, None),
    ],
)
async def test_any_retry_after_is_rejected(wait: Any, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> object:
        raise ThrottledError("slow down", status=403, retry_after=wait)

    monkeypatch.setattr(Start, "result", raises)
    client, _ = played(retry=RetryPolicy(attempts=1), takes=lambda _: 0.0)
    with pytest.raises(ThrottledError) as caught:
        await client.perform(Start(1))
    assert caught.value.retry_after == seconds
    assert type(caught.value.retry_after) is type(seconds)
    assert client.statistics().pace.paused_for == {None: 2.0, 0.0: 0.0, 7.0: 7.0}.get(seconds, 3600)


async def test_result_that_cancels_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    command = broken("result", asyncio.CancelledError, monkeypatch)
    monkeypatch.setattr(Start, "probe", lambda *_: None)
    client, _ = played(retry=ONCE)
    with pytest.raises(OutcomeUnknownError, match="CancelledError was raised"):
        await client.perform(command)


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize(
    ("method", "state"),
    [
        ("result", State.UNKNOWN),
        ("probe", State.UNKNOWN),
        ("unknown_hint", State.UNKNOWN),
    ],
)
async def test_raising_code_ends_nothing(
    method: str, state: State, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = broken(method, raised, monkeypatch)
    if method == "unknown_hint":
        monkeypatch.setattr(Start, "probe", lambda *_: None)
    lost = method in {"probe", "unknown_hint"}
    client, _ = played(
        says=lambda scene, _: TransportFailure("reset", sent=True) if lost and len(scene.seen) == 1 else None,
        retry=ONCE,
    )
    commands: list[Command[Any, Any]] = [first, Start(2), Start(3)]
    run = FanOut(client, commands, concurrency=1)
    states = {outcome.target: outcome.state async for outcome in run}
    assert states == {1: state, 2: State.DONE, 3: State.DONE}
    assert run.stop_reason is None


async def test_cancelled_task_still_ends() -> None:
    client, _ = played()
    call = asyncio.create_task(client.perform(Start(1)))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

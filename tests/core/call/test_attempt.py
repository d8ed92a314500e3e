"""One attempt for all: decisions exist only after a failure, and no attempt keeps its permit."""

from __future__ import annotations

import pytest

from dispatchkit import FanOut, NotSentError, RetryPolicy, StartDispatch
from dispatchkit.core.call.attempt import attempt
from dispatchkit.core.call.call import Call
from dispatchkit.core.call.call_state import Failed
from dispatchkit.core.transport.transport import TransportFailure
from tests.harness import played, starts

UNSENT = TransportFailure("no connection", sent=False)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The calls that were made."""
    calls: list[object] = []
    real = Call.__init__

    def record(self: Call[object, object], flight: object) -> None:
        calls.append(flight)
        real(self, flight)  # type: ignore[arg-type]

    monkeypatch.setattr(Call, "__init__", record)
    return calls


async def test_success_makes_no_call(made: list[object]) -> None:
    client, _ = played()
    assert (await client.start(1)).dispatch_id == 1
    assert (await FanOut(client, starts(range(1, 20)), concurrency=4).finish()).done == 19
    assert made == []


async def test_failure_makes_one_call(made: list[object]) -> None:
    client, transport = played(says=lambda *_: UNSENT, retry=RetryPolicy(attempts=3))
    with pytest.raises(NotSentError):
        await client.start(1)
    assert len(transport.seen) == 3
    assert len(made) == 1


@pytest.mark.parametrize("fails", [False, True])
async def test_attempt_returns_its_permit(fails: bool) -> None:
    client, _ = played(says=lambda *_: UNSENT) if fails else played()
    flight = client._call(StartDispatch(7))
    flight.deadline = client._clock.monotonic() + 60.0
    ended = await attempt(flight)
    assert isinstance(ended, Failed) is fails
    assert (flight.permit, flight.tracker, len(flight.attempts)) == (0, None, 1)
    assert client.statistics().pace.in_flight == 0


@pytest.mark.parametrize("client_closed", [False, True])
async def test_own_close_opens_no_breaker(client_closed: bool) -> None:
    failure = TransportFailure("the client was closed", sent=False, client_closed=client_closed)
    client, _ = played(says=lambda *_: failure, retry=RetryPolicy(attempts=1))
    for number in range(1, 65):
        with pytest.raises(NotSentError):
            await client.start(number)
    assert (client.statistics().pace.pauses == 0) is client_closed

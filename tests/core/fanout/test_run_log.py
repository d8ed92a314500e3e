"""A run's log stays short, and its records say which run and which command they are about."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import DirectClient, Ledger, NotFoundError, RetryPolicy
from dispatchkit.core.call.run_log import FIRST, INTERVAL, RunLog
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.sandbox import Fault, Sandbox
from dispatchkit.testing import FakeClock
from tests.harness import hide_state, played, refusal

KIND = "rejected (NotFoundError)"


def records(caplog: pytest.LogCaptureFixture, level: int) -> list[Any]:
    return [record for record in caplog.records if record.levelno == level]


async def test_many_refusals_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    client, _ = played(says=lambda *_: refusal(4040, 404))
    with caplog.at_level(logging.DEBUG, "dispatchkit"):
        report = await client.start_many(range(1, 1001)).finish()
    assert report.rejected == 1000
    told = [record.getMessage() for record in records(caplog, logging.INFO)]
    assert len(told) == FIRST + 2
    assert told[FIRST] == "more calls end like these: each is logged at DEBUG, and counted every 60 s"
    assert told[-1] == f"also: 990 {KIND}"
    assert len(records(caplog, logging.DEBUG)) == 990
    every = [*records(caplog, logging.INFO), *records(caplog, logging.DEBUG)]
    assert sorted(record.index for record in every if record.index is not None) == list(range(1000))


async def test_commands_without_call_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    client, _ = played()
    with caplog.at_level(logging.INFO, "dispatchkit"):
        report = await client.start_many([1, *range(-99, 1)]).finish()
    assert (report.done, report.not_sent) == (1, 100)
    told = records(caplog, logging.INFO)
    assert len(told) == FIRST + 2
    assert told[0].getMessage().startswith("a command that could not be built: dispatch_id must be ")
    assert (told[0].run, told[0].index, told[0].attempt, told[0].outcome) == (None, 1, 0, "not_sent")
    assert told[-1].getMessage() == "also: 90 not_sent (NotSentError)"


async def test_closed_client_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    client, _ = played()
    run = client.start_many(range(1, 101))
    with caplog.at_level(logging.INFO, "dispatchkit"):
        await run.batch()
        await client.close()
        report = await run.finish()
    assert report.not_sent
    assert f"also: {report.not_sent - FIRST} not_sent (NotSentError)" in caplog.messages


async def test_failed_token_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def token() -> str:
        raise OSError("the vault is sealed")

    client = DirectClient(token)
    with caplog.at_level(logging.INFO, "dispatchkit"):
        assert (await client.start_many([7, 8]).finish()).not_sent == 2
    assert caplog.messages == [f"StartDispatch(dispatch_id={each}): the vault is sealed" for each in (7, 8)]
    await client.close()


async def test_silent_logger_costs_no_counts(caplog: pytest.LogCaptureFixture) -> None:
    client, _ = played(says=lambda *_: refusal(4040, 404))
    with caplog.at_level(logging.WARNING, "dispatchkit"):
        await client.start_many(range(1, 101)).finish()
    assert caplog.records == []


def test_counts_come_every_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock(jumps=False)
    run_log = RunLog("friday", clock)
    with caplog.at_level(logging.INFO, "dispatchkit"):
        levels = [run_log.level(KIND) for _ in range(FIRST + 5)]
        assert levels == [logging.INFO] * FIRST + [logging.DEBUG] * 5
        assert run_log.level("retries and state reads") == logging.INFO
        clock.advance(INTERVAL)
        run_log.level(KIND)
        run_log.count()
        assert run_log.level(KIND) == logging.DEBUG
        run_log.count()
        run_log.count()
    assert [record.getMessage() for record in caplog.records] == [
        "run 'friday': more calls end like these: each is logged at DEBUG, and counted every 60 s",
        f"run 'friday': also: 6 {KIND}",
        f"run 'friday': also: 1 {KIND}",
    ]
    assert {(record.run, record.index) for record in records(caplog, logging.INFO)} == {("friday", None)}


def test_failing_clock_costs_counts_only(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    run_log = RunLog(None, clock)
    monkeypatch.setattr(clock, "monotonic", lambda: 1 / 0)
    with caplog.at_level(logging.INFO, "dispatchkit"):
        assert [run_log.level(KIND) for _ in range(FIRST + 1)][-1] == logging.DEBUG


async def test_every_unknown_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    client, transport = played(
        says=lambda *_: TransportFailure("cut", sent=True), retry=RetryPolicy(attempts=1, repeat_unclear=False)
    )
    hide_state(transport)
    with caplog.at_level(logging.INFO, "dispatchkit"):
        report = await client.start_many(range(1, 31), timeout=5).finish()
    assert report.unknown == 30
    assert len(records(caplog, logging.WARNING)) == 30
    retries = [record for record in records(caplog, logging.INFO) if record.index is not None]
    assert len(retries) == FIRST


async def test_records_name_their_run(sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        Ledger(tmp_path / "launch.db") as ledger,
        DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct,
    ):
        with caplog.at_level(logging.INFO, "dispatchkit"):
            guards: dict[str, Any] = {"concurrency": 1, "stop_after_failures": 1}
            await direct.start_many([1, 1, 100001, 2, 3], ledger=ledger, run="friday", **guards).finish()
    told: list[Any] = [record for record in caplog.records if hasattr(record, "run")]
    repeat, refused, early = told
    assert {record.run for record in told} == {"friday"}
    assert (repeat.index, refused.index, early.index) == (None, 1, None)
    assert refused.getMessage().startswith("StartDispatch(dispatch_id=100001) (run 'friday'): ")
    assert early.getMessage().startswith("the run 'friday' ends early: 1 failure (stop_after_failures=1)")


async def test_single_calls_are_always_logged(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        with caplog.at_level(logging.INFO, "dispatchkit"):
            for _ in range(FIRST + 2):
                with pytest.raises(NotFoundError):
                    await direct.start(100001)
    told = records(caplog, logging.INFO)
    assert len(told) == FIRST + 2
    assert {(record.run, record.index) for record in told} == {(None, None)}
    assert told[0].getMessage().startswith("StartDispatch(dispatch_id=100001): ")


async def test_broken_handler_ends_no_run(sandbox: Sandbox) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ZeroDivisionError

    handler = Broken(logging.INFO)
    logger = logging.getLogger("dispatchkit")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    sandbox.order(Fault.http(404, b'{"error": {"code": 4040, "msg": "gone"}}'))
    try:
        async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
            run = direct.start_many(range(1, 11), stop_after_failures=1)
            report = await run.finish()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert run.stop_reason is not None
    assert run.stop_reason.kind == "stop_after_failures"
    assert report.rejected == 1

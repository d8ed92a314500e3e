"""A run that was cut short never looks complete: its cause is raised, and the report counts the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import (
    DirectClient,
    ExpiringToken,
    FanOut,
    Ledger,
    NotSentError,
    OutcomeUnknownError,
    Report,
    StartDispatch,
    State,
)
from dispatchkit.core.call import attempt as attempt_module
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.core.invalid_command import build_commands
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.errors import LedgerError
from tests.core.fanout.test_journal import FakeJournal, with_journal
from tests.harness import played, starts, until


class Abort(BaseException):
    pass


ENDS = [Abort, GeneratorExit, KeyboardInterrupt, SystemExit]
KINDS = ["list", "iterator", "async iterator", "class", "async class"]


class Listed:
    """A sequence of 20 whose fifth element cannot be read."""

    def __init__(self, raised: BaseException) -> None:
        self.raised = raised

    def __len__(self) -> int:
        return 20

    def __iter__(self) -> Iterator[int]:
        yield from range(1, 5)
        raise self.raised


class Plain:
    """An iterator that is no generator: what it raises is not changed on the way."""

    def __init__(self, raised: BaseException) -> None:
        self.raised = raised
        self.number = 0

    def __iter__(self) -> Plain:
        return self

    def __next__(self) -> int:
        self.number += 1
        if self.number == 5:
            raise self.raised
        return self.number


class Asynchronous:
    def __init__(self, raised: BaseException) -> None:
        self.plain = Plain(raised)

    def __aiter__(self) -> Asynchronous:
        return self

    async def __anext__(self) -> int:
        await asyncio.sleep(0)
        return self.plain.__next__()


def ids(kind: str, raised: BaseException) -> Any:
    async def agen() -> AsyncIterator[int]:
        for number in Listed(raised):
            yield number

    makes: dict[str, Callable[[], Any]] = {
        "list": lambda: Listed(raised),
        "iterator": lambda: iter(Listed(raised)),
        "async iterator": agen,
        "class": lambda: iter(Plain(raised)),
        "async class": lambda: Asynchronous(raised),
    }
    return makes[kind]()


async def ended(run: FanOut[Any], *, iterating: bool = False) -> tuple[BaseException | None, list[Outcome[Any]]]:
    """What a run ends with, and the outcomes before. Nothing that the task raises goes to the loop."""
    outcomes: list[Outcome[Any]] = []
    try:
        if iterating:
            async for outcome in run:
                outcomes.append(outcome)  # noqa: PERF401 - what came before the error is kept
        else:
            await run.finish()
    except BaseException as error:  # noqa: BLE001 - whatever it is
        return error, outcomes
    return None, outcomes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("iterating", [False, True], ids=["finish", "loop"])
async def test_iterator_error_ends_run(kind: str, end: type[BaseException], iterating: bool) -> None:
    raised = end("mine")
    client, transport = played()
    run = client.start_many(ids(kind, raised), concurrency=2)
    error, outcomes = await ended(run, iterating=iterating)
    assert error is raised
    assert run.report == Report(done=4, not_started=16 if kind == "list" else None)
    assert len(outcomes) == (4 if iterating else 0)
    assert transport.in_flight == 0, "what was in flight has come to its outcome"
    assert client.statistics().pace.in_flight == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("iterating", [False, True], ids=["finish", "loop"])
async def test_foreign_stop_iteration_is_raised(kind: str, end: type[Exception], iterating: bool) -> None:
    if (kind, end) in {("class", StopIteration), ("async class", StopAsyncIteration)}:
        pytest.skip("that is how it says that it is at its end")
    client, _ = played()
    run = client.start_many(ids(kind, end()), concurrency=2)
    error, _ = await ended(run, iterating=iterating)
    assert isinstance(error, RuntimeError)
    assert run.report.done == 4


async def test_id_raising_stop_iteration() -> None:
    def build(number: int) -> StartDispatch:
        if number == 3:
            raise StopIteration
        return StartDispatch(number)

    client, _ = played()
    run = FanOut(client, build_commands([1, 2, 3, 4], build), concurrency=1)
    error, _ = await ended(run)
    assert isinstance(error, RuntimeError)
    assert run.report == Report(done=2, not_started=2)


async def test_growing_list_never_counts_negative() -> None:
    commands = list(starts(range(1, 4)))
    client, _ = played()
    run = FanOut(client, commands, concurrency=1)
    async for outcome in run:
        if outcome.index == 0:
            commands.append(StartDispatch(4))  # noqa: PERF401 - while it is read
    assert run.report == Report(done=4, not_started=0)


@pytest.mark.parametrize("iterating", [False, True], ids=["finish", "loop"])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_iterator_cancelling_its_task(asynchronous: bool, iterating: bool) -> None:
    def source() -> Iterator[int]:
        for number in range(1, 21):
            if number == 5:
                asyncio.current_task().cancel()  # type: ignore[union-attr]
            yield number

    async def asource() -> AsyncIterator[int]:
        for number in source():
            await asyncio.sleep(0)
            yield number

    client, transport = played()
    run = client.start_many(asource() if asynchronous else source(), concurrency=2)
    error, _ = await ended(run, iterating=iterating)
    assert isinstance(error, RuntimeError)
    assert run.report.not_started is None
    assert run.report.total >= len(transport.seen)


async def test_cancelled_workers_leave_run_incomplete() -> None:
    client, _ = played(takes=lambda _: 50)
    run = client.start_many(list(range(1, 21)), concurrency=4)
    mine = asyncio.current_task()
    running = asyncio.create_task(ended(run))
    await until(lambda: run.in_flight == 4)
    for task in asyncio.all_tasks() - {mine, running}:
        if "_work" in repr(task.get_coro()):
            task.cancel()
    error, _ = await running
    assert isinstance(error, RuntimeError)
    assert run.report == Report(unknown=4, not_started=16)


@pytest.mark.usefixtures("no_ramp")
@pytest.mark.parametrize("end", [*ENDS, asyncio.CancelledError])
async def test_token_exit_ends_run(end: type[BaseException]) -> None:
    raised = end("mine")
    asked = iter(range(2))  # the run asks once, and two workers share the second time

    def token() -> ExpiringToken:
        if next(asked, None) is None:
            raise raised
        return ExpiringToken("t", expires_in=0)

    client, _ = played(token=token)  # type: ignore[arg-type]
    run = client.start_many(list(range(1, 11)), concurrency=2)
    error, _ = await ended(run)
    assert error is raised or (end is asyncio.CancelledError and isinstance(error, RuntimeError))
    assert run.report == Report(done=2, not_started=8)


@pytest.mark.parametrize("end", ENDS)
def test_event_loop_stays_clean(end: type[BaseException], capfd: pytest.CaptureFixture[str]) -> None:
    """A run in a program of its own: it ends by what the iterator raised, without another word."""
    report: Report | None = None

    async def main() -> None:
        nonlocal report
        client, _ = played()
        run = client.start_many(ids("list", end("mine")), concurrency=2)
        try:
            await run.finish()
        finally:
            report = run.report

    with pytest.raises(end):
        asyncio.run(main())
    assert report == Report(done=4, not_started=16)
    assert capfd.readouterr().err == ""


async def test_second_interrupt_reaches_loop() -> None:
    raised = KeyboardInterrupt("second")

    class Twice:
        def __init__(self) -> None:
            self.numbers = iter(range(1, 4))

        def __iter__(self) -> Twice:
            return self

        def __next__(self) -> StartDispatch:
            number = next(self.numbers)
            if number == 3:
                run.stop()
                raise raised
            return StartDispatch(number)

    client, _ = played()
    run = FanOut(client, Twice(), concurrency=1)
    seen: list[object] = []

    def drive() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _, context: seen.append(context))
        try:
            loop.run_until_complete(run.finish())
        except KeyboardInterrupt as error:
            seen.append(error)
            loop.run_until_complete(run.close())
        loop.close()

    await asyncio.to_thread(drive)
    assert seen == [raised]
    assert run.report.done == 2


async def test_closing_error_hides_no_cause() -> None:
    class Closes(Plain):
        def close(self) -> None:
            raise OSError("close")

    raised = Abort("mine")
    client, _ = played()
    run = FanOut(client, map(StartDispatch, ()), concurrency=1)
    run._commands = Closes(raised)  # type: ignore[assignment]
    run._source = run._pool._source = type(run._source)(None)  # type: ignore[call-arg]
    error, _ = await ended(run)
    assert error is raised


async def test_close_then_report() -> None:
    client, _ = played()
    run = client.start_many(list(range(1, 11)), concurrency=2)
    async for _ in run:
        break
    await run.close()
    assert run.report.not_started == 10 - run.report.total > 0
    run = client.start_many(list(range(1, 11)))
    await run.close()
    assert run.report == Report(not_started=10)


# Calls of the run


def breaks(monkeypatch: pytest.MonkeyPatch, raised: BaseException, *, at: int) -> None:
    real = attempt_module.classify  # type: ignore[attr-defined]

    def classify(command: Any, *more: Any) -> Any:
        if command == StartDispatch(at):
            raise raised
        return real(command, *more)

    monkeypatch.setattr(attempt_module, "classify", classify)


@pytest.mark.parametrize("error_type", [KeyError, MemoryError, RecursionError])
async def test_bug_is_one_outcome(error_type: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, error_type("mine"), at=3)
    client, notes = with_journal()
    run = FanOut(client, starts(range(1, 11)), concurrency=2, ledger=notes, run="friday")
    assert await run.finish() == Report(done=9, unknown=1, not_started=0)
    [recorded] = [outcome for outcome in notes.recorded if outcome.state is State.UNKNOWN]
    assert isinstance(recorded.error, OutcomeUnknownError)
    assert isinstance(recorded.error.__cause__, error_type)
    assert client.statistics().pace.in_flight == 0


@pytest.mark.parametrize("end", ENDS)
async def test_task_exit_keeps_its_outcome(end: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    raised = end("mine")
    breaks(monkeypatch, raised, at=3)
    client, notes = with_journal()
    run = FanOut(client, starts(range(1, 11)), concurrency=2, ledger=notes, run="friday")
    error, _ = await ended(run)
    assert error is raised
    assert run.report.unknown == 1
    assert run.report.not_started == 10 - run.report.total > 0
    assert len(notes.recorded) == run.report.total
    assert client.statistics().pace.in_flight == 0


async def test_interrupted_logging_keeps_done() -> None:
    class Raising(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            if "done after all" in record.getMessage():
                raise Abort
            return True

    handler, logger = Raising(), logging.getLogger("dispatchkit")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        client, _ = played(
            says=lambda s, _: TransportFailure("no connection", sent=False) if len(s.seen) == 1 else None
        )
        run = client.start_many([1, 2, 3], concurrency=1)
        error, _ = await ended(run)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert isinstance(error, Abort)
    assert run.report == Report(done=1, not_started=2)


async def test_token_error_is_one_outcome() -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise KeyError

    asked = iter([1, 2])

    def token() -> ExpiringToken:
        if next(asked, None) is None:
            raise OddError
        return ExpiringToken("t", expires_in=0)

    client, _ = played(token=token)  # type: ignore[arg-type]
    outcomes = [outcome async for outcome in client.start_many([1, 2], concurrency=1)]
    assert [outcome.state for outcome in outcomes] == [State.DONE, State.NOT_SENT]
    assert isinstance(outcomes[1].error, NotSentError)
    assert isinstance(outcomes[1].error.__cause__, OddError)


# With a ledger


async def test_journal_error_loses_no_outcome() -> None:
    class Full(FakeJournal):
        def record(self, *_: object) -> None:
            raise LedgerError("the disk is full")

    client, transport = played()
    notes = Full(transport)
    run = FanOut(client, list(starts(range(1, 11))), concurrency=1, ledger=notes, run="friday")
    error, _ = await ended(run)
    assert isinstance(error, LedgerError)
    assert run.report == Report(done=1, not_started=9)


@pytest.mark.parametrize("end", [*ENDS, asyncio.CancelledError, StopAsyncIteration])
@pytest.mark.parametrize("kind", KINDS)
async def test_truncated_plan_is_incomplete(kind: str, end: type[BaseException], tmp_path: Path) -> None:
    if (kind, end) == ("async class", StopAsyncIteration):
        pytest.skip("that is how it says that it is at its end")
    raised = end("mine")
    client = DirectClient("t", base_url="http://127.0.0.1:1")
    async with client, Ledger(tmp_path / "launch.db") as ledger:
        run = client.start_many(ids(kind, raised), ledger=ledger, run="friday")
        error, _ = await ended(run)
        if end in {asyncio.CancelledError, StopAsyncIteration}:
            assert type(error) is RuntimeError
        else:
            assert error is raised
        assert run.report == Report(not_started=20 if kind == "list" else None)
        again = FanOut(client, None, ledger=ledger, run="friday")
        with pytest.raises(LedgerError, match="is incomplete"):
            await again.finish()

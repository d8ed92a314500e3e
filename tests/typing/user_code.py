"""Code of a user, for the type checkers. It is never run.

A line that ends in ``# error`` must be an error for mypy and for pyright. No other line may be one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Unpack, assert_never, assert_type

from dispatchkit import (
    AltcraftClient,
    DirectClient,
    DirectOptions,
    Done,
    FanOut,
    FanOutOptions,
    Ledger,
    NotSent,
    NotSentError,
    Outcome,
    OutcomeUnknownError,
    Rejected,
    RejectedError,
    Report,
    StartDispatch,
    State,
    StopDispatch,
    Unknown,
    sync,
)
from dispatchkit.altcraft.models import MailingAccepted
from dispatchkit.direct.models import StartedDispatch
from dispatchkit.sync.client import SyncClient, blocking, blocking_many


def match_by_class(outcome: Outcome[StartedDispatch]) -> bool:
    match outcome:
        case Done(result=started):
            assert_type(started, StartedDispatch)
            return started.settled
        case Rejected(error=refusal):
            assert_type(refusal, RejectedError)
            return refusal.status == 403
        case NotSent() | Unknown():
            assert_type(outcome.error, NotSentError | OutcomeUnknownError)
            return False
        case _:
            assert_never(outcome)


def match_by_position(outcome: Outcome[StartedDispatch]) -> StartedDispatch | None:
    match outcome:
        case Done(started):
            return started
        case Rejected(error) | NotSent(error) | Unknown(error):
            print(error.summary, error.hint)
            return None


def one_case_is_missing(outcome: Outcome[StartedDispatch]) -> None:
    match outcome:
        case Done() | Rejected() | NotSent():
            pass
        case _:
            assert_never(outcome)  # error


def narrow_by_isinstance(outcome: Outcome[StartedDispatch]) -> StartedDispatch:
    if isinstance(outcome, Done):
        return outcome.result
    if isinstance(outcome, Rejected):
        print(outcome.error.status, outcome.error.code)
    elif isinstance(outcome, NotSent):
        assert_type(outcome.error, NotSentError)
    else:
        assert_type(outcome, Unknown)
        print(outcome.error.is_final)
    raise outcome.error


def narrow_by_state(outcome: Outcome[StartedDispatch]) -> int:
    if outcome.state is State.DONE:
        return outcome.result.dispatch_id
    if outcome.state is State.REJECTED:
        return outcome.error.status
    if outcome.state == State.NOT_SENT:
        assert_type(outcome, NotSent)
        return 0
    if outcome.state is State.UNKNOWN:
        return int(outcome.error.is_final)
    assert_never(outcome)


def narrow_by_error(outcome: Outcome[StartedDispatch]) -> StartedDispatch:
    if outcome.error is not None:
        raise outcome.error
    return outcome.result


def read_what_all_have(outcome: Outcome[object]) -> tuple[object, ...]:
    return outcome.index, outcome.target, outcome.command, outcome.state, outcome.attempts, outcome.request_id


def result_needs_narrowing(outcome: Outcome[StartedDispatch]) -> None:
    print(outcome.result)  # error
    print(outcome.error.summary)  # error
    if isinstance(outcome, Rejected):
        print(outcome.result)  # error
        print(outcome.error.is_final)  # error
    outcome.index = 1  # error


def result_has_its_type(outcome: Outcome[StartedDispatch]) -> None:
    if isinstance(outcome, Done):
        print(outcome.result.mailing_id)  # error


async def accept_token(ledger: Ledger, direct: DirectClient) -> None:
    await ledger.change_account("black-friday", direct)


async def take(fan_out: FanOut[StartedDispatch]) -> Report:
    async for outcome in fan_out:
        print(match_by_class(outcome))
    return await fan_out.finish()


async def take_any(fan_out: FanOut[object]) -> AsyncIterator[Outcome[object]]:
    async for outcome in fan_out:
        yield outcome


def take_blocking(fan_out: sync.FanOut[StartedDispatch]) -> Report:
    for outcome in fan_out:
        print(match_by_class(outcome))
    return fan_out.finish()


def take_any_blocking(fan_out: sync.FanOut[object]) -> Iterator[sync.Outcome[object]]:
    yield from fan_out


async def fan_outs(direct: DirectClient, altcraft: AltcraftClient) -> None:
    assert_type(direct.start_many([1]), FanOut[StartedDispatch])
    assert_type(direct.stop_many([1]), FanOut[None])
    assert_type(altcraft.activate_many([1]), FanOut[MailingAccepted])
    assert_type(altcraft.launch_many([1]), FanOut[MailingAccepted])
    assert_type(altcraft.launch_regular_many([1]), FanOut[MailingAccepted])
    assert_type(FanOut(direct, [StartDispatch(1)]), FanOut[StartedDispatch])
    await take(direct.start_many([1]))
    await take(FanOut(direct, map(StartDispatch, range(1, 10))))
    take_any(direct.stop_many([1]))
    await take(direct.stop_many([1]))  # error
    await take(altcraft.launch_many([1]))  # error
    FanOut(altcraft, [StartDispatch(1)])  # error
    async for stopped in direct.stop_many([1]):
        match_by_class(stopped)  # error


def blocking_fan_outs(direct: sync.DirectClient, altcraft: sync.AltcraftClient) -> None:
    assert_type(direct.start_many([1]), sync.FanOut[StartedDispatch])
    assert_type(sync.FanOut(direct, [StopDispatch(1)]), sync.FanOut[None])
    take_blocking(direct.start_many([1]))
    take_blocking(sync.FanOut(direct, map(StartDispatch, range(1, 10))))
    take_any_blocking(altcraft.launch_many([1]))
    take_blocking(direct.stop_many([1]))  # error
    sync.FanOut(altcraft, [StartDispatch(1)])  # error
    assert_type(direct.start(1), StartedDispatch)
    assert_type(direct.stop(1), None)


class Retail(DirectClient):
    def __init__(self, token: str, **options: Unpack[DirectOptions]) -> None:
        super().__init__(token, **options)

    def start_all(self, **options: Unpack[FanOutOptions]) -> FanOut[StartedDispatch]:
        return self.start_many(range(1, 101), **options)


class BlockingRetail(SyncClient[Retail]):
    start = blocking(Retail.start)
    start_all = blocking_many(Retail.start_all)


def own_blocking_client(retail: BlockingRetail) -> None:
    assert_type(retail.start(1, timeout=60), StartedDispatch)
    assert_type(retail.start_all(concurrency=8), sync.FanOut[StartedDispatch])
    retail.start("1")  # error


async def resume(direct: DirectClient, ledger: Ledger) -> Report:
    fan_out = FanOut[StartedDispatch](direct, None, ledger=ledger, run="black-friday")
    return await take(fan_out)


def options_have_their_types(direct: DirectClient, blocking: sync.DirectClient) -> None:
    direct.start_many([1], concurrency=8, grace_period=5, ledger=None, run=None, give_up_after=900.0)
    blocking.start_many([1], concurrency=8, grace_period=5)
    sync.FanOut(blocking, [StartDispatch(1)], concurrency=8, timeout=None)
    sync.AltcraftClient("https://example.com", wire="xml", deduplicates=True, timeout=60)
    Retail("token", base_url="http://127.0.0.1:8080", timeout=60).start_all(concurrency=8)
    direct.start_many([1], concurrency="8")  # error
    direct.start_many([1], concurency=8)  # error
    blocking.start_many([1], concurency=8)  # error
    FanOut(direct, [StartDispatch(1)], grace=5)  # error
    DirectClient("token", tiemout=60)  # error
    sync.DirectClient("token", timeout="60")  # error
    AltcraftClient("https://example.com", wire="yaml")  # error
    sync.AltcraftClient("https://example.com", base_uri="x")  # error

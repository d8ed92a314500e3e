"""Adding messages to a dispatch."""

from __future__ import annotations

import json
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dispatchkit import AddMessages, DirectClient, Ledger, Message, NotSent, RetryPolicy, sync
from dispatchkit.errors import (
    BadCredentialsError,
    InappropriateStatusError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
)
from dispatchkit.sandbox import Fault, Sandbox
from tests.wire import Listener, failure, http

KEY = "a2V5X2lkOnBhc3N3b3Jk"
QUICK = RetryPolicy.for_tests()
MARK = "79818269375"
TWO = [Message("79818269375", {"name": "Анна"}), Message("79818228228")]
SAMPLE = [
    {"destination": "79818269375", "messageUuid": "uuid"},
    {"destination": "79818228228", "errorCode": 7401},
]


def people(count: int) -> list[Message]:
    return [Message(str(79810000000 + number)) for number in range(count)]


async def test_batch_matches_documentation() -> None:
    async with Listener(http(200, SAMPLE)) as listener, DirectClient(KEY, base_url=listener.url) as direct:
        added = await direct.add_messages(10000000125, TWO)
    (request,) = listener.requests
    assert request.line == "POST /api/v1/dispatch/10000000125/messages HTTP/1.1"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Authorization"] == f"Basic {KEY}"
    assert json.loads(request.body) == [
        {"destination": "79818269375", "substitutions": {"name": "Анна"}},
        {"destination": "79818228228"},
    ]
    assert (added.dispatch_id, added.added, added.refused) == (10000000125, 1, 1)
    first, second = added.results
    assert (first.index, first.destination, first.message_uuid, first.error_code) == (0, "79818269375", "uuid", None)
    assert (second.index, second.error_code, second.is_added) == (1, 7401, False)


async def test_results_keep_given_order() -> None:
    async with Listener(http(200, SAMPLE[::-1])) as listener, DirectClient(KEY, base_url=listener.url) as direct:
        added = await direct.add_messages(7, TWO)
    assert [result.destination for result in added.results] == ["79818269375", "79818228228"]


@pytest.mark.parametrize(
    "answer",
    [
        [],
        SAMPLE[:1],
        [*SAMPLE, SAMPLE[0]],
        [SAMPLE[0], {"destination": "70000000000", "errorCode": 7401}],
        [SAMPLE[0], {"destination": "79818228228"}],
        [SAMPLE[0], {"destination": "79818228228", "errorCode": 7401, "messageUuid": "uuid"}],
        [SAMPLE[0], {"destination": "79818228228", "errorCode": "7401"}],
        [SAMPLE[0], "79818228228"],
        {"dispatchId": 7},
        {"items": SAMPLE},
        "",
        None,
    ],
)
async def test_incomplete_answer_is_unknown(answer: object) -> None:
    async with Listener(http(200, answer)) as listener, DirectClient(KEY, base_url=listener.url) as direct:
        error = await failure(direct.add_messages(7, TWO, retry=QUICK))
    assert isinstance(error, OutcomeUnknownError)
    assert len(listener.requests) == 1
    assert MARK not in f"{error!r}{error.hint}{error.to_dict()}"
    assert "may have been added" in error.hint
    assert "KeyError" not in error.summary


@pytest.mark.parametrize(
    "fault", [fault for fault in Fault.all() if fault.name not in {"slow", "throttled", "dropped", "silent"}]
)
async def test_unclear_batch_is_never_repeated(fault: Fault) -> None:
    async with (
        Sandbox() as sandbox,
        DirectClient(sandbox.direct_token, base_url=sandbox.url, retry=QUICK, timeout=5) as direct,
    ):
        sandbox.order(fault)
        assert isinstance(await failure(direct.add_messages(7, TWO)), OutcomeUnknownError)
        assert sandbox.requests == 1


async def test_batch_without_effect_is_repeated() -> None:
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url, retry=QUICK) as direct:
        sandbox.order(Fault.throttled(0))
        assert (await direct.add_messages(7, people(3))).added == 3
    assert [act.action for act in sandbox.acts] == ["add_messages"]


async def test_refusals_of_whole_batch() -> None:
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        await direct.start(7)
        started = await failure(direct.add_messages(7, TWO))
        assert isinstance(started, InappropriateStatusError)
        assert "once it was started" in started.hint
    async with Sandbox() as sandbox, DirectClient("d3Jvbmc6a2V5", base_url=sandbox.url) as direct:
        assert isinstance(await failure(direct.add_messages(7, TWO)), BadCredentialsError)
    assert not sandbox.acts


async def test_refusal_masks_destination_and_substitutions() -> None:
    answer = http(403, {"error": {"code": 4030, "msg": f"no {MARK}, dear Анна Каренина"}})
    async with Listener(answer) as listener, DirectClient(KEY, base_url=listener.url) as direct:
        error = await failure(direct.add_messages(7, [Message(MARK, {"name": "Анна Каренина"})]))
    assert isinstance(error, RejectedError)
    assert MARK not in str(error)
    assert "Каренина" not in str(error)


@pytest.mark.parametrize(
    ("messages", "kind", "text"),
    [
        ([], ValueError, "there are none"),
        ([*TWO, TWO[0]], ValueError, r"messages\[2\] has the destination of messages\[0\]"),
        ([*TWO, MARK], TypeError, r"messages\[2\] must be a Message"),
        (MARK, TypeError, "messages must be an iterable of Message, not str"),
        (TWO[0], TypeError, "messages must be an iterable of Message, not Message"),
        (7, TypeError, "messages must be an iterable of Message, not int"),
        (people(1001), ValueError, r"at most 1,000, one request: add_messages_many\(\)"),
    ],
)
async def test_invalid_batch_is_not_sent(messages: Any, kind: type[Exception], text: str) -> None:
    async with Listener(http(200, SAMPLE)) as listener, DirectClient(KEY, base_url=listener.url) as direct:
        with pytest.raises(kind, match=text) as caught:
            await direct.add_messages(7, messages)
    assert not listener.requests
    assert MARK not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ((79818269375,), TypeError, "destination must be text such as '79990001122', not int"),
        (("",), ValueError, "destination must be printable text"),
        ((" 798",), ValueError, "without blanks around it"),
        (("798\n",), ValueError, "destination must be printable text"),
        ((MARK, [MARK]), TypeError, "substitutions must be a JSON object"),
        ((MARK, {"name": {1}}), TypeError, "substitutions.name must be a JSON value, not set"),
        ((MARK, {"name": float("nan")}), ValueError, "substitutions.name must be a number that JSON can say"),
    ],
)
def test_invalid_message_is_refused(arguments: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        Message(*arguments)
    assert MARK not in str(caught.value)


def test_message_hides_its_content() -> None:
    message = Message(MARK, {"name": "Anna"})
    command = AddMessages(7, [message])
    for text in (repr(message), repr(command), str(message.to_dict()), str(command.to_dict())):
        assert MARK not in text
        assert "Anna" not in text
    assert message.to_dict() == {"destination_length": 11, "substitution_keys": ["name"]}
    given = {"name": "Anna"}
    copied = Message(MARK, given)
    given["name"] = "Olga"
    assert copied.substitutions == {"name": "Anna"}


async def test_many_messages_go_in_batches() -> None:
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        fan_out = direct.add_messages_many(people(25), dispatch_id=7, batch_size=10, concurrency=1)
        outcomes = [outcome async for outcome in fan_out]
    assert [outcome.state.value for outcome in outcomes] == ["done"] * 3
    indexes = [result.index for outcome in outcomes for result in outcome.result.results]  # type: ignore[union-attr]
    assert indexes == [*range(25)]
    assert len(sandbox.acts) == 3


async def test_stream_is_taken_lazily() -> None:
    taken = 0

    async def stream() -> AsyncIterator[Message]:
        nonlocal taken
        for message in people(100_000):
            taken += 1
            yield message

    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        fan_out = direct.add_messages_many(stream(), dispatch_id=7, batch_size=10, concurrency=2)
        async for _ in fan_out:
            if len(sandbox.acts) >= 5:
                fan_out.stop()
    assert taken < 200


async def test_bad_batch_is_not_sent() -> None:
    def stream() -> Iterator[Message]:
        yield from people(2)
        yield from (TWO[0], TWO[0])
        yield from people(1)

    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        fan_out = direct.add_messages_many(stream(), dispatch_id=7, batch_size=2, concurrency=1)
        outcomes = [outcome async for outcome in fan_out]
    assert [outcome.state.value for outcome in outcomes] == ["done", "not_sent", "done"]
    bad = outcomes[1]
    assert isinstance(bad, NotSent)
    assert isinstance(bad.error, NotSentError)
    assert "messages[3] has the destination of messages[2]" in bad.error.summary


@pytest.mark.parametrize(
    ("messages", "options", "text"),
    [
        ([*TWO, TWO[0]], {}, r"messages\[2\] has the destination of messages\[0\]"),
        ([1], {}, r"messages\[0\] must be a Message"),
        (people(1), {"dispatch_id": 0}, "dispatch_id must be a positive integer"),
        (people(1), {"batch_size": 0}, "batch_size must be an integer from 1 up"),
        (people(1), {"ledger": Ledger("x.db"), "run": "a"}, "ledger does not go with messages"),
        (people(1), {"run": "a"}, "run does not go with messages"),
        (people(1), {"expected": 1}, "expected does not go with messages"),
        (TWO[0], {}, "messages must be an iterable of Message"),
    ],
)
def test_bad_list_sends_nothing(messages: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        DirectClient(KEY).add_messages_many(messages, **{"dispatch_id": 7, **options})


def test_blocking_client_adds_messages() -> None:
    with Sandbox() as sandbox, sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        assert direct.add_messages(7, people(2)).added == 2
        fan_out = direct.add_messages_many(iter(people(25)), dispatch_id=7, batch_size=10)
        assert sum(outcome.result.added for outcome in fan_out if outcome.error is None) == 25  # type: ignore[union-attr]
    assert len(sandbox.acts) == 4


def test_ledger_holds_no_messages() -> None:
    from dispatchkit.ledger.codec import encode  # noqa: PLC0415

    with pytest.raises(TypeError, match="not AddMessages"):
        encode(AddMessages(7, TWO))

"""Which answers prove that nothing was done: every row is an answer in bytes and the outcome of a launch."""

from __future__ import annotations

from typing import Any

import pytest

from dispatchkit import AltcraftClient, DirectClient, State
from tests.wire import Listener, failure, http, once

REJECTED, UNKNOWN = State.REJECTED, State.UNKNOWN


def refusal(code: object, **more: object) -> dict[str, object]:
    return {"error": {"code": code, "msg": "no"}, **more}


def no(code: object, data: object = None) -> dict[str, object]:
    return {"data": data, "error": code, "error_text": "no"}


def xml(code: object, data: str = "") -> bytes:
    return f"<xml><data>{data}</data><error>{code}</error><error_text>no</error_text></xml>".encode()


DIRECT: list[tuple[int, object, State]] = [
    # The documented shape, with a code that means a refusal.
    (403, refusal(4031), REJECTED),
    (200, refusal(4031), REJECTED),
    (404, refusal(4040, dispatchId=None), REJECTED),
    (409, refusal(4090), REJECTED),
    (403, refusal(403), REJECTED),
    (400, refusal(7401), REJECTED),
    (421, refusal(4210), REJECTED),
    (429, refusal(4290), REJECTED),
    (429, b"", REJECTED),
    (429, b"<html>", REJECTED),
    (429, {"error": "slow down"}, REJECTED),
    # A code that cannot vouch.
    *((status, refusal(code), UNKNOWN) for status in (200, 400, 429) for code in (408, 499, 500, 502, 599)),
    *((200, refusal(code), UNKNOWN) for code in (5000, 5001, 5030, 5999, 4080, 4089, 4990, 4999)),
    *((200, refusal(code), UNKNOWN) for code in (0, -1, -4031, 100, 200, 202, 302, 2000, 2020, 3020)),
    *((403, refusal(code), UNKNOWN) for code in (True, False, None, "4031", 4031.0, [4031], {"code": 4031})),
    # A status that cannot vouch.
    *((status, refusal(4031), UNKNOWN) for status in (408, 499, 407, 500, 502, 503, 504, 599)),
    *((status, refusal(4031), UNKNOWN) for status in (201, 202, 203, 206, 300, 301, 302, 303, 307, 308)),
    (408, refusal(5000), UNKNOWN),
    (499, refusal(499), UNKNOWN),
    # A refusal beside a success, and a success in a status that denies it.
    (200, refusal(4040, dispatchId=7), UNKNOWN),
    (404, refusal(4040, dispatchId=7), UNKNOWN),
    (404, refusal(4040, dispatchId=8), UNKNOWN),
    (404, refusal(4040, items=[{"dispatchId": 7, "status": "sending"}], total=1), UNKNOWN),
    (200, refusal(0, dispatchId=7), UNKNOWN),
    (200, {"dispatchId": 7, "error": None}, UNKNOWN),
    (404, {"dispatchId": 7}, UNKNOWN),
    (429, {"dispatchId": 7}, UNKNOWN),
    (429, {"dispatchId": 7, "error": "slow down"}, UNKNOWN),
    (429, refusal(4290, dispatchId=7), UNKNOWN),
    # What another layer may have written.
    (401, {"error": "Unauthorized"}, UNKNOWN),
    (403, {"message": "Forbidden"}, UNKNOWN),
    (404, {"error": {"status": 404, "message": "no route"}}, UNKNOWN),
    (403, {"error": {"msg": "blocked"}}, UNKNOWN),
    (403, [refusal(4031)], UNKNOWN),
]

ALTCRAFT: list[tuple[int, object, State]] = [
    (200, no(400), REJECTED),
    (200, no(403, {}), REJECTED),
    (403, no(403, []), REJECTED),
    (200, no(440), REJECTED),
    (200, no(1), REJECTED),
    (400, no(601), REJECTED),
    (429, no(429), REJECTED),
    (429, b"<html>", REJECTED),
    *((status, no(code), UNKNOWN) for status in (200, 400, 429) for code in (408, 499, 500, 502, 504, 599)),
    *((200, no(code), UNKNOWN) for code in (-1, -400, 100, 200, 202, 302)),
    *((200, no(code), UNKNOWN) for code in (True, False, None, "400", 400.0, [400])),
    *((status, no(400), UNKNOWN) for status in (408, 499, 407, 500, 502, 503, 504, 599)),
    *((status, no(400), UNKNOWN) for status in (201, 202, 203, 206, 300, 301, 302, 307, 308)),
    (408, no(408), UNKNOWN),
    (499, no(499), UNKNOWN),
    # A refusal whose data is what a success brings.
    (200, no(400, {"error": 0, "error_text": "Successful operation"}), UNKNOWN),
    (400, no(400, {"launch_id": "5b7ffb3c0000005a65e1b2c3"}), UNKNOWN),
    (200, no(400, {"is_active": True}), UNKNOWN),
    (200, no(400, [7]), UNKNOWN),
    (200, no(400, "started"), UNKNOWN),
    *((status, no(0), UNKNOWN) for status in (201, 202, 302, 400, 404, 408, 429, 499, 500)),
    (401, {"error": "Unauthorized"}, UNKNOWN),
    (403, {"message": "Forbidden", "code": 403}, UNKNOWN),
    (404, {"data": None}, UNKNOWN),
]

XML: list[tuple[int, object, State]] = [
    (200, xml(400), REJECTED),
    (403, xml('"403"'), REJECTED),
    *((200, xml(code), UNKNOWN) for code in (408, 499, 500, 599, -1, 202, "true")),
    (200, xml(400, "<error>0</error>"), UNKNOWN),
    (200, xml(400, "<launch_id>5b7ffb3c</launch_id>"), UNKNOWN),
    (429, xml(0), UNKNOWN),
    (404, xml(0), UNKNOWN),
    (302, xml(400), UNKNOWN),
]


def rows(table: list[tuple[int, object, State]]) -> Any:
    return pytest.mark.parametrize(
        ("status", "body", "outcome"), table, ids=[f"{status} {body!r}"[:70] for status, body, _ in table]
    )


@rows(DIRECT)
async def test_direct_refusal_must_be_vouched(status: int, body: object, outcome: State) -> None:
    async with Listener(http(status, body)) as listener, DirectClient("k", base_url=listener.url, **once()) as direct:
        error = await failure(direct.start(7))
    assert error.state is outcome, error
    assert sum(request.startswith(b"POST") for request in listener.requests) == 1


@rows(ALTCRAFT)
async def test_altcraft_refusal_must_be_vouched(status: int, body: object, outcome: State) -> None:
    async with Listener(http(status, body)) as listener, AltcraftClient(listener.url, "t", **once()) as altcraft:
        error = await failure(altcraft.launch_broadcast(9))
    assert error.state is outcome, error
    assert sum("broadcasts/start" in request.line for request in listener.requests) == 1


@rows(XML)
async def test_xml_refusal_must_be_vouched(status: int, body: object, outcome: State) -> None:
    async with (
        Listener(http(status, body)) as listener,
        AltcraftClient(listener.url, "t", wire="xml", **once()) as altcraft,
    ):
        error = await failure(altcraft.launch_broadcast(9))
    assert error.state is outcome, error


async def test_failure_message_hides_token() -> None:
    body = {"data": None, "error": 500, "error_text": "Internal error for MARK-42"}
    async with Listener(http(200, body)) as listener, AltcraftClient(listener.url, "MARK-42", **once()) as altcraft:
        error = await failure(altcraft.launch_broadcast(9))
    assert error.summary.startswith("the answer proves nothing: HTTP 200, code 500: Internal error for ***;")

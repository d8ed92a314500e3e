"""Reading a mailing's status and log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from dispatchkit import AltcraftClient, MailingStatus
from dispatchkit.altcraft.codec import WireForm
from dispatchkit.errors import AccessDeniedError, IncorrectRequestError, ResponseLostError
from dispatchkit.sandbox import Fault, Sandbox
from tests.wire import Instant, Listener, failure, http, once

FORMS: list[WireForm] = ["json", "xml"]


def answer(data: object, **more: object) -> bytes:
    return http(200, {"data": data, "error": 0, "error_text": "Successful operation", **more})


@pytest.mark.parametrize("form", FORMS)
async def test_status_and_log_are_read(form: WireForm) -> None:
    async with Sandbox(mailings=[82, 83]) as sandbox:
        began = datetime.now(UTC) - timedelta(seconds=1)
        async with AltcraftClient(sandbox.url, sandbox.altcraft_token, wire=form) as altcraft:
            assert await altcraft.status(82) == MailingStatus(is_active=False, is_completed=False, status="Inactive")
            assert len(await altcraft.log(82)) == 0
            sandbox.altcraft.run_seconds = 0
            await altcraft.activate(82, run_now=True)
            assert (await altcraft.status(82)).is_active
            log = await altcraft.log(82)
            assert [entry.state for entry in log] == ["start", "end"]
            assert (log.total, log.missing) == (2, 0)
            assert all(entry.time >= began for entry in log)
            assert log == await altcraft.log(82, since=began)
            assert len(await altcraft.log(82, since=datetime.now(UTC) + timedelta(hours=1))) == 0
            first = await altcraft.log(82, limit=1)
            assert ([entry.state for entry in first], first.missing) == (["start"], 1)
            assert isinstance(await failure(altcraft.status(84)), IncorrectRequestError)
    assert [act.action for act in sandbox.acts] == ["launch"]


async def test_reads_match_documentation() -> None:
    status = answer({"is_active": True, "is_completed": None, "status": None, "new": 1})
    async with Listener(status, answer(None)) as listener, AltcraftClient(listener.url, "t") as altcraft:
        assert await altcraft.status(82) == MailingStatus(is_active=True)
        await altcraft.log(82)
        since = datetime(2026, 1, 31, 2, 30, 15, 999_999, tzinfo=timezone(timedelta(hours=3)))
        await altcraft.log(82, since=since, limit=5)
    assert [request.line for request in listener.requests] == [
        "POST /api/v1.1/campaigns/get_status HTTP/1.1",
        *["POST /api/v1.1/campaigns/log_v2 HTTP/1.1"] * 2,
    ]
    assert [json.loads(request.body) for request in listener.requests] == [
        {"token": "t", "id": 82},
        {"token": "t", "id": 82, "limit": 1000},
        {"token": "t", "id": 82, "from_time": "2026-01-30T23:30:15.999Z", "limit": 5},
    ]


@pytest.mark.parametrize(
    ("arguments", "error_type", "text"),
    [
        ({"mailing_id": 0}, ValueError, "mailing_id must be a positive integer"),
        ({"mailing_id": 1, "limit": 0}, ValueError, "limit must be a positive integer"),
        ({"mailing_id": 1, "since": "now"}, TypeError, "since must be a datetime"),
        ({"mailing_id": 1, "since": datetime(2026, 1, 1)}, ValueError, "since must say its zone"),
    ],
)
async def test_invalid_read_is_not_sent(arguments: dict[str, Any], error_type: type[Exception], text: str) -> None:
    async with Listener(answer(None)) as listener, AltcraftClient(listener.url, "t") as altcraft:
        with pytest.raises(error_type, match=text):
            await altcraft.log(**arguments)
    assert not listener.requests


@pytest.mark.parametrize("deduplicates", [True, False])
@pytest.mark.parametrize("form", FORMS)
async def test_read_retries_without_deduplication(form: WireForm, deduplicates: bool) -> None:
    async with Sandbox(mailings=[82]) as sandbox:
        settings: Any = {"wire": form, "deduplicates": deduplicates, "clock": Instant()}
        async with AltcraftClient(sandbox.url, sandbox.altcraft_token, **settings) as altcraft:
            sandbox.order(Fault.lost_answer(), times=2)
            assert not (await altcraft.status(82)).is_active
            sandbox.order(Fault.html(502, acts=False))
            assert len(await altcraft.log(82)) == 0
    assert sandbox.requests == 5


@pytest.mark.parametrize(
    "data", [None, [], {}, {"is_active": "yes"}, {"is_active": None}, {"status": "Active"}, [{"is_active": True}]]
)
async def test_invalid_status_is_unexpected_response(data: object) -> None:
    async with Listener(answer(data)) as listener, AltcraftClient(listener.url, "t", **once()) as altcraft:
        error = await failure(altcraft.status(82))
    assert isinstance(error, ResponseLostError)
    assert "nothing was changed" in str(error)


@pytest.mark.parametrize("data", ["x", 5, [5], [None], [{}], [{"state": "start"}], [{"state": 1, "time": "now"}]])
async def test_invalid_log_is_unexpected_response(data: object) -> None:
    async with Listener(answer(data)) as listener, AltcraftClient(listener.url, "t", **once()) as altcraft:
        assert isinstance(await failure(altcraft.log(82)), ResponseLostError)


@pytest.mark.parametrize("count", [None, "5", -1, 2.5, []])
async def test_invalid_count_hides_no_entry(count: object) -> None:
    entry = {"state": "start", "time": "2018-08-25T00:00:00.000Z"}
    async with Listener(answer([entry], total_count=count)) as listener, AltcraftClient(listener.url, "t") as altcraft:
        log = await altcraft.log(82)
    assert (len(log), log.missing) == (1, 0)


async def test_read_rejected_after_lost_response() -> None:
    refusal = http(200, {"data": None, "error": 403, "error_text": "No access"})
    async with Listener(http(500), refusal) as listener:  # noqa: SIM117
        async with AltcraftClient(listener.url, "t", clock=Instant()) as altcraft:
            assert type(await failure(altcraft.status(82))) is AccessDeniedError

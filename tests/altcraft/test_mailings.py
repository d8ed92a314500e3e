"""Reading mailings and the counters of audiences."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatchkit import AltcraftClient, Audience, AudienceCounts, Mailing, RetryPolicy, sync
from dispatchkit.altcraft.codec import WireForm
from dispatchkit.errors import IncorrectRequestError, ResponseLostError, TokenRequiredError
from dispatchkit.sandbox import Fault, Sandbox
from tests.wire import Listener, failure, http

FORMS: list[WireForm] = ["json", "xml"]
QUICK = RetryPolicy.for_tests()


def answer(data: object, **more: object) -> bytes:
    return http(200, {"data": data, "error": 0, "error_text": "Successful operation", **more})


@pytest.mark.parametrize("form", FORMS)
async def test_mailings_are_read_by_page(form: WireForm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatchkit.altcraft.read_methods.PAGE_SIZE", 10)
    async with Sandbox(mailings=range(1, 26), active=[3], regulars=[4, 5]) as sandbox:  # noqa: SIM117
        async with AltcraftClient(sandbox.url, sandbox.altcraft_token, wire=form) as altcraft:
            listing = await altcraft.mailings()
            assert [mailing.mailing_id for mailing in listing] == [*range(1, 26)]
            assert (listing.total, listing.missing, listing.received) == (25, 0, 25)
            assert sandbox.requests == 3
            first = await altcraft.mailings(limit=12)
            assert [mailing.mailing_id for mailing in first] == [*range(1, 13)]
            assert first.missing == 13
            assert [mailing.mailing_id for mailing in await altcraft.mailings(is_active=True)] == [3]
            assert [mailing.mailing_id for mailing in await altcraft.mailings(kind="regular")] == [4, 5]
            assert len(await altcraft.mailings(kind="broadcast", is_active=False)) == 22
            assert [mailing.mailing_id for mailing in await altcraft.mailings(mailing_type="regular")] == [4, 5]
            mailing = await altcraft.mailing(4, kind="regular")
            assert (mailing.name, mailing.type, mailing.is_active) == ("рассылка 4", "regular", False)
            assert mailing.update_time is not None
            assert isinstance(await failure(altcraft.mailing(3, kind="regular")), IncorrectRequestError)
            assert isinstance(await failure(altcraft.mailing(26)), IncorrectRequestError)
    assert not sandbox.acts


async def test_requests_match_documentation() -> None:
    sample = {"id": 82, "name": "a", "update_time": "2018-08-25T00:00:00Z", "new": 1}
    async with (
        Listener(*[answer([sample], total_count=1)] * 3, *[answer(sample)] * 3, *[answer([])] * 2) as listener,
        AltcraftClient(listener.url, "t") as altcraft,
    ):
        [mailing] = await altcraft.mailings()
        await altcraft.mailings(kind="broadcast", mailing_type="x", is_active=False, limit=5)
        await altcraft.mailings(kind="regular")
        await altcraft.mailing(82)
        await altcraft.mailing(82, kind="broadcast")
        await altcraft.mailing(82, kind="regular")
        await altcraft.counters(Audience("list", 1), resource_id=3)
        await altcraft.counters(Audience("segment", 5), list_id=1)
    assert mailing == Mailing(mailing_id=82, name="a", update_time=datetime(2018, 8, 25, tzinfo=UTC), extra={"new": 1})
    assert [
        request.line.removeprefix("POST /api/v1.1/").removesuffix(" HTTP/1.1") for request in listener.requests
    ] == [
        "campaigns/list",
        "campaigns/broadcasts/list",
        "campaigns/regulars/list/",
        "campaigns/get",
        "campaigns/broadcasts/get",
        "campaigns/regulars/get",
        "databases/get_counters",
        "segments/get_counters",
    ]
    assert [json.loads(request.body) for request in listener.requests] == [
        {"token": "t", "from_id": 1, "limit": 1000},
        {"token": "t", "from_id": 1, "limit": 5, "type": "x", "is_active": False},
        {"token": "t", "from_id": 1, "limit": 1000},
        *[{"token": "t", "id": 82}] * 3,
        {"token": "t", "id": 1, "resource_id": 3},
        {"token": "t", "id": 5, "list_id": 1},
    ]


async def test_keys_with_capitals_are_read() -> None:
    sample = {"Id": 82, "Name": "a", "IsActive": True, "Groups": [1], "type": "x", "Type": "y"}
    async with Listener(answer(sample)) as listener, AltcraftClient(listener.url, "t") as altcraft:
        mailing = await altcraft.mailing(82)
    assert (mailing.mailing_id, mailing.name, mailing.is_active, mailing.type) == (82, "a", True, "x")
    assert dict(mailing.extra) == {"Groups": [1], "Type": "y"}


async def test_single_xml_mailing_is_read() -> None:
    one = b"<xml><data><id>82</id><name>a</name></data><error>0</error><error_text/><total_count>1</total_count></xml>"
    none = b"<xml><data/><error>0</error><error_text/><total_count>0</total_count></xml>"
    async with (
        Listener(http(200, one), http(200, none)) as listener,
        AltcraftClient(listener.url, "t", wire="xml") as altcraft,
    ):
        assert [mailing.mailing_id for mailing in await altcraft.mailings()] == [82]
        assert len(await altcraft.mailings()) == 0


@pytest.mark.parametrize("data", [None, [], "x", {"name": "a"}, {"id": "82"}, {"id": 0}, {"id": 83}, {"id": True}])
async def test_unreadable_mailing_is_no_answer(data: object) -> None:
    async with Listener(*[answer(data)] * 9) as listener, AltcraftClient(listener.url, "t", retry=QUICK) as altcraft:
        assert isinstance(await failure(altcraft.mailing(82)), ResponseLostError)
    assert len(listener.requests) > 1


async def test_ignored_page_start_ends_reading() -> None:
    page = answer([{"id": 1}, {"id": 2}], total_count=5)
    async with Listener(page, page) as listener, AltcraftClient(listener.url, "t") as altcraft:
        listing = await altcraft.mailings()
    assert (len(listing), listing.missing) == (2, 3)


async def test_empty_page_ends_reading() -> None:
    async with Listener(answer([{"id": 1}]), answer(None)) as listener, AltcraftClient(listener.url, "t") as altcraft:
        listing = await altcraft.mailings()
    assert (len(listing), listing.total, listing.missing) == (1, None, 0)


@pytest.mark.parametrize("form", FORMS)
async def test_counters_are_read(form: WireForm) -> None:
    async with (
        Sandbox(dynamic_segments=[6]) as sandbox,
        AltcraftClient(sandbox.url, sandbox.altcraft_token, wire=form) as altcraft,
    ):
        for audience in (Audience("list", 1), Audience("segment", 5)):
            email, sms = await altcraft.counters(audience)
            assert (email.channel, email.status.all, email.status.subscribed_sendable) == ("email", 1235, 1000)
            assert sms.status.subscribed_sendable == 400
        assert isinstance(await failure(altcraft.counters(Audience("segment", 6))), IncorrectRequestError)
        assert len(await altcraft.counters(Audience("segment", 6), list_id=1)) == 2


async def test_documented_counters_are_read() -> None:
    status = {"all": 1, "subscribed": 1, "unsubscribed": 0, "complained": 0, "hardbounced": 0, "unconfirmed": 0}
    status |= {"suspended": 0, "invalid": 0, "subscribed_sendable": 1, "unconfirmed_sendable": 0}
    async with (
        Listener(answer([{"channel": "email", "status": status}]), answer([{"status": {}}])) as listener,
        AltcraftClient(listener.url, "t", retry=RetryPolicy(attempts=1)) as altcraft,
    ):
        [counters] = await altcraft.counters(Audience("list", 1))
        assert counters.status == AudienceCounts(**status)  # type: ignore[arg-type]
        assert isinstance(await failure(altcraft.counters(Audience("list", 1))), ResponseLostError)


@pytest.mark.parametrize(
    ("method", "arguments", "kind", "text"),
    [
        ("mailing", {"mailing_id": 0}, ValueError, "mailing_id must be a positive integer"),
        ("mailing", {"mailing_id": 1, "kind": "x"}, ValueError, "kind must be 'broadcast' or 'regular'"),
        ("mailings", {"limit": 0}, ValueError, "limit must be a positive integer"),
        ("mailings", {"is_active": 1}, TypeError, "is_active must be True or False"),
        ("mailings", {"mailing_type": ""}, ValueError, "mailing_type must not be empty"),
        ("counters", {"audience": 1}, TypeError, "audience must be an Audience"),
        ("counters", {"audience": Audience("list", 1), "list_id": 1}, ValueError, "list_id=1 must go with a segment"),
        ("counters", {"audience": Audience("list", 1), "resource_id": 0}, ValueError, "resource_id must be a positive"),
    ],
)
async def test_invalid_read_is_not_sent(
    method: str, arguments: dict[str, Any], kind: type[Exception], text: str
) -> None:
    async with Listener(answer(None)) as listener, AltcraftClient(listener.url, "t") as altcraft:
        with pytest.raises(kind, match=text):
            await getattr(altcraft, method)(**arguments)
    assert not listener.requests


async def test_reads_are_repeated() -> None:
    async with Sandbox() as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token, retry=QUICK) as altcraft:
        for call in (lambda: altcraft.mailings(limit=2), lambda: altcraft.counters(Audience("list", 1))):
            sandbox.order(Fault.lost_answer())
            assert len(await call()) == 2
    async with Sandbox() as sandbox, AltcraftClient(sandbox.url, "wrong") as altcraft:
        error = await failure(altcraft.mailings())
        assert not isinstance(error, TokenRequiredError)
        assert error.state.value == "rejected"


def test_blocking_client_reads_mailings() -> None:
    with Sandbox(mailings=[82]) as sandbox, sync.AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        assert [mailing.mailing_id for mailing in altcraft.mailings()] == [82]
        assert altcraft.mailing(82).mailing_id == 82
        assert len(altcraft.counters(Audience("list", 1))) == 2

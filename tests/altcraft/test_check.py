"""Checks of mailings before a launch: status, log and audience."""

from __future__ import annotations

from typing import Literal

import pytest

from dispatchkit import AltcraftClient, Audience, AudienceCounts, ChannelCounters, Objection
from dispatchkit.altcraft.check import check_audience
from dispatchkit.sandbox import Fault, Sandbox
from tests.sandbox.scripts import Clock

SEGMENT = Audience("segment", 5)


@pytest.mark.parametrize(
    ("counts", "recipients", "objections"),
    [
        ([(1000, 900)], 900, ()),
        ([(1000, 100)], 100, ()),
        ([(1000, 99)], 99, (Objection.FEW_RECIPIENTS,)),
        ([(1000, 0)], 0, (Objection.NO_RECIPIENTS,)),
        ([(1000, 0), (1000, 800)], 800, ()),
        ([(1000, None)], None, ()),
        ([(None, 7)], 7, ()),
        ([], None, ()),
    ],
)
def test_audience_is_judged(
    counts: list[tuple[int | None, int | None]], recipients: int | None, objections: tuple[Objection, ...]
) -> None:
    channels = [ChannelCounters("email", AudienceCounts(all=whole, subscribed_sendable=can)) for whole, can in counts]
    judged = check_audience(channels)
    assert (judged.recipients, judged.objections) == (recipients, objections)


@pytest.mark.parametrize("wire", ["json", "xml"])
async def test_mailings_are_checked(wire: Literal["json", "xml"]) -> None:
    async with (
        Sandbox(active=[90, 92], mailings=range(1, 100)) as sandbox,
        AltcraftClient(sandbox.url, sandbox.altcraft_token, wire=wire) as altcraft,
    ):
        await altcraft.launch_broadcast(92)
        sandbox.altcraft.audiences["segment", 5] = (1000, 20)
        before = sandbox.requests
        checks = await altcraft.check([90, 91, 92, 500], audience=SEGMENT, list_id=3, resource_id=4)
        few = Objection.FEW_RECIPIENTS
        assert [(each.target, each.objections) for each in checks] == [
            (90, (few,)),
            (91, (Objection.INACTIVE, few)),
            (92, (Objection.STARTED, few)),
            (500, (Objection.UNREAD,)),
        ]
        assert (checks[0].recipients, checks[0].is_estimate, checks[0].status) == (20, True, "Active")
        assert "mailing not found" in (checks[3].unread or "")
        assert [each.name for each in checks] == ["рассылка 90", "рассылка 91", "рассылка 92", None]
        assert sandbox.requests - before == 1 + 1 + 2 * 4
        [own] = await altcraft.check([91], activates=True)
        assert (own.is_launchable, own.recipients, own.is_estimate) == (True, None, False)


async def test_names_come_by_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatchkit.altcraft.check.PAGE_SIZE", 2)
    mailings = range(1, 2000)
    async with (
        Sandbox(active=mailings, mailings=mailings) as sandbox,
        AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft,
    ):
        sandbox.altcraft.listed = 2000
        checks = await altcraft.check([1500, 3, 1])
        assert [each.name for each in checks] == ["рассылка 1500", "рассылка 3", "рассылка 1"]
        assert sandbox.requests == 2 + 2 * 3


async def test_missing_names_refuse_nothing() -> None:
    async with Sandbox(active=[90]) as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        refusal = b'{"data": null, "error": 403, "error_text": "no access"}'
        sandbox.order(Fault.http(200, refusal), path_contains="campaigns/list")
        [check] = await altcraft.check([90])
        assert (check.is_launchable, check.name, check.status) == (True, None, "Active")


async def test_finished_mailing_takes_another_audience() -> None:
    clock = Clock()
    async with (
        Sandbox(active=[90], clock=lambda: clock.now) as sandbox,
        AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft,
    ):
        await altcraft.launch_broadcast(90)
        clock.now += 31
        assert [each.objections for each in await altcraft.check([90])] == [(Objection.FINISHED,)]
        assert [each.objections for each in await altcraft.check([90], audience=SEGMENT)] == [()]


async def test_uncounted_audience_has_objection() -> None:
    async with Sandbox(active=[90]) as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        refusal = b'{"data": null, "error": 400, "error_text": "list_id is required"}'
        sandbox.order(Fault.http(200, refusal), path_contains="get_counters")
        [check] = await altcraft.check([90], audience=SEGMENT)
        assert check.objections == (Objection.AUDIENCE_UNREAD,)
        assert "list_id is required" in (check.unread or "")


async def test_cut_log_shows_no_start() -> None:
    entry = b'{"level": "INFO", "message": "Begin", "state": "start", "time": "2026-01-01T00:00:00Z", "value": ""}'
    cut = b'{"data": [%s], "error": 0, "error_text": "", "total_count": 5}' % entry
    async with Sandbox(active=[90]) as sandbox, AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        sandbox.order(Fault.http(200, cut), path_contains="log_v2")
        assert [each.objections for each in await altcraft.check([90])] == [()]
        sandbox.order(Fault.http(200, cut.replace(b"5}", b"1}")), path_contains="log_v2")
        assert [each.objections for each in await altcraft.check([90])] == [(Objection.STARTED,)]

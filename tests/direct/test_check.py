"""Checks of dispatches before a start: what speaks against it, and that a check only reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dispatchkit import DirectClient, LaunchCheck, Objection, RetryPolicy, sync
from dispatchkit.direct.check import check_dispatch
from dispatchkit.direct.commands import STATUSES
from dispatchkit.direct.models import Dispatch, DispatchCounts
from dispatchkit.errors import BadCredentialsError
from dispatchkit.sandbox import Fault, Sandbox


@pytest.mark.parametrize(
    ("status", "objections"),
    [
        ("initiated", ()),
        ("changing", (Objection.STARTED,)),
        ("scheduled", (Objection.STARTED,)),
        ("sending", (Objection.STARTED,)),
        ("awaiting", (Objection.STARTED,)),
        ("paused", (Objection.STARTED,)),
        ("done", (Objection.FINISHED,)),
        ("stopped", (Objection.STOPPED,)),
        ("archived", (Objection.UNKNOWN_STATUS,)),
    ],
)
def test_status_decides(status: str, objections: tuple[Objection, ...]) -> None:
    check = check_dispatch(Dispatch(dispatch_id=7, status=status))
    assert (check.objections, check.recipients, check.is_launchable) == (objections, None, not objections)


def test_every_status_is_judged() -> None:
    judged = {check_dispatch(Dispatch(dispatch_id=7, status=status)).objections for status in STATUSES}
    assert (Objection.UNKNOWN_STATUS,) not in judged


def test_empty_dispatch_has_objection() -> None:
    empty = Dispatch(dispatch_id=7, status="initiated", messages=DispatchCounts(total=0))
    assert check_dispatch(empty).objections == (Objection.NO_RECIPIENTS,)


async def test_checks_keep_order() -> None:
    async with (
        Sandbox(dispatches=range(1, 1000)) as sandbox,
        DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct,
    ):
        await direct.start(8)
        before = sandbox.requests
        ids = [*range(500, 1, -1), 5000]
        checks = await direct.check(ids)
        assert [each.target for each in checks] == ids
        assert {each.target for each in checks if not each.is_launchable} == {8, 5000}
        assert checks[-1] == LaunchCheck(target=5000, objections=(Objection.UNKNOWN_TARGET,))
        assert checks[0] == LaunchCheck(target=500, name="рассылка 500", status="initiated", recipients=1235)
        assert sandbox.requests - before == len(ids)
        assert [act.target for act in sandbox.acts] == [8]


async def test_failed_read_is_said() -> None:
    async with (
        Sandbox() as sandbox,
        DirectClient(sandbox.direct_token, base_url=sandbox.url, retry=RetryPolicy(attempts=1)) as direct,
    ):
        sandbox.order(Fault.http(500, b"oops"))
        first, second = await direct.check([7, 8])
        assert first.objections == (Objection.UNREAD,)
        assert "500" in (first.unread or "")
        assert second.is_launchable


async def test_refused_token_is_raised() -> None:
    async with Sandbox() as sandbox, DirectClient("d3Jvbmc=", base_url=sandbox.url) as direct:
        with pytest.raises(BadCredentialsError):
            await direct.check(range(1, 1000))
        assert sandbox.requests == 1


@pytest.mark.parametrize(("ids", "error"), [(["7"], TypeError), ([0], ValueError), (7, TypeError)])
async def test_invalid_ids_are_raised(ids: Any, error: type[Exception]) -> None:
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        with pytest.raises(error):
            await direct.check(ids)


def test_blocking_check_reads_ids_here() -> None:
    with Sandbox() as sandbox, sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        assert [each.target for each in direct.check(iter([7, 8]))] == [7, 8]
        assert [each.target for each in direct.check(ids=iter([7]))] == [7]


async def test_new_words_pass_through() -> None:
    body = {"total": 1, "items": [{"dispatchId": 7, "status": "archived", "messages": {"total": "many"}}]}
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        sandbox.order(Fault.http(200, json.dumps(body).encode()))
        [check] = await direct.check([7])
        assert (check.status, check.recipients) == ("archived", None)

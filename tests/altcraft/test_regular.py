"""Launching regular mailings."""

from __future__ import annotations

import pytest

from dispatchkit import AltcraftClient, Audience, RetryPolicy
from dispatchkit.errors import IncorrectRequestError, OutcomeUnknownError
from dispatchkit.sandbox import Fault, Sandbox
from tests.wire import failure

QUICK = RetryPolicy.for_tests()


@pytest.mark.parametrize("form", ["json", "xml"])
async def test_regular_mailing_is_launched(form: str) -> None:
    async with (
        Sandbox(active=[91], regulars=[91, 92]) as sandbox,
        AltcraftClient(sandbox.url, sandbox.altcraft_token, wire=form) as altcraft,  # type: ignore[arg-type]
    ):
        accepted = await altcraft.launch_regular(91, audience=Audience("list", 1), limit=300)
        assert (accepted.mailing_id, accepted.settled) == (91, False)
        assert isinstance(await failure(altcraft.launch_regular(92)), IncorrectRequestError)  # not active
        assert isinstance(await failure(altcraft.launch_regular(90)), IncorrectRequestError)  # a broadcast
    assert sandbox.launches == {91: 1}


async def test_log_settles_lost_answer() -> None:
    async with (
        Sandbox(active=[91], regulars=[91]) as sandbox,
        AltcraftClient(sandbox.url, sandbox.altcraft_token, retry=QUICK) as altcraft,
    ):
        sandbox.order(Fault.lost_answer(), path_contains="regulars/start")
        assert (await altcraft.launch_regular(91)).settled
    assert sandbox.launches == {91: 1}


async def test_unclear_launch_is_not_repeated() -> None:
    async with (
        Sandbox(active=[91], regulars=[91]) as sandbox,
        AltcraftClient(sandbox.url, sandbox.altcraft_token, retry=QUICK, timeout=0.5) as altcraft,
    ):
        sandbox.order(Fault.reset(acts=False), path_contains="regulars/start")
        assert isinstance(await failure(altcraft.launch_regular(91)), OutcomeUnknownError)
    assert not sandbox.launches


async def test_many_regular_mailings_are_launched() -> None:
    async with (
        Sandbox(active=range(1, 9), regulars=range(1, 9)) as sandbox,
        AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft,
    ):
        report = await altcraft.launch_regular_many(range(1, 9), limit=5).finish()
    assert (report.done, report.failed) == (8, 0)
    assert sandbox.launches == dict.fromkeys(range(1, 9), 1)

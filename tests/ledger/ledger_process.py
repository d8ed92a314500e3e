"""A process that launches with a ledger, to be killed. Its own module, so that it is loaded once and forked often."""

from __future__ import annotations

import asyncio
import sys
from typing import Literal

from tenacity import wait_random_exponential

from dispatchkit import AltcraftClient, DirectClient, FanOut, LaunchBroadcast, Ledger, RetryPolicy, StartDispatch
from dispatchkit.core import claim
from dispatchkit.core.transport import http
from dispatchkit.ledger.sqlite import store as sqlite

__all__ = ["LAG", "Provider", "launch"]

Provider = Literal["direct", "altcraft"]

LAG = 0.25
"""Seconds after which the sandbox's word that nothing was started is believed. Its state never lags. Only a request
that it has not read yet may be late, and it reads within milliseconds.
"""
_RETRY = RetryPolicy(state_lag=LAG, wait=wait_random_exponential(multiplier=0.01, max=30))
_ATTEMPT_TIMEOUT = 1.0
_LOADED = (http, sqlite)  # before the fork, since they are loaded on first use otherwise


def launch(provider: Provider, url: str, token: str, where: str, ids: range) -> None:
    """Launch all of them, or what is left of them. Ends with status 3 if something stays unknown."""
    claim.CLAIM_AGE = sqlite.CLAIM_AGE = 0.5  # type: ignore[attr-defined]  # a launch of a killed process is on its way for so long
    report = asyncio.run(_launch(provider, url, token, where, ids))
    sys.exit(3 if report else 0)


async def _launch(provider: Provider, url: str, token: str, where: str, ids: range) -> int:
    async with Ledger(where) as ledger:
        if provider == "direct":
            async with DirectClient(token, base_url=url, retry=_RETRY, attempt_timeout=_ATTEMPT_TIMEOUT) as direct:
                starts = FanOut(direct, map(StartDispatch, ids), concurrency=8, ledger=ledger, run="run")
                return (await starts.finish()).failed
        async with AltcraftClient(
            url, token, deduplicates=True, retry=_RETRY, attempt_timeout=_ATTEMPT_TIMEOUT
        ) as altcraft:
            launches = FanOut(altcraft, map(LaunchBroadcast, ids), concurrency=8, ledger=ledger, run="run")
            return (await launches.finish()).failed

"""A client whose process is patched after it was made opens no connection."""

from __future__ import annotations

import asyncio
import sys
import types

import pytest

from dispatchkit import DirectClient
from dispatchkit.sandbox import Sandbox


@pytest.fixture
def gevent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a patched process looks like."""
    monkey = types.ModuleType("gevent.monkey")
    vars(monkey)["is_module_patched"] = lambda name: name == "socket"
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)


async def test_late_patch_ends_first_call(request: pytest.FixtureRequest) -> None:
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        request.getfixturevalue("gevent")
        with pytest.raises(RuntimeError, match="gevent has replaced socket in this process"):
            await direct.start(7)
        assert sandbox.requests == 0


async def test_late_patch_ends_new_connection(request: pytest.FixtureRequest) -> None:
    async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        await direct.start(7)
        request.getfixturevalue("gevent")
        await direct.start(8)  # over the connection that there is
        sandbox.latency = 0.2
        first = asyncio.create_task(direct.start(9))
        await asyncio.sleep(0.05)
        with pytest.raises(RuntimeError, match="gevent has replaced socket"):
            await direct.start(10)
        await first
        assert sandbox.launches == {7: 1, 8: 1, 9: 1}

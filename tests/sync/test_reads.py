"""The reads, from blocking code."""

from __future__ import annotations

import pytest

from dispatchkit import NotFoundError, sync
from dispatchkit.sandbox import Sandbox


def test_reads_block_until_response(sandbox: Sandbox) -> None:
    with sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        direct.start(7)
        assert direct.dispatch(7).status == "scheduled"
        assert [dispatch.dispatch_id for dispatch in direct.dispatches(status="scheduled")] == [7]
        with pytest.raises(NotFoundError):
            direct.dispatch(10**15)
    with sync.AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft:
        altcraft.activate(82, run_now=True)
        assert altcraft.status(82).is_active
        assert [entry.state for entry in altcraft.log(82)] == ["start"]

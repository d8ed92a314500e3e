"""A sample of `tests.ledger.kill`: a launch that is killed anywhere is resumed, and nothing is launched twice."""

from __future__ import annotations

import pytest

from tests.ledger.kill import kill


@pytest.mark.second_stage
async def test_kill_loses_and_repeats_nothing() -> None:
    tally = await kill(15, seed=1)
    assert (tally.points, tally.twice, tally.lost, tally.unknown) == (15, 0, 0, 0)
    assert tally.kills >= 10

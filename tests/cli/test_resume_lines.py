"""The line that resumes a run has what the run's host needs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dispatchkit.cli.input.ledger_ref import LedgerRef
from dispatchkit.cli.invocation import Invocation
from dispatchkit.cli.views.snapshot import resume_line


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ('{"provider":"direct","base_url":"http://provider.test"}', " --insecure"),
        ('{"provider":"direct","base_url":"https://provider.test"}', ""),
        ('{"provider":"direct","base_url":"http://127.0.0.1:1"}', ""),
        ('{"provider":"direct","base_url":"nonsense"}', ""),
        ('{"provider":"direct"}', ""),
        ("{", ""),
    ],
    ids=["plain", "tls", "loopback", "no-url", "no-host", "damaged"],
)
def test_plain_host_needs_insecure(settings: str, needed: str) -> None:
    run: Any = SimpleNamespace(name="r", account=None, profile=None, settings=settings)
    assert resume_line(LedgerRef("a.db"), run) == f"dispatchkit resume a.db --run r{needed}"


def test_insecure_stands_once() -> None:
    run: Any = SimpleNamespace(name="r", account=None, profile=None, settings='{"base_url":"http://provider.test"}')
    typed = Invocation((("insecure", ("--insecure",)),))
    assert resume_line(LedgerRef("a.db", invocation=typed), run) == "dispatchkit resume a.db --run r --insecure"

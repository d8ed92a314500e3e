"""What an object says of itself: in a shell, in rich and in a notebook."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.pretty import pretty_repr

from dispatchkit import (
    AltcraftClient,
    DirectClient,
    Dispatch,
    FanOut,
    LaunchBroadcast,
    Ledger,
    LedgerError,
    Listing,
    LogEntry,
    Report,
    RetryPolicy,
    Run,
    StartDispatch,
    Target,
    sync,
)
from dispatchkit.core.reprs import html_table
from dispatchkit.ledger.codec import encode
from dispatchkit.sandbox import Sandbox
from tests.test_to_dict import MARK, VALUES

NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)


async def test_client_tells_its_state() -> None:
    direct = DirectClient("key", account="retail")
    assert repr(direct) == "DirectClient('https://direct.i-dgtl.ru', account='retail')"
    direct._pacer.throttle(60)
    assert "paused_for=" in repr(direct)
    direct.lift_pause()
    await direct.close()
    assert repr(direct) == "DirectClient('https://direct.i-dgtl.ru', account='retail', closed=True)"
    assert pretty_repr(direct, max_width=200) == repr(direct)
    assert repr(AltcraftClient("https://x.example", "key")) == "AltcraftClient('https://x.example')"
    assert repr(sync.DirectClient("key")) == "sync.DirectClient('https://direct.i-dgtl.ru')"
    assert repr(object.__new__(DirectClient)) == "DirectClient('None')"


async def test_fan_out_tells_its_progress() -> None:
    once = RetryPolicy(attempts=1)
    async with Sandbox(dispatches=range(1, 9)) as sandbox:
        client = f"DirectClient('{sandbox.url}')"
        async with DirectClient(sandbox.direct_token, base_url=sandbox.url, retry=once) as direct:
            fan_out = FanOut(direct, map(StartDispatch, range(1, 2001)), expected=2000, max_launches=10)
            assert repr(fan_out) == f"<FanOut of {client}: 2,000 not started, not begun>"
            await fan_out.finish()
            assert repr(fan_out) == (
                f"<FanOut of {client}: 8 done, 2 rejected, 1,990 not started, over (10 launches (max_launches=10))>"
            )
            shown = pretty_repr(fan_out)
            assert "report=Report(" in shown
            assert "stop_reason=StopReason(" in shown
            assert repr(direct.start_many([])).endswith(": no commands, not begun>")


async def test_fan_out_counts_calls() -> None:
    async with Sandbox(latency=0.05) as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        fan_out = direct.start_many([1, 2])
        await fan_out.batch()
        assert repr(fan_out).endswith(": 1 done, 1 in flight>")
        assert "in_flight=1" in repr(direct)
        await fan_out.finish()


def test_half_built_fan_out() -> None:
    for cls, shown in ((FanOut, "<FanOut>"), (sync.FanOut, "<sync.FanOut>")):
        half_built = object.__new__(cls)
        assert repr(half_built) == shown
        assert pretty_repr(half_built) == "FanOut()"


def test_blocking_twins_tell_their_state(tmp_path: Path) -> None:
    path = tmp_path / "launch.db"
    with sync.Ledger(path) as ledger, sync.DirectClient("key") as direct:
        fan_out = direct.start_many([7], ledger=ledger, run="friday")
        assert repr(fan_out).startswith("<sync.FanOut of DirectClient('https://direct.i-dgtl.ru'), run 'friday': ")
        assert "run='friday'" in pretty_repr(fan_out)
        assert "report=Report(" in pretty_repr(fan_out)
        assert repr(ledger) == f"sync.Ledger('{path}')"
        assert pretty_repr(ledger, max_width=500) == f"Ledger('{path}')"
    assert repr(object.__new__(sync.Ledger)) == "sync.Ledger()"


async def test_fan_out_names_its_run(tmp_path: Path) -> None:
    fan_out = DirectClient("key").start_many([7], ledger=Ledger(tmp_path / "launch.db"), run="black-friday")
    assert repr(fan_out).startswith("<FanOut of DirectClient('https://direct.i-dgtl.ru'), run 'black-friday': ")


async def test_ledger_tells_its_place(tmp_path: Path) -> None:
    async with Ledger(tmp_path / "launch.db") as ledger:
        assert repr(ledger) == f"Ledger('{tmp_path}/launch.db')"
    assert repr(ledger) == f"Ledger('{tmp_path}/launch.db', closed=True)"
    shared = Ledger(f"postgresql://app:{MARK}@db/launches", schema="spring")
    assert repr(shared) == "Ledger('postgresql://app:***@db/launches', schema='spring')"
    assert pretty_repr(shared) == repr(shared)
    assert repr(object.__new__(Ledger)) == "Ledger('***')"


def test_run_tells_its_name() -> None:
    settings = f'{{"provider": "direct", "base_url": "https://user:{MARK}@x.example", "wire": "json"}}'
    run = Run(1, "friday", settings, NOW, 5, plan_complete=False, stopped=True, fingerprint=MARK, stops=1)
    assert repr(run) == (
        "Run('friday', provider='direct', base_url='https://user:***@x.example', created='2026-01-31 09:00:00', "
        "total=5, plan_complete=False, stopped=True, stops=1)"
    )


def test_target_shows_command() -> None:
    target = Target(0, encode(LaunchBroadcast(82, content={"field": MARK}))[1], "planned")
    assert repr(target).startswith("Target(index=0, command=LaunchBroadcast(mailing_id=82, audience=None,")
    assert "command=<a command that this release cannot read>" in repr(Target(0, "{}", "planned"))


def test_listing_shows_its_beginning() -> None:
    assert repr(Listing((), 0)) == "Listing([], total=0)"
    assert repr(Listing(("a", "b"))) == "Listing(['a', 'b'])"
    assert repr(Listing(tuple(range(100_000)), 100_003)) == "Listing([0, 1, 2, ... 99,997 more], total=100003)"
    assert pretty_repr(Listing(("a",), 3)) == "Listing(items=('a',), total=3)"


VALUES_OF_CALLS = [value for value in VALUES if not isinstance(value, LedgerError)]
"""A `LedgerError` masks addresses where it is raised, not in its repr."""


@pytest.mark.parametrize("value", VALUES_OF_CALLS, ids=lambda value: type(value).__name__)
def test_no_repr_shows_content(value: Any) -> None:
    assert MARK not in repr(value)
    assert MARK not in pretty_repr(value)
    assert MARK not in (value._repr_html_() if hasattr(value, "_repr_html_") else "")


def test_report_is_a_table() -> None:
    html = Report(done=1234, rejected=1, not_started=None, repeats=2)._repr_html_()
    assert html.startswith("<table><caption>1,235 commands, 1 not done</caption>")
    assert '<td>done</td><td style="text-align: right">1,234</td>' in html
    assert "<td>not sent</td>" in html
    assert "<td>repeats</td>" in html
    assert "not started" not in html


def test_listing_is_a_table() -> None:
    script = "<script>alert(1)</script>"
    html = Listing(
        (Dispatch(dispatch_id=1, status="done", message=MARK), Dispatch(dispatch_id=2, status=script)), total=9
    )._repr_html_()
    assert "<caption>2 items; the provider counts 7 more</caption>" in html
    assert "<th>dispatch_id</th><th>status</th><th>message_length</th>" in html
    assert "&lt;script&gt;" in html
    assert script not in html
    assert "traffic_center_name" not in html


def test_long_listing_is_cut() -> None:
    html = Listing(tuple(LogEntry(NOW, "start") for _ in range(60)))._repr_html_()
    assert "<caption>60 items, the first 50 shown</caption>" in html
    assert html.count("<tr>") == 51
    assert MARK not in Listing((MARK,))._repr_html_()


def test_cells_are_escaped() -> None:
    html = html_table("<b>", ["<i>"], [["<u>"], [None], [True], [1000]])
    assert html == (
        "<table><caption>&lt;b&gt;</caption><thead><tr><th>&lt;i&gt;</th></tr></thead><tbody><tr><td>&lt;u&gt;</td></tr>"
        '<tr><td></td></tr><tr><td>True</td></tr><tr><td style="text-align: right">1,000</td></tr></tbody></table>'
    )

"""A blocking ledger works on the loop thread, and holds it until it is closed."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatchkit import LedgerError, Snapshot, sync
from dispatchkit.sandbox import Sandbox


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[sync.Ledger]:
    with sync.Ledger(tmp_path / "launch.db") as opened:
        yield opened


@pytest.fixture
def direct(sandbox: Sandbox) -> Iterator[sync.DirectClient]:
    with sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as client:
        yield client


def test_run_is_read(ledger: sync.Ledger, direct: sync.DirectClient) -> None:
    assert direct.start_many(range(1, 1202), ledger=ledger, run="all").finish().done == 1201
    assert ledger.run("all").total == ledger.counts("all").done == 1201
    assert [target.index for target in ledger.targets("all")] == list(range(1201))
    assert list(ledger.targets("all", states=["planned"])) == []
    assert [run.name for run in ledger.runs()] == ["all"]
    assert ledger.chunks("all") == []
    assert ledger.end_holder("all") is None
    assert not ledger.is_shared


def test_stop_holds_until_cleared(ledger: sync.Ledger, direct: sync.DirectClient) -> None:
    direct.start_many([1, 2], ledger=ledger, run="all", max_launches=1).finish()
    ledger.stop("all")
    assert ledger.run("all").stopped
    report = sync.FanOut(direct, None, ledger=ledger.resuming("all"), run="all").finish()
    assert (report.done, report.previously_finished) == (2, 1)
    ledger.clear_stop("all")
    with pytest.raises(LedgerError, match="in a file"):
        ledger.paused_accounts()
    with pytest.raises(LedgerError, match="holds no run"):
        ledger.counts("other")


def test_new_token_is_accepted(ledger: sync.Ledger, direct: sync.DirectClient, sandbox: Sandbox) -> None:
    direct.start_many([1], ledger=ledger, run="all").finish()
    other = "dG9rZW46b3RoZXI="
    with sync.DirectClient(other, base_url=sandbox.url) as renewed:
        ledger.change_account("all", renewed)
        sync.FanOut(renewed, None, ledger=ledger, run="all").finish()


def test_targets_may_be_left(ledger: sync.Ledger, direct: sync.DirectClient) -> None:
    direct.start_many(range(1, 1201), ledger=ledger, run="all").finish()
    for target in ledger.targets("all"):
        assert target.index == 0
        break
    assert ledger.counts("all").done == 1200


def test_ledger_outlives_client(ledger: sync.Ledger, sandbox: Sandbox) -> None:
    with sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        direct.start_many([1], ledger=ledger, run="all").finish()
    with sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        direct.start_many([1, 2], ledger=ledger, run="all").finish()
    assert ledger.counts("all").done == 2


def test_closed_ledger_refuses(tmp_path: Path) -> None:
    ledger = sync.Ledger(tmp_path / "launch.db")
    assert ledger.runs() == []
    ledger.close()
    ledger.close()
    with pytest.raises(RuntimeError, match=r"sync\.Ledger is closed"):
        ledger.runs()
    assert not any(thread.name == "dispatchkit" for thread in threading.enumerate())
    with pytest.raises(TypeError, match="not pickled"):
        copy.copy(ledger)


def test_fork_needs_own_ledger(ledger: sync.Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ledger.runs() == []
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(RuntimeError, match="was forked"):
            ledger.runs()


def test_statistics_are_read(direct: sync.DirectClient) -> None:
    assert direct.statistics().pace.started == 0
    direct.start(1)
    assert direct.statistics().pace.started == 1
    direct.close()
    assert direct.statistics() == direct._async_client.statistics()
    assert direct.provider == "direct"


def test_run_is_watched(ledger: sync.Ledger, direct: sync.DirectClient) -> None:
    seen: list[Snapshot] = []
    run = direct.start_many(range(1, 101), ledger=ledger, run="all")
    thread = threading.Thread(target=lambda: seen.extend(run.watch(every=0.001)))
    thread.start()
    assert run.finish().done == 100
    thread.join(10)
    assert seen[-1].is_over
    assert seen[-1].report.done == 100
    assert run.is_over
    assert [snapshot.report.done for snapshot in ledger.watch("all")] == [100]
    assert [snapshot.is_over for snapshot in run.watch()] == [True]


def test_close_ends_watch(direct: sync.DirectClient) -> None:
    seen: list[Snapshot] = []
    run = direct.start_many([1])
    thread = threading.Thread(target=lambda: seen.extend(run.watch(every=1e6)))
    direct.start(2)
    thread.start()
    while not seen:
        thread.join(0.001)
    direct.close()
    thread.join(10)
    assert [snapshot.is_over for snapshot in seen] == [False, True]
    with pytest.raises(TypeError, match="every must be"):
        run.watch("1")  # type: ignore[arg-type]


def test_options_share_connections(direct: sync.DirectClient) -> None:
    derived = direct.with_options(timeout=600)
    assert derived.start(1).dispatch_id == 1
    derived.close()
    assert direct.start(2).dispatch_id == 2
    assert derived.start_many([3]).finish().done == 1
    direct.close()
    with pytest.raises(RuntimeError, match="is closed"):
        derived.start(4)


def test_token_callable_may_block(sandbox: Sandbox) -> None:
    threads: list[str] = []

    def token() -> str:
        threads.append(threading.current_thread().name)
        return sandbox.direct_token

    with sync.DirectClient(token, base_url=sandbox.url) as direct:
        assert direct.start_many([1, 2, 3]).finish().done == 3
    assert len(threads) == 1
    assert threads[0] != "dispatchkit"

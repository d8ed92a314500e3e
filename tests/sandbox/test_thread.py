"""A sandbox in a thread of its own, for programs that block."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import socket
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

from dispatchkit import DirectClient, sync
from dispatchkit.sandbox import Fault, Sandbox


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_blocking_sandbox_opens_and_closes() -> None:
    with Sandbox() as sandbox:
        assert "dispatchkit-sandbox" in threads()
        with sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
            sandbox.order(Fault.lost_answer())
            assert direct.start(7).settled
        assert sandbox.launches == {7: 1}
    assert "dispatchkit-sandbox" not in threads()
    with pytest.raises(RuntimeError, match="is not open"):
        sandbox.url  # noqa: B018
    with sandbox:  # its state is kept
        assert sandbox.launches == {7: 1}


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_late_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    for _ in range(20):
        with Sandbox() as sandbox, socket.socket() as late:
            late.setblocking(False)
            late.connect_ex(("127.0.0.1", urlsplit(sandbox.url).port))
            sandbox.__exit__(None, None, None)  # while the connection is being accepted
    gc.collect()
    assert lost == []


async def test_running_loop_is_no_deadlock() -> None:
    with Sandbox() as sandbox:
        direct = DirectClient(sandbox.direct_token, base_url=sandbox.url)
        assert (await direct.start(7)).dispatch_id == 7
        silent = asyncio.create_task(direct.start(8))
        sandbox.order(Fault.silent())
        while sandbox.faults_left:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        began = time.perf_counter()
    assert time.perf_counter() - began < 20  # neither the open connection nor the silent answer delays the end
    silent.cancel()
    await asyncio.wait([silent])
    await direct.close()


def test_second_entrance_is_refused() -> None:
    with Sandbox() as sandbox:
        with pytest.raises(RuntimeError, match="open already"), sandbox:
            pass
        assert sandbox.url


def test_failed_start_leaves_no_thread() -> None:
    with Sandbox() as first:
        port = int(first.url.rpartition(":")[2])
        before = threading.active_count()
        with pytest.raises(OSError, match="address already in use"), Sandbox(port=port):
            pass
        assert threading.active_count() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
def test_forked_child_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox() as sandbox:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)  # as in a child, which has no such thread
            thread = sandbox._thread
            assert thread is not None
            assert thread.is_of_parent()
            sandbox.__exit__(None, None, None)
        assert "dispatchkit-sandbox" in threads()
        sandbox._thread = thread


def test_counts_are_read_meanwhile() -> None:
    with Sandbox() as sandbox, sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        running = threading.Thread(target=direct.start_many(range(1, 301)).finish)
        running.start()
        while running.is_alive():
            sandbox.order(Fault.slow(0), path_contains="/start")
            assert len(sandbox.acts) <= 300
            assert sandbox.launches.total() <= 300
            time.sleep(0.0005)
        running.join()
        assert sandbox.launches.total() == 300


def test_every_fault_is_listed() -> None:
    made = {
        name
        for name, member in inspect.getmembers(Fault, inspect.ismethod)
        if inspect.signature(member).return_annotation == "Fault"
    }
    faults = Fault.all()
    assert {fault.name for fault in faults} == made
    assert len({str(fault) for fault in faults}) == len(faults)
    for name in made:
        assert inspect.getdoc(getattr(Fault, name))
        has_both = "acts" in inspect.signature(getattr(Fault, name)).parameters
        assert [fault.name for fault in faults].count(name) == (2 if has_both else 1)


async def test_dates_follow_the_clock() -> None:
    async with Sandbox(clock=lambda: 0.0) as sandbox:
        reader, writer = await asyncio.open_connection(*sandbox.url.removeprefix("http://").split(":"))
        writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert b"Date: Thu, 01 Jan 1970 00:00:00 GMT" in answer

"""Which process holds a chunk, and how it is ended: with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from dispatchkit.errors import LedgerError
from dispatchkit.ledger import liveness
from dispatchkit.ledger.chunk import Holder
from dispatchkit.ledger.liveness import end_process, this_process

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system has no pidfd")

SLEEP = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def holder_of(process: subprocess.Popen[bytes]) -> Holder:
    here = this_process()
    started = liveness._start_time(str(process.pid))
    assert started is not None
    return Holder(
        "one",
        process.pid,
        here.host,
        boot_id=here.boot_id,
        process_started=started,
        pid_namespace=here.pid_namespace,
    )


def test_this_process() -> None:
    here = this_process()
    assert here.pid == os.getpid()
    assert here.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    ticks = os.sysconf("SC_CLK_TCK")
    assert 0 < time.clock_gettime(time.CLOCK_BOOTTIME) - here.started / ticks < 3600 * 24
    assert here.pid_namespace > 0


def test_start_time_after_brackets(tmp_path: Path) -> None:
    program = tmp_path / "a) 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        end = time.monotonic() + 5
        while ") 1 (b" not in Path(f"/proc/{process.pid}/stat").read_text():
            assert time.monotonic() < end
        started = liveness._start_time(str(process.pid))
        process.kill()
    assert started is not None
    assert abs(started - time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")) < 1000


def test_a_process_is_ended(child: subprocess.Popen[bytes]) -> None:
    end_process(holder_of(child), timeout=5)
    assert child.wait(0.1) == -signal.SIGKILL


def test_a_suspended_process_is_ended(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGSTOP)
    end_process(holder_of(child), timeout=5)
    assert child.wait(0.1) == -signal.SIGKILL


def test_a_process_that_has_ended(child: subprocess.Popen[bytes]) -> None:
    holder = holder_of(child)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    end_process(holder, timeout=0)  # not reaped yet
    child.wait()
    end_process(holder, timeout=0)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"boot_id": "another"}, "runs on another machine"),
        ({"pid_namespace": 1}, "runs in another container"),
        ({"boot_id": ""}, "not enough data to identify"),
        ({"process_started": 0}, "not enough data to identify"),
        ({"pid_namespace": 0}, "not enough data to identify"),
    ],
)
def test_an_unidentified_process_lives(child: subprocess.Popen[bytes], other: dict[str, Any], says: str) -> None:
    with pytest.raises(LedgerError, match=says):
        end_process(attrs.evolve(holder_of(child), **other), timeout=5)
    assert child.poll() is None


def test_a_reused_pid_lives(child: subprocess.Popen[bytes]) -> None:
    holder = holder_of(child)
    end_process(attrs.evolve(holder, process_started=holder.process_started - 1), timeout=5)
    assert child.poll() is None


def test_a_hidden_process_lives(child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    holder = holder_of(child)
    here = this_process()
    monkeypatch.setattr(liveness, "this_process", lambda: here)
    monkeypatch.setattr(liveness, "_start_time", lambda _: None)
    with pytest.raises(LedgerError, match="no start time"):
        end_process(holder, timeout=5)
    assert child.poll() is None


def test_this_process_is_not_ended() -> None:
    here = this_process()
    holder = Holder(
        "one",
        here.pid,
        here.host,
        boot_id=here.boot_id,
        process_started=here.started,
        pid_namespace=here.pid_namespace,
    )
    with pytest.raises(LedgerError, match="this process itself"):
        end_process(holder, timeout=5)


def test_no_pidfd(child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    with pytest.raises(LedgerError, match="End it yourself"):
        end_process(holder_of(child), timeout=5)
    assert child.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_foreign_process_cannot_be_ended(child: subprocess.Popen[bytes]) -> None:
    holder = holder_of(child)
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            end_process(holder, timeout=5)
        except LedgerError as error:
            os._exit(7 if "belongs to another user" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert child.poll() is None


def test_process_does_not_end(child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)
    with pytest.raises(LedgerError, match=r"has not ended within 0\.01 s"):
        end_process(holder_of(child), timeout=0.01)

"""Identify processes, and end a process that holds a chunk.

A process id is not unique: it is reused, and each PID namespace has its own ids. So the boot id, the PID namespace, the
process id and the start time together identify a process. A pidfd refers to exactly one process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from pathlib import Path

import attrs

from dispatchkit.errors import LedgerError
from dispatchkit.ledger.chunk import Holder

__all__ = ["Process", "boot_id", "end_process", "this_process"]

_PROC = Path("/proc")
_START_TIME = 22 - 3
"""Index of the start time among the fields of ``/proc/PID/stat`` after the name, which start with field 3."""


@attrs.frozen
class Process:
    """The identity of a process."""

    pid: int
    host: str
    boot_id: str
    """Id of the machine's boot; empty if the system has none."""
    started: int
    """Start time, in clock ticks since the boot; 0 if unknown."""
    pid_namespace: int
    """Inode of the PID namespace; 0 if the system has none."""


def boot_id() -> str:
    """The id of the machine's current boot; empty if the system has none."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def this_process() -> Process:
    """The identity of this process."""
    return Process(os.getpid(), socket.gethostname(), boot_id(), _start_time("self") or 0, _pid_namespace())


def end_process(holder: Holder, *, timeout: float) -> None:
    """End the process that holds a chunk with SIGKILL, even a suspended one, and wait for its end.

    Returns at once if the process has ended already. The call blocks, so run it in a thread.

    Args:
        holder: The holder, from `Store.acquire`.
        timeout: Seconds to wait for the end.

    Raises:
        LedgerError: The process cannot be identified from here, belongs to another user, or does not end.
    """
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        raise LedgerError(
            f"process {holder.pid} was not ended: this system has no pidfd, so it cannot identify a process. End it "
            "yourself, then run the same again"
        )
    _check_reachable(holder)
    try:
        pidfd = os.pidfd_open(holder.pid)
    except ProcessLookupError:
        return
    except OSError as error:
        raise LedgerError(f"process {holder.pid} was not ended: the system refuses access to it ({error})") from error
    try:
        # Read the start time only now: the pidfd keeps the id from being reused.
        started = _start_time(str(holder.pid))
        if started is None:
            if _has_ended(pidfd, 0):
                return
            raise LedgerError(
                f"process {holder.pid} was not ended: /proc shows no start time of it, so it may be another process. "
                "Run the command as the user of that process"
            )
        if started == holder.process_started:
            _kill(pidfd, holder, timeout)
    finally:
        os.close(pidfd)


def _check_reachable(holder: Holder) -> None:
    """Check that the holder is another process of this machine, boot and PID namespace."""
    here = this_process()
    if not holder.boot_id or not holder.process_started or not holder.pid_namespace:
        raise LedgerError(
            f"process {holder.pid} on {holder.host} was not ended: the ledger has not enough data to identify it. End "
            "it yourself, then run the same again"
        )
    if holder.boot_id != here.boot_id:
        raise LedgerError(
            f"process {holder.pid} was not ended: it runs on another machine ({holder.host}), or ran before this "
            "machine was restarted. Run the command on that machine, or wait for the end of its lease"
        )
    if holder.pid_namespace != here.pid_namespace:
        raise LedgerError(
            f"process {holder.pid} was not ended: it runs in another container ({holder.host}). Run the command in "
            "that container, or stop the container"
        )
    if holder.pid == here.pid and holder.process_started == here.started:
        raise LedgerError("this process itself holds the run: close its other fan-out first")


def _kill(pidfd: int, holder: Holder, timeout: float) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return
    except PermissionError:
        raise LedgerError(
            f"process {holder.pid} was not ended: it belongs to another user. Run the command as that user"
        ) from None
    if not _has_ended(pidfd, timeout):
        raise LedgerError(
            f"process {holder.pid} got a SIGKILL, and has not ended within {timeout:g} s: it may wait for a disk. Run "
            "the same again later"
        )


def _has_ended(pidfd: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def _start_time(pid: str) -> int | None:
    # The program's name may hold spaces and brackets. The last bracket ends it.
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((_PROC / pid / "stat").read_text(errors="replace").rpartition(")")[2].split()[_START_TIME])
    return None


def _pid_namespace() -> int:
    try:
        return (_PROC / "self/ns/pid").stat().st_ino
    except OSError:
        return 0

"""The registry of this process's pacers: one per account in use."""

from __future__ import annotations

import os
import threading
from weakref import WeakValueDictionary

from dispatchkit.core.clock import Clock
from dispatchkit.core.pacing.pace import DEFAULT_PACE, Pace
from dispatchkit.core.pacing.pacer import Pacer

__all__ = ["get_pacer", "join_pacer"]

_pacers: WeakValueDictionary[tuple[object, ...], Pacer] = WeakValueDictionary()
_pacers_lock = threading.Lock()


def get_pacer(account: tuple[object, ...], pace: Pace | None, clock: Clock) -> Pacer:
    """Get the account's pacer, or make one. A given pace applies to all users of the account."""
    key = (*account, id(clock))  # the pacer keeps the clock alive, so its id stays unique
    with _pacers_lock:
        pacer = _pacers.get(key)
        if pacer is None:
            pacer = _pacers[key] = Pacer(pace or DEFAULT_PACE, clock)
        elif pace is not None:
            pacer.set(pace)
        return pacer


def join_pacer(account: tuple[object, ...], pacer: Pacer, pace: Pace | None, clock: Clock) -> Pacer:
    """The pacer of an account that a new token tells: its other clients' pacer, or the given one.

    Args:
        account: The account.
        pacer: The pacer that the client has used.
        pace: The pace that the client was given.
        clock: The clock.
    """
    with _pacers_lock:
        known = _pacers.setdefault((*account, id(clock)), pacer)
        if known is not pacer and pace is not None:
            known.set(pace)
        return known


def _forget() -> None:
    """After a fork: the parent's threads cannot release a lock or end an attempt here."""
    global _pacers_lock  # noqa: PLW0603
    _pacers_lock = threading.Lock()
    for pacer in list(_pacers.values()):
        pacer.reset_after_fork()


if hasattr(os, "register_at_fork"):  # there is none on Windows
    os.register_at_fork(after_in_child=_forget)

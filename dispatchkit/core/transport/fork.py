"""Keep a forked child from touching the connections of its parent.

A graceful close in the child would also end the parent's connection. It may be a TLS shutdown, a FIN or a change of the
shared epoll. So the child replaces its copies of the sockets before other code runs. All other inherited objects are
kept alive, so that no finaliser closes anything.
"""

from __future__ import annotations

import os
import socket
from typing import Protocol
from weakref import WeakSet

__all__ = ["KEEP_ALIVE", "fork_safe_socket", "register_fork_reset"]

KEEP_ALIVE: list[object] = []
"""Inherited objects that must not be finalised."""


class _ForkReset(Protocol):
    def reset_after_fork(self) -> object:
        """Drop the parent's connections. Returns objects whose finalisers would close them."""
        ...


_registered: WeakSet[_ForkReset] = WeakSet()
_sockets: WeakSet[socket.socket] = WeakSet()


def register_fork_reset(owner: _ForkReset) -> None:
    """Call ``owner.reset_after_fork`` in every child that is forked from now on."""
    _registered.add(owner)


def fork_safe_socket(address: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
    """Make a socket that a forked child replaces at once."""
    sock = socket.socket(*address[:3])
    _sockets.add(sock)
    return sock


def _in_child() -> None:
    inherited = [sock for sock in _sockets if sock.fileno() >= 0]
    if inherited:
        numbers = [sock.fileno() for sock in inherited]
        try:
            null = os.open(os.devnull, os.O_RDWR)
        except OSError:  # too many open files: one less makes room
            os.close(numbers[0])
            null = os.open(os.devnull, os.O_RDWR)
        for number in numbers:
            # Replaced, not closed: a closed descriptor is reused, and a late close by its owner would hit another file.
            if number != null:
                os.dup2(null, number, inheritable=False)
        if null not in numbers:
            os.close(null)
    KEEP_ALIVE.extend(inherited)
    KEEP_ALIVE.extend(owner.reset_after_fork() for owner in list(_registered))


if hasattr(os, "register_at_fork"):  # there is none on Windows
    os.register_at_fork(after_in_child=_in_child)

"""What a forked child does with the connections that it inherits: nothing.

Whatever closes a connection politely in the child (an end of TLS, a FIN, a change of the shared epoll) closes it for
the parent too. So the child gives up its copies of the sockets before anything else runs there, and keeps everything
else that it inherited from being finalised.
"""

from __future__ import annotations

import os
import socket
from typing import Protocol
from weakref import WeakSet

__all__ = ["KEEP_ALIVE", "fork_safe_socket", "register_fork_reset"]

KEEP_ALIVE: list[object] = []
"""What this process inherited and must not finalise."""


class _ForkReset(Protocol):
    def reset_after_fork(self) -> object:
        """Take up nothing of the parent's, and return what would close something if it were finalised."""
        ...


_registered: WeakSet[_ForkReset] = WeakSet()
_sockets: WeakSet[socket.socket] = WeakSet()


def register_fork_reset(each: _ForkReset) -> None:
    """Have something forget its connections in every child that is forked from now on."""
    _registered.add(each)


def fork_safe_socket(address: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
    """Make a socket that a forked child gives up at once."""
    made = socket.socket(*address[:3])
    _sockets.add(made)
    return made


def _in_child() -> None:
    inherited = [each for each in _sockets if each.fileno() >= 0]
    if inherited:
        nothing = os.open(os.devnull, os.O_RDWR)
        for each in inherited:
            # Not closed: its number would go to another file, which a late close by the old owner would then hit.
            os.dup2(nothing, each.fileno(), inheritable=False)
        os.close(nothing)
    KEEP_ALIVE.extend(inherited)
    KEEP_ALIVE.extend(each.reset_after_fork() for each in list(_registered))


if hasattr(os, "register_at_fork"):  # there is none on Windows
    os.register_at_fork(after_in_child=_in_child)

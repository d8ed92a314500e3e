"""Where faults register themselves."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Awaitable, Callable

from tests.nemesis.scene import Kind, Scene, Store

__all__ = ["FAULTS", "Fault", "fault"]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault, and where it can strike."""

    name: str
    about: str
    strike: Callable[[Scene], Awaitable[None]]
    """Starts processes and strikes. It returns when the fault is over; the scene then brings the run to its end."""
    stores: tuple[Store, ...]
    kinds: tuple[Kind, ...]
    total: int
    """How many targets."""
    own_server: bool
    """Whether it harms the server itself, and so needs one of its own."""

    needs: tuple[str, ...] = ()
    """Programs, and the rights of root to use them."""

    @property
    def missing(self) -> list[str]:
        """What this machine lacks for it."""
        lacking = [name for name in self.needs if shutil.which(name) is None]
        return lacking + ["root"] * bool(self.needs and os.geteuid())

    def fits(self, store: Store, kind: Kind) -> bool:
        """Whether it can strike there. Workers share a database, so a file has none."""
        return store in self.stores and kind in self.kinds and not (store == "sqlite" and kind == "worker")


FAULTS: dict[str, Fault] = {}


def fault(
    *,
    stores: tuple[Store, ...] = ("sqlite", "postgres"),
    kinds: tuple[Kind, ...] = ("command", "worker"),
    total: int = 4000,
    own_server: bool = False,
    needs: tuple[str, ...] = (),
) -> Callable[[Callable[[Scene], Awaitable[None]]], Callable[[Scene], Awaitable[None]]]:
    """Register a function as a fault of the same name."""

    def register(strike: Callable[[Scene], Awaitable[None]]) -> Callable[[Scene], Awaitable[None]]:
        about = (strike.__doc__ or "").strip().partition("\n")[0]
        name = strike.__name__
        FAULTS[name] = Fault(name, about, strike, stores, kinds, total, own_server, needs)
        return strike

    return register

"""The stores that the contract is tested on: a maker for each. Whoever adds a database adds one here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dispatchkit.core.clock import Clock
from dispatchkit.ledger.sqlite import SqliteStore
from dispatchkit.ledger.store import Store

Maker = Callable[[Path, Clock], Store]
"""Makes a store on one and the same database each time, given a folder of its own and a clock."""

MAKERS: dict[str, Maker] = {"sqlite": lambda folder, clock: SqliteStore(folder / "launch.db", clock=clock)}

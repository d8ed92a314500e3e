"""Every fault, by name."""

from __future__ import annotations

from tests.nemesis.faults.registry import FAULTS, Fault

from tests.nemesis.faults import clocks, databases, engines, networks, operators, signals  # isort: skip  # noqa: F401

__all__ = ["FAULTS", "Fault"]

"""What tests of programs with dispatchkit use: a pytest plugin, a clock that jumps, and made outcomes.

- The plugin (`plugin`) is there wherever dispatchkit and pytest are installed. It has the fixtures ``direct``,
  ``altcraft``, ``sync_direct``, ``sync_altcraft`` and ``dispatchkit_sandbox``.
- `FakeClock` lets a test of a minute take milliseconds.
- `outcomes` makes an outcome or an error of each kind, for a test that needs no client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatchkit.testing import outcomes
    from dispatchkit.testing.clock import FakeClock

__all__ = ["FakeClock", "outcomes"]


def __getattr__(name: str) -> object:
    # pytest imports this package in every program's tests, so it loads the rest on demand.
    if name == "outcomes":
        return import_module("dispatchkit.testing.outcomes")
    if name != "FakeClock":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = import_module("dispatchkit.testing.clock").FakeClock
    globals()[name] = value
    return value

"""Many commands through one client: the public home of `FanOut`, `Outcome`, `Report` and `StopReason`."""

from __future__ import annotations

from dispatchkit.core.fanout import FanOut
from dispatchkit.core.guards import StopReason
from dispatchkit.core.outcome import Outcome, Report

__all__ = ["FanOut", "Outcome", "Report", "StopReason"]

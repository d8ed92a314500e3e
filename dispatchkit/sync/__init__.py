"""Blocking clients: the same calls for code that does not run an event loop.

Each client here holds its asynchronous client and runs that one's methods on an event loop in a thread of its own, one
for the whole process (`dispatchkit.sync.portal`). A method takes, returns and raises what the asynchronous method does.

>>> from dispatchkit import sync
>>> with sync.DirectClient("token", base_url="https://direct.example") as direct:
...     fan_out = sync.FanOut(direct, [])
...     print(fan_out.finish())
Report(done=0, rejected=0, not_sent=0, unknown=0, not_started=0, previously_finished=0)
"""

from __future__ import annotations

from dispatchkit import Done, NotSent, Outcome, Rejected, Report, Unknown
from dispatchkit.sync.altcraft import AltcraftClient
from dispatchkit.sync.direct import DirectClient
from dispatchkit.sync.fan_out import FanOut

__all__ = [
    "AltcraftClient",
    "DirectClient",
    "Done",
    "FanOut",
    "NotSent",
    "Outcome",
    "Rejected",
    "Report",
    "Unknown",
]

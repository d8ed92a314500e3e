"""Blocking clients and ledgers: the same calls for code that does not run an event loop.

Each of them holds an asynchronous one and runs its methods on an event loop in a separate thread. The process
has one such thread (`dispatchkit.sync.portal`). A method takes, returns and raises what the asynchronous method does.

Example:
    >>> from dispatchkit import sync
    >>> with sync.DirectClient("token", base_url="http://127.0.0.1:1") as direct:
    ...     direct.start_many([]).finish().total
    0
"""

from __future__ import annotations

from dispatchkit import Done, NotSent, Outcome, Rejected, Report, Snapshot, Unknown
from dispatchkit.sync.altcraft import AltcraftClient
from dispatchkit.sync.direct import DirectClient
from dispatchkit.sync.fan_out import FanOut
from dispatchkit.sync.ledger import Ledger

__all__ = [
    "AltcraftClient",
    "DirectClient",
    "Done",
    "FanOut",
    "Ledger",
    "NotSent",
    "Outcome",
    "Rejected",
    "Report",
    "Snapshot",
    "Unknown",
]

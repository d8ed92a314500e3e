"""Whether the process that holds a chunk is still there, as far as one of the same machine can see."""

from __future__ import annotations

import os

from dispatchkit.ledger.store import Holder

__all__ = ["gone"]


def gone(holder: Holder, here: str) -> bool:
    """Whether a holder is certainly dead: its process was on this host, and is there no more."""
    if holder.host != here or os.name == "nt":  # there, to ask for a process is to end it
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it is there, and somebody else's
    return False

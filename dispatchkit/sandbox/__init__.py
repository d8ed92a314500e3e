"""Both providers on loopback, with faults to order: for tests that must not launch anything."""

from dispatchkit.sandbox.altcraft import AltcraftProvider
from dispatchkit.sandbox.direct import DirectProvider
from dispatchkit.sandbox.faults import Fault
from dispatchkit.sandbox.ids import Ids
from dispatchkit.sandbox.server import Sandbox
from dispatchkit.sandbox.wire import Act, Call, Reply

__all__ = ["Act", "AltcraftProvider", "Call", "DirectProvider", "Fault", "Ids", "Reply", "Sandbox"]

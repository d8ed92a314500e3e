"""Launch marketing mailings of i-Digital Direct and Altcraft, and always be told what happened.

Every call ends in one of four outcomes:

- The call returns: done.
- `RejectedError`: the provider refused the command and did nothing.
- `NotSentError`: no byte of the request left this process.
- `OutcomeUnknownError`: the command may have been carried out.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from dispatchkit._version import __version__

if TYPE_CHECKING:
    from dispatchkit import sync
    from dispatchkit.altcraft.client import AltcraftClient, AltcraftOptions
    from dispatchkit.altcraft.commands import ActivateMailing, DeactivateMailing, LaunchBroadcast, LaunchRegular
    from dispatchkit.altcraft.counters import AudienceCounts, ChannelCounters
    from dispatchkit.altcraft.mailings import Mailing
    from dispatchkit.altcraft.models import Attachment, Audience, LogEntry, MailingAccepted, MailingStatus
    from dispatchkit.altcraft.watch import MailingProgress
    from dispatchkit.core.call.options import ClientOptions
    from dispatchkit.core.call.retry import RetryPolicy
    from dispatchkit.core.events import (
        AttemptEnded,
        BreakerOpened,
        CallEnded,
        CallEvent,
        CallStarted,
        Event,
        Paused,
        RunEnded,
        RunStarted,
        StateRead,
        Waiting,
    )
    from dispatchkit.core.fanout.check import LaunchCheck, Objection
    from dispatchkit.core.fanout.fan_out import FanOut
    from dispatchkit.core.fanout.guards import StopReason
    from dispatchkit.core.fanout.options import FanOutOptions
    from dispatchkit.core.fanout.outcome import Done, NotSent, Outcome, Rejected, Report, Unknown
    from dispatchkit.core.fanout.polling import WatchEnd
    from dispatchkit.core.fanout.snapshot import Snapshot
    from dispatchkit.core.fanout.window import Window
    from dispatchkit.core.listing import Listing
    from dispatchkit.core.observe import Observer
    from dispatchkit.core.pacing.pace import Pace
    from dispatchkit.core.secret import ExpiringToken
    from dispatchkit.direct.client import DirectClient, DirectOptions
    from dispatchkit.direct.commands import StartDispatch, StopDispatch
    from dispatchkit.direct.messages import AddedMessage, AddedMessages, AddMessages, Message
    from dispatchkit.direct.models import Dispatch, DispatchBase, DispatchCounts, DispatchSource, StartedDispatch
    from dispatchkit.direct.watch import DispatchProgress
    from dispatchkit.errors import (
        AccessDeniedError,
        AccountMismatchError,
        AuthenticationError,
        ChunkHeldError,
        DispatchkitError,
        InappropriateStatusError,
        LedgerError,
        NotFoundError,
        NotSentError,
        OutcomeUnknownError,
        ProviderSilentError,
        RejectedError,
        RepeatedTargetsError,
        RunHeldError,
        RunStoppedError,
        State,
        ThrottledError,
    )
    from dispatchkit.ledger.ledger import Ledger
    from dispatchkit.ledger.run import Counts, Run
    from dispatchkit.ledger.series import Bucket
    from dispatchkit.ledger.target import Target
    from dispatchkit.values import json_schema, to_json

__all__ = [
    "AccessDeniedError",
    "AccountMismatchError",
    "ActivateMailing",
    "AddMessages",
    "AddedMessage",
    "AddedMessages",
    "AltcraftClient",
    "AltcraftOptions",
    "Attachment",
    "AttemptEnded",
    "Audience",
    "AudienceCounts",
    "AuthenticationError",
    "BreakerOpened",
    "Bucket",
    "CallEnded",
    "CallEvent",
    "CallStarted",
    "ChannelCounters",
    "ChunkHeldError",
    "ClientOptions",
    "Counts",
    "DeactivateMailing",
    "DirectClient",
    "DirectOptions",
    "Dispatch",
    "DispatchBase",
    "DispatchCounts",
    "DispatchProgress",
    "DispatchSource",
    "DispatchkitError",
    "Done",
    "Event",
    "ExpiringToken",
    "FanOut",
    "FanOutOptions",
    "InappropriateStatusError",
    "LaunchBroadcast",
    "LaunchCheck",
    "LaunchRegular",
    "Ledger",
    "LedgerError",
    "Listing",
    "LogEntry",
    "Mailing",
    "MailingAccepted",
    "MailingProgress",
    "MailingStatus",
    "Message",
    "NotFoundError",
    "NotSent",
    "NotSentError",
    "Objection",
    "Observer",
    "Outcome",
    "OutcomeUnknownError",
    "Pace",
    "Paused",
    "ProviderSilentError",
    "Rejected",
    "RejectedError",
    "RepeatedTargetsError",
    "Report",
    "RetryPolicy",
    "Run",
    "RunEnded",
    "RunHeldError",
    "RunStarted",
    "RunStoppedError",
    "Snapshot",
    "StartDispatch",
    "StartedDispatch",
    "State",
    "StateRead",
    "StopDispatch",
    "StopReason",
    "Target",
    "ThrottledError",
    "Unknown",
    "Waiting",
    "WatchEnd",
    "Window",
    "__version__",
    "json_schema",
    "sync",
    "to_json",
]

# The module of each name. aiohttp takes a third of a second to import. Programs that only catch an error or print a
# help page do not import it.
_HOMES = {
    "dispatchkit.altcraft.client": ("AltcraftClient", "AltcraftOptions"),
    "dispatchkit.altcraft.commands": ("ActivateMailing", "DeactivateMailing", "LaunchBroadcast", "LaunchRegular"),
    "dispatchkit.altcraft.counters": ("AudienceCounts", "ChannelCounters"),
    "dispatchkit.altcraft.mailings": ("Mailing",),
    "dispatchkit.altcraft.models": ("Attachment", "Audience", "LogEntry", "MailingAccepted", "MailingStatus"),
    "dispatchkit.altcraft.watch": ("MailingProgress",),
    "dispatchkit.direct.watch": ("DispatchProgress",),
    "dispatchkit.core.fanout.polling": ("WatchEnd",),
    "dispatchkit.core.fanout.check": ("LaunchCheck", "Objection"),
    "dispatchkit.core.fanout.fan_out": ("FanOut",),
    "dispatchkit.core.listing": ("Listing",),
    "dispatchkit.core.fanout.outcome": ("Done", "NotSent", "Outcome", "Rejected", "Report", "Unknown"),
    "dispatchkit.core.fanout.snapshot": ("Snapshot",),
    "dispatchkit.core.observe": ("Observer",),
    "dispatchkit.core.events": (
        "AttemptEnded",
        "BreakerOpened",
        "CallEnded",
        "CallEvent",
        "CallStarted",
        "Event",
        "Paused",
        "RunEnded",
        "RunStarted",
        "StateRead",
        "Waiting",
    ),
    "dispatchkit.core.pacing.pace": ("Pace",),
    "dispatchkit.core.secret": ("ExpiringToken",),
    "dispatchkit.core.call.options": ("ClientOptions",),
    "dispatchkit.core.call.retry": ("RetryPolicy",),
    "dispatchkit.core.fanout.guards": ("StopReason",),
    "dispatchkit.core.fanout.options": ("FanOutOptions",),
    "dispatchkit.core.fanout.window": ("Window",),
    "dispatchkit.direct.client": ("DirectClient", "DirectOptions"),
    "dispatchkit.direct.commands": ("StartDispatch", "StopDispatch"),
    "dispatchkit.direct.messages": ("AddMessages", "AddedMessage", "AddedMessages", "Message"),
    "dispatchkit.direct.models": ("Dispatch", "DispatchBase", "DispatchCounts", "DispatchSource", "StartedDispatch"),
    "dispatchkit.errors": (
        "AccessDeniedError",
        "AccountMismatchError",
        "AuthenticationError",
        "ChunkHeldError",
        "DispatchkitError",
        "InappropriateStatusError",
        "LedgerError",
        "NotFoundError",
        "NotSentError",
        "OutcomeUnknownError",
        "ProviderSilentError",
        "RejectedError",
        "RepeatedTargetsError",
        "RunHeldError",
        "RunStoppedError",
        "State",
        "ThrottledError",
    ),
    "dispatchkit.ledger.ledger": ("Ledger",),
    "dispatchkit.ledger.run": ("Counts", "Run"),
    "dispatchkit.ledger.series": ("Bucket",),
    "dispatchkit.ledger.target": ("Target",),
    "dispatchkit.values": ("json_schema", "to_json"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "sync":
        return import_module("dispatchkit.sync")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value  # so that the next look-up is an ordinary one
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The commands of Altcraft that only read, and the probes that settle the others by them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import cast

import attrs

from dispatchkit.altcraft.base import AltcraftCommand, AltcraftWire
from dispatchkit.altcraft.models import LogEntry, MailingAccepted, MailingStatus
from dispatchkit.core.command import Evidence, LogProbe, Probe, Response, Settlement, TimeWindow, ask_log
from dispatchkit.core.decode import structure
from dispatchkit.core.listing import Listing
from dispatchkit.core.validators import JsonValue, as_int, moment, positive_id

__all__ = ["ReadLog", "ReadStatus", "probe_activity", "probe_going_out", "probe_launch"]

_EARLIER = timedelta(seconds=15)
"""The log is read from this long before the launch: only its response shows how far the platform's clock differs."""


@attrs.frozen
class ReadStatus(AltcraftCommand[MailingStatus]):
    """Read whether a mailing is active: ``POST /api/v1.1/campaigns/get_status``."""

    is_read_only = True
    path = "campaigns/get_status"
    mailing_id: int = attrs.field(converter=as_int, validator=positive_id)

    @property
    def target(self) -> int:
        """See `Command.target`."""
        return self.mailing_id

    def fields(self) -> dict[str, JsonValue]:
        """See `AltcraftCommand.fields`."""
        return {"id": self.mailing_id}

    def read(self, fields: Mapping[str, object], response: Response, wire: AltcraftWire) -> MailingStatus:
        """See `AltcraftCommand.read`."""
        del response
        return structure(wire.codec.converter, fields.get("data"), MailingStatus, "a mailing's status")


@attrs.frozen
class ReadLog(AltcraftCommand[Listing[LogEntry]]):
    """Read a mailing's log, or its entries since a time: ``POST /api/v1.1/campaigns/log_v2``.

    Raises:
        TypeError: A field is of another type; the message names it.
        ValueError: ``mailing_id`` or ``limit`` is not positive, or ``since`` has no time zone.
    """

    is_read_only = True
    path = "campaigns/log_v2"
    mailing_id: int = attrs.field(converter=as_int, validator=positive_id)
    since: datetime | None = attrs.field(default=None, validator=moment)
    limit: int = attrs.field(default=1000, converter=as_int, validator=positive_id)

    @property
    def target(self) -> int:
        """See `Command.target`."""
        return self.mailing_id

    def fields(self) -> dict[str, JsonValue]:
        """See `AltcraftCommand.fields`."""
        fields: dict[str, JsonValue] = {"id": self.mailing_id}
        if self.since is not None:
            since = self.since.astimezone(UTC).replace(tzinfo=None)
            fields["from_time"] = since.isoformat(timespec="milliseconds") + "Z"
        return {**fields, "limit": self.limit}

    def read(self, fields: Mapping[str, object], response: Response, wire: AltcraftWire) -> Listing[LogEntry]:
        """See `AltcraftCommand.read`. No entries come as null; XML may leave a single one bare."""
        del response
        data = fields.get("data")
        entries = [] if data is None else cast("list[object]", data) if isinstance(data, list) else [data]
        try:
            total = wire.codec.converter.structure(fields.get("total_count"), int)
        except TypeError:
            total = None
        return Listing(
            tuple(structure(wire.codec.converter, entry, LogEntry, "a log entry") for entry in entries), total
        )


def probe_launch(mailing_id: int, since: datetime) -> LogProbe[AltcraftWire, MailingAccepted]:
    """Probe the log for the start of a launch.

    An entry does not say which launch made it, so only a single start in a complete log counts. A missing start proves
    nothing: the platform does not document when an entry appears.
    """
    log = ReadLog(mailing_id, since - _EARLIER)

    def settle(entries: Listing[LogEntry], window: TimeWindow) -> Settlement[MailingAccepted]:
        if (unreadable := _unreadable(entries, log)) is not None:
            return unreadable
        # A start after the launch's time window belongs to another launch.
        starts = [entry for entry in _within(entries, window) if entry.state == "start"]
        if not starts:
            return Settlement(Evidence.ABSENT, "its log shows no start at that time")
        if len(starts) > 1:
            return Settlement(
                Evidence.UNAVAILABLE, f"its log shows {len(starts)} starts, which do not say whose they are"
            )
        return Settlement(Evidence.APPLIED, "its log shows a start", MailingAccepted(mailing_id, settled=True))

    return ask_log(log, settle)


def probe_going_out(mailing_id: int, since: datetime, *, launches: int) -> LogProbe[AltcraftWire, MailingAccepted]:
    """Probe the log for the starts of launches, and for errors.

    The platform writes what fails to the mailing's log. An entry does not say which launch made it. So each launch
    needs a start of its own, and an entry of level ``ERROR`` fails all of them.
    """
    log = ReadLog(mailing_id, since - _EARLIER)

    def settle(entries: Listing[LogEntry], window: TimeWindow) -> Settlement[MailingAccepted]:
        if (unreadable := _unreadable(entries, log)) is not None:
            return unreadable
        ours = _within(entries, window)
        if any(entry.level.upper() == "ERROR" for entry in ours):
            # Its message is untrusted text, and may quote the mailing.
            return Settlement(Evidence.NEVER_APPLIED, "its log shows an ERROR entry")
        starts = sum(entry.state == "start" for entry in ours)
        if starts >= launches:
            return Settlement(
                Evidence.APPLIED, "its log shows a start" if launches == 1 else f"its log shows {starts} starts"
            )
        shown = "no start" if not starts else f"{starts} of {launches} starts"
        return Settlement(Evidence.INCONCLUSIVE, f"its log shows {shown}")

    return ask_log(log, settle)


def _unreadable(entries: Listing[LogEntry], log: ReadLog) -> Settlement[MailingAccepted] | None:
    """The settlement by a log that is incomplete or tells no time; None if it is neither."""
    if entries.total is not None and entries.total != len(entries):
        return Settlement(Evidence.INCONCLUSIVE, f"its log shows {len(entries)} entries and counts {entries.total}")
    if entries.total is None and len(entries) >= log.limit:
        return Settlement(Evidence.INCONCLUSIVE, f"its log shows {len(entries)} entries, and there may be more")
    if any(entry.time.tzinfo is None for entry in entries):
        return Settlement(Evidence.UNAVAILABLE, "its log shows times without a zone")
    return None


def _within(entries: Listing[LogEntry], window: TimeWindow) -> list[LogEntry]:
    """The entries of the time window. The log's times are in milliseconds."""
    first = window.first - timedelta(milliseconds=1)
    return [entry for entry in entries if first <= entry.time <= window.last]


def probe_activity(
    mailing_id: int, evidence_by_status: Mapping[bool, Evidence]
) -> Probe[AltcraftWire, MailingAccepted]:
    """Probe the status for whether a mailing is active."""

    def settle(status: MailingStatus) -> Settlement[MailingAccepted]:
        evidence = evidence_by_status[status.is_active]
        result = MailingAccepted(mailing_id, settled=True) if evidence is Evidence.APPLIED else None
        return Settlement(evidence, f"its state reads {'active' if status.is_active else 'not active'}", result)

    return Probe.of(ReadStatus(mailing_id), settle)

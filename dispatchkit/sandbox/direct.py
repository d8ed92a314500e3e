"""i-Digital Direct, played as a pure state machine.

Nothing here does I/O or sleeps. A dispatch is a list of timed marks (started, stopped). Its status is computed from
them for any moment, including the past (``read_lag``). An untouched dispatch takes no memory.

Where the contract is silent, the sandbox answers in plain text and invents no provider code.
"""

from __future__ import annotations

import calendar
import json
import re
import time
from collections import Counter
from itertools import count, islice
from typing import TYPE_CHECKING, Literal, TypeAlias
from uuid import UUID

from attrs import define

from dispatchkit.sandbox.ids import Ids
from dispatchkit.sandbox.wire import Act, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dispatchkit.sandbox.wire import Action, Call, Json

DIRECT_TOKEN = "c2FuZGJveDpzYW5kYm94"  # noqa: S105 - made for the sandbox: Base64 of sandbox:sandbox
WRONG_KIND_TOKEN = "c2FuZGJveDpzeXN0ZW0="  # noqa: S105 - made for the sandbox: Base64 of sandbox:system

SecondStart: TypeAlias = Literal["acts", "refused"]
"""What starting a dispatch again does; the provider does not document it."""

_LIST = "/api/v1/dispatch"
_ONE = re.compile(r"/api/v1/dispatch/([0-9]{1,18})/(start|stop|messages)")
_DESTINATION = re.compile(r"[0-9]+")
_INTEGER = re.compile(r"[0-9]{1,18}")
_UTC = "%Y-%m-%dT%H:%M:%SZ"
_LOCAL = "%Y-%m-%d %H:%M:%S"
_RECIPIENTS = 1235
_TRAFFIC_CENTER = 12

# Where the messages of a dispatch are while it has a status.
_COUNTED_AS = {"sending": "sending", "awaiting": "sent", "done": "delivered"}
_COUNTS = ("delivered", "undelivered", "unsent", "sent", "sending")


def _error(status: int, code: int, msg: str) -> Reply:
    return Reply.of_json(status, {"error": {"code": code, "msg": msg}})


_NOT_AUTHENTICATED = _error(401, 4010, "Not Authenticated")
_BAD_CREDENTIALS = _error(401, 4012, "Bad credentials")
_ACCESS_DENIED = _error(403, 4030, "Access Denied")
_INAPPROPRIATE_STATUS = _error(403, 4031, "Inappropriate dispatch status")
_STOPPED = Reply(200)


_Mark: TypeAlias = tuple[float, Literal["start", "stop"]]


@define(weakref_slot=False)
class _Dispatch:
    """What happened to one dispatch, oldest first; kept whole, because readers may look at the past."""

    marks: tuple[_Mark, ...] = ()
    messages: tuple[tuple[float, int], ...] = ()

    def mark(self, mark: _Mark) -> None:
        self.marks = (*self.marks, mark)

    def last_mark(self, moment: float) -> _Mark | None:
        return next((mark for mark in reversed(self.marks) if mark[0] <= moment), None)


_UNTOUCHED = _Dispatch()


class DirectProvider:
    """i-Digital Direct as its contract describes it: start, stop, add messages, list.

    A started dispatch is ``scheduled``, ``sending``, ``awaiting`` and ``done`` in turn, as the clock passes; a stop
    makes it ``stopped``. ``second_start``, the three durations and ``read_lag`` are attributes too and may be changed
    at any time.

    Args:
        dispatches: The ids that exist; see :class:`Ids`. A ``range`` of any size is free.
        token: The one good API key, as it stands in the header after ``Basic``. Default: Base64 of sandbox:sandbox.
        wrong_kind_token: A key that is genuine but of a kind that dispatches do not take: 403, code 4030.
            Default: Base64 of sandbox:system.
        second_start: What a start of a started dispatch does. ``"acts"`` launches it again and counts another launch.
            ``"refused"`` answers 403, code 4031. Default: ``"acts"``, the harshest reading.
        scheduled: Seconds from the start until sending begins. Default: 1.
        sending: Seconds until everything is sent. Default: 30.
        awaiting: Seconds until the last delivery status is in. Default: 30.
        read_lag: ``GET /dispatch`` shows the state as it was so many seconds ago. Default: 0.
        listed: How many ids an unfiltered list shows besides those that were touched. Default: 1,000.
        clock: The time in seconds since the epoch. Default: ``time.time``.

    Attributes:
        acts: What was really done, in order.
        launches: How many times each dispatch was really launched.
        stuck: The status that a started dispatch shows, by its id, in place of the ones in turn. Default: none.

    Raises:
        ValueError: ``second_start`` is neither ``"acts"`` nor ``"refused"``.
    """

    def __init__(
        self,
        dispatches: Iterable[int],
        *,
        token: str = DIRECT_TOKEN,
        wrong_kind_token: str = WRONG_KIND_TOKEN,
        second_start: SecondStart = "acts",
        scheduled: float = 1.0,
        sending: float = 30.0,
        awaiting: float = 30.0,
        read_lag: float = 0.0,
        listed: int = 1000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if second_start not in ("acts", "refused"):
            raise ValueError(f'second_start must be "acts" or "refused", not {second_start!r}')
        self.second_start: SecondStart = second_start
        self.scheduled = scheduled
        self.sending = sending
        self.awaiting = awaiting
        self.read_lag = read_lag
        self.acts: list[Act] = []
        self.launches: Counter[int] = Counter()
        self.stuck: dict[int, str] = {}
        self._ids = Ids(dispatches)
        self._credentials = f"Basic {token}"
        self._wrong_kind = f"Basic {wrong_kind_token}"
        self._listed = listed
        self._clock = clock
        self._created = clock()
        self._touched: dict[int, _Dispatch] = {}
        self._uuids = (str(UUID(int=number, version=4)) for number in count(1))

    def answer(self, call: Call) -> Reply:
        """The provider's reply to one call, after acting on it.

        Never raises and never waits. Paths that the contract does not have get the sandbox's own 404 in plain text.
        """
        now = self._clock()
        if call.method == "GET" and call.path == _LIST:
            return self._refuse(call) or self._list(call, now)
        matched = _ONE.fullmatch(call.path) if call.method == "POST" else None
        if matched is None:
            return Reply.of_sandbox(404, f"the contract of Direct has no {call.method} {call.path}")
        return self._refuse(call) or self._change(int(matched[1]), matched[2], call, now)

    def status(self, dispatch_id: int, moment: float | None = None) -> str:
        """The status of a dispatch on the wire at ``moment`` (default: now), without any read lag."""
        dispatch = self._touched.get(dispatch_id, _UNTOUCHED)
        status = self._status(dispatch, self._clock() if moment is None else moment)
        return status if status in ("initiated", "stopped") else self.stuck.get(dispatch_id, status)

    def _refuse(self, call: Call) -> Reply | None:
        """The refusal of a call whose credentials will not do."""
        header = call.header("Authorization")
        if header == self._credentials:
            return None
        if header == self._wrong_kind:
            return _ACCESS_DENIED
        scheme, _, key = (header or "").partition(" ")
        return _BAD_CREDENTIALS if scheme == "Basic" and key.strip() else _NOT_AUTHENTICATED

    def _status(self, dispatch: _Dispatch, moment: float) -> str:
        mark = dispatch.last_mark(moment)
        if mark is None:
            return "initiated"
        if mark[1] == "stop":
            return "stopped"
        elapsed = moment - mark[0]
        for status, seconds in (("scheduled", self.scheduled), ("sending", self.sending), ("awaiting", self.awaiting)):
            if elapsed < seconds:
                return status
            elapsed -= seconds
        return "done"

    def _change(self, dispatch_id: int, what: str, call: Call, now: float) -> Reply:
        if dispatch_id not in self._ids:
            return _error(404, 4040, f"Dispatch {dispatch_id} not found")
        match what:
            case "start":
                return self._start(dispatch_id, now)
            case "stop":
                return self._stop(dispatch_id, now)
            case _:
                return self._add_messages(dispatch_id, call, now)

    def _start(self, dispatch_id: int, now: float) -> Reply:
        dispatch = self._touched.setdefault(dispatch_id, _Dispatch())
        if dispatch.marks and self.second_start == "refused":
            return _INAPPROPRIATE_STATUS
        dispatch.mark((now, "start"))
        self.launches[dispatch_id] += 1
        self._acted("start", dispatch_id, now)
        return Reply.of_json(200, {"dispatchId": dispatch_id})

    def _stop(self, dispatch_id: int, now: float) -> Reply:
        dispatch = self._touched.get(dispatch_id, _UNTOUCHED)
        if self._status(dispatch, now) in ("initiated", "done", "stopped"):
            return _INAPPROPRIATE_STATUS
        dispatch.mark((now, "stop"))
        self._acted("stop", dispatch_id, now)
        return _STOPPED

    def _add_messages(self, dispatch_id: int, call: Call, now: float) -> Reply:
        dispatch = self._touched.get(dispatch_id)
        if dispatch is not None and dispatch.marks:
            return _INAPPROPRIATE_STATUS
        destinations = _destinations(call)
        if isinstance(destinations, str):
            return Reply.of_sandbox(400, destinations)
        taken = 0
        result: list[Json] = []
        for destination in destinations:
            if _DESTINATION.fullmatch(destination):
                result.append({"destination": destination, "messageUuid": next(self._uuids)})
                taken += 1
            else:
                result.append({"destination": destination, "errorCode": 7401})
        if taken:
            self._touched.setdefault(dispatch_id, _Dispatch()).messages += ((now, taken),)
            self._acted("add_messages", dispatch_id, now)
        return Reply.of_json(200, result)

    def _acted(self, action: Action, dispatch_id: int, now: float) -> None:
        self.acts.append(Act("direct", action, dispatch_id, now))

    def _list(self, call: Call, now: float) -> Reply:
        """The dispatches that pass every filter.

        Without ``dispatch_id``, only the touched dispatches and the first ``listed`` ids count, since a list of ten
        million is useless. Filters compare for equality, ``created_*`` are inclusive bounds, and
        parameters that the contract does not have are ignored.
        """
        moment = now - self.read_lag
        query = call.query
        try:
            earliest = _utc(query.get("created_from"), default=float("-inf"))
            latest = _utc(query.get("created_to"), default=float("inf"))
            wanted = _integer(query.get("dispatch_id"))
            center = _integer(query.get("traffic_center_id"))
        except ValueError as error:
            return Reply.of_sandbox(400, f"what Direct answers to a malformed filter is not known ({error})")
        items: list[Json] = []
        if earliest <= int(self._created) <= latest and center in (None, _TRAFFIC_CENTER):
            for dispatch_id in self._candidates(wanted):
                status = self.status(dispatch_id, moment)
                name = _name(dispatch_id)
                if query.get("status", status) == status and query.get("dispatch_name", name) == name:
                    items.append(self._item(dispatch_id, status, moment))
        return Reply.of_json(200, {"total": len(items), "items": items})

    def _candidates(self, wanted: int | None) -> Iterable[int]:
        if wanted is not None:
            return (wanted,) if wanted in self._ids else ()
        return sorted({*self._touched, *islice(self._ids, self._listed)})

    def _item(self, dispatch_id: int, status: str, moment: float) -> Json:
        dispatch = self._touched.get(dispatch_id, _UNTOUCHED)
        mark = dispatch.last_mark(moment)
        send_time = (self._created if mark is None else mark[0]) + self.scheduled
        total = _RECIPIENTS + sum(taken for at, taken in dispatch.messages if at <= moment)
        counts: dict[str, Json] = {"total": total, **dict.fromkeys(_COUNTS, 0)}
        counts[_COUNTED_AS.get(status, "unsent")] = total
        return {
            "dispatchId": dispatch_id,
            "dispatchName": _name(dispatch_id),
            "created": time.strftime(_UTC, time.gmtime(self._created)),
            "localSendTime": time.strftime(_LOCAL, time.gmtime(send_time)),
            "localCompletionTime": time.strftime(_LOCAL, time.gmtime(send_time + self.sending + self.awaiting)),
            "useLocalTime": True,
            "status": status,
            "source": "sendername",
            "message": "текст сообщения",
            "trafficCenterId": _TRAFFIC_CENTER,
            "trafficCenterName": "ЦРТ для рассылок",
            "base": {
                "included": {"type": "FILE", "name": "имя_файла.xlsx"},
                "excluded": {"type": "FILE", "name": "исключаемые_абоненты.xlsx"},
            },
            "parts": counts,
            "messages": counts,
        }


def _name(dispatch_id: int) -> str:
    return f"рассылка {dispatch_id}"


def _integer(text: str | None) -> int | None:
    if text is not None and not _INTEGER.fullmatch(text):
        raise ValueError(f"not an integer: {text!r}")
    return None if text is None else int(text)


def _utc(text: str | None, *, default: float) -> float:
    return default if text is None else calendar.timegm(time.strptime(text, _UTC))


def _destinations(call: Call) -> list[str] | str:
    """The destinations of a batch, or what is wrong with it in a sentence."""
    if (call.header("Content-Type") or "").partition(";")[0].strip().lower() != "application/json":
        return "messages are documented with Content-Type: application/json"
    try:
        batch: Json = json.loads(call.body)
    except (ValueError, RecursionError):
        return "the body is not JSON"
    if not isinstance(batch, list):
        return "the body must be an array of messages"
    destinations: list[str] = []
    for message in batch:
        destination = message.get("destination") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(destination, str):
            return "every message is an object with a destination, which is a string"
        if not isinstance(message.get("substitutions", {}), dict):
            return "substitutions must be an object"
        destinations.append(destination)
    return destinations

"""Altcraft Platform, played as a pure state machine, in JSON and in XML.

Nothing here does I/O or sleeps. A mailing is a list of timed switches (active or not) and of runs with start and end.
Its state and its log are computed for any moment, including the past (``read_lag``). An untouched mailing takes no
memory.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from dispatchkit.sandbox import altcraft_lists
from dispatchkit.sandbox.altcraft_mailing import MailingHistory, Run, log_entry
from dispatchkit.sandbox.dedup import Deduplication
from dispatchkit.sandbox.fields import Fields, RefusedError
from dispatchkit.sandbox.ids import Ids
from dispatchkit.sandbox.wire import Act, Reply

from . import xml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dispatchkit.sandbox.dedup import Generation
    from dispatchkit.sandbox.wire import Action, Call, Json

ALTCRAFT_TOKEN = "sandbox"  # noqa: S105 - made for the sandbox

_BODY_LIMIT = 10 * 1024 * 1024
_BODY_LIMIT_WITH_FILES = 100 * 1024 * 1024


@frozen
class _Now:
    """The moment of a call and the id it came with: what an act has to record."""

    at: float
    request_id: str | None


@frozen
class _Method:
    """One endpoint: what it does, and how it takes part in the deduplication."""

    run: Callable[[Fields, _Now], dict[str, Json]]
    changes: bool = False
    launches: bool = False


class AltcraftProvider:
    """Altcraft as its contract describes it: activate, launch, deactivate, and the two ways to see what came of it.

    It plays ``campaigns/activate/``, ``campaigns/broadcasts/start``, ``campaigns/regulars/start`` and
    ``campaigns/deactivate``. It plays ``campaigns/get_status``, ``campaigns/log_v2``, and list and get of campaigns,
    broadcasts and regulars. It plays ``get_counters`` of databases and segments, too. All are under ``/api/v1.1/``,
    each under exactly its path.
    A launch during or after another one launches again. ``run_seconds``, ``tariff_limit``, ``deduplicates``,
    ``replays_errors``, ``sloppy_xml`` and ``read_lag`` are attributes too and may be changed at any time.

    Args:
        mailings: The ids that exist; see :class:`Ids`. A ``range`` of any size is free.
        active: Those of them that are active from the beginning. Default: none.
        regulars: Those of them that are regular; all others are broadcasts. Default: none.
        dynamic_segments: The segments whose counters need a ``list_id``. Default: none.
        token: The one good API token. Default: ``"sandbox"``.
        run_seconds: How long a run lasts until the log shows its end. Default: 30.
        tariff_limit: How many launches the tariff pays for; after them error 402. Default: None, no limit.
        deduplicates: Whether repeats are recognised, for one day from the first request. Default: True.
        replay_generation: ``"newer"`` honours ``Request-ID``. A launch without one is recognised by its checksum.
            Replays have ``Duplicate-Request`` and ``Duplicate-Key``. ``"older"`` honours ``X-Request-ID`` alone.
            Its replays have ``X-Duplicate-Request`` and ``X-Duplicate-Key``. Default: ``"newer"``.
        replays_errors: Whether a refusal is remembered and replayed like a success; the provider does not document
            it. Refused tokens and unreadable bodies never are. Default: True, the harshest reading.
        sloppy_xml: Whether the ``status`` string wears literal quotes in XML, as in the provider's docs. Default: True.
        read_lag: ``get_status`` and ``log_v2`` show the state as it was so many seconds ago. Default: 0.
        clock: The time in seconds since the epoch, also for the ``Date`` of each reply and for log entries. A wrong
            clock simulates a platform whose clock is wrong. Default: ``time.time``.

    Attributes:
        listed: How many ids a list shows besides those that were touched, at first 1,000.
        acts: What was really done, in order. A launch by ``run_now`` is one act, ``launch``. To switch on what is
            on, or off what is off, is no act.
        launches: How many times each mailing was really launched.
        errors: The message of the ``ERROR`` entry that a launch writes to the log, by the id of its mailing. The entry
            stands before the start. Default: none.
        unstarted: Mailings whose log shows no start of a launch. Default: none.
        audiences: Subscriptions of an audience, such as ``("list", 1)``, in the channel ``email``: all, and those that
            can be sent to. One that is not here has 1,235 and 1,000, and 500 and 400 in the channel ``sms``.

    Raises:
        ValueError: ``replay_generation`` is neither ``"newer"`` nor ``"older"``.
    """

    def __init__(
        self,
        mailings: Iterable[int],
        *,
        active: Iterable[int] = (),
        regulars: Iterable[int] = (),
        dynamic_segments: Iterable[int] = (),
        token: str = ALTCRAFT_TOKEN,
        run_seconds: float = 30.0,
        tariff_limit: int | None = None,
        deduplicates: bool = True,
        replay_generation: Generation = "newer",
        replays_errors: bool = True,
        sloppy_xml: bool = True,
        read_lag: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.run_seconds = run_seconds
        self.tariff_limit = tariff_limit
        self.deduplicates = deduplicates
        self.replays_errors = replays_errors
        self.sloppy_xml = sloppy_xml
        self.read_lag = read_lag
        self.listed = 1000
        self.dynamic_segments = Ids(dynamic_segments)
        self._created = clock()
        self.acts: list[Act] = []
        self.launches: Counter[int] = Counter()
        self.errors: dict[int, str] = {}
        self.unstarted: set[int] = set()
        self.audiences: dict[tuple[str, int], tuple[int, int]] = {}
        self._ids = Ids(mailings)
        self._active = Ids(active)
        self._regulars = Ids(regulars)
        self._token = token
        self._clock = clock
        self._deduplication = Deduplication(replay_generation)
        self._launched = 0
        self._touched: dict[int, MailingHistory] = {}
        self._methods = {
            "/api/v1.1/campaigns/activate/": _Method(self._activate, changes=True, launches=True),
            "/api/v1.1/campaigns/broadcasts/start": _Method(self._launch_broadcast, changes=True, launches=True),
            "/api/v1.1/campaigns/regulars/start": _Method(self._launch_regular, changes=True, launches=True),
            "/api/v1.1/campaigns/deactivate": _Method(self._deactivate, changes=True),
            "/api/v1.1/campaigns/get_status": _Method(self._get_status),
            "/api/v1.1/campaigns/log_v2": _Method(self._log),
            "/api/v1.1/campaigns/list": _Method(self._list),
            "/api/v1.1/campaigns/broadcasts/list": _Method(partial(self._list, regular=False)),
            "/api/v1.1/campaigns/regulars/list/": _Method(partial(self._list, regular=True)),
            "/api/v1.1/campaigns/get": _Method(self._get),
            "/api/v1.1/campaigns/broadcasts/get": _Method(partial(self._get, regular=False)),
            "/api/v1.1/campaigns/regulars/get": _Method(partial(self._get, regular=True)),
            "/api/v1.1/databases/get_counters": _Method(partial(self._counters, kind="list")),
            "/api/v1.1/segments/get_counters": _Method(partial(self._counters, kind="segment")),
        }

    def answer(self, call: Call) -> Reply:
        """The provider's reply to one call, after acting on it.

        Never waits. Refusals are HTTP 200 with ``error`` other than 0. A wrong path, slash or method gets the page of a
        web server. So does a body that is too large.

        Raises:
            ModuleNotFoundError: The call is in XML and defusedxml is not installed.
        """
        method = self._methods.get(call.path) if call.method == "POST" else None
        if method is None:
            return Reply.of_web_server(404)
        if len(call.body) > _BODY_LIMIT_WITH_FILES:
            return Reply.of_web_server(413)
        media_type = (call.header("Content-Type") or "").partition(";")[0].strip().lower()
        as_xml = media_type == "application/xml"
        reply = self._reply(call, method, media_type, as_xml=as_xml)
        return evolve(reply, headers={**reply.headers, "Date": self._date()})

    def _reply(self, call: Call, method: _Method, media_type: str, *, as_xml: bool) -> Reply:
        try:
            fields = _read(media_type, call.body)
            if len(call.body) > _BODY_LIMIT and not (method.launches and fields.has_attach()):
                return Reply.of_web_server(413)
            self._check_token(call, fields)
        except RefusedError as refused:
            return self._write(_refusal(refused), as_xml=as_xml)
        return self._answer_once(call, method, fields, as_xml=as_xml)

    def _answer_once(self, call: Call, method: _Method, fields: Fields, *, as_xml: bool) -> Reply:
        """Replay the answer of a repeated request, or run the method and remember its answer."""
        now = _Now(self._clock(), self._deduplication.request_id(call))
        key = None
        if self.deduplicates and method.changes:
            key = self._deduplication.key(call, checksum=method.launches)
        replay = None if key is None else self._deduplication.recall(key, now.at)
        if replay is not None:
            return replay
        try:
            answer = method.run(fields, now)
        except RefusedError as refused:
            answer = _refusal(refused)
            key = key if self.replays_errors else None
        reply = self._write(answer, as_xml=as_xml)
        if key is not None:
            self._deduplication.keep(key, reply, now.at)
        return reply

    def _date(self) -> str:
        return format_datetime(datetime.fromtimestamp(self._clock(), UTC), usegmt=True)

    def _check_token(self, call: Call, fields: Fields) -> None:
        scheme, _, bearer = (call.header("Authorization") or "").partition(" ")
        token = fields.text("token") or (bearer if scheme == "Bearer" else "")
        if not token:
            raise RefusedError(401, "Token required")
        if token != self._token:
            raise RefusedError(403, "No access")

    def _write(self, answer: Mapping[str, Json], *, as_xml: bool) -> Reply:
        if as_xml:
            body = xml.write(answer, sloppy=self.sloppy_xml)
            return Reply(200, body, {"Content-Type": "application/xml; charset=utf-8"})
        return Reply.of_json(200, dict(answer))

    def _known(self, fields: Fields) -> int:
        mailing_id = fields.integer("id")
        if mailing_id is None:
            raise RefusedError(400, "Incorrect request: id is required")
        if mailing_id not in self._ids:
            raise RefusedError(400, "Incorrect request: mailing not found")
        return mailing_id

    def _touch(self, mailing_id: int) -> MailingHistory:
        return self._touched.setdefault(mailing_id, MailingHistory(mailing_id in self._active))

    def _view(self, mailing_id: int) -> MailingHistory:
        """The mailing for reading only: an untouched one is not kept."""
        return self._touched.get(mailing_id) or MailingHistory(mailing_id in self._active)

    def _activate(self, fields: Fields, now: _Now) -> dict[str, Json]:
        mailing_id = self._known(fields)
        run_now = fields.flag("run_now")
        fields.check_launch(takes_audience=run_now)
        if run_now:
            self._check_tariff()
        mailing = self._touch(mailing_id)
        was_active = mailing.is_active(now.at)
        if not was_active:
            mailing.switches += ((now.at, True),)
        if run_now:
            self._launch(mailing_id, mailing, now)
        elif not was_active:
            self._acted("activate", mailing_id, now)
        return _success(None)

    def _launch_broadcast(self, fields: Fields, now: _Now) -> dict[str, Json]:
        return self._launch_active(self._of_kind(fields, regular=False), fields, now)

    def _launch_regular(self, fields: Fields, now: _Now) -> dict[str, Json]:
        return self._launch_active(self._of_kind(fields, regular=True), fields, now)

    def _of_kind(self, fields: Fields, *, regular: bool) -> int:
        mailing_id = self._known(fields)
        if (mailing_id in self._regulars) != regular:
            kind = "a regular mailing" if regular else "a broadcast"
            raise RefusedError(400, f"Incorrect request: the mailing is not {kind}")
        return mailing_id

    def _launch_active(self, mailing_id: int, fields: Fields, now: _Now) -> dict[str, Json]:
        fields.check_launch(takes_audience=True)
        if not self._view(mailing_id).is_active(now.at):
            raise RefusedError(400, "Incorrect request: the mailing is not active")
        self._check_tariff()
        self._launch(mailing_id, self._touch(mailing_id), now)
        return _success(None)

    def _deactivate(self, fields: Fields, now: _Now) -> dict[str, Json]:
        mailing_id = self._known(fields)
        aborts = fields.flag("abort_if_running")
        mailing = self._touch(mailing_id)
        going_on = [run for run in mailing.runs if run.end > now.at] if aborts else []
        was_active = mailing.is_active(now.at)
        if was_active:
            mailing.switches += ((now.at, False),)
        for run in going_on:
            run.end = now.at
        if was_active or going_on:
            self._acted("deactivate", mailing_id, now)
        return _success(None)

    def _get_status(self, fields: Fields, now: _Now) -> dict[str, Json]:
        mailing = self._view(self._known(fields))
        moment = now.at - self.read_lag
        active = mailing.is_active(moment)
        return _success(
            {
                "is_active": active,
                "is_completed": mailing.is_completed(moment),
                "status": "Active" if active else "Inactive",
            }
        )

    def _log(self, fields: Fields, now: _Now) -> dict[str, Json]:
        mailing_id = self._known(fields)
        mailing = self._view(mailing_id)
        earliest = fields.moment("from_time")
        limit = fields.limit("limit")
        entries: list[Json] = []
        for at, state in mailing.log(now.at - self.read_lag):
            if earliest is not None and at < earliest:
                continue
            if state == "start" and mailing_id in self.errors:
                entries.append({**log_entry(at, ""), "level": "ERROR", "message": self.errors[mailing_id]})
            if state != "start" or mailing_id not in self.unstarted:
                entries.append(log_entry(at, state))
        return {**_success(entries[: 1000 if limit is None else limit]), "total_count": len(entries)}

    def log_error(self, mailing_id: int) -> None:
        """Write an ERROR entry to the log of a mailing, as if messages could not be handed over."""
        self._touch(mailing_id).errors += (self._clock(),)

    def _list(self, fields: Fields, now: _Now, *, regular: bool | None = None) -> dict[str, Json]:
        ids = sorted({*self._touched, *islice(self._ids, self.listed)})
        items = (self._item(number, now) for number in ids if regular in {None, number in self._regulars})
        shown, total = altcraft_lists.page(items, fields)
        return {**_success(shown), "total_count": total}

    def _get(self, fields: Fields, now: _Now, *, regular: bool | None = None) -> dict[str, Json]:
        mailing_id = self._known(fields) if regular is None else self._of_kind(fields, regular=regular)
        return _success(self._item(mailing_id, now))

    def _item(self, mailing_id: int, now: _Now) -> dict[str, Json]:
        mailing, moment = self._view(mailing_id), now.at - self.read_lag
        return altcraft_lists.item(
            mailing_id,
            regular=mailing_id in self._regulars,
            active=mailing.is_active(moment),
            updated=max((at for at, _ in mailing.switches if at <= moment), default=self._created),
        )

    def _counters(self, fields: Fields, now: _Now, *, kind: str) -> dict[str, Json]:
        del now
        audience = fields.integer("id")
        if audience is None:
            raise RefusedError(400, "Incorrect request: id is required")
        fields.integer("resource_id")
        if kind == "segment" and audience in self.dynamic_segments and fields.integer("list_id") is None:
            raise RefusedError(400, "Incorrect request: list_id is required for a dynamic segment")
        return _success(altcraft_lists.counters(self.audiences.get((kind, audience))))

    def _check_tariff(self) -> None:
        if self.tariff_limit is not None and self._launched >= self.tariff_limit:
            raise RefusedError(402, "Tariff limit reached")

    def _launch(self, mailing_id: int, mailing: MailingHistory, now: _Now) -> None:
        mailing.runs += (Run(now.at, now.at + self.run_seconds),)
        self._launched += 1
        self.launches[mailing_id] += 1
        self._acted("launch", mailing_id, now)

    def _acted(self, action: Action, mailing_id: int, now: _Now) -> None:
        self.acts.append(Act("altcraft", action, mailing_id, now.at, now.request_id))


def _read(media_type: str, body: bytes) -> Fields:
    try:
        match media_type:
            case "application/json":
                values: Json = json.loads(body.decode())
            case "application/xml":
                values = xml.read(body)
            case _:
                raise RefusedError(400, "Incorrect request: Content-Type must be application/json or application/xml")
    except (ValueError, RecursionError):
        raise RefusedError(400, "Incorrect request: the body cannot be read") from None
    if not isinstance(values, dict):
        raise RefusedError(400, "Incorrect request: the body must be an object")
    return Fields(values)


def _success(data: Json) -> dict[str, Json]:
    return {"data": data, "error": 0, "error_text": "Successful operation"}


def _refusal(refused: RefusedError) -> dict[str, Json]:
    return {"data": None, "error": refused.code, "error_text": refused.text}

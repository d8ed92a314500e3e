"""The commands of Direct: their paths, their bodies and the meaning of each response.

The provider's pages: https://api.docs.direct.i-dgtl.ru
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from typing import ClassVar, Never, TypeVar, cast
from urllib.parse import quote, urlencode

import attrs
from attrs.validators import optional

from dispatchkit.core.charset import UTF_8, named
from dispatchkit.core.command import (
    MAX_RESPONSE_BYTES,
    USER_AGENT,
    Command,
    ContradictoryAnswerError,
    Evidence,
    Headers,
    Probe,
    Request,
    Response,
    Settlement,
    UnexpectedResponseError,
    means_refusal,
)
from dispatchkit.core.decode import fields_of, read_json, strict_converter, structure
from dispatchkit.core.json_slices import read_json_slices
from dispatchkit.core.listing import Listing
from dispatchkit.core.secret import Secret, Unshown
from dispatchkit.core.validators import as_int, as_int_or_none, moment, non_empty, positive_id
from dispatchkit.direct.models import Dispatch, StartedDispatch, direct_converter
from dispatchkit.errors import (
    AccessDeniedError,
    AuthenticationError,
    BadCredentialsError,
    InappropriateStatusError,
    NotAuthenticatedError,
    NotFoundError,
    RejectedError,
)

__all__ = ["DirectAuth", "DirectCommand", "ReadDispatch", "ReadDispatches", "StartDispatch", "StopDispatch"]

R_co = TypeVar("R_co", covariant=True)

_WORD = re.compile(r"[a-z_-]{1,40}")

_REFUSALS: dict[int, type[RejectedError]] = {
    4010: NotAuthenticatedError,
    4012: BadCredentialsError,
    4030: AccessDeniedError,
    4031: InappropriateStatusError,
    4040: NotFoundError,
}
_OF_SUCCESS = ("dispatchId", "items")
"""Fields that only a success has."""

# For a code that no page documents. 403 is missing, because it means a wrong token or a wrong state.
_BY_STATUS: dict[int, type[RejectedError]] = {401: AuthenticationError, 404: NotFoundError}


@attrs.frozen
class DirectAuth:
    """The credentials of a Direct account: a key that is already Base64 and is never encoded again."""

    key: Secret
    _latest: Unshown[tuple[int, Headers, Headers]] = attrs.field(
        default=Unshown((-1, Headers({}), Headers({}))), init=False, repr=False, eq=False
    )
    """`Secret.generation` of the key, and the headers with it."""

    def headers(self) -> Mapping[str, str]:
        """The headers of every call that is not a read: the same mapping while the key is the same."""
        latest = self._latest.reveal()
        return latest[1] if latest[0] == self.key.generation else self._build()[1]

    def read_headers(self) -> Mapping[str, str]:
        """The headers of every read: no cache may answer it."""
        latest = self._latest.reveal()
        return latest[2] if latest[0] == self.key.generation else self._build()[2]

    def _build(self) -> tuple[int, Headers, Headers]:
        fields = {
            "Authorization": f"Basic {self.key.reveal()}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
        }
        latest = self.key.generation, Headers(fields), Headers({**fields, "Cache-Control": "no-cache"})
        object.__setattr__(self, "_latest", Unshown(latest))  # a note, not a change
        return latest


class DirectCommand(Command[DirectAuth, R_co]):
    """A command of Direct."""

    __slots__ = ()
    provider = "direct"
    # No property: each launch reads it.
    log_key = None  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]

    def result(self, response: Response, wire: DirectAuth) -> R_co:
        """Read a response: a refusal is told by its code, not by the HTTP status, since 403 has two meanings."""
        parsed = response.parsed
        if parsed is None and response.body:
            parsed = read_json(response.body, response.headers.get("Content-Type", ""))
            if parsed is None:
                raise UnexpectedResponseError("a bare null")  # not an empty body
        fields = fields_of(parsed)
        if fields is not None and (response.status != 200 or "error" in fields):
            if any(fields.get(name) for name in _OF_SUCCESS):
                raise ContradictoryAnswerError("it claims success")
            if "error" in fields:
                raise _refusal(fields["error"], response.status, wire)
        if response.status != 200:
            raise UnexpectedResponseError("no answer that Direct documents")
        return self.read(parsed)

    @abstractmethod
    def read(self, parsed: object) -> R_co:
        """Read the body of a success; None stands for an empty body.

        Raises:
            UnexpectedResponseError: The body is something else.
        """


@attrs.frozen
class _RefusalBody:
    code: int
    msg: str = "no reason given"


_strict = strict_converter()


def _refusal(body: object, status: int, wire: DirectAuth) -> RejectedError:
    refusal = structure(_strict, body, _RefusalBody, "a refusal with a code")
    message = wire.key.redact(refusal.msg)
    if not _refuses(refusal.code):
        raise ContradictoryAnswerError(f"code {refusal.code}: {message}")
    error_type = _REFUSALS.get(refusal.code) or _BY_STATUS.get(status, RejectedError)
    return error_type(message, status=status, code=refusal.code)


def _refuses(code: int) -> bool:
    """Whether a code means that nothing was done. Direct's own are an HTTP status and one more digit."""
    status = code // 10 if 1000 <= code < 6000 else code
    return code > 0 and (means_refusal(status) or not 100 <= status < 600)


@attrs.frozen(kw_only=True)
class ReadDispatches(DirectCommand[Listing[Dispatch]]):
    """Read the dispatches that pass every filter, and their state: ``GET /api/v1/dispatch``.

    The provider documents no paging: one response lists them all. A response larger than `max_response_bytes` is
    refused whole: read the list in parts then, by ``created_from`` and ``created_to``.

    Raises:
        TypeError: A filter is of another type.
        ValueError: An id is not positive, a text is empty, or a time has no time zone.
    """

    is_read_only = True
    max_response_bytes: ClassVar[int] = 256 * 1024 * 1024
    """Bytes of the largest list: about 350,000 dispatches. Default: 256 MiB."""

    dispatch_id: int | None = attrs.field(default=None, converter=as_int_or_none, validator=optional(positive_id))
    status: str | None = attrs.field(default=None, validator=non_empty)
    dispatch_name: str | None = attrs.field(default=None, validator=non_empty)
    traffic_center_id: int | None = attrs.field(default=None, converter=as_int_or_none, validator=optional(positive_id))
    created_from: datetime | None = attrs.field(default=None, validator=moment)
    created_to: datetime | None = attrs.field(default=None, validator=moment)

    @property
    def target(self) -> int | None:
        """See `Command.target`."""
        return self.dispatch_id

    def request(self, wire: DirectAuth, request_id: str | None) -> Request:
        """See `Command.request`."""
        del request_id  # Direct has no request ids
        given = {name: _said(value) for name, value in attrs.asdict(self).items() if value is not None}
        query = f"?{urlencode(given, quote_via=quote, safe=':')}" if given else ""
        return Request(
            "GET",
            f"/api/v1/dispatch{query}",
            wire.read_headers(),
            max_response_bytes=self.max_response_bytes if self.dispatch_id is None else MAX_RESPONSE_BYTES,
            slices=_in_slices,
        )

    def read(self, parsed: object) -> Listing[Dispatch]:
        """The dispatches of this id and this status.

        A server may ignore a filter that it does not know, and the listed dispatches may be stopped next.
        """
        fields = fields_of(parsed) or {}
        items, total = fields.get("items"), fields.get("total")
        if not isinstance(items, list):
            raise UnexpectedResponseError("not a list of dispatches")
        received = cast("list[object]", items)
        dispatches = [item if isinstance(item, Dispatch) else _dispatch(item) for item in received]
        if self.dispatch_id is not None:
            dispatches = [dispatch for dispatch in dispatches if dispatch.dispatch_id == self.dispatch_id]
        if self.status is not None:
            dispatches = [dispatch for dispatch in dispatches if dispatch.status == self.status]
        return Listing(tuple(dispatches), total if type(total) is int and total >= 0 else None, len(received))


def _dispatch(item: object) -> Dispatch:
    return structure(direct_converter, item, Dispatch, "a dispatch")


def _in_slices(response: Response) -> Generator[None, None, object]:
    return read_json_slices(response.body, response.headers.get("Content-Type", ""), "items", _dispatch)


def _said(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
    return str(value)


@attrs.frozen
class ReadDispatch(DirectCommand[Dispatch]):
    """Read one dispatch and its state: ``GET /api/v1/dispatch?dispatch_id=``, the only documented way.

    Raises:
        TypeError: ``dispatch_id`` is not an integer.
        ValueError: ``dispatch_id`` is not positive.
    """

    is_read_only = True

    dispatch_id: int = attrs.field(converter=as_int, validator=positive_id)

    @property
    def target(self) -> int:
        """See `Command.target`."""
        return self.dispatch_id

    def request(self, wire: DirectAuth, request_id: str | None) -> Request:
        """See `Command.request`."""
        return ReadDispatches(dispatch_id=self.dispatch_id).request(wire, request_id)

    def read(self, parsed: object) -> Dispatch:
        """The dispatch of this id. Direct lists nothing if there is none."""
        found = ReadDispatches(dispatch_id=self.dispatch_id).read(parsed)
        if not found:
            raise NotFoundError("no dispatch of this id is listed", status=200, code=None)
        if len(found) > 1:
            raise UnexpectedResponseError(f"it lists the dispatch {len(found)} times")
        return found[0]


@attrs.frozen
class _OfDispatch(DirectCommand[R_co]):
    """A command on one dispatch: ``POST /api/v1/dispatch/{dispatchId}/<action>``, without a body."""

    action: ClassVar[str]
    evidence_by_status: ClassVar[Mapping[str, Evidence]]
    """The evidence of each status for a command whose response was lost; any other status is inconclusive."""

    dispatch_id: int = attrs.field(converter=as_int, validator=positive_id)

    @property
    def target(self) -> int:
        """See `Command.target`."""
        return self.dispatch_id

    def request(self, wire: DirectAuth, request_id: str | None) -> Request:
        """See `Command.request`."""
        del request_id  # Direct has no request ids
        return Request("POST", f"/api/v1/dispatch/{self.dispatch_id}/{self.action}", wire.headers())

    def probe(self, since: datetime) -> Probe[DirectAuth, R_co]:
        """See `Command.probe`: the dispatch's status is the evidence."""
        del since
        return Probe.of(ReadDispatches(dispatch_id=self.dispatch_id), self._settle)

    def _settle(self, dispatches: Listing[Dispatch]) -> Settlement[R_co]:
        settlement: Settlement[R_co] = _by_status(dispatches, self.evidence_by_status)
        if settlement.evidence is not Evidence.APPLIED:
            return settlement
        return attrs.evolve(settlement, result=self.settled())

    @abstractmethod
    def settled(self) -> R_co:
        """The result of a command that its status shows to have happened."""


def _by_status(dispatches: Listing[Dispatch], evidence_by_status: Mapping[str, Evidence]) -> Settlement[Never]:
    """The evidence of a dispatch's status, without a result."""
    if dispatches.total not in {None, dispatches.received}:
        # Another row of the dispatch may be among those that were left out.
        counts = f"its state counts {dispatches.total} dispatches and lists {dispatches.received}"
        return Settlement(Evidence.INCONCLUSIVE, counts)
    statuses = {dispatch.status for dispatch in dispatches}
    if len(statuses) != 1:
        return Settlement(Evidence.INCONCLUSIVE, f"its state lists it {len(statuses)} times")
    status = statuses.pop()
    evidence = evidence_by_status.get(status, Evidence.INCONCLUSIVE)
    # Never echo an unknown status: it is untrusted text.
    shown = repr(status) if _WORD.fullmatch(status) else "what is no status"
    # No status leads back to one before a start, and none follows a final one.
    return Settlement(evidence, f"its state reads {shown}", lasts=evidence is not Evidence.NOT_APPLIED)


_AFTER_START: Mapping[str, Evidence] = {
    "initiated": Evidence.NOT_APPLIED,
    "changing": Evidence.APPLIED,
    "scheduled": Evidence.APPLIED,
    "sending": Evidence.APPLIED,
    "awaiting": Evidence.APPLIED,
    "paused": Evidence.APPLIED,
    "stopped": Evidence.APPLIED,
    "done": Evidence.APPLIED,
}
STATUSES = tuple(_AFTER_START)
"""The documented statuses. The provider may have others."""

# A paused dispatch may go on, so it is read again.
_GOING_OUT: Mapping[str, Evidence] = {
    "scheduled": Evidence.APPLIED,
    "sending": Evidence.APPLIED,
    "awaiting": Evidence.APPLIED,
    "done": Evidence.APPLIED,
    "stopped": Evidence.NEVER_APPLIED,
}

# A dispatch that is done was never stopped and cannot be stopped any more. One in transition may become stopped.
_AFTER_STOP: Mapping[str, Evidence] = {
    "initiated": Evidence.NOT_APPLIED,
    "scheduled": Evidence.NOT_APPLIED,
    "sending": Evidence.NOT_APPLIED,
    "awaiting": Evidence.NOT_APPLIED,
    "paused": Evidence.NOT_APPLIED,
    "stopped": Evidence.APPLIED,
    "done": Evidence.NEVER_APPLIED,
}


_STARTED = re.compile(rb'\{"dispatchId": ?([0-9]+)\}')
"""The documented answer to a start. The parser reads every other one."""


@attrs.frozen
class StartDispatch(_OfDispatch[StartedDispatch]):
    """Start a dispatch: it completes the creation, and no message can be added afterwards.

    ``POST /api/v1/dispatch/{dispatchId}/start``, no body. What a second start does is not documented.

    Raises:
        TypeError: ``dispatch_id`` is not an integer.
        ValueError: ``dispatch_id`` is not positive.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     await direct.perform(StartDispatch(7))
        StartedDispatch(dispatch_id=7, settled=False)
    """

    action = "start"
    evidence_by_status = _AFTER_START

    def goes_out(self, since: datetime, *, launches: int = 1) -> Probe[DirectAuth, StartedDispatch]:
        """See `Command.goes_out`: a dispatch goes out from ``scheduled`` on."""
        del since, launches
        return Probe.of(ReadDispatches(dispatch_id=self.dispatch_id), self._going_out)

    def _going_out(self, dispatches: Listing[Dispatch]) -> Settlement[StartedDispatch]:
        # A cache may show an earlier sending of the dispatch, so an old answer is no proof.
        return attrs.evolve(_by_status(dispatches, _GOING_OUT), lasts=False)

    def result(self, response: Response, wire: DirectAuth) -> StartedDispatch:
        """See `DirectCommand.result`. The documented answer needs no parser."""
        started = _STARTED.fullmatch(response.body)
        if (
            started is None
            or started[1] != b"%d" % self.dispatch_id
            or response.status != 200
            or named(response.headers.get("Content-Type", "")) not in {None, UTF_8}
        ):
            return super().result(response, wire)
        return StartedDispatch(self.dispatch_id)

    def read(self, parsed: object) -> StartedDispatch:
        """Check that the response names this dispatch."""
        fields = fields_of(parsed)
        dispatch_id = None if fields is None else fields.get("dispatchId")
        if type(dispatch_id) is not int:
            raise UnexpectedResponseError("not a started dispatch")
        if dispatch_id != self.dispatch_id:
            raise UnexpectedResponseError("it speaks of another dispatch")
        return StartedDispatch(self.dispatch_id)

    def settled(self) -> StartedDispatch:
        """See `_OfDispatch.settled`."""
        return StartedDispatch(self.dispatch_id, settled=True)


@attrs.frozen
class StopDispatch(_OfDispatch[None]):
    """Stop a dispatch whose start was already requested.

    ``POST /api/v1/dispatch/{dispatchId}/stop``, no body; the response to a success is empty.

    Raises:
        TypeError: ``dispatch_id`` is not an integer.
        ValueError: ``dispatch_id`` is not positive.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     report = await FanOut(direct, [StartDispatch(7)]).finish()
        ...     report = await FanOut(direct, [StopDispatch(7)]).finish()
        ...     report.done
        1
    """

    action = "stop"
    evidence_by_status = _AFTER_STOP

    def read(self, parsed: object) -> None:
        """A successful stop has an empty body."""
        if parsed is not None:
            raise UnexpectedResponseError("a stop is answered with an empty body")

    def settled(self) -> None:
        """See `_OfDispatch.settled`."""

"""A command: one request to a provider, as a value.

It builds the request, reads the answer, and defines how an unclear outcome is settled. It does no I/O: tests need no
server, a ledger can store it, and another machine can run it. `Client.perform` drives it.
"""

from __future__ import annotations

import enum
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, ItemsView, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import ClassVar, Generic, TypeVar, cast

import attrs

from dispatchkit._version import __version__
from dispatchkit.core.body import Body, Part, Parts, as_parts, join
from dispatchkit.values import TypedValue

__all__ = [
    "JSON_FIELD",
    "MAX_RESPONSE_BYTES",
    "USER_AGENT",
    "Command",
    "ContradictoryAnswerError",
    "Evidence",
    "Headers",
    "LogProbe",
    "Probe",
    "Request",
    "Response",
    "Settlement",
    "TimeWindow",
    "UnexpectedResponseError",
    "ask_log",
    "means_refusal",
]

P = TypeVar("P")
R = TypeVar("R")
W = TypeVar("W")
R_co = TypeVar("R_co", covariant=True)
W_contra = TypeVar("W_contra", contravariant=True)

MAX_RESPONSE_BYTES = 8 * 1024 * 1024
"""Bytes of the largest response, decoded, unless its request allows more."""

USER_AGENT = f"dispatchkit/{__version__}"

JSON_FIELD: Mapping[str, bool] = MappingProxyType({"dispatchkit.json": True})
"""Metadata of a command's field that holds JSON, ``attrs.field(metadata=JSON_FIELD)``: a ledger keeps it as it is."""

# Headers without secrets or message content. All others show as ***.
_SHOWN_HEADERS = frozenset(
    {"accept", "accept-encoding", "cache-control", "content-type", "request-id", "user-agent", "x-request-id"}
)


class Headers(Mapping[str, str]):
    """The headers of a request. The repr shows none that may hold a token, also where attrs or a log took them out."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def items(self) -> ItemsView[str, str]:
        """As of a dict: each request is written with it."""
        return self._fields.items()

    def __repr__(self) -> str:
        return repr({name: text if name.lower() in _SHOWN_HEADERS else "***" for name, text in self.items()})


_NO_HEADERS = Headers({})


@attrs.define(repr=False, init=False)
class Request:
    """An HTTP request. Neither its repr nor that of its fields shows the token or the body.

    It never changes: a frozen class would only take longer to make.
    """

    method: str
    target: str
    """Encoded path and query, exactly as they are sent."""
    headers: Headers
    parts: Parts | None = attrs.field(alias="body")
    """The body: bytes, or an iterable of `bytes` and `Part` that are sent one after the other. None: no body."""
    max_response_bytes: int
    """Bytes of the largest response with status 200, decoded. Any other is bounded by `MAX_RESPONSE_BYTES`."""
    slices: Callable[[Response], Generator[None, None, object]] | None = attrs.field(eq=False)
    """Parses a response in slices of a few ms, if it is large, and returns its `Response.parsed`.

    The body that it gets is a ``bytearray``, since a copy would block the event loop. It raises
    `UnexpectedResponseError`.
    """

    def __init__(  # noqa: PLR0917 - the fields, as attrs would take them
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] = _NO_HEADERS,
        body: bytes | Iterable[bytes | Part] | None = None,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        slices: Callable[[Response], Generator[None, None, object]] | None = None,
    ) -> None:
        # By hand: converters of attrs would be called for each of a million requests.
        self.method = method
        self.target = target
        self.headers = headers if type(headers) is Headers else Headers(headers)
        self.parts = None if body is None else as_parts(body)
        self.max_response_bytes = max_response_bytes
        self.slices = slices

    @property
    def body(self) -> Body | None:
        """The whole body. It is joined for each look, so a transport writes the parts."""
        return None if self.parts is None else join(self.parts)

    @property
    def body_size(self) -> int:
        """Bytes of the body; 0 without one."""
        return 0 if self.parts is None else sum(map(len, self.parts))

    def __repr__(self) -> str:
        size = "no body" if self.parts is None else f"{self.body_size} bytes"
        return f"Request({self.method} {self.target}, {self.headers}, {size})"


@attrs.define(repr=False, on_setattr=attrs.setters.NO_OP)
class Response:
    """A complete HTTP response. Its repr does not show the body. It never changes, as `Request`."""

    status: int
    headers: Mapping[str, str]
    """Case-insensitive."""
    body: bytes
    """The decoded body; the raw one if its Content-Encoding could not be decoded. Empty once `Request.slices` parsed
    it."""
    undecoded: str | None = None
    """Why the body could not be decoded or parsed; it then proves nothing."""
    parsed: object = None
    """What `Request.slices` made of a large body; None: `Command.result` parses it."""

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"


class UnexpectedResponseError(Exception):
    """The provider documents no such answer, so it proves nothing.

    `Command.result` raises it, and the client turns it into an outcome. Its text never quotes the answer.
    """


class ContradictoryAnswerError(UnexpectedResponseError):
    """The answer is the provider's, but does not tell whether the command took effect.

    It holds both a success and a refusal, or a code for a failure during the work.
    """


def means_refusal(status: int) -> bool:
    """Whether an HTTP status, or a provider's code of the same form, means that the server refused and did nothing.

    A redirect, a failure (5xx) and a dropped request (408, 499) prove nothing.
    """
    return 400 <= status < 500 and status not in {408, 499}


class Evidence(enum.Enum):
    """What the provider's state proves about a command whose answer was lost."""

    APPLIED = "applied"
    """The command took effect."""
    NOT_APPLIED = "not_applied"
    """The state does not have the effect. State may lag, so this counts only after `RetryPolicy.state_lag`."""
    NEVER_APPLIED = "never_applied"
    """The command had no effect and cannot have one: the state is final, and another than the command leads to."""
    ABSENT = "absent"
    """The state has no trace of the command, which is no proof."""
    INCONCLUSIVE = "inconclusive"
    """The state does not tell yet: read it again."""
    UNAVAILABLE = "unavailable"
    """The provider has no such state, or refuses to show it: another read is useless."""


@attrs.frozen
class Settlement(Generic[R_co]):
    """Evidence, with a description and, if the command was applied, its result."""

    evidence: Evidence
    detail: str
    result: R_co | None = None
    lasts: bool = False
    """Whether the evidence stays true for ever, so that the age of the answer does not matter."""
    is_final: bool = False
    """Whether no later reading can settle the call, so that a resume leaves it alone."""


@attrs.frozen
class TimeWindow:
    """When an unclear request can have acted, on the provider's clock."""

    first: datetime
    """Slightly before the start of the request: the comparison of the clocks is accurate to about a second."""
    last: datetime
    """Slightly after the state read."""


@attrs.frozen
class Probe(Generic[W_contra, R_co]):
    """A command that reads the provider's state, and the function that settles by its result. See `Probe.of`."""

    command: Command[W_contra, object]
    settle: Callable[[object], Settlement[R_co]]

    @staticmethod
    def of(command: Command[W, P], settle: Callable[[P], Settlement[R]]) -> Probe[W, R]:
        """Pair a command that reads state with a function from its result to a settlement."""
        return Probe(command, cast("Callable[[object], Settlement[R]]", settle))


@attrs.frozen
class LogProbe(Generic[W_contra, R_co]):
    """A command that reads a log with times, and the function that settles by its entries. See `ask_log`."""

    command: Command[W_contra, object]
    settle: Callable[[object, TimeWindow], Settlement[R_co]]


def ask_log(command: Command[W, P], settle: Callable[[P, TimeWindow], Settlement[R]]) -> LogProbe[W, R]:
    """Pair a command that reads a log with a function from its entries in a time window to a settlement."""
    return LogProbe(command, cast("Callable[[object, TimeWindow], Settlement[R]]", settle))


def _repr_of_half_built(shown: Callable[[object], str]) -> Callable[[object], str]:
    """A repr that does not raise in a traceback through the constructor, where fields are missing yet."""

    @functools.wraps(shown)
    def __repr__(self: object) -> str:  # noqa: N807 - it becomes the method
        try:
            return shown(self)
        except AttributeError:
            return f"<{type(self).__name__}, half built>"

    return __repr__


class Command(TypedValue, ABC, Generic[W_contra, R_co]):
    """One request to a provider, as a frozen attrs value. ``W`` is the wire's type, ``R`` the result's."""

    __slots__ = ()

    provider: ClassVar[str] = ""
    """The name of the provider, on the base class of its commands. Ledgers keep it, so it never changes."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__repr__" in vars(cls):  # of attrs
            cls.__repr__ = _repr_of_half_built(cls.__repr__)  # type: ignore[method-assign]

    has_request_id: ClassVar[bool] = False
    """Whether the provider takes a request id: one UUID for all attempts of a call."""
    is_read_only: ClassVar[bool] = False
    """Whether the command only reads, so that a retry is harmless and needs no settling."""

    success_statuses: ClassVar[frozenset[int]] = frozenset({200})
    """The statuses of success, from 200 to 299, whose answers `result` reads. It reads those of 4xx, too."""

    @property
    def target(self) -> int | None:
        """The id that it acts on; None where it has none, as a read of a list."""
        return None

    @property
    def log_key(self) -> int | None:
        """The number of the log that alone shows the command; None if a state shows it.

        A log entry does not name its request. So two commands with one key cannot be told apart.
        """
        return None

    @abstractmethod
    def request(self, wire: W_contra, request_id: str | None) -> Request:
        """Build the request.

        Raises:
            ValueError: The command is too large, or the wire's format cannot express it.
        """

    @abstractmethod
    def result(self, response: Response, wire: W_contra) -> R_co:
        """Read the answer.

        Raises:
            RejectedError: The provider refused and did nothing.
            ContradictoryAnswerError: The provider's answer does not tell whether the command took effect.
            UnexpectedResponseError: The answer is not the provider's.
        """

    def deduplicated(self, wire: W_contra, age: timedelta) -> bool:
        """Whether the provider deduplicates a retry by its request id.

        Args:
            wire: The account's wire.
            age: Time since the first request with this id began. Providers forget ids.
        """
        del wire, age
        return False

    def is_replay(self, result: object) -> bool:
        """Whether the provider marked the result as its answer to an earlier request with the same id."""
        del result
        return False

    def as_repeated(self, result: object) -> R_co:
        """Mark a result that came from the retry of an unclear request, without the provider's mark of a replay."""
        return cast("R_co", result)

    def unknown_hint(self, wire: W_contra) -> str:
        """What to do about an unknown outcome; an empty string keeps the error's own hint."""
        del wire
        return ""

    def probe(self, since: datetime) -> Probe[W_contra, R_co] | LogProbe[W_contra, R_co] | None:
        """How to settle an unclear outcome; None if no state shows it. ``since`` is the start of the first attempt."""
        del since
        return None

    def goes_out(
        self, since: datetime, *, launches: int = 1
    ) -> Probe[W_contra, R_co] | LogProbe[W_contra, R_co] | None:
        """How the provider's state shows that an accepted launch goes out; None if no state shows it.

        A fan-out with ``canary`` reads it. `Evidence.APPLIED` means that the launch goes out, or is scheduled.
        `Evidence.NEVER_APPLIED` means that it will not. `Evidence.UNAVAILABLE` ends the reads; any other is read again.

        Args:
            since: The start of the first attempt.
            launches: The number of launches that share the log (`log_key`) and must all go out.
        """
        del since, launches
        return None

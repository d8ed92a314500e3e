"""A command: one request to a provider, as a value.

It says what to send, what an answer means, and how an unclear outcome is settled. It does no I/O: a test needs no
server, a ledger can store it, another machine can run it. `Client.perform` is what drives it.
"""

from __future__ import annotations

import enum
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, ItemsView, Iterator, Mapping
from datetime import datetime, timedelta
from typing import ClassVar, Generic, TypeVar, cast

import attrs

from dispatchkit._version import __version__

__all__ = [
    "USER_AGENT",
    "Body",
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

USER_AGENT = f"dispatchkit/{__version__}"

# Headers that hold neither a token nor anything of a message. All others show as ***.
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


class Body(bytes):
    """The body of a request, which holds the token and contents of messages. The repr shows its size alone."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    __str__ = __repr__


def _headers(fields: Mapping[str, str]) -> Headers:
    return fields if type(fields) is Headers else Headers(fields)  # isinstance() asks an ABC, which is slow


def _body(body: bytes | None) -> Body | None:
    return None if body is None else Body(body)


@attrs.frozen(repr=False)
class Request:
    """What goes on the wire. Neither its repr nor that of its fields shows the token or the body."""

    method: str
    target: str
    """Path and query, exactly as they are sent: already encoded, with or without a trailing slash."""
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], converter=_headers)
    body: bytes | None = attrs.field(default=None, converter=_body)

    def __repr__(self) -> str:
        size = "no body" if self.body is None else f"{len(self.body)} bytes"
        return f"Request({self.method} {self.target}, {self.headers}, {size})"


@attrs.frozen(repr=False)
class Response:
    """What came back, whole. Its repr does not show the body."""

    status: int
    headers: Mapping[str, str]
    """Looked up without regard to case."""
    body: bytes
    """Without its Content-Encoding, unless that could not be undone."""
    undecoded: str | None = None
    """Why the Content-Encoding could not be undone; then nothing of the body counts."""

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"


class UnexpectedResponseError(Exception):
    """The answer is not one that the provider documents, so it says nothing about what happened.

    Raised by `Command.result`, and turned into an outcome by the client. Its text never quotes the answer.
    """


class ContradictoryAnswerError(UnexpectedResponseError):
    """The answer is the provider's own, and does not say whether the command had its effect.

    It holds a success and a refusal at once, or a code that means a failure in the middle of the work.
    """


def means_refusal(status: int) -> bool:
    """Whether an HTTP status, or a code that is made like one, says that a server refused and did nothing.

    A redirect, a failure (5xx) and a request that was given up (408, 499) leave open what was done.
    """
    return 400 <= status < 500 and status not in {408, 499}


class Evidence(enum.Enum):
    """What the provider's state says about a command whose answer was lost."""

    APPLIED = "applied"
    NOT_APPLIED = "not_applied"
    """The state shows that it did not. State may lag, so this is believed only after a while."""
    NEVER_APPLIED = "never_applied"
    """It did not happen and no longer can: the state is a last one, and not the one that the command leads to."""
    ABSENT = "absent"
    """There is no trace of it, but the absence of a trace is no proof."""
    INCONCLUSIVE = "inconclusive"
    """The state cannot tell, now."""
    UNAVAILABLE = "unavailable"
    """The provider has no such state, or refuses to show it: there is no use in asking again."""


@attrs.frozen
class Settlement(Generic[R_co]):
    """Evidence, with the result if it happened and what was seen in any case."""

    evidence: Evidence
    detail: str
    result: R_co | None = None
    lasts: bool = False
    """Whether what was seen stays true for ever, so that it counts however old the answer is."""


@attrs.frozen
class TimeWindow:
    """When an unclear request can have acted, by the provider's clock."""

    first: datetime
    """A little before the request began: the two clocks are compared to a second or so."""
    last: datetime
    """A little after the state was read."""


@attrs.frozen
class Probe(Generic[W_contra, R_co]):
    """A question about the provider's state and the way to read its answer. Made by `Probe.of`."""

    command: Command[W_contra, object]
    settle: Callable[[object], Settlement[R_co]]

    @staticmethod
    def of(command: Command[W, P], settle: Callable[[P], Settlement[R]]) -> Probe[W, R]:
        """Pair a command that reads state with what its result proves."""
        return Probe(command, cast("Callable[[object], Settlement[R]]", settle))


@attrs.frozen
class LogProbe(Generic[W_contra, R_co]):
    """A question to a provider's log, whose entries have times, and the way to read its answer. Made by `ask_log`."""

    command: Command[W_contra, object]
    settle: Callable[[object, TimeWindow], Settlement[R_co]]


def ask_log(command: Command[W, P], settle: Callable[[P, TimeWindow], Settlement[R]]) -> LogProbe[W, R]:
    """Pair a command that reads a log with what its entries within a time prove."""
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


class Command(ABC, Generic[W_contra, R_co]):
    """One request to a provider, as a frozen attrs value. ``W`` is the provider's wire, ``R`` the result."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__repr__" in vars(cls):  # of attrs
            cls.__repr__ = _repr_of_half_built(cls.__repr__)  # type: ignore[method-assign]

    has_request_id: ClassVar[bool] = False
    """Whether the provider takes a request id: one UUID, made once a call, the same on every attempt."""
    is_read_only: ClassVar[bool] = False
    """Whether it only reads: then there is nothing to settle, and a repeat is harmless."""

    @property
    def log_key(self) -> int | None:
        """The log in which alone it shows, by a number; None where its own state shows it.

        An entry of such a log does not say which request made it. So two commands of one key cannot be told apart.
        """
        return None

    @abstractmethod
    def request(self, wire: W_contra, request_id: str | None) -> Request:
        """What to send.

        Raises:
            ValueError: It cannot be sent like this: too large, or not to be said in the wire's format.
        """

    @abstractmethod
    def result(self, response: Response, wire: W_contra) -> R_co:
        """What the answer means.

        Raises:
            RejectedError: The provider said no, and did nothing.
            ContradictoryAnswerError: The provider's answer does not say whether anything was done.
            UnexpectedResponseError: This is no answer of the provider.
        """

    def deduplicated(self, wire: W_contra, age: timedelta) -> bool:
        """Whether the provider swallows a repeat under the same request id, so that it cannot act twice.

        Args:
            wire: How the account speaks.
            age: How long ago the first request under this id began. No provider remembers for ever.
        """
        del wire, age
        return False

    def is_replay(self, result: object) -> bool:
        """Whether a result of it is, by the provider's own word, the answer to an earlier request with the same id."""
        del result
        return False

    def as_repeated(self, result: object) -> R_co:
        """A result of it, marked: a repeat of an unclear request brought it, and no word of a replay came with it."""
        return cast("R_co", result)

    def unknown_hint(self, wire: W_contra) -> str:
        """What to do about an unknown outcome of it; empty: what the error says itself."""
        del wire
        return ""

    def probe(self, since: datetime) -> Probe[W_contra, R_co] | LogProbe[W_contra, R_co] | None:
        """How to settle an unclear outcome; None where no state shows it. ``since``: when the first attempt began."""
        del since
        return None

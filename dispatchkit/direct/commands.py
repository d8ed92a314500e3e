"""What can be asked of Direct: the paths, the bodies and the meaning of each answer.

The provider's pages: https://api.docs.direct.i-dgtl.ru
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

import attrs

from dispatchkit.core.check import positive_id
from dispatchkit.core.command import Answer, Command, Request, UnreadableAnswerError
from dispatchkit.core.decode import fields_of, read_json, strict_converter, structure
from dispatchkit.core.secret import Secret
from dispatchkit.direct.models import StartedDispatch, direct_converter
from dispatchkit.errors import (
    AccessDeniedError,
    AuthenticationError,
    BadCredentialsError,
    InappropriateStatusError,
    NotAuthenticatedError,
    NotFoundError,
    RejectedError,
)

__all__ = ["DirectCommand", "DirectWire", "StartDispatch", "StopDispatch"]

R_co = TypeVar("R_co", covariant=True)

_REFUSALS: dict[int, type[RejectedError]] = {
    4010: NotAuthenticatedError,
    4012: BadCredentialsError,
    4030: AccessDeniedError,
    4031: InappropriateStatusError,
    4040: NotFoundError,
}
# For a code that no page documents. 403 is not here: it stands for a wrong token as well as for a wrong state.
_BY_STATUS: dict[int, type[RejectedError]] = {401: AuthenticationError, 404: NotFoundError}


@attrs.frozen
class DirectWire:
    """How an account of Direct speaks: JSON, and a key that is already Base64 and is never encoded again."""

    key: Secret

    def headers(self) -> dict[str, str]:
        """The headers of every call."""
        return {"Authorization": f"Basic {self.key.reveal()}", "Accept": "application/json"}


class DirectCommand(Command[DirectWire, R_co]):
    """A command of Direct."""

    __slots__ = ()

    def result(self, answer: Answer, wire: DirectWire) -> R_co:
        """Read an answer: a refusal by its code first, whatever the HTTP status is, since 403 has two meanings."""
        parsed = read_json(answer.body) if answer.body else None
        fields = fields_of(parsed)
        if fields is not None and "error" in fields:
            raise _refusal(fields["error"], answer.status, wire)
        if answer.status != 200:
            raise UnreadableAnswerError("no answer that Direct documents")
        return self.read(parsed)

    @abstractmethod
    def read(self, parsed: object) -> R_co:
        """Read what Direct answers to this command on success; None stands for an empty body.

        Raises:
            UnreadableAnswerError: It is something else.
        """


@attrs.frozen
class _RefusalBody:
    code: int
    msg: str = "no reason given"


_strict = strict_converter()


def _refusal(body: object, status: int, wire: DirectWire) -> RejectedError:
    refusal = structure(_strict, body, _RefusalBody, "a refusal with a code")
    kind = _REFUSALS.get(refusal.code) or _BY_STATUS.get(status, RejectedError)
    return kind(wire.key.redact(refusal.msg), status=status, code=refusal.code)


@attrs.frozen
class StartDispatch(DirectCommand[StartedDispatch]):
    """Start a dispatch: it completes the creation, and no message can be added afterwards.

    ``POST /api/v1/dispatch/{dispatchId}/start``, no body. What a second start does is not documented.

    Raises:
        TypeError: ``dispatch_id`` is not an integer.
        ValueError: ``dispatch_id`` is not positive.
    """

    dispatch_id: int = attrs.field(validator=positive_id)

    def request(self, wire: DirectWire, request_id: str | None) -> Request:
        """See `Command.request`."""
        del request_id  # Direct has no request ids
        return Request("POST", f"/api/v1/dispatch/{self.dispatch_id}/start", wire.headers())

    def read(self, parsed: object) -> StartedDispatch:
        """The answer names the dispatch; another one's answer is not ours."""
        started = structure(direct_converter, parsed, StartedDispatch, "a started dispatch")
        if started.dispatch_id != self.dispatch_id:
            raise UnreadableAnswerError(f"it speaks of dispatch {started.dispatch_id}")
        return started


@attrs.frozen
class StopDispatch(DirectCommand[None]):
    """Stop a dispatch whose start was already requested.

    ``POST /api/v1/dispatch/{dispatchId}/stop``, no body; the answer to a success is empty.

    Raises:
        TypeError: ``dispatch_id`` is not an integer.
        ValueError: ``dispatch_id`` is not positive.
    """

    dispatch_id: int = attrs.field(validator=positive_id)

    def request(self, wire: DirectWire, request_id: str | None) -> Request:
        """See `Command.request`."""
        del request_id  # Direct has no request ids
        return Request("POST", f"/api/v1/dispatch/{self.dispatch_id}/stop", wire.headers())

    def read(self, parsed: object) -> None:
        """Nothing is what a success looks like."""
        if parsed is not None:
            raise UnreadableAnswerError("a stop is answered with an empty body")

"""The errors of a call, by outcome: rejected, not sent, unknown."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Self

from dispatchkit.errors.base import Attempt, DispatchkitError, State, one_line

__all__ = [
    "AccessDeniedError",
    "AuthenticationError",
    "BadCredentialsError",
    "InappropriateStatusError",
    "IncorrectRequestError",
    "NotAuthenticatedError",
    "NotFoundError",
    "NotSentError",
    "OutcomeUnknownError",
    "RejectedError",
    "ResponseLostError",
    "TariffLimitError",
    "ThrottledError",
    "TokenRequiredError",
]


class RejectedError(DispatchkitError):
    """The provider refused the command and did nothing. The same request would get the same answer.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     try:
        ...         await direct.stop(7)  # it was never started
        ...     except RejectedError as error:
        ...         print(error.status, error.code)
        403 4031
    """

    state = State.REJECTED
    hint = "Nothing was done. Correct the request before you repeat it."
    concerns_target: ClassVar[bool] = True
    """Whether the refusal is about the target. False: it is about the token or the account, so about all targets."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: int | None,
        command: object = None,
        attempts: tuple[Attempt, ...] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(
            _refusal_summary(message, status, code), command=command, attempts=attempts, request_id=request_id
        )
        self.status = status
        """The HTTP status of the answer."""
        self.code = code
        """The provider's own code; None if the answer had none."""
        self.message: str = message
        """The provider's message, in which *** stands for every quote of what was sent.

        `summary` has it shortened to one line.
        """

    def with_message(self, message: str) -> Self:
        """Replace the message, also in `summary`. Returns the error itself."""
        if message != self.message:
            before, after = (_refusal_summary(text, self.status, self.code) for text in (self.message, message))
            rest = self.summary[len(before) :] if self.summary.startswith(before) else ""
            self.message, self.summary, self.args = message, after + rest, (after,)
        return self


def _refusal_summary(message: str, status: int, code: int | None) -> str:
    label = f"HTTP {status}" if code is None else f"code {code}, HTTP {status}"
    return f"{one_line(message, 300)} ({one_line(label, 100)})"


class AuthenticationError(RejectedError):
    """The provider did not accept the token.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient("wrong", base_url=sandbox.url) as direct:
        ...     try:
        ...         await direct.start(7)
        ...     except AuthenticationError as error:
        ...         print(error.message)
        Bad credentials
    """

    hint = "Nothing was done. Check the token: it is sent exactly as given, so copy it from the provider unchanged."
    concerns_target = False


class NotAuthenticatedError(AuthenticationError):
    """Direct 4010: no credentials, or unusable ones."""


class BadCredentialsError(AuthenticationError):
    """Direct 4012: the token is not a valid one."""


class TokenRequiredError(AuthenticationError):
    """Altcraft 401: the platform asks for a token."""


class AccessDeniedError(RejectedError):
    """Direct 4030 and Altcraft 403: the token may not do this.

    Example:
        >>> async with Sandbox(wrong_kind_token="TOKEN_2") as sandbox:
        ...     async with DirectClient("TOKEN_2", base_url=sandbox.url) as direct:
        ...         try:
        ...             await direct.start(7)
        ...         except AccessDeniedError as error:
        ...             print(error.code)
        4030
    """

    concerns_target = False

    hint = (
        "Nothing was done. Use a token of the right kind: Direct asks for TOKEN_1, Altcraft for access to the mailing."
    )


class InappropriateStatusError(RejectedError):
    """Direct 4031: the dispatch's status does not allow this, such as a stop before its start or after its end.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     try:
        ...         await direct.stop(7)  # it was never started
        ...     except InappropriateStatusError as error:
        ...         print(error.state)
        rejected
    """

    hint = (
        "Nothing was done. Check the dispatch's status: only a dispatch that is running can be stopped, and none takes "
        "messages once it was started."
    )


class NotFoundError(RejectedError):
    """Direct 4040: the dispatch does not exist.

    Example:
        >>> async with Sandbox(dispatches=[7]) as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...         try:
        ...             await direct.start(8)
        ...         except NotFoundError as error:
        ...             print(error.code)
        4040
    """

    hint = "Nothing was done. Check the id, and that the token belongs to the account that owns it."


class IncorrectRequestError(RejectedError):
    """Altcraft 400: the platform did not accept the request."""


class TariffLimitError(RejectedError):
    """Altcraft 402: a limit of the account's tariff is reached."""

    hint = "Nothing was done. Raise the limit of the tariff, or wait until it is renewed."
    concerns_target = False


class ThrottledError(RejectedError):
    """HTTP 429: too many requests. The call retries it after `retry_after`.

    Example:
        >>> once = RetryPolicy(attempts=1)
        >>> async with Sandbox() as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, retry=once) as direct:
        ...         sandbox.order(Fault.throttled(5))
        ...         try:
        ...             await direct.start(7)
        ...         except ThrottledError as error:
        ...             print(error.retry_after)
        5.0
    """

    hint = "Nothing was done. Repeat it later, and more slowly."
    concerns_target = False

    def __init__(
        self,
        message: str,
        *,
        status: int = 429,
        code: int | None = None,
        retry_after: float | None = None,
        retry_at: datetime | None = None,
        command: object = None,
        attempts: tuple[Attempt, ...] = (),
        request_id: str | None = None,
    ) -> None:
        until = "" if retry_at is None else f"; the provider asks to come back at {retry_at:%Y-%m-%d %H:%M:%S} UTC"
        super().__init__(message, status=status, code=code, command=command, attempts=attempts, request_id=request_id)
        self.summary += until
        self.retry_after = retry_after
        """Seconds to wait after the answer, as the provider asked; None if it did not say."""
        self.retry_at = retry_at
        """The same moment, UTC."""


class NotSentError(DispatchkitError):
    """Not one byte of the request left this process, so the call is safe to repeat.

    Example:
        >>> once = RetryPolicy(attempts=1)
        >>> async with DirectClient("token", base_url="http://127.0.0.1:1", retry=once) as direct:
        ...     try:
        ...         await direct.start(7)
        ...     except NotSentError as error:
        ...         print(error.state, any(attempt.sent for attempt in error.attempts))
        not_sent False
    """

    state = State.NOT_SENT
    hint = "Nothing was sent, so the call is safe to repeat. Remove the cause first."


class OutcomeUnknownError(DispatchkitError):
    """The request left without an answer of the provider, and the provider's state could not settle the outcome.

    Example:
        >>> once = RetryPolicy(attempts=1, state_lag=0)
        >>> async with Sandbox() as sandbox:
        ...     async with AltcraftClient(sandbox.url, sandbox.altcraft_token, retry=once) as altcraft:
        ...         sandbox.order(Fault.http(502), times=100)
        ...         try:
        ...             await altcraft.launch_broadcast(90, timeout=1)
        ...         except OutcomeUnknownError as error:
        ...             print(error.state, error.request_id is not None)
        unknown True
    """

    state = State.UNKNOWN
    hint = "It may have happened. Check at the provider before you repeat it: a repeat may act twice."
    final_hint: ClassVar[str] = (
        "No later reading can settle it, so a resume leaves it alone. Look at the mailing's log. If the mailing did "
        "not start, launch it in another run."
    )
    """Addition to the hint of an error that `is_final`."""

    def __init__(
        self,
        summary: str,
        *,
        is_final: bool = False,
        command: object = None,
        attempts: tuple[Attempt, ...] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(summary, command=command, attempts=attempts, request_id=request_id)
        self.is_final = is_final
        """Whether no later state read can settle the outcome, so that a resume leaves it alone."""


class ResponseLostError(OutcomeUnknownError):
    """A read left without an answer of the provider. A read changes nothing, so it is safe to repeat."""

    hint = "The command only reads, so nothing was changed, and it is safe to repeat."

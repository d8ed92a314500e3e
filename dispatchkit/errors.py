"""The exception tree. Its branches are the outcomes of a call.

::

    DispatchkitError
    ├── RejectedError                 rejected: the provider said no and did nothing
    │   ├── AuthenticationError       the token was not accepted
    │   │   ├── NotAuthenticatedError     Direct 4010
    │   │   ├── BadCredentialsError       Direct 4012
    │   │   └── TokenRequiredError        Altcraft 401
    │   ├── AccessDeniedError         the token is of an unsuitable kind: Direct 4030, Altcraft 403
    │   ├── InappropriateStatusError  the dispatch is in the wrong state: Direct 4031
    │   ├── NotFoundError             no such dispatch: Direct 4040
    │   ├── IncorrectRequestError     Altcraft 400
    │   ├── TariffLimitError          Altcraft 402
    │   └── ThrottledError            HTTP 429: says when to come back
    ├── NotSentError                  not_sent: not one byte of the request left this process
    └── OutcomeUnknownError           unknown: it may have happened and could not be settled
        └── ResponseLostError         a read whose answer was lost: it changed nothing

    LedgerError                       no outcome of a call: the ledger cannot be read or written, so nothing is launched
    ├── RunHeldError                  another process holds the run
    │   └── ChunkHeldError            another process holds the chunk: says when to come back
    ├── RunStoppedError               the run was stopped, and is not resumed by accident
    ├── AccountMismatchError          the run was planned for another account
    └── RepeatedTargetsError          another run launched some of the targets a short time ago

    ProviderSilentError               no outcome of a call: the provider answered nothing, and a chunk was given back

An undocumented code is a plain `RejectedError` with that code. A call that returns is `done`. `ValueError` and
`TypeError` report invalid arguments, before anything is sent.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import ClassVar, Self

import attrs

from dispatchkit.values import TypedValue, Value, redact_urls, target_of

__all__ = [
    "AccessDeniedError",
    "AccountMismatchError",
    "Attempt",
    "AuthenticationError",
    "BadCredentialsError",
    "ChunkHeldError",
    "DispatchkitError",
    "InappropriateStatusError",
    "IncorrectRequestError",
    "LedgerError",
    "NotAuthenticatedError",
    "NotFoundError",
    "NotSentError",
    "OutcomeUnknownError",
    "ProviderSilentError",
    "RejectedError",
    "RepeatedTargetsError",
    "ResponseLostError",
    "RunHeldError",
    "RunStoppedError",
    "State",
    "TariffLimitError",
    "ThrottledError",
    "TokenRequiredError",
]


def _one_line(text: str, longest: int) -> str:
    """Text for a terminal or a log: one line, printable, at most ``longest`` characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: longest * 4]).split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


class State(enum.StrEnum):
    """The four outcomes of a call. A member equals its text: ``State.DONE == "done"``.

    Example:
        >>> State("not_sent") is State.NOT_SENT, State.DONE == "done"
        (True, True)
    """

    DONE = "done"
    """The provider accepted the command, or its state shows the effect."""
    REJECTED = "rejected"
    """The provider refused the command and did nothing."""
    NOT_SENT = "not_sent"
    """Not one byte of the request left this process."""
    UNKNOWN = "unknown"
    """The command may have taken effect, and no state could settle it."""


@attrs.frozen
class Attempt(Value):
    """One attempt of a call to send its request."""

    number: int
    """1 for the first attempt of the call."""
    started: datetime
    """Start, UTC."""
    duration: float
    """Duration in seconds."""
    result: str
    """Short description of the end: ``"HTTP 200"``, ``"connection refused"``, ``"no answer within 70 s"``."""
    sent: bool
    """Whether any byte of the request may have left this process."""


class DispatchkitError(TypedValue, Exception):
    """Base of every error of a call. `state` is the outcome.

    Errors can be pickled, including their command. They hold no token, and no part of an answer except the provider's
    message. Their text shows no content and no file.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient("wrong", base_url=sandbox.url) as direct:
        ...     try:
        ...         await direct.start(7)
        ...     except DispatchkitError as error:
        ...         print(error.state, error.command, [attempt.result for attempt in error.attempts])
        rejected StartDispatch(dispatch_id=7) ['HTTP 401']
    """

    __to_dict_also__: ClassVar[tuple[str, ...]] = (
        "summary",
        "message",
        "hint",
        "status",
        "code",
        "retry_after",
        "retry_at",
        "is_final",
        "state",
        "target",
        "command",
        "request_id",
        "attempts",
    )
    __schema_name__ = "Error"

    state: ClassVar[State]
    hint: str = ""
    """What to do about the error, in one line. A call may set a more specific hint than the class."""

    def __init__(
        self,
        summary: str,
        *,
        command: object = None,
        attempts: tuple[Attempt, ...] = (),
        request_id: str | None = None,
    ) -> None:
        summary = _one_line(summary, 500)
        super().__init__(summary)
        self.summary = summary
        """What happened, in one line."""
        self.command = command
        """The command of the call."""
        self.attempts = attempts
        """Every attempt of the call, with its start, duration and result."""
        self.request_id = request_id
        """The request id of the call; None if the provider has none."""

    @property
    def target(self) -> int | None:
        """The id that the command acts on; None if there is no command, or if it has no id."""
        return target_of(self.command)

    def with_context(self, command: object, attempts: tuple[Attempt, ...], request_id: str | None) -> Self:
        """Add the command, its attempts and its request id. Returns the error itself."""
        self.command, self.attempts, self.request_id = command, attempts, request_id
        return self

    def __str__(self) -> str:
        subject = f"{_one_line(repr(self.command), 500)}: " if self.command is not None else ""
        first = f"{subject}{self.state.value.replace('_', ' ')}: {self.summary}"
        return f"{first}\n{self.hint}" if self.hint else first

    def __reduce__(self) -> tuple[object, ...]:
        # By default, pickle rebuilds an exception from `args` alone, which would lose every keyword.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[Exception], args: tuple[object, ...], state: dict[str, object]) -> Exception:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


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
        self.message = message
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
    return f"{_one_line(message, 300)} ({_one_line(label, 100)})"


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

    hint = "Nothing was done. Check the dispatch's status: only a dispatch that is running can be stopped."


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


class _RunError(TypedValue, Exception):
    """The ledger cannot be read or written. Nothing is launched without a row in it."""

    @property
    def summary(self) -> str:
        """What happened, in one line, without the passwords of URLs."""
        return _one_line(redact_urls(str(self)), 500)


class LedgerError(_RunError):
    """The ledger cannot be read or written. Nothing is launched without its row.

    Example:
        >>> async with Ledger("launch.db") as ledger:
        ...     try:
        ...         await ledger.counts("black-friday")
        ...     except LedgerError as error:
        ...         print(error)
        the ledger holds no run 'black-friday'; it holds none
    """

    __to_dict_also__: ClassVar[tuple[str, ...]] = (
        "summary",
        "run",
        "chunk",
        "pid",
        "host",
        "silent_for",
        "retry_after",
        "runs",
    )


class RunHeldError(LedgerError):
    """Another process holds the run.

    Example:
        >>> print(RunHeldError("black-friday", pid=1234, host="sender-1"))
        the run 'black-friday' is held by process 1234 on sender-1: wait until that process ends, or end it
    """

    def __init__(self, run: str, *, pid: int, host: str, silent_for: float = 0.0) -> None:
        super().__init__(run, pid, host)
        self.run = run
        self.pid = pid
        self.host = host
        self.silent_for = silent_for
        """Seconds for which the heartbeats of the process are overdue; 0 if they are not.

        A process without heartbeats that still exists is suspended, or hangs.
        """

    def __str__(self) -> str:
        held = f"the run {self.run!r} is held by process {self.pid} on {self.host}"
        if not self.silent_for:
            return f"{held}: wait until that process ends, or end it"
        return (
            f"{held}, which has been silent for {self.silent_for:.0f} s: it is suspended, or hangs. Resume that "
            "process, or end it (on the command line: --end-holder)"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class ChunkHeldError(RunHeldError):
    """Another process holds the chunk. Nothing more of it is launched here: retry after `retry_after`.

    Example:
        >>> ChunkHeldError("black-friday", 3, pid=1234, host="sender-1", retry_after=42.0).retry_after
        42.0
    """

    def __init__(self, run: str, chunk: int, *, pid: int, host: str, retry_after: float) -> None:
        super().__init__(run, pid=pid, host=host)
        self.chunk = chunk
        self.retry_after = retry_after
        """Seconds until the holder's lease ends, unless a heartbeat extends it."""

    def __str__(self) -> str:
        return (
            f"chunk {self.chunk} of the run {self.run!r} is held by process {self.pid} on {self.host}: try again in "
            f"{self.retry_after:.0f} s, when its lease ends"
        )


class RunStoppedError(LedgerError):
    """The run was stopped, and must be resumed explicitly.

    Example:
        >>> ids = range(1, 11)
        >>> async with Sandbox() as sandbox, Ledger("stopped.db") as ledger:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...         first = await direct.start_many(ids, ledger=ledger, run="black-friday", max_launches=1).finish()
        ...         stopped_at = await ledger.stop("black-friday")
        ...         try:
        ...             await direct.start_many(ids, ledger=ledger, run="black-friday").finish()
        ...         except RunStoppedError:
        ...             print("stopped")
        stopped
    """


class AccountMismatchError(LedgerError):
    """The run was planned for another account, or for another token of it. Nothing was launched.

    Example:
        >>> async with Sandbox() as sandbox, Ledger("account.db") as ledger:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...         first = await direct.start_many([7, 8], ledger=ledger, run="black-friday", max_launches=1).finish()
        ...     async with DirectClient("another", base_url=sandbox.url) as direct:
        ...         try:
        ...             await direct.start_many([7, 8], ledger=ledger, run="black-friday").finish()
        ...         except AccountMismatchError:
        ...             print("another account")
        another account
    """


class RepeatedTargetsError(LedgerError):
    """Another run launched some of the targets within the ``repeat_window``. Nothing was launched.

    Example:
        >>> async with Sandbox() as sandbox, Ledger("repeated.db") as ledger:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...         first = await direct.start_many([7], ledger=ledger, run="friday").finish()
        ...         try:
        ...             await direct.start_many([7, 8], ledger=ledger, run="monday", repeat_window=3600).finish()
        ...         except RepeatedTargetsError as error:
        ...             print(error.runs)
        {'friday': 1}
    """

    def __init__(self, message: str, *, runs: dict[str, int]) -> None:
        super().__init__(message)
        self.runs = runs
        """By run: the number of these targets that it has launched, is launching, or may have launched."""

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class ProviderSilentError(_RunError):
    """The provider answered nothing for ``give_up_after`` seconds, and the chunk was released.

    Launch the rest of the chunk later, or on another machine.

    Example:
        >>> from datetime import UTC, datetime
        >>> ProviderSilentError("black-friday", 3, since=datetime(2026, 1, 1, tzinfo=UTC), left=120).left
        120
    """

    __to_dict_also__: ClassVar[tuple[str, ...]] = ("summary", "run", "chunk", "since", "left")

    def __init__(self, run: str, chunk: int, *, since: datetime, left: int) -> None:
        super().__init__(run, chunk)
        self.run = run
        self.chunk = chunk
        self.since = since
        """The provider's last answer, or the start of the launch if there was none, UTC."""
        self.left = left
        """Number of targets of the chunk that are neither done nor rejected."""

    def __str__(self) -> str:
        return (
            f"the provider has answered nothing since {self.since:%Y-%m-%d %H:%M:%S} UTC: chunk {self.chunk} of the "
            f"run {self.run!r} was released with {self.left:,} targets left"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

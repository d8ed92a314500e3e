"""The errors of a run: of its ledger, and of a provider that is silent. They are no outcome of a call."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from dispatchkit.errors.base import one_line, rebuild
from dispatchkit.redaction import redact_urls
from dispatchkit.values import TypedValue

__all__ = [
    "AccountMismatchError",
    "ChunkHeldError",
    "LedgerError",
    "ProviderSilentError",
    "RepeatedTargetsError",
    "RunHeldError",
    "RunStoppedError",
]


class _RunError(TypedValue, Exception):
    """The ledger cannot be read or written. Nothing is launched without a row in it."""

    @property
    def summary(self) -> str:
        """What happened, in one line, without the passwords of URLs."""
        return one_line(redact_urls(str(self)), 500)


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
            f"{held}, which has been silent for {self.silent_for:.0f} s. It is suspended, or hangs. Resume that "
            "process, or end it (on the command line: --end-holder)"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (type(self), self.args, self.__dict__)


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
            f"chunk {self.chunk} of the run {self.run!r} is held by process {self.pid} on {self.host}. Try again in "
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

    It refuses a new run, and a chunk. A run that is resumed leaves such targets out.

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
        return rebuild, (type(self), self.args, self.__dict__)


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
        return rebuild, (type(self), self.args, self.__dict__)

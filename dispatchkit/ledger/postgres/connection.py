"""A PostgreSQL connection that reconnects by itself.

While the database is unreachable (a restart, a failover, a network failure), all work waits and is then repeated. A
broken connection does not tell how far it came, so the work must be idempotent.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none

from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.postgres.connect import ANSWER_TIMEOUT, connect
from dispatchkit.ledger.postgres.describe import TRANSIENT_ERRORS, describe_error, is_out_of_connections
from dispatchkit.ledger.postgres.driver_settings import DriverSettings
from dispatchkit.ledger.postgres.protocol import Connection, Row

__all__ = ["TRANSIENT_ERRORS", "Connection", "ReconnectingConnection", "Row", "fetching"]

T = TypeVar("T")

logger = logging.getLogger("dispatchkit.ledger")

_MIN_WAIT, _MAX_WAIT = 0.05, 2.0
"""First and longest wait between reconnects, in seconds. The wait doubles."""
_CLOSE = 0.5
"""Seconds that a close waits for the current statement, and for the database's answer."""


class ReconnectingConnection:
    """One connection, for one piece of work at a time.

    Args:
        settings: The driver's settings.
        clock: The clock for waits.
    """

    def __init__(self, settings: DriverSettings, *, clock: Clock = SYSTEM) -> None:
        self.settings = settings
        self._clock = clock
        self._turn = asyncio.Lock()
        self._connection: Connection | None = None
        self._closed = False

    async def run(
        self, work: Callable[[Connection], Awaitable[T]], *, timeout: float = math.inf, more_time: float = 0.0
    ) -> T:
        """Run work with the connection, and repeat it after transient errors.

        Args:
            work: Idempotent work.
            timeout: Seconds to wait for an unreachable database. Default: no limit.
            more_time: Seconds that many large statements may take beyond those of a connect and one statement.

        Raises:
            LedgerError: The database refused the work, or was unreachable for longer than the timeout.
        """
        until = self._clock.monotonic() + timeout
        longest = self.settings.connect_timeout * len(self.settings.hosts) * 2 + ANSWER_TIMEOUT + more_time
        async with self._turn:
            try:
                return await self._attempt(work, longest)
            except TRANSIENT_ERRORS as error:
                failure = error
            try:
                return await self._repeat(work, longest, failure, until)
            except TRANSIENT_ERRORS as error:
                raise LedgerError(describe_error(error)) from error

    async def _attempt(self, work: Callable[[Connection], Awaitable[T]], longest: float) -> T:
        """Run work once. Raises one of `TRANSIENT_ERRORS` if it may be repeated."""
        try:
            async with asyncio.timeout(longest):
                return await self._once(work)
        except ValueError as error:
            # A setting or a value is invalid. The error's own text may quote a password.
            raise LedgerError(describe_error(error)) from None
        except TRANSIENT_ERRORS:
            self._drop()
            raise
        except asyncpg.PostgresError as error:
            raise LedgerError(describe_error(error)) from error
        except BaseException:
            self._drop()  # cancelled: the state of the connection is unknown
            raise

    async def _repeat(
        self, work: Callable[[Connection], Awaitable[T]], longest: float, failure: Exception, until: float
    ) -> T:
        """Repeat work after its first attempt failed, as long as the next wait ends before ``until``."""
        # Only after an error: a command that only reads a ledger starts without tenacity.
        from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential  # noqa: PLC0415

        failures = [failure]
        is_told = False
        doubling = wait_exponential(multiplier=_MIN_WAIT, max=_MAX_WAIT)

        async def attempt() -> T:
            if failures:  # the first attempt was made without tenacity, which costs 25 us
                raise failures.pop()
            return await self._attempt(work, longest)

        def is_too_late(state: RetryCallState) -> bool:
            return self._clock.monotonic() + doubling(state) > until

        def tell(state: RetryCallState) -> None:
            nonlocal is_told
            error = state.outcome and state.outcome.exception()
            if isinstance(error, Exception) and is_out_of_connections(error) and not is_told:
                logger.warning("%s. Waiting for one", describe_error(error))
                is_told = True

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TRANSIENT_ERRORS),
            wait=lambda state: doubling(state) * (0.5 + self._clock.random() / 2),
            stop=is_too_late,
            before_sleep=tell,
            sleep=self._clock.sleep,
            reraise=True,
        )
        return await retrying(attempt)

    async def _once(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        if self._closed:
            raise LedgerError("the ledger is closed")
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self.settings)
        return await work(self._connection)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Disconnect. If the database does not answer, the connection is dropped."""
        self._closed = True
        try:
            async with asyncio.timeout(_CLOSE):
                await self._turn.acquire()
        except TimeoutError:
            self._drop()  # the statement under way fails, and is not repeated
            return
        self._turn.release()
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=_CLOSE)
            except (*TRANSIENT_ERRORS, asyncpg.PostgresError):
                connection.terminate()


def fetching(statement: str, *values: object) -> Callable[[Connection], Awaitable[list[Row]]]:
    """The work of a statement that returns rows."""
    return lambda connection: connection.fetch(statement, *values)

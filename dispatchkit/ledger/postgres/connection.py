"""A connection to PostgreSQL that comes back by itself.

While the database is away (it restarts, fails over, or the network is broken) whoever asks waits. So everything that
is asked must do no harm if it is done twice: of a connection that broke, nobody knows how far it came.
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

__all__ = ["TRANSIENT_ERRORS", "Connection", "ReconnectingConnection", "Row"]

T = TypeVar("T")

logger = logging.getLogger("dispatchkit.ledger")

_MIN_WAIT, _MAX_WAIT = 0.05, 2.0
"""Seconds between two tries to come back: they double."""
_CLOSE = 0.5
"""Seconds that a close waits for the statement under way, and for the database's goodbye."""


class ReconnectingConnection:
    """One connection. Those who ask take turns.

    Args:
        settings: Where the database is.
        clock: What waits.
    """

    def __init__(self, settings: DriverSettings, *, clock: Clock = SYSTEM) -> None:
        self.settings = settings
        self._clock = clock
        self._turn = asyncio.Lock()
        self._connection: Connection | None = None
        self._closed = False

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, timeout: float = math.inf) -> T:
        """Do something with the connection, again and again until it is done.

        Args:
            work: What to do: twice, if need be.
            timeout: Seconds to wait for a database that is away.

        Raises:
            LedgerError: The database refuses it, or was away for longer than that.
        """
        until = self._clock.monotonic() + timeout
        wait = _MIN_WAIT
        is_told = False
        longest = self.settings.connect_timeout * len(self.settings.hosts) * 2 + ANSWER_TIMEOUT
        async with self._turn:
            while True:
                try:
                    async with asyncio.timeout(longest):
                        return await self._once(work)
                except ValueError as error:
                    # Of a setting, or of a value. Its own words may quote what is secret.
                    raise LedgerError(describe_error(error)) from None
                except TRANSIENT_ERRORS as error:
                    self._drop()
                    reason = error
                except asyncpg.PostgresError as error:
                    raise LedgerError(describe_error(error)) from error
                except BaseException:
                    self._drop()  # cancelled: nobody knows what the connection is in the middle of
                    raise
                if self._clock.monotonic() + wait > until:
                    raise LedgerError(describe_error(reason)) from reason
                if is_out_of_connections(reason) and not is_told:
                    logger.warning("%s. Waiting for one", describe_error(reason))
                    is_told = True
                await self._clock.sleep(wait * (0.5 + self._clock.random() / 2))
                wait = min(_MAX_WAIT, wait * 2)

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
        """Disconnect. A database that does not answer is left without a goodbye."""
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

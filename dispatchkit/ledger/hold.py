"""The hold of this process on the chunks of a run, extended by heartbeats."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import uuid
from collections.abc import Callable
from datetime import timedelta

from dispatchkit.core.clock import Clock
from dispatchkit.core.log import log
from dispatchkit.errors import ChunkHeldError, LedgerError, RunHeldError
from dispatchkit.ledger.chunk import HEARTBEAT_INTERVAL, LEASE_TIMEOUT, Chunk, Holder
from dispatchkit.ledger.liveness import this_process
from dispatchkit.ledger.run import Run
from dispatchkit.ledger.store import Store

__all__ = ["Hold"]

logger = logging.getLogger("dispatchkit.ledger")

_ALIVE = 0.3
"""Minimum extension of a lease, in seconds, that proves a heartbeat of its holder."""


class Hold:
    """The chunks of a run that this process holds.

    Args:
        store: The store of the run.
        run: The run.
        only: The one chunk to take; None takes all unfinished chunks. With one chunk, another holder's lease is not
            waited for, since the queue delivers the chunk again.
        attempt_timeout: Seconds that one attempt of this process may take.
        clock: The clock.
    """

    def __init__(self, store: Store, run: Run, *, only: int | None, attempt_timeout: float, clock: Clock) -> None:
        self._store = store
        self._run = run
        self._only = only
        self._attempt_timeout = attempt_timeout
        self._clock = clock
        here = this_process()
        self._holder = Holder(
            uuid.uuid4().hex,
            here.pid,
            here.host,
            boot_id=here.boot_id,
            process_started=here.started,
            pid_namespace=here.pid_namespace,
        )
        self._heartbeat_task: asyncio.Task[None] | None = None
        self.chunks: list[Chunk] = []
        """The held chunks."""
        self.taken_at = -math.inf
        """When the last chunk was taken, on the clock's ``monotonic``."""
        self.ignores_stop = False
        """Whether a stop of the run is ignored, until `Store.clear_stop` clears it."""

    @property
    def token(self) -> str:
        """The token of every claim: claims of a lost hold are refused."""
        return self._holder.token

    async def take(self) -> None:
        """Take all unfinished chunks, and keep those that are held already.

        Raises:
            ChunkHeldError: Another process holds the one chunk ``only``.
            RunHeldError: A living process holds a chunk.
            LedgerError: The ledger cannot be written.
        """
        for chunk in await self._store.chunks(self._run.number):
            if self._only not in {None, chunk.number}:
                continue
            try:
                await self._take(chunk)
            except LedgerError:
                raise
            except BaseException:
                self.chunks.append(chunk)  # the write may have succeeded: release it, too
                raise
            self.chunks = [held for held in self.chunks if held.number != chunk.number] + [chunk]
            self.taken_at = self._clock.monotonic()

    async def _take(self, chunk: Chunk) -> None:
        """Take a chunk. If its holder sends no heartbeats, wait for the end of its lease."""
        lease_ends = math.inf
        while True:
            other = await self._store.acquire(
                self._run.number, chunk.number, self._holder, attempt_timeout=self._attempt_timeout
            )
            if other is None:
                return
            if self._only is not None:
                retry_after = max(other.lease_left, HEARTBEAT_INTERVAL)
                raise ChunkHeldError(
                    self._run.name, chunk.number, pid=other.pid, host=other.host, retry_after=retry_after
                )
            now = self._clock.monotonic()
            if other.exists or now + other.lease_left > lease_ends + _ALIVE:
                silent_for = LEASE_TIMEOUT - other.lease_left if other.lease_left < 0 else 0.0
                raise RunHeldError(self._run.name, pid=other.pid, host=other.host, silent_for=silent_for)
            if lease_ends == math.inf:
                until = self._clock.now() + timedelta(seconds=other.lease_left)
                text = "the run %r was held by process %s on %s: waiting for the end of its lease at %s UTC"
                about = self._run.name, other.pid, other.host, f"{until:%H:%M:%S}"
                log(logger, logging.WARNING, text, *about, extra=self._extra)
            lease_ends = now + other.lease_left
            await self._clock.sleep(min(HEARTBEAT_INTERVAL, other.lease_left + 0.05))

    def _extra(self) -> dict[str, object]:
        """The attributes of a log record."""
        return {"run": self._run.name, "index": None}

    def keep(self, lost: Callable[[LedgerError | None], None]) -> None:
        """Start the heartbeats.

        Args:
            lost: Called once: with None if the run was stopped or taken over, else with the error of the heartbeats.
        """
        self._heartbeat_task = asyncio.create_task(self._send_heartbeats(lost))

    async def _send_heartbeats(self, lost: Callable[[LedgerError | None], None]) -> None:
        try:
            while True:
                await self._clock.sleep(HEARTBEAT_INTERVAL)
                for chunk in list(self.chunks):
                    ignores_stop = self.ignores_stop  # read before the heartbeat: the stop may be cleared meanwhile
                    status = await self._store.heartbeat(self._run.number, chunk.number, self.token)
                    if not status.mine or (status.stopped and not ignores_stop):
                        lost(None)
                        return
        except LedgerError as error:
            lost(error)
        except Exception as error:  # noqa: BLE001 - without heartbeats, another process may take the chunks
            text = "the heartbeats of the run %r failed, so this process launches no more of it"
            log(logger, logging.ERROR, text, self._run.name, exc_info=error, extra=self._extra)
            failed = LedgerError(
                f"the heartbeats of the run {self._run.name!r} failed ({type(error).__name__}), so this process "
                "launches no more of it: resume the run"
            )
            failed.__cause__ = error
            lost(failed)

    async def release(self, *, timeout: float) -> None:
        """Stop the heartbeats and release the chunks. If the write times out, their leases expire."""
        if self._heartbeat_task is not None:
            self._heartbeat_task.cancel()
            await asyncio.wait([self._heartbeat_task])
        chunks, self.chunks = self.chunks, []
        with contextlib.suppress(LedgerError, TimeoutError):
            async with asyncio.timeout(timeout):
                for chunk in chunks:
                    await self._store.release(self._run.number, chunk.number, self.token)

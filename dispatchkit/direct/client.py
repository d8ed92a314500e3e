"""`DirectClient`: the client of i-Digital Direct."""

from __future__ import annotations

import os
import ssl as ssl_module
from collections.abc import AsyncIterable, Iterable
from datetime import datetime

from dispatchkit.core.call.client import ATTEMPT_TIMEOUT, TIMEOUT, Client
from dispatchkit.core.call.retry import DEFAULT_RETRY, RetryPolicy
from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.core.fanout.fan_out import FanOut
from dispatchkit.core.fanout.journal import JournalProvider
from dispatchkit.core.invalid_command import build_commands
from dispatchkit.core.listing import Listing
from dispatchkit.core.pacing.pace import Pace
from dispatchkit.core.secret import Secret, Token
from dispatchkit.direct.commands import (
    DirectAuth,
    DirectCommand,
    ReadDispatch,
    ReadDispatches,
    StartDispatch,
    StopDispatch,
)
from dispatchkit.direct.models import Dispatch, StartedDispatch

__all__ = ["BASE_URL", "DirectClient"]

BASE_URL = "https://direct.i-dgtl.ru"
"""The provider's host."""


class DirectClient(Client[DirectAuth]):
    """Starts and stops dispatches of i-Digital Direct.

    Use it as ``async with DirectClient(token) as direct:``, or call `close` yourself. One client serves any number of
    concurrent calls of one event loop.

    Args:
        token: The API key exactly as the cabinet shows it (a TOKEN_1 key, already Base64), or a callable that
            returns it. None reads ``DISPATCHKIT_DIRECT_TOKEN``.
        base_url: ``scheme://host[:port]``. None reads ``DISPATCHKIT_DIRECT_URL``; without it, the default is
            ``https://direct.i-dgtl.ru``.
        timeout: Seconds a whole call may take, default 240.
        attempt_timeout: Seconds one attempt may take, default 70, which the vendor advises.
        retry: When and how a call is repeated; see `RetryPolicy`.
        pace: How fast the account may be used, by all its clients in this process; see `Pace`. None leaves it as it is.
        clock: Time and chance; for tests that wait for nothing.
        insecure: Allow plain http to a host that is not this machine. It shows the token to everyone on the way.
        proxy: URL of an HTTP proxy.
        ssl: An SSL context of your own; True checks the server's certificate in the usual way.
        account: A name of your own for the account, at most 200 characters. A ledger's run keeps it, so that the same
            account with a new token goes on with the run. None: the token identifies the account.

    Raises:
        ValueError: No token, a token that cannot be one, or a base_url that is more than a host; or another
            setting is out of range.
        TypeError: A setting is of another type; the message names it.

    The provider's pages: https://api.docs.direct.i-dgtl.ru
    """

    _command_type = DirectCommand

    def __init__(
        self,
        token: Token | None = None,
        *,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        attempt_timeout: float = ATTEMPT_TIMEOUT,
        retry: RetryPolicy = DEFAULT_RETRY,
        pace: Pace | None = None,
        clock: Clock = SYSTEM,
        insecure: bool = False,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool = True,
        account: str | None = None,
    ) -> None:
        key = Secret(token, environment="DISPATCHKIT_DIRECT_TOKEN")
        del token
        key.check()
        if base_url is None:
            base_url = os.environ.get("DISPATCHKIT_DIRECT_URL") or BASE_URL
        super().__init__(
            base_url,
            DirectAuth(key),
            key,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            retry=retry,
            pace=pace,
            clock=clock,
            insecure=insecure,
            proxy=proxy,
            ssl=ssl,
            account=account,
        )

    async def start(
        self, dispatch_id: int, *, timeout: float | None = None, retry: RetryPolicy | None = None
    ) -> StartedDispatch:
        """Start a dispatch: ``POST /api/v1/dispatch/{dispatchId}/start``.

        It completes the creation of the dispatch; no message can be added afterwards.

        Args:
            dispatch_id: The dispatch, a positive integer.
            timeout: Seconds for the whole call, attempts, waits and settling together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            RejectedError: The provider said no: `AuthenticationError`, `AccessDeniedError`, `NotFoundError`, ...
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: It may have started.
            TypeError: ``dispatch_id`` is not an integer.
            ValueError: ``dispatch_id`` is not positive.
        """
        return await self.perform(StartDispatch(dispatch_id), timeout=timeout, retry=retry)

    async def stop(self, dispatch_id: int, *, timeout: float | None = None, retry: RetryPolicy | None = None) -> None:
        """Stop a dispatch whose start was already requested: ``POST /api/v1/dispatch/{dispatchId}/stop``.

        Args:
            dispatch_id: The dispatch, a positive integer.
            timeout: Seconds for the whole call, attempts, waits and settling together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            InappropriateStatusError: It has not been started yet, or has already finished.
            RejectedError: The provider said no for another reason.
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: It may have been stopped.
            TypeError: ``dispatch_id`` is not an integer.
            ValueError: ``dispatch_id`` is not positive.
        """
        return await self.perform(StopDispatch(dispatch_id), timeout=timeout, retry=retry)

    async def dispatches(
        self,
        *,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        status: str | None = None,
        dispatch_id: int | None = None,
        dispatch_name: str | None = None,
        traffic_center_id: int | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> Listing[Dispatch]:
        """Read dispatches, their state and their statistics: ``GET /api/v1/dispatch``.

        It changes nothing, so it is repeated whatever became of an attempt. The provider documents no pages: one answer
        has them all, those that every filter lets pass; the answer's ``missing`` says how many more it counts.

        Args:
            created_from: Only those created from this moment on, in whole seconds; it says its zone.
            created_to: Only those created up to this moment, in whole seconds; it says its zone.
            status: Only those with this status, such as ``"sending"``; see `Dispatch`.
            dispatch_id: Only this one; see also `dispatch`.
            dispatch_name: Only those of this name.
            traffic_center_id: Only those of this traffic center.
            timeout: Seconds for the whole call, attempts and waits together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            RejectedError: The provider said no: `AuthenticationError`, `AccessDeniedError`, ...
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: No answer came; it is a `ResponseLostError`, since a read does nothing to the world.
            TypeError: A filter is of another type; the message names it.
            ValueError: An id is not positive, a text is empty, or a time does not say its zone.
        """
        command = ReadDispatches(
            dispatch_id=dispatch_id,
            status=status,
            dispatch_name=dispatch_name,
            traffic_center_id=traffic_center_id,
            created_from=created_from,
            created_to=created_to,
        )
        return await self.perform(command, timeout=timeout, retry=retry)

    async def dispatch(
        self, dispatch_id: int, *, timeout: float | None = None, retry: RetryPolicy | None = None
    ) -> Dispatch:
        """Read one dispatch, its state and its statistics: ``GET /api/v1/dispatch?dispatch_id=``.

        It changes nothing, so it is repeated whatever became of an attempt.

        Args:
            dispatch_id: The dispatch, a positive integer.
            timeout: Seconds for the whole call, attempts and waits together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            NotFoundError: The provider lists no such dispatch. Its ``code`` is None: an empty list has none.
            RejectedError: The provider said no for another reason.
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: No answer came; it is a `ResponseLostError`, since a read does nothing to the world.
            TypeError: ``dispatch_id`` is not an integer.
            ValueError: ``dispatch_id`` is not positive.
        """
        return await self.perform(ReadDispatch(dispatch_id), timeout=timeout, retry=retry)

    def start_many(
        self,
        ids: Iterable[int] | AsyncIterable[int],
        *,
        concurrency: int = 64,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        expected: int | None = None,
        max_launches: int | None = None,
        stop_after_failures: int | None = None,
        give_up_after: float | None = None,
        ledger: JournalProvider | None = None,
        run: str | None = None,
        repeat_window: float | None = None,
    ) -> FanOut[DirectAuth, StartedDispatch]:
        """`start` for many dispatches, as a `FanOut`: ``async for outcome in direct.start_many(ids)``.

        An id that is none is an outcome, not_sent, and ends nothing.

        Args:
            ids: The dispatches; taken one by one, as calls end.
            concurrency: How many calls may be under way at once, as far as the account's `Pace` allows.
            timeout: Seconds for each call, the wait for its turn not counted; None takes the client's.
            retry: When and how each call is repeated; None takes the client's policy.
            expected: How many ids there must be.
            max_launches: How many calls may be begun at most.
            stop_after_failures: Stop the run after so many outcomes that are not done.
            give_up_after: Stop the run when the provider has answered nothing for so many seconds; see `FanOut`.
            ledger: The durable memory of the run, usually a `Ledger`. The same line again goes on where it ended.
            run: The name of the run in the ledger.
            repeat_window: Seconds within which no other run may have launched one of the targets; see `FanOut`.

        Raises:
            TypeError: A setting is of another type.
            ValueError: A setting is out of range, or there are not as many ids as ``expected``.
        """
        return FanOut(
            self,
            build_commands(ids, StartDispatch),
            concurrency=concurrency,
            timeout=timeout,
            retry=retry,
            expected=expected,
            max_launches=max_launches,
            stop_after_failures=stop_after_failures,
            give_up_after=give_up_after,
            ledger=ledger,
            run=run,
            repeat_window=repeat_window,
        )

    def stop_many(
        self,
        ids: Iterable[int] | AsyncIterable[int],
        *,
        concurrency: int = 64,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        expected: int | None = None,
        max_launches: int | None = None,
        stop_after_failures: int | None = None,
        give_up_after: float | None = None,
        ledger: JournalProvider | None = None,
        run: str | None = None,
    ) -> FanOut[DirectAuth, None]:
        """`stop` for many dispatches, as a `FanOut`: ``async for outcome in direct.stop_many(ids)``.

        An id that is none is an outcome, not_sent, and ends nothing.

        Args:
            ids: The dispatches; taken one by one, as calls end.
            concurrency: How many calls may be under way at once, as far as the account's `Pace` allows.
            timeout: Seconds for each call, the wait for its turn not counted; None takes the client's.
            retry: When and how each call is repeated; None takes the client's policy.
            expected: How many ids there must be.
            max_launches: How many calls may be begun at most.
            stop_after_failures: Stop the run after so many outcomes that are not done.
            give_up_after: Stop the run when the provider has answered nothing for so many seconds; see `FanOut`.
            ledger: The durable memory of the run, usually a `Ledger`. The same line again goes on where it ended.
            run: The name of the run in the ledger.

        Raises:
            TypeError: A setting is of another type.
            ValueError: A setting is out of range, or there are not as many ids as ``expected``.
        """
        return FanOut(
            self,
            build_commands(ids, StopDispatch),
            concurrency=concurrency,
            timeout=timeout,
            retry=retry,
            expected=expected,
            max_launches=max_launches,
            stop_after_failures=stop_after_failures,
            give_up_after=give_up_after,
            ledger=ledger,
            run=run,
        )

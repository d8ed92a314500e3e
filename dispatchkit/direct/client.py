"""`DirectClient`: the client of i-Digital Direct."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from datetime import datetime
from typing import Any, Self, Unpack, cast

from dispatchkit.core.call.client import Client
from dispatchkit.core.call.options import ClientOptions, hide_proxy
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.fanout.check import LaunchCheck
from dispatchkit.core.fanout.fan_out import FanOut
from dispatchkit.core.fanout.options import FanOutOptions
from dispatchkit.core.fanout.polling import Watching
from dispatchkit.core.invalid_command import build_commands
from dispatchkit.core.listing import Listing
from dispatchkit.core.options import check_options, takes_options
from dispatchkit.core.secret import Secret, Token, Unshown
from dispatchkit.direct.check import iterate_checks
from dispatchkit.direct.commands import (
    DirectAuth,
    DirectCommand,
    ReadDispatch,
    ReadDispatches,
    StartDispatch,
    StopDispatch,
)
from dispatchkit.direct.message_methods import DirectMessages
from dispatchkit.direct.models import Dispatch, StartedDispatch
from dispatchkit.direct.watch import DispatchProgress, watch_dispatches
from dispatchkit.profiles import client_options, profile_name
from dispatchkit.providers import installed_provider

__all__ = ["DirectClient", "DirectOptions"]


class DirectOptions(ClientOptions, total=False):
    """The options of `DirectClient`: those of `ClientOptions`, and one of its own.

    Attributes:
        base_url: ``scheme://host[:port]`` of the provider. None reads ``DISPATCHKIT_DIRECT_URL``; without the variable,
            it is ``https://direct.i-dgtl.ru``. Default: None.

    Example:
        >>> async with Sandbox() as sandbox:
        ...     options: DirectOptions = {"base_url": sandbox.url, "timeout": 60}
        ...     async with DirectClient(sandbox.direct_token, **options) as direct:
        ...         await direct.start(7)
        StartedDispatch(dispatch_id=7, settled=False)
    """

    base_url: str | None


class DirectClient(DirectMessages):
    """Starts and stops dispatches of i-Digital Direct, and adds messages to them.

    Use it as ``async with DirectClient(token) as direct:``, or call `close` yourself. One client serves any number of
    concurrent calls of one event loop.

    Args:
        token: The API key exactly as the cabinet shows it (a TOKEN_1 key, already Base64), or a callable. See
            `dispatchkit.core.secret.Token`. None reads
            ``DISPATCHKIT_DIRECT_TOKEN``.
        options: See `DirectOptions`.

    Raises:
        ValueError: The token is missing or invalid, ``base_url`` is more than a host, or another option is out of
            range.
        TypeError: An option is unknown or of another type; the message names it.

    The provider's pages: https://api.docs.direct.i-dgtl.ru

    Example:
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     await direct.start(7)
        StartedDispatch(dispatch_id=7, settled=False)
    """

    command_type = DirectCommand

    @takes_options(Client)
    def __init__(
        self,
        token: Token | None = None,
        *,
        base_url: str | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        key = Secret(token, environment="DISPATCHKIT_DIRECT_TOKEN")
        url = Unshown(installed_provider("direct").own_url() if base_url is None else base_url)
        del token, base_url  # a traceback shows the locals of this frame
        hide_proxy(options)
        check_options(DirectClient, options)
        key.check()
        super().__init__(url, DirectAuth(key), key, **options)

    @classmethod
    def from_profile(
        cls, name: str | None = None, *, token: Token | None = None, **options: Unpack[DirectOptions]
    ) -> Self:
        """A client of a profile: ``[profiles.NAME]`` in ``config.toml`` in the user's configuration folder.

        An argument goes before the environment, the environment before the profile, the profile before defaults. A
        ``token_command`` runs now, for at most 60 s, and blocks.

        Args:
            name: The profile. None reads ``DISPATCHKIT_PROFILE``.
            token: See `DirectClient`.
            options: See `DirectOptions`.

        Raises:
            ValueError: There is no such profile, it is of another provider, or its file is damaged or open to others.
                The ``token_command`` failed, or the constructor refuses a value.
            ImportError: The extra ``profiles`` is not installed.

        Example:
            >>> DirectClient.from_profile("retail")
            Traceback (most recent call last):
            ValueError: ...
        """
        settings = Unshown({"token": token, **options})
        del token, options
        client = cls(**cast("Any", client_options("direct", name, settings.reveal()).reveal()))
        client._profile = profile_name(name)
        return client

    async def start(
        self, dispatch_id: int, *, timeout: float | None = None, retry: RetryPolicy | None = None
    ) -> StartedDispatch:
        """Start a dispatch: ``POST /api/v1/dispatch/{dispatchId}/start``.

        It completes the creation of the dispatch; no message can be added afterwards.

        Args:
            dispatch_id: The dispatch, a positive integer.
            timeout: Seconds for the whole call: attempts, waits and settling together; None takes the client's.
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
            timeout: Seconds for the whole call: attempts, waits and settling together; None takes the client's.
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

        A read changes nothing, so every failed attempt may be repeated. The provider documents no paging: one response
        lists all dispatches that pass every filter. ``missing`` of the result counts those that it left out.

        Args:
            created_from: Only dispatches created at this time or later, in whole seconds; it must have a time zone.
            created_to: Only dispatches created at this time or earlier, in whole seconds; it must have a time zone.
            status: Only dispatches with this status, such as ``"sending"``; see `Dispatch`.
            dispatch_id: Only this dispatch; see also `dispatch`.
            dispatch_name: Only dispatches of this name.
            traffic_center_id: Only dispatches of this traffic center.
            timeout: Seconds for the whole call: attempts and waits together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            RejectedError: The provider said no: `AuthenticationError`, `AccessDeniedError`, ...
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: No response came. It is a `ResponseLostError`: a read changes nothing.
            TypeError: A filter is of another type; the message names it.
            ValueError: An id is not positive, a text is empty, or a time has no time zone.
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

        A read changes nothing, so every failed attempt may be repeated.

        Args:
            dispatch_id: The dispatch, a positive integer.
            timeout: Seconds for the whole call: attempts and waits together; None takes the client's.
            retry: When and how the call is repeated; None takes the client's policy.

        Raises:
            NotFoundError: The provider lists no such dispatch. Its ``code`` is None: an empty list has none.
            RejectedError: The provider said no for another reason.
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: No response came. It is a `ResponseLostError`: a read changes nothing.
            TypeError: ``dispatch_id`` is not an integer.
            ValueError: ``dispatch_id`` is not positive.
        """
        return await self.perform(ReadDispatch(dispatch_id), timeout=timeout, retry=retry)

    async def check(self, ids: Iterable[int], *, timeout: float | None = None) -> tuple[LaunchCheck, ...]:
        """Check dispatches before their start: ``GET /api/v1/dispatch?dispatch_id=``, one read a dispatch.

        It only reads, as fast as the account's pace allows. A dispatch whose state cannot be read is no error: its
        check says so. The state may change between the check and the start.

        ``initiated`` speaks for a start. Every other status shows that a start was requested. The statuses are those
        of the docs of a white label of the same software. A check is therefore no promise of the provider.

        Args:
            ids: The dispatches, positive integers.
            timeout: Seconds for each read: attempts and waits together; None takes the client's.

        Returns:
            A check for each id, in the order of the ids.

        Raises:
            RejectedError: The provider refuses the token or, in its first answer, the account.
            TypeError: An id is not an integer.
            ValueError: An id is not positive.

        Example:
            >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
            ...     await direct.start(8)
            ...     [each.target for each in await direct.check([7, 8, 9]) if each.is_launchable]
            StartedDispatch(dispatch_id=8, settled=False)
            [7, 9]
        """
        checks = [pair async for pair in iterate_checks(self, ids, timeout=timeout)]
        return tuple(check for _, check in sorted(checks, key=lambda pair: pair[0]))

    def watch(
        self,
        ids: int | Iterable[int],
        *,
        every: float = 5.0,
        timeout: float | None = None,
        stalled_after: float | None = None,
    ) -> AsyncIterator[DispatchProgress]:
        """Watch dispatches after their start until all are final: ``async for progress in direct.watch(ids)``.

        It reads each dispatch once a round, as fast as the account's pace allows. It yields a value when status or
        counters change. The last value of each dispatch has an `end`. A dispatch that was stopped, stalled or cannot be
        found ends alone; the others are watched on.

        Final are ``done`` and ``stopped``, by the docs of a white label of the same software. Finished is not
        delivered: the counters tell how many messages were.

        Args:
            ids: A dispatch, or several.
            every: Seconds from the end of one round of reads to the next one. Default: 5.0.
            timeout: Seconds until the watch ends in any case: the end is ``timed_out``. None: never. Default: None.
            stalled_after: Seconds without a change of status and counters after which the end is ``stalled``. None:
                never. Default: None.

        Raises:
            RejectedError: The provider refuses the token or, in its first answer, the account.
            TypeError: An argument is of another type.
            ValueError: An id or a time is not positive.

        Example:
            >>> async with Sandbox(scheduled=0, sending=0, awaiting=0) as sandbox:
            ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
            ...         started = await direct.start(7)
            ...         [progress.status async for progress in direct.watch([7], timeout=60)]
            ['done']
        """
        given = ids if isinstance(ids, Iterable) else [ids]
        return watch_dispatches(self, given, Watching(every, timeout, stalled_after))

    @takes_options(FanOut)
    def start_many(
        self, ids: Iterable[int] | AsyncIterable[int], **options: Unpack[FanOutOptions]
    ) -> FanOut[StartedDispatch]:
        """`start` for many dispatches, as a `FanOut`: ``async for outcome in direct.start_many(ids)``.

        An invalid id yields a `NotSent` outcome; the run continues. No failure cancels another start, as it would in an
        `asyncio.TaskGroup`.

        Args:
            ids: The dispatches; taken one by one, as calls end.
            options: See `FanOutOptions`.

        Raises:
            TypeError: An option is unknown or of another type.
            ValueError: An option is out of range, or the number of ids is not ``expected``.
        """
        check_options(DirectClient.start_many, options)
        return FanOut(self, build_commands(ids, StartDispatch), **options)

    @takes_options(FanOut)
    def stop_many(self, ids: Iterable[int] | AsyncIterable[int], **options: Unpack[FanOutOptions]) -> FanOut[None]:
        """`stop` for many dispatches, as a `FanOut`: ``async for outcome in direct.stop_many(ids)``.

        An invalid id yields a `NotSent` outcome; the run continues.

        Args:
            ids: The dispatches; taken one by one, as calls end.
            options: See `FanOutOptions`.

        Raises:
            TypeError: An option is unknown or of another type.
            ValueError: An option is out of range, or the number of ids is not ``expected``.
        """
        check_options(DirectClient.stop_many, options)
        return FanOut(self, build_commands(ids, StopDispatch), **options)

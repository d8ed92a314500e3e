"""The methods of `DirectClient` that add messages to a dispatch."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import Unpack, cast

from dispatchkit.core.call.client import Client
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.fanout.fan_out import FanOut
from dispatchkit.core.fanout.options import FanOutOptions
from dispatchkit.core.invalid_command import build_commands
from dispatchkit.core.options import check_options, takes_options
from dispatchkit.core.validators import async_iterable
from dispatchkit.direct.commands import DirectAuth
from dispatchkit.direct.messages import (
    BATCH_SIZE,
    AddedMessages,
    AddMessages,
    Message,
    batch_of,
    check_batch_size,
    check_iterable,
)

__all__ = ["DirectMessages"]

_Batch = tuple[int, list[Message]]
_LEDGER = "a ledger would hold destinations and contents"
_NOT_OF_MESSAGES = {"ledger": _LEDGER, "run": _LEDGER, "expected": "it would count batches"}
"""Options of a fan-out that are refused, and why."""
_ANY = Message("0")
"""Stands for the messages of a stream, which are not known yet."""


class DirectMessages(Client[DirectAuth]):
    """The methods of `DirectClient` that add messages."""

    async def add_messages(
        self,
        dispatch_id: int,
        messages: Iterable[Message],
        *,
        batch_size: int = BATCH_SIZE,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> AddedMessages:
        """Add one batch of messages to a dispatch: ``POST /api/v1/dispatch/{dispatchId}/messages``.

        The dispatch must not be started yet. An unclear call is never repeated, as the messages may have been added.
        The result says of each message whether it was added: a success may hold refused messages.

        Args:
            dispatch_id: The dispatch, a positive integer.
            messages: The messages, each destination once; see `add_messages_many` for more than one batch.
            batch_size: The most messages of a request. The provider documents no limit. Default: 1000.
            timeout: Seconds for the whole call: attempts and waits together; None takes the client's.
            retry: When and how a call that did nothing is repeated; None takes the client's policy.

        Raises:
            InappropriateStatusError: The dispatch was started already.
            RejectedError: The provider said no to the whole batch for another reason.
            NotSentError: Not one byte of the request left this process.
            OutcomeUnknownError: The messages may have been added.
            TypeError: One of ``messages`` is no `Message`; the text names its index.
            ValueError: There are none or too many, or two have one destination.

        The provider's page: https://api.docs.direct.i-dgtl.ru

        Example:
            >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
            ...     added = await direct.add_messages(7, [Message("79818269375", {"name": "Anna"})])
            ...     added.results[0].is_added
            True
        """
        try:
            command = AddMessages(dispatch_id, batch_of(messages, batch_size))
        except (TypeError, ValueError) as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same error; the frames below hold the messages
        finally:
            del messages  # a traceback shows the locals of this frame
        return await self.perform(command, timeout=timeout, retry=retry)

    @takes_options(FanOut)
    def add_messages_many(
        self,
        messages: Iterable[Message] | AsyncIterable[Message],
        *,
        dispatch_id: int,
        batch_size: int = BATCH_SIZE,
        **options: Unpack[FanOutOptions],
    ) -> FanOut[AddedMessages]:
        """`add_messages` for any number of messages, as a `FanOut` of batches.

        An outcome belongs to a batch: ``outcome.command.first`` is the index of its first message. Memory holds the
        batches in flight, not the input. A list is checked whole before anything is sent. A stream is checked batch
        by batch. A batch with an invalid message yields a `NotSent` outcome, and the run continues. The provider does
        not document in which order it keeps messages of concurrent batches.

        Args:
            messages: The messages; taken batch by batch, as calls end.
            dispatch_id: The dispatch of all of them, a positive integer.
            batch_size: The most messages of a request. The provider documents no limit. Default: 1000.
            options: See `FanOutOptions`. A ledger would hold the messages, so there is no ``ledger``, and the length of
                the input is not ``expected``.

        Raises:
            TypeError: An option is unknown or of another type, or an element of a list is no `Message`.
            ValueError: An option is out of range, or a list has a destination twice; the text names both indexes.

        The provider's page: https://api.docs.direct.i-dgtl.ru

        Example:
            >>> messages = [Message(str(79810000000 + number)) for number in range(2500)]
            >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
            ...     async for outcome in direct.add_messages_many(messages, dispatch_id=7, concurrency=1):
            ...         outcome.command.first, outcome.result.added
            (0, 1000)
            (1000, 1000)
            (2000, 500)
        """
        known: Sequence[Message] = ()
        try:
            check_options(DirectMessages.add_messages_many, options)
            check_batch_size(batch_size)
            check_iterable(messages)
            given = next((name for name in _NOT_OF_MESSAGES if options.get(name) is not None), None)
            if given is not None:
                raise ValueError(f"{given} does not go with messages: {_NOT_OF_MESSAGES[given]}")
            # What is wrong with the dispatch, or with a list, is found before anything is sent.
            known = messages if isinstance(messages, Sequence) else ()
            AddMessages(dispatch_id, known or (_ANY,))
            commands = build_commands(
                _batches(messages, batch_size), lambda batch: AddMessages(dispatch_id, batch[1], first=batch[0])
            )
        except (TypeError, ValueError) as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same error; the frames below hold the messages
        finally:
            del messages, known  # a traceback shows the locals of this frame
        return FanOut(self, commands, **options)


def _batches(
    messages: Iterable[Message] | AsyncIterable[Message], size: int
) -> Iterator[_Batch] | AsyncIterator[_Batch]:
    """The messages in batches, each with the index of its first message."""
    if (source := async_iterable(messages)) is not None:
        return _batches_as_they_come(source, size)
    return _batches_of(cast("Iterable[Message]", messages), size)


def _batches_of(messages: Iterable[Message], size: int) -> Iterator[_Batch]:
    first, batch = 0, list[Message]()
    source = iter(messages)
    try:
        for message in source:
            batch.append(message)
            if len(batch) == size:
                yield first, batch
                first, batch = first + size, []
    finally:
        close = getattr(source, "close", None)  # a generator may hold a file open
        if close is not None:
            close()
    if batch:
        yield first, batch


async def _batches_as_they_come(messages: AsyncIterable[Message], size: int) -> AsyncIterator[_Batch]:
    first, batch = 0, list[Message]()
    source = aiter(messages)
    try:
        async for message in source:
            batch.append(message)
            if len(batch) == size:
                yield first, batch
                first, batch = first + size, []
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
    if batch:
        yield first, batch

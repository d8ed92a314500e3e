"""Watch dispatches after their start: ``GET /api/v1/dispatch?dispatch_id=``, one read a dispatch and round."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from datetime import datetime
from typing import ClassVar, cast

import attrs

from dispatchkit.core.call.client import Client
from dispatchkit.core.fanout.polling import Found, TargetProgress, WatchEnd, Watching, poll
from dispatchkit.core.fanout.reads import read_all
from dispatchkit.direct.commands import DirectAuth, ReadDispatch
from dispatchkit.direct.models import Dispatch, DispatchCounts

__all__ = ["DispatchProgress", "watch_dispatches"]

_DONE = "done"
_FINAL = frozenset({_DONE, "stopped"})


@attrs.frozen(kw_only=True)
class DispatchProgress(TargetProgress):
    """The state of a watched dispatch at one moment.

    ``done`` means that the provider has finished. Whether a message arrived is in the counters: `messages.delivered`.

    Example:
        >>> async with Sandbox(scheduled=0, sending=0, awaiting=0) as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...         started = await direct.start(7)
        ...         async for progress in direct.watch(7):
        ...             progress.status, progress.messages.delivered, progress.end.value
        ('done', 1235, 'final')
    """

    __to_dict_also__: ClassVar[tuple[str, ...]] = ("is_well",)

    status: str | None = None
    """The provider's word; None if it was never read."""
    name: str | None = None
    messages: DispatchCounts | None = None
    """The provider's counters of the messages."""

    @property
    def is_well(self) -> bool:
        """Whether the dispatch is ``done``. It may have undelivered messages all the same."""
        return self.end is WatchEnd.FINAL and self.status == _DONE


def watch_dispatches(
    client: Client[DirectAuth], ids: Iterable[int], watching: Watching
) -> AsyncIterator[DispatchProgress]:
    """See `DirectClient.watch`.

    Raises:
        TypeError: An id is not an integer.
        ValueError: An id is not positive.
    """
    clock = client._clock
    commands = {command.dispatch_id: command for command in map(ReadDispatch, ids)}

    async def read(targets: list[int], within: float | None) -> AsyncGenerator[Found[DispatchProgress]]:
        reads = read_all(client, [commands[target] for target in targets], within=within)
        async with aclosing(reads) as reading:
            async for outcome in reading:
                target = cast("int", outcome.target)
                yield target, _progress(outcome.result, clock.now()) if outcome.error is None else outcome.error

    return poll(commands, read, lambda target, at: DispatchProgress(target=target, at=at), watching, clock)


def _progress(dispatch: Dispatch, at: datetime) -> DispatchProgress:
    return DispatchProgress(
        target=dispatch.dispatch_id,
        at=at,
        end=WatchEnd.FINAL if dispatch.status in _FINAL else None,
        status=dispatch.status,
        name=dispatch.dispatch_name,
        messages=dispatch.messages,
    )

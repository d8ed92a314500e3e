"""`PendingCall`: from the first attempt of one command to its outcome.

A result of the first attempt ends it at once. Otherwise a `Call` is made, and decides how it goes on.
"""

from __future__ import annotations

import contextlib
from typing import Generic, TypeVar, cast

from dispatchkit.core.call.attempt import attempt
from dispatchkit.core.call.call import Call
from dispatchkit.core.call.call_state import AttemptEvent, Finish, Unfinished
from dispatchkit.core.call.flight import Flight, TakeOver
from dispatchkit.core.call.gate import Permit
from dispatchkit.core.call.token import attempt_with_token
from dispatchkit.errors import DispatchkitError, State

__all__ = ["PendingCall"]

R = TypeVar("R")
W = TypeVar("W")


class PendingCall(Flight[W, R], Generic[W, R]):
    """A prepared command. `Client._call` makes it.

    After a cancellation, `attempts` and `known_outcome` still tell what happened.
    """

    __slots__ = ()

    def take_over(self, earlier: TakeOver) -> None:
        """Settle an earlier process's attempt before anything is sent."""
        self.earlier = earlier
        self.call = Call(self)

    @property
    def final(self) -> Finish[R] | None:
        """The final result, unless the first attempt succeeded."""
        return None if self.call is None else self._made().final

    @property
    def believed_from(self) -> float | None:
        """See `Call.believed_from`."""
        return None if self.call is None else self._made().believed_from

    async def run(self, *, permit: Permit = 0) -> R:
        """Perform the command. See `Client.perform`.

        Args:
            permit: The permit for the first attempt; 0 if none was acquired yet.
        """
        context = self.context
        if context.stop.is_set and not permit:  # with a permit, the client was closed after the admission
            raise RuntimeError("the client of this call is closed: make a new one")
        self.permit = permit
        if self.log_key is not None:
            context.launches.begin(self, self.log_key)
        try:
            self.deadline = context.clock.monotonic() + self.timeout
            context.budget.deposit()
            event: AttemptEvent | None = None
            if self.earlier is None:
                attempted = await (attempt_with_token if context.secret.is_renewable else attempt)(self, permit)
                if not isinstance(attempted, Unfinished):
                    return attempted
                event = attempted  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
            call = self._made()
            final = await call.resume(event)
            if final.error is None:
                return final.result  # type: ignore[return-value]  # pyright: ignore[reportReturnType] - R itself may be None
            failed: Exception = call.error_of(final)
        except Exception as error:  # noqa: BLE001 - the call has an outcome whatever raised
            failed = self._made().failed(error)
        except BaseException as interrupt:
            self._made().note(interrupt)
            raise
        finally:
            if self.log_key is not None:
                self._end_launch(self.log_key)
        raise failed

    def known_outcome(self, why: str = "it was cancelled") -> DispatchkitError:
        """The outcome of a call that was interrupted.

        Unknown if any attempt is unclear; else rejected if the latest sent attempt was throttled; else not sent.
        """
        return self._made().known_outcome(why)

    def _made(self) -> Call[W, R]:
        if self.call is None:
            self.call = Call(self)
        return cast("Call[W, R]", self.call)

    def _end_launch(self, log_key: int) -> None:
        final = self.final
        acted = final is None or final.error is None or final.error.state is State.UNKNOWN
        with contextlib.suppress(Exception):  # the clock itself may fail
            now = self.context.clock.monotonic()
            self.context.launches.end(self, log_key, self.request_id, now, acted=acted)

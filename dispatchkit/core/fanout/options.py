"""The options of a fan-out."""

from __future__ import annotations

from typing import TypedDict

from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.fanout.journal import JournalProvider

__all__ = ["FanOutOptions"]


class FanOutOptions(TypedDict, total=False):
    """The options of `FanOut` and of every ``start_many``, ``stop_many``, ``activate_many`` and ``launch_many``.

    Attributes:
        concurrency: The number of workers. The account's `Pace` may allow fewer calls in flight. Default: 64.
        timeout: Seconds for each call, from its first attempt on; the wait for its turn does not count. None takes the
            client's. Default: None.
        retry: When and how each call is repeated; None takes the client's policy. Default: None.
        expected: The number of commands that there must be. A list of another length is refused before the first
            launch. None: not checked. Default: None.
        max_launches: The most commands that may be started; the run then stops. None: no limit. Default: None.
        stop_after_failures: Stop the run after this number of outcomes that are not done. None: never. Default: None.
        give_up_after: Stop the run after this number of seconds without an answer of the provider, while a call was in
            flight or waited for the circuit breaker. A refusal and HTTP 429 are answers; HTTP 5xx, a broken connection
            and a timeout are not. A pause that the provider asked for does not count. None: never. Default: None.
        grace_period: Seconds that a stopped run waits for the calls in flight before it cancels them. Default: 30.0.
        ledger: The durable memory of the run, usually a `Ledger`. It holds each command before its first byte is sent,
            so the same line resumes the run in another process. It needs ``run``. None: no memory. Default: None.
        run: The name of the run in the ledger. An existing run is resumed: what is done or rejected is left alone, what
            is unclear is settled, the rest is launched. It needs ``ledger``. Default: None.
        repeat_window: Seconds. Refuse the run, before its first launch, if another run of the ledger has launched one
            of the targets on the same account within this time, or launches it now. The run keeps the window that it
            was planned with. It needs ``ledger``. None: not checked. Default: None.
    """

    concurrency: int
    timeout: float | None
    retry: RetryPolicy | None
    expected: int | None
    max_launches: int | None
    stop_after_failures: int | None
    give_up_after: float | None
    grace_period: float
    ledger: JournalProvider | None
    run: str | None
    repeat_window: float | None

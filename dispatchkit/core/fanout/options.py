"""The options of a fan-out: documented, given their defaults and checked in one place."""

from __future__ import annotations

from typing import TypedDict

from dispatchkit.core.call.retry import RetryPolicy, a_policy
from dispatchkit.core.fanout.guards import Guards
from dispatchkit.core.fanout.journal import JournalProvider
from dispatchkit.core.fanout.repeats import RepeatMode, check_repeat_mode
from dispatchkit.core.fanout.window import Window
from dispatchkit.core.validators import a_kind, int_in_range, seconds

__all__ = ["FanOutOptions", "FanOutSettings", "check_canary"]

_MAX_CANARY = 1000
"""The most targets that go first: the state of each is read on its own."""


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
        give_up_after: Stop the run after this number of seconds without an answer of the provider. Time counts while a
            call is in flight or waits for the circuit breaker. A refusal and HTTP 429 are answers. HTTP 5xx, a broken
            connection and a timeout are not. A pause that the provider asked for does not count. None: never. Default:
            None.
        canary: Launch this number of targets first. The rest follows once they are done and the provider's state shows
            that they go out: see `Command.goes_out`. If one is not done, or is not seen to go out within
            ``canary_timeout``, the run stops. A launch that the provider has scheduled goes out. A run of a ledger
            keeps its canary. A resume reads the state again, unless more than these targets were begun. A list that
            is not longer than the canary is refused with `ValueError`, since nothing is held back. The length of an
            iterator is not known: if it is not longer, all of its targets are launched at once, and their state is
            read all the same. An empty list is not refused. 0: none. None: as the run was planned, else none. Default:
            None.
        canary_timeout: Seconds for the reads of state after the last outcome of the first targets. Default: 600.0.
        window: The hours in which launches may start, such as ``Window(not_after=…)``. Before it opens, the run waits.
            At its end, the run stops. A request that has begun is awaited, and unclear ones are settled by the
            provider's state, each within its ``timeout``. A retry is a start, too. A ledger does not keep the window.
            None: always. Default: None.
        grace_period: Seconds that a stopped run waits for the calls in flight before it cancels them. Default: 30.0.
        ledger: The durable memory of the run, usually a `Ledger`. It holds each command before its first byte is sent,
            so the same line resumes the run in another process. It needs ``run``. None: no memory. Default: None.
        run: The name of the run in the ledger. An existing run is resumed. Its done and rejected commands are left
            alone, its unclear ones are settled, and the rest is launched. Commands that it does not hold yet are
            added to it. It needs ``ledger``. Default: None.
        repeat_window: Seconds. Refuse the run if another run has launched one of the targets within this time, or
            launches it now. Only runs of the same ledger on the same account count, and only the same
            commands (see ``repeats``). The check comes before the first
            launch. The run keeps the window that it was planned with. A run that is resumed leaves such targets out
            instead, and counts them in `Report.launched_elsewhere`. It needs ``ledger``. None: not checked. Default:
            None.
        repeats: What happens to a command that is the same as an earlier one. ``"skip"`` leaves it out, and counts it
            in `Report.repeats`. ``"launch"`` launches it too. ``"refuse"`` raises `ValueError` before the first launch.
            Two commands are the same if all their fields are: an activation with ``run_now=True`` is another command
            than one without. Reads are never left out. A ledger holds each command once. None: skip if the commands
            have a length, else launch. Default: None.

    >>> from typing import Unpack
    >>> from dispatchkit import DirectClient, FanOut, FanOutOptions
    >>> from dispatchkit.direct.models import StartedDispatch
    >>> def start_all(direct: DirectClient, **options: Unpack[FanOutOptions]) -> FanOut[StartedDispatch]:
    ...     return direct.start_many(range(1, 101), **options)
    """

    concurrency: int
    timeout: float | None
    retry: RetryPolicy | None
    expected: int | None
    max_launches: int | None
    stop_after_failures: int | None
    give_up_after: float | None
    canary: int | None
    canary_timeout: float
    window: Window | None
    grace_period: float
    ledger: JournalProvider | None
    run: str | None
    repeat_window: float | None
    repeats: RepeatMode | None


class FanOutSettings:
    """The options of one fan-out with their defaults, checked. See `FanOutOptions`.

    Raises:
        TypeError: An option is of another type.
        ValueError: An option is out of range, or lacks another one that it needs.
    """

    __slots__ = (
        "canary",
        "canary_timeout",
        "concurrency",
        "expected",
        "grace_period",
        "guards",
        "ledger",
        "repeat_window",
        "repeats",
        "retry",
        "run",
        "timeout",
        "window",
    )

    def __init__(
        self,
        *,
        concurrency: int = 64,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        expected: int | None = None,
        max_launches: int | None = None,
        stop_after_failures: int | None = None,
        give_up_after: float | None = None,
        canary: int | None = None,
        canary_timeout: float = 600.0,
        window: Window | None = None,
        grace_period: float = 30.0,
        ledger: JournalProvider | None = None,
        run: str | None = None,
        repeat_window: float | None = None,
        repeats: RepeatMode | None = None,
    ) -> None:
        int_in_range("concurrency", concurrency, minimum=1)
        self.concurrency = concurrency
        self.guards = Guards(
            max_launches=max_launches,
            stop_after_failures=stop_after_failures,
            give_up_after=give_up_after,
            run=run,
        )
        if canary is not None:
            int_in_range("canary", canary, minimum=0, maximum=_MAX_CANARY)
        self.canary = canary
        if window is not None:
            a_kind("window", window, Window, "a Window such as Window(not_after=...), or None")
        self.window = window
        self.canary_timeout = seconds("canary_timeout", canary_timeout)
        self.timeout = None if timeout is None else seconds("timeout", timeout)
        self.retry = None if retry is None else a_policy(retry)
        self.expected = expected
        self.grace_period = seconds("grace_period", grace_period)
        if (ledger is None) != (run is None):
            raise ValueError("ledger= and run= belong together: a ledger holds runs, each under its name")
        if ledger is not None and not hasattr(ledger, "journal"):  # without a type checker, a caller may give its file
            raise TypeError(f"ledger must be a Ledger, such as Ledger('launch.db'), not {type(ledger).__name__}")
        if repeat_window is not None and ledger is None:
            raise ValueError("repeat_window= asks what other runs of the ledger did: it needs ledger=")
        self.ledger = ledger
        self.run = run
        self.repeat_window = None if repeat_window is None else seconds("repeat_window", repeat_window)
        self.repeats: RepeatMode | None = check_repeat_mode(repeats, remembered=ledger is not None)


def check_canary(canary: int | None, length: int | None) -> None:
    """Refuse a canary that holds nothing back.

    Args:
        canary: The number of commands that go first.
        length: The number of all commands; None if it is not known.

    Raises:
        ValueError: The canary is not smaller than the list.
    """
    if not canary or not length or canary < length:
        return
    if length == 1:
        raise ValueError(
            f"canary={canary} holds nothing back: there is 1 command. Nothing was started. Launch it without canary="
        )
    raise ValueError(
        f"canary={canary:,} holds nothing back: there are {length:,} commands. Nothing was started. Give a smaller "
        f"one, {length - 1:,} at most, or launch without canary="
    )

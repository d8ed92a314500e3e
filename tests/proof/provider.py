"""A model of a provider: what may follow an action of a call, and when the call's requests really act.

A request without an answer acts at once, later, or never. An effect shows in the state when it happens, which is at
most `LAG` after the end of its request. Times are in seconds; `NOW` of the state is `World.time`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import attrs

from dispatchkit import (
    ActivateMailing,
    AddMessages,
    AltcraftClient,
    DeactivateMailing,
    DirectClient,
    LaunchBroadcast,
    Message,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
    RetryPolicy,
    StartDispatch,
    StopDispatch,
    ThrottledError,
)
from dispatchkit.altcraft.reads import ReadStatus
from dispatchkit.core.call.call_state import (
    CallState,
    Doubt,
    Event,
    Expired,
    Failed,
    Late,
    Logged,
    NoToken,
    Now,
    Observed,
    Probe,
    Rules,
    Send,
    Start,
    Succeeded,
    TakenOver,
    Wait,
    Waited,
)
from dispatchkit.core.command import Command, Evidence, Settlement

__all__ = [
    "DISTINCT_KINDS",
    "KINDS",
    "LAG",
    "LATEST",
    "MEMORY",
    "OLD",
    "WIRES",
    "Kind",
    "World",
    "begin",
    "begin_takeover",
    "events",
    "rules",
]

LAG = 3.0
"""`RetryPolicy.state_lag` of all calls."""
LATEST = 14.0
"""The latest start of a request."""
DEADLINE = 15.0
"""The end of a call."""
OLD = 2.0
"""The age of an old response."""
MEMORY = 9.0
"""Seconds for which a provider that deduplicates knows a request id. It stands for a day."""
_DAY = timedelta(days=1).total_seconds()
_NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_INHERITED_UNTIL = 2.0
"""Until when the request of an earlier process may reach the provider."""

UNSENT = NotSentError("no connection")
LOST = OutcomeUnknownError("no answer")
REFUSED = RejectedError("no", status=403, code=1)
RETRY_AFTER = 2.0
THROTTLED = ThrottledError("slow down", code=None, retry_after=RETRY_AFTER)


@attrs.frozen
class Kind:
    """A kind of command, and what its provider may say about it."""

    name: str
    command: Command[Any, Any]
    wire: Any
    denials: frozenset[Evidence] = frozenset()
    """What a state without the effect may read as."""
    vouched: bool = False
    """Whether the user vouches for deduplication."""

    def traits(self) -> tuple[object, ...]:
        """All that decisions depend on: kinds with equal traits have the same states."""
        command = self.command
        has_probe = command.probe(_NOON) is not None
        return self.denials, self.vouched, has_probe, command.log_key is not None, command.is_read_only


WIRES: dict[str, list[tuple[Any, bool]]] = {
    "direct": [(DirectClient("t")._context.wire, False)],
    "altcraft": [
        (AltcraftClient("https://example.com", "t", deduplicates=vouched)._context.wire, vouched)
        for vouched in (False, True)
    ],
}
"""The wires of each provider, and whether the user vouches for deduplication."""


def _kinds() -> Iterator[Kind]:
    ((direct, _),) = WIRES["direct"]
    yield Kind("start", StartDispatch(7), direct, frozenset({Evidence.NOT_APPLIED}))
    yield Kind("stop", StopDispatch(7), direct, frozenset({Evidence.NOT_APPLIED, Evidence.NEVER_APPLIED}))
    yield Kind("add messages", AddMessages(7, [Message("79818269375")]), direct)
    for wire, vouched in WIRES["altcraft"]:
        word = "deduplicated " if vouched else ""
        state, either = frozenset({Evidence.NOT_APPLIED}), frozenset({Evidence.NOT_APPLIED, Evidence.ABSENT})
        yield Kind(f"{word}activate", ActivateMailing(7), wire, state, vouched)
        yield Kind(f"{word}launch", LaunchBroadcast(7), wire, frozenset({Evidence.ABSENT}), vouched)
        yield Kind(f"{word}deactivate", DeactivateMailing(7), wire, state, vouched)
        yield Kind(f"{word}abort", DeactivateMailing(7, abort_if_running=True), wire, either, vouched)
        yield Kind(f"{word}read", ReadStatus(7), wire, vouched=vouched)


KINDS = {kind.name: kind for kind in _kinds()}


def _distinct() -> dict[str, Kind]:
    groups: dict[tuple[object, ...], list[Kind]] = {}
    for kind in KINDS.values():
        groups.setdefault(kind.traits(), []).append(kind)
    return {", ".join(kind.name for kind in group): group[0] for group in groups.values()}


DISTINCT_KINDS = _distinct()
"""One kind of each group with equal traits, by the names of the group."""


class World(NamedTuple):
    """What is true, as opposed to what the call knows."""

    time: float = 0.0
    acts: tuple[float, ...] = ()
    """When each request acts that acts at all, perhaps in the future."""
    left: bool = False
    """Whether a byte has left."""
    unclear: int = 0
    """Requests without an answer."""
    partly: bool = False
    """Whether a part of a request has left whose claim expired."""
    sends: int = 0
    probes: int = 0
    token: bool = False
    """Whether the call holds a token of the retry budget."""
    first: float = math.inf
    """When a request first had the id."""
    is_repeat: bool = False
    """Whether an earlier process has retried its launch already."""
    honoured: bool = False
    stripped: bool = False
    """Whether the call knows that ids are honoured, or stripped."""
    stopped: bool = False
    paused: bool = False
    """Whether the account is paused, as the last event told."""
    rival: bool = False
    """Whether another launch has ended whose entry the log may show."""
    foreign: bool = False
    """Whether the log may show an entry of another launch, of which the call does not know."""
    not_before: float = -math.inf
    """Until when the latest HTTP 429 forbids requests."""
    surprises: int = 1
    """Stops, pauses, rivals, early and late wake-ups, and expired claims that may still come."""

    @property
    def wall(self) -> datetime:
        """The time on the wall clock."""
        return _NOON + timedelta(seconds=self.time)


def _start(at: float) -> Start:
    return Start(_NOON + timedelta(seconds=at), at)


def _now(world: World, **more: Any) -> Now:
    return Now(
        monotonic=world.time,
        wall=world.wall,
        random=1.0,
        stopped=world.stopped,
        honours_ids=world.honoured,
        strips_ids=world.stripped,
        other_launch_ended=world.time if world.rival else -math.inf,
        **more,
    )


def rules(kind: Kind, policy: RetryPolicy, *, has_one_id: bool = True, repeats: int = 0) -> Rules[Any, Any]:
    """The rules of a call. Its provider remembers an id for `MEMORY`, not for a day."""
    command = kind.command
    return Rules(
        policy=policy,
        latest_start=LATEST,
        probe=command.probe,
        deduplicated=partial(_deduplicated, kind),
        is_read_only=command.is_read_only,
        in_log=command.log_key is not None,
        has_one_id=has_one_id,
        repeats=repeats,
    )


def _deduplicated(kind: Kind, age: timedelta) -> bool:
    return kind.command.deduplicated(kind.wire, age * (_DAY / MEMORY))


def begin(kind: Kind, policy: RetryPolicy, world: World) -> Iterator[tuple[CallState[Any, Any], World, Event[Any]]]:
    """A new call: its first attempt has ended without a result."""
    state: CallState[Any, Any] = CallState(rules=rules(kind, policy))
    for after, event in _attempts(kind, state, world):
        if not isinstance(event, Succeeded):
            yield state, after, event
            for later, other in _surprises(kind, after, event):
                yield state, later, other


def begin_takeover(
    kind: Kind, policy: RetryPolicy, world: World, *, has_one_id: bool, repeats: int
) -> Iterator[tuple[CallState[Any, Any], World, Event[Any]]]:
    """A call that takes over an unclear attempt, which may act until `LAG` after `_INHERITED_UNTIL`, or never."""
    doubt = Doubt(LOST, _start(-2.0), _INHERITED_UNTIL)
    state: CallState[Any, Any] = CallState(
        rules=rules(kind, policy, has_one_id=has_one_id, repeats=repeats), doubt=doubt
    )
    for acts in ((), (-1.0,), (_INHERITED_UNTIL + LAG,)):
        after = world._replace(acts=acts, left=True, unclear=1, is_repeat=repeats > 0, first=-2.0)
        yield state, after, TakenOver(_now(after))


def events(
    kind: Kind, state: CallState[Any, Any], world: World, action: Any, *, max_probes: int
) -> Iterator[tuple[World, Event[Any]]]:
    """Everything that may follow an action."""
    match action:
        case Send():
            followers = _attempts(kind, state, world._replace(token=False))
        case Probe():
            followers = _readings(kind, world._replace(token=False, probes=world.probes + 1), max_probes)
        case Wait():
            followers = _waits(world, action)
        case _:
            yield world, Logged(_now(world))
            return
    for after, event in followers:
        yield after, event
        yield from _surprises(kind, after, event)


def _surprises(kind: Kind, world: World, event: Event[Any]) -> Iterator[tuple[World, Event[Any]]]:
    """The same event at a moment when something else has changed."""
    if not world.surprises or isinstance(event, Succeeded):
        return
    world = world._replace(surprises=world.surprises - 1)
    stopped = world._replace(stopped=True)
    yield stopped, attrs.evolve(event, now=_now(stopped))
    paused = world._replace(paused=True)
    for seconds in (1.0, 1000.0):
        yield paused, attrs.evolve(event, now=_now(paused, paused=seconds, pause="paused"))
    late = world._replace(time=world.time + 5.0)
    yield late, attrs.evolve(event, now=_now(late))
    if kind.command.log_key is not None:
        rival = world._replace(rival=True)
        yield rival, attrs.evolve(event, now=_now(rival))
    if kind.vouched:  # another call's answer is a replay that is not its own
        stripped = world._replace(stripped=True)
        yield stripped, attrs.evolve(event, now=_now(stripped))


def _attempts(kind: Kind, state: CallState[Any, Any], world: World) -> Iterator[tuple[World, Event[Any]]]:
    """How an attempt may end."""
    began, start = world.time, _start(world.time)
    world = world._replace(paused=False)
    if world.stopped or began > LATEST:
        yield world, Late(_now(world), "too late")
        return
    late = world._replace(time=LATEST)
    yield late, Late(_now(late), "too late")
    if world.surprises:
        expired = world._replace(surprises=world.surprises - 1)
        yield expired, Expired(_now(expired))
        expired = expired._replace(left=True, partly=True)
        yield expired, Expired(_now(expired), start)
    world = world._replace(sends=world.sends + 1)
    yield world, Failed(_now(world), UNSENT, start)
    world = world._replace(time=began + 1.0, left=True, first=min(world.first, began) if kind.vouched else 0.0)
    yield world, Failed(_now(world), REFUSED, start)
    throttled = world._replace(not_before=world.time + RETRY_AFTER)
    yield throttled, Failed(_now(throttled), THROTTLED, start)
    acts_again = not (kind.vouched and world.acts and state.rules.has_one_id and not world.stripped)
    # A provider that deduplicates performs whichever request it sees first.
    done = world._replace(acts=(*world.acts, began) if acts_again else (min(began, *world.acts),))
    yield done, Succeeded(_now(done), "a result")
    unclear = world._replace(unclear=world.unclear + 1)
    yield unclear, Failed(_now(unclear), LOST, start)
    if acts_again and not kind.command.is_read_only:
        for acts in (world.time, world.time + LAG):
            acting = unclear._replace(acts=(*world.acts, acts))
            yield acting, Failed(_now(acting), LOST, start)
    if not acts_again:  # another call has seen a replay in the meantime
        honoured = unclear._replace(honoured=True)
        yield honoured, Failed(_now(honoured), LOST, start)
    if kind.vouched and state.doubt is None:
        in_log = kind.command.log_key is not None
        stripped = world._replace(stripped=True, unclear=world.unclear + 1, foreign=in_log)
        yield stripped, Failed(_now(stripped), LOST, start, answers_another=True)


def _readings(kind: Kind, world: World, max_probes: int) -> Iterator[tuple[World, Event[Any]]]:
    """What a state read may show."""
    asked = world.time
    world = world._replace(paused=False)
    if world.time >= DEADLINE or world.probes > max_probes:  # after the deadline, no request is made
        over = world._replace(time=max(world.time, DEADLINE))
        yield over, Observed(_now(over), Settlement(Evidence.INCONCLUSIVE, "no answer"), asked)
        return
    for evidence in (Evidence.INCONCLUSIVE, Evidence.UNAVAILABLE):
        yield world, Observed(_now(world), Settlement(evidence, ""), asked)
    if world.rival or world.foreign or any(act <= asked for act in world.acts):
        yield world, Observed(_now(world), Settlement(Evidence.APPLIED, "", "a result"), asked)
    for took, age in ((0.0, 0.0), (1.0, 0.0), (0.0, OLD)):
        after, has_acted = world._replace(time=asked + took), any(act <= asked - age for act in world.acts)
        for evidence in (Evidence.NOT_APPLIED, Evidence.ABSENT):  # no trace is no proof
            if evidence in kind.denials and (evidence is Evidence.ABSENT or not has_acted):
                yield after, Observed(_now(after), Settlement(evidence, ""), asked, age)
    if Evidence.NEVER_APPLIED in kind.denials and not world.acts:
        yield world, Observed(_now(world), Settlement(Evidence.NEVER_APPLIED, ""), asked)


def _waits(world: World, action: Wait) -> Iterator[tuple[World, Event[Any]]]:
    """How a wait may end."""
    world = world._replace(token=False, paused=False)
    if world.surprises and action.seconds:  # early, since a person lifts the pause, or stops the run
        early = world._replace(surprises=world.surprises - 1)
        lifted = early._replace(not_before=-math.inf, token=action.for_token)
        yield lifted, Waited(_now(lifted), has_token=action.for_token)
        stopped = early._replace(stopped=True)
        yield stopped, Waited(_now(stopped))
    world = world._replace(time=world.time + action.seconds)
    if action.for_token:
        none = world._replace(time=max(world.time, LATEST))
        yield none, NoToken(_now(none))
    world = world._replace(token=action.for_token)
    yield world, Waited(_now(world), has_token=action.for_token)

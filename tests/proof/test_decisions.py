"""No sequence of events makes a call act twice, miss its deadline, or name an outcome that is not true."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

import dispatchkit.altcraft
import dispatchkit.direct
from dispatchkit import ActivateMailing, AddMessages, Audience, LaunchRegular, Message, StartDispatch, StopDispatch
from dispatchkit.core.call.call_state import CallState, Event, Finish, Probe, Send
from dispatchkit.core.call.decide import decide
from dispatchkit.core.command import Command
from tests.proof.explore import ViolationError, check, explore
from tests.proof.merge import Key, exact_key, merged_key
from tests.proof.planted import FAULTS, Fault, mutated
from tests.proof.provider import DISTINCT_KINDS, KINDS, LOST, REFUSED, UNSENT, WIRES, Kind, World, events

SETTINGS = [(names, repeats) for names in DISTINCT_KINDS for repeats in (True, False)]
# Each command once: the second stage plays both settings, with longer calls.
SHORT = [setting for index, setting in enumerate(SETTINGS) if index % 4 in {0, 3}]


REQUIRED = {"dispatch_id": 7, "mailing_id": 7, "messages": [Message("79818269375")], "audience": Audience("list", 1)}


def test_each_command_is_explored() -> None:
    """The decisions about each command of the package are those about one of the kinds."""
    explored = {kind.traits()[1:] for kind in KINDS.values()}  # the denials are of the provider's state
    found = set(commands())
    assert {StartDispatch, StopDispatch, AddMessages, ActivateMailing, LaunchRegular} <= found
    for command_type in found:
        given = {name: REQUIRED[name] for name in required(command_type)}
        for wire, vouched in WIRES[command_type.provider]:
            kind = Kind(command_type.__name__, command_type(**given), wire, vouched=vouched)
            assert kind.traits()[1:] in explored, kind


def commands() -> Iterator[type[Command[Any, Any]]]:
    """The concrete commands of both providers. An `InvalidCommand` is never sent."""
    for package in (dispatchkit.direct, dispatchkit.altcraft):
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            for name, value in vars(module).items():
                is_command = isinstance(value, type) and issubclass(value, Command) and not inspect.isabstract(value)
                if is_command and not name.startswith("_"):
                    yield value


def required(command_type: type[Command[Any, Any]]) -> list[str]:
    fields = inspect.signature(command_type).parameters.values()
    return [field.name for field in fields if field.default is field.empty]


@pytest.mark.parametrize(("names", "repeats"), SHORT)
def test_every_short_call(names: str, repeats: bool) -> None:
    kind = DISTINCT_KINDS[names]
    explored = explore(kind, attempts=3, probes=2, surprises=0, repeat_unclear=repeats, decide=decide_twice)
    assert explored.states > 30


@pytest.mark.parametrize("name", ["start", "deduplicated launch"])
def test_every_short_surprise(name: str) -> None:
    assert explore(KINDS[name], attempts=2, probes=2, surprises=1, decide=decide_twice).states > 1000


def decide_twice(state: CallState[Any, Any], event: Event[Any]) -> tuple[CallState[Any, Any], Any]:
    decided = decide(state, event)
    assert decide(state, event) == decided, "the same event decides differently"
    return decided


@pytest.mark.second_stage
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("names", "repeats"), SETTINGS)
def test_every_call(names: str, repeats: bool) -> None:
    assert explore(DISTINCT_KINDS[names], attempts=5, probes=6, repeat_unclear=repeats).states > 100


@pytest.mark.second_stage
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_planted_fault_is_found(fault: Fault) -> None:
    with pytest.raises(ViolationError):
        explore_with(fault)


def explore_with(fault: Fault) -> None:
    decide, kind = mutated(fault), KINDS[fault.kind]
    for surprises in (0, 1):
        for repeats in (False, True):
            explore(kind, attempts=fault.attempts, probes=2, surprises=surprises, repeat_unclear=repeats, decide=decide)


@pytest.mark.second_stage
@pytest.mark.timeout(300)
@pytest.mark.parametrize("names", DISTINCT_KINDS)
def test_merged_points_behave_alike(names: str) -> None:
    """What follows a point, and what would be a violation after it, depends on its key alone."""
    explore_merged(DISTINCT_KINDS[names], attempts=2, probes=2)


def test_wrong_merge_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.proof.merge.LAG", 0.0)  # then an early state would count as believed
    with pytest.raises(AssertionError, match="alike"):
        explore_merged(KINDS["start"], attempts=2, probes=2)


def explore_merged(kind: Kind, *, attempts: int, probes: int) -> None:
    known: dict[Key, list[object]] = {}

    def visit(state: CallState[Any, Any], world: World, action: Any) -> None:
        following: list[object] = []
        for after, event in events(kind, state, world, action, max_probes=probes):
            new, then = decide(state, event)
            end: object = type(then.error) if isinstance(then, Finish) else merged_key(kind, new, after, then)
            following.append((end, *verdicts(kind, new, after, event)))
        first = known.setdefault(merged_key(kind, state, world, action), following)
        assert following == first, f"merged, but not alike: {state} {world} {action}"

    explore(kind, attempts=attempts, probes=probes, key_of=exact_key, visit=visit)


def verdicts(kind: Kind, state: CallState[Any, Any], world: World, event: Any) -> Iterator[bool]:
    """Whether each action would be allowed."""
    ends = [Finish(error=error) for error in (None, LOST, UNSENT, REFUSED)]
    read: Any = Probe(None, None, 0.0)  # type: ignore[arg-type]
    for action in (Send(), read, *ends):
        try:
            check(kind, state, world, event, action)
        except AssertionError:
            yield False
        else:
            yield True

"""Options: documented once, shown in every signature, and an unknown one is refused by name."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

from dispatchkit import (
    AltcraftClient,
    AltcraftOptions,
    ClientOptions,
    DirectClient,
    DirectOptions,
    FanOut,
    FanOutOptions,
    sync,
)
from dispatchkit.core.call.client import Client
from dispatchkit.core.call.retry import DEFAULT_RETRY
from dispatchkit.core.clock import SYSTEM
from dispatchkit.core.fanout.options import FanOutSettings
from dispatchkit.core.options import check_options, takes_options

URL = "https://altcraft.test"
# Each `TypedDict`, the signature that has the defaults, and a function that shows them.
TAKERS: list[tuple[Any, Any]] = [
    (ClientOptions, Client),
    (ClientOptions, DirectClient),
    (DirectOptions, DirectClient),
    (DirectOptions, sync.DirectClient),
    (AltcraftOptions, AltcraftClient),
    (AltcraftOptions, sync.AltcraftClient),
    (FanOutOptions, FanOutSettings),
    (FanOutOptions, FanOut),
    (FanOutOptions, sync.FanOut),
    (FanOutOptions, DirectClient.start_many),
    (FanOutOptions, DirectClient.stop_many),
    (FanOutOptions, AltcraftClient.activate_many),
    (FanOutOptions, AltcraftClient.launch_many),
    (FanOutOptions, DirectClient.add_messages_many),
    (FanOutOptions, AltcraftClient.launch_regular_many),
    (FanOutOptions, sync.DirectClient.start_many),
    (FanOutOptions, sync.AltcraftClient.launch_many),
]
DEFAULTS = {id(DEFAULT_RETRY): "`RetryPolicy()`", id(SYSTEM): "the system's"}


def keywords(function: Any) -> dict[str, inspect.Parameter]:
    return {
        name: each for name, each in inspect.signature(function).parameters.items() if each.kind is each.KEYWORD_ONLY
    }


def entries(options: Any) -> dict[str, str]:
    """The documentation of each field, by name."""
    section = inspect.cleandoc(options.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    parts = re.split(r"^    (\w+): ", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize(("options", "function"), TAKERS)
def test_signature_shows_all_options(options: Any, function: Any) -> None:
    assert set(options.__annotations__) <= set(keywords(function))
    assert not [each for each in inspect.signature(function).parameters.values() if each.kind is each.VAR_KEYWORD]


@pytest.mark.parametrize(("options", "function"), TAKERS)
def test_options_document_their_defaults(options: Any, function: Any) -> None:
    documented = entries(options) if options is FanOutOptions else entries(ClientOptions) | entries(options)
    assert documented.keys() == options.__annotations__.keys()
    for name, text in documented.items():
        default = keywords(function)[name].default
        quoted = f'``"{default}"``' if isinstance(default, str) else repr(default)
        assert text.endswith(f"Default: {DEFAULTS.get(id(default), quoted)}."), name


@pytest.mark.parametrize("options", [DirectOptions, AltcraftOptions])
def test_no_option_is_documented_twice(options: Any) -> None:
    assert not entries(ClientOptions).keys() & entries(options).keys()


@pytest.mark.parametrize(("options", "function"), [(ClientOptions, Client), (FanOutOptions, FanOutSettings)])
def test_types_are_those_of_constructor(options: Any, function: Any) -> None:
    taken = get_type_hints(function.__init__)
    assert get_type_hints(options) == {name: taken[name] for name in keywords(function)}


@pytest.mark.parametrize(
    ("call", "unknown", "similar"),
    [
        (lambda: FanOut(DirectClient("key"), [], concurency=3), "FanOut", "concurrency"),  # type: ignore[call-arg]
        (lambda: DirectClient("key").start_many([1], max_launch=3), "start_many", "max_launches"),  # type: ignore[call-arg]
        (lambda: DirectClient("key").stop_many([1], graceperiod=3), "stop_many", "grace_period"),  # type: ignore[call-arg]
        (lambda: AltcraftClient(URL, "t").activate_many([1], audiance=3), "activate_many", "audience"),  # type: ignore[call-arg]
        (lambda: AltcraftClient(URL, "t").launch_many([1], runs="a"), "launch_many", "run"),  # type: ignore[call-arg]
        (lambda: DirectClient("key", timeot=3), "DirectClient", "timeout"),  # type: ignore[call-arg]
        (lambda: DirectClient(tokn="key"), "DirectClient", "token"),  # type: ignore[call-arg]
        (lambda: AltcraftClient(URL, "t", wir="json"), "AltcraftClient", "wire"),  # type: ignore[call-arg]
        (lambda: sync.DirectClient("key", base_uri="x"), "DirectClient", "base_url"),  # type: ignore[call-arg]
        (lambda: sync.AltcraftClient(URL, "t", deduplicate=True), "AltcraftClient", "deduplicates"),  # type: ignore[call-arg]
        (lambda: sync.FanOut(sync.DirectClient("key"), [], retries=3), "FanOut", "retry"),  # type: ignore[call-arg]
        (lambda: sync.DirectClient("key").start_many([1], runn="a"), "start_many", "run"),  # type: ignore[call-arg]
    ],
)
def test_unknown_option_is_refused(call: Callable[[], object], unknown: str, similar: str) -> None:
    with pytest.raises(
        TypeError, match=rf"{unknown}\(\) got an unexpected keyword argument '\w+'. Did you mean "
    ) as it:
        call()
    assert str(it.value).endswith(f"Did you mean {similar!r}?")


def test_unlike_option_gets_no_suggestion() -> None:
    with pytest.raises(TypeError, match=r"^FanOut\(\) got an unexpected keyword argument 'zzz'$"):
        FanOut(DirectClient("key"), [], zzz=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "make",
    [
        lambda token: DirectClient(tokn=token),  # type: ignore[call-arg]
        lambda token: DirectClient(token, timeot=3),  # type: ignore[call-arg]
        lambda token: sync.DirectClient(tokn=token),  # type: ignore[call-arg]
        lambda token: sync.DirectClient(token, timeout=-1),
        lambda token: AltcraftClient(URL, tokn=token),  # type: ignore[call-arg]
        lambda token: AltcraftClient(URL, token, timeout=-1),
        lambda token: sync.AltcraftClient(URL, tokn=token),  # type: ignore[call-arg]
        lambda token: AltcraftClient(URL, "t").launch_many([1], contnt={"field": token}),  # type: ignore[call-arg]
        lambda token: sync.AltcraftClient(URL, "t").launch_many([1], contnt={"field": token}),  # type: ignore[call-arg]
    ],
)
def test_traceback_hides_unknown_option(make: Callable[[str], object]) -> None:
    token = "hunter2" * 2
    with pytest.raises((TypeError, ValueError)) as refusal:
        make(token)
    frames = list(traceback.walk_tb(refusal.value.__traceback__))[2:]  # without this test's own two
    shown = traceback.StackSummary.extract(iter(frames), capture_locals=True)
    assert frames
    assert "hunter2" not in "".join(shown.format()) + str(refusal.value)


async def test_grace_period_reaches_fan_outs() -> None:
    direct, altcraft = DirectClient("key"), AltcraftClient(URL, "token")
    for many in (
        direct.start_many,
        direct.stop_many,
        altcraft.activate_many,
        altcraft.launch_many,
        altcraft.launch_regular_many,
    ):
        assert many([1], grace_period=7)._pool._settings.grace_period == 7


def test_options_of_source_follow_own() -> None:
    def source(number: int, *, rate: float = 2.0, name: str = "") -> None: ...

    @takes_options(source)
    def launch(number: int, *, name: str = "own", **options: object) -> None:
        check_options(launch, options)

    assert [(each.name, each.default) for each in keywords(launch).values()] == [("name", "own"), ("rate", 2.0)]
    launch(1, rate=3)
    with pytest.raises(TypeError, match=r"'number2'. Did you mean 'number'"):
        launch(1, number2=3)

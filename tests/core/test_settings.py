"""Every setting is checked at once, in a message that names it, what was given and what is allowed."""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_fixed

from dispatchkit import AltcraftClient, DirectClient, FanOut, Ledger, Pace, RetryPolicy, StartDispatch, sync
from dispatchkit.core.validators import seconds

URL = "https://altcraft.test"

CLIENTS: dict[str, Callable[..., object]] = {
    "direct": lambda **settings: DirectClient("key", **settings),
    "altcraft": lambda **settings: AltcraftClient(URL, "token", **settings),
    "sync direct": lambda **settings: sync.DirectClient("key", **settings),
    "sync altcraft": lambda **settings: sync.AltcraftClient(URL, "token", **settings),
}


async def a_coroutine(state: object) -> float:
    return 1.0


NUMBERS: list[object] = [10**400, 10**5000, -(10**400), 1e300, 0, -1, math.nan, math.inf, True, "5", [5]]

BAD: list[tuple[str, object, str]] = [
    *((name, value, "a") for name in ("timeout", "attempt_timeout") for value in (*NUMBERS, None)),
    *(("retry", value, "a RetryPolicy such as") for value in (3, "no", None, RetryPolicy, {"attempts": 3})),
    *(("pace", value, "a Pace such as") for value in (3, "auto", Pace, True)),
    *(("clock", value, "a Clock with monotonic") for value in (3, None, "now", object())),
    *(("insecure", value, "True or False") for value in ("no", 1, 0, None)),
    *(("proxy", value, "the URL of an HTTP proxy") for value in (3, True, "", "socks5://x", "x", b"http://x", ["x"])),
    *(("ssl", value, "(True or )?an ssl.SSLContext") for value in (3, "no", None, 0, ssl)),
    ("ssl", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "an ssl.SSLContext of a client"),
    *(("account", value, "") for value in (3, True, "", "a\nb", "x" * 201)),
    *(("observers", value, "a list of callables that take an event") for value in (3, "no", print)),
    *(("observers", [value], "callables that take an event") for value in (3, "no", None)),
    ("observers", [a_coroutine], "plain callables: nothing awaits"),
    *(("base_url", value, "") for value in (3, b"https://x", ["x"])),
]

BAD_ALTCRAFT: list[tuple[str, object, str]] = [
    *(("wire", value, "'json' or 'xml'") for value in ("yaml", 3, None, ["json"], True)),
    *((name, value, "a positive integer") for name in ("body_limit", "attachment_limit") for value in (*NUMBERS, 1.5)),
    *(("deduplicates", value, "True or False") for value in ("no", 1, 0, None)),
]


def refused(make: Callable[[], object], name: str, value: object, allowed: str) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^{name} must be {allowed}") as refusal:
        make()
    text = str(refusal.value)
    assert type(refusal.value) in {TypeError, ValueError}
    assert len(text) < 400
    assert "\n" not in text
    if name != "base_url" and (isinstance(value, bool | float) or value in (3, "no", "yaml")):
        assert repr(value) in text


def str_of(value: object) -> str:
    return value if isinstance(value, str) else type(value).__name__


def ids(rows: list[Any]) -> list[str]:
    return [f"{row[0]}-{type(row[1]).__name__}-{index}" for index, row in enumerate(rows)]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD, ids=ids(BAD))
@pytest.mark.parametrize("kind", CLIENTS)
def test_a_client_checks_its_settings(kind: str, name: str, value: Any, allowed: str) -> None:
    if name == "base_url" and "altcraft" in kind:
        maker = sync.AltcraftClient if "sync" in kind else AltcraftClient
        refused(lambda: maker(value, "token"), name, value, allowed)
    else:
        refused(lambda: CLIENTS[kind](**{name: value}), name, value, allowed)


@pytest.mark.parametrize(("name", "value", "allowed"), BAD_ALTCRAFT, ids=ids(BAD_ALTCRAFT))
@pytest.mark.parametrize("kind", ["altcraft", "sync altcraft"])
def test_altcraft_checks_its_settings(kind: str, name: str, value: Any, allowed: str) -> None:
    refused(lambda: CLIENTS[kind](**{name: value}), name, value, allowed)


@pytest.mark.parametrize("value", [1, 2.5, 1e9, 10**9])
def test_good_seconds_are_taken(value: float) -> None:
    assert seconds("timeout", value) == value
    assert type(seconds("timeout", value)) is float


@pytest.mark.parametrize("settings", [{"timeout": 1e9}, {"attempt_timeout": 1e9}, {"proxy": "http://proxy.example:1"}])
def test_the_longest_time_is_taken(settings: dict[str, Any]) -> None:
    for make in CLIENTS.values():
        make(**settings)


@pytest.mark.parametrize("value", NUMBERS, ids=str_of)
async def test_a_call_checks_its_settings(value: Any) -> None:
    async with DirectClient("key") as direct, AltcraftClient(URL, "token") as altcraft:
        calls: list[Callable[..., Any]] = [direct.start, direct.stop, altcraft.launch_broadcast, altcraft.deactivate]
        for call in calls:
            with pytest.raises((TypeError, ValueError), match=r"^timeout must be a ") as refusal:
                await call(7, timeout=value)
            assert len(str(refusal.value)) < 400
            with pytest.raises(
                TypeError, match=r"^retry must be a RetryPolicy such as RetryPolicy\(attempts=3\), not int 3"
            ):
                await call(7, retry=3)
        with pytest.raises(TypeError, match=r"^retry must be a RetryPolicy"):
            await direct.perform(StartDispatch(7), retry="no")  # type: ignore[arg-type]


BAD_RUNS: list[tuple[str, object]] = [
    *((name, value) for name in ("timeout", "grace_period") for value in NUMBERS),
    *(("retry", value) for value in (3, "no", RetryPolicy)),
    *(("concurrency", value) for value in (0, -1, True, 1.5, "8", None, -(10**5000))),
    *((name, value) for name in ("max_launches", "stop_after_failures") for value in (0, True, 1.5, "8", -(10**5000))),
    *(("expected", value) for value in (-1, True, 1.5, "8")),
    *(("client", value) for value in (3, None, DirectClient)),
    *(("commands", value) for value in (3, StartDispatch(7), True)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_RUNS, ids=ids(BAD_RUNS))
async def test_fan_out_checks_settings(name: str, value: Any) -> None:
    settings: dict[str, Any] = {"commands": [StartDispatch(7)], name: value}
    for module in (FanOut, sync.FanOut):
        client: Any = DirectClient("key") if module is FanOut else sync.DirectClient("key")
        given = {"client": client, **settings}
        kind: Any = module
        with pytest.raises((TypeError, ValueError), match=f"^{name} must be ") as refusal:
            kind(given.pop("client"), given.pop("commands"), **given)
        assert len(str(refusal.value)) < 400


@pytest.mark.parametrize("value", [*NUMBERS, None], ids=str_of)
async def test_a_repeat_window_is_checked(value: Any, tmp_path: Path) -> None:
    if value is not None:
        with pytest.raises((TypeError, ValueError), match=r"^repeat_window must be a "):
            DirectClient("key").start_many([7], ledger=Ledger(tmp_path / "x.db"), run="x", repeat_window=value)
    for run in (3, True, ""):
        with pytest.raises((TypeError, ValueError), match=r"^run must be "):
            DirectClient("key").start_many([7], ledger=Ledger(tmp_path / "x.db"), run=run)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^ledger must be a Ledger"):
        DirectClient("key").start_many([7], ledger=3, run="x")  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", [3, None, True])
async def test_targets_must_be_iterable(ids: Any) -> None:
    with pytest.raises(TypeError, match=r"^what to launch must be an iterable, such as a list of ids, not "):
        DirectClient("key").start_many(ids)
    with pytest.raises(TypeError, match=r"^what to launch must be an iterable, such as a list of ids, not "):
        sync.DirectClient("key").start_many(ids)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("attempts", value) for value in (0, -1, True, 1.5, "3", None, -(10**5000))),
        *(("state_lag", value) for value in (*NUMBERS, None, False)),
        *(
            (name, value)
            for name in ("wait", "throttled_wait")
            for value in (0, 2.5, "2", None, [1], wait_fixed, a_coroutine)
        ),
        *(("retry_on", value) for value in (3, None, "unknown", ["often"], [["unknown"]], [3], True)),
        *(("repeat_unclear", value) for value in (1, "no", None)),
    ],
    ids=str_of,
)
def test_a_policy_checks_its_settings(name: str, value: Any) -> None:
    if value == 0 and type(value) is int and name == "state_lag":
        RetryPolicy(**{name: value})  # type: ignore[arg-type]
        return
    with pytest.raises((TypeError, ValueError), match=f"^(each of )?{name} must ") as refusal:
        RetryPolicy(**{name: value})
    assert len(str(refusal.value.args[0])) < 400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("rate", value) for value in (*NUMBERS, 5e-324, 1e-300)),
        *(("concurrency", value) for value in (0, -1, True, 1.5, "8", None, -(10**5000))),
        *(("failure_threshold", value) for value in (0, -1, 2, True, "half", None, math.nan, 10**400)),
        *(("reset_timeout", value) for value in (*NUMBERS, None)),
    ],
    ids=str_of,
)
def test_a_pace_checks_its_settings(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{name} must be ") as refusal:
        Pace(**{name: value})
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize("where", [3, None, True, b"x.db", ["x.db"], ""])
def test_ledger_checks_location(where: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^a ledger must be a file or 'postgresql://\.\.\.', not "):
        Ledger(where)


@pytest.mark.parametrize("clock", [3, None, "now"])
def test_a_ledger_checks_its_clock(clock: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^clock must be a Clock with "):
        Ledger(tmp_path / "x.db", clock=clock)


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.mark.parametrize("trust", [False, unverified()])
@pytest.mark.parametrize("make", [DirectClient, sync.DirectClient])
def test_unchecked_certificates_are_asked_for(make: Any, trust: Any) -> None:
    with pytest.raises(ValueError, match=r"accepts any certificate.*insecure=True accepts any"):
        make("key", ssl=trust)
    assert make("key", ssl=trust, insecure=True)
    assert make("key", ssl=ssl.create_default_context())


def test_refused_proxy_is_hidden() -> None:
    for proxy in ("socks5://user:hunter2@host", "user:hunter2@host", b"http://user:hunter2@host"):
        with pytest.raises((TypeError, ValueError)) as refusal:
            DirectClient("key", proxy=proxy)  # type: ignore[arg-type]
        assert "hunter2" not in str(refusal.value)

"""The pytest plugin: clients on a sandbox, in time that jumps. pytest loads it wherever dispatchkit is installed.

- ``direct`` and ``altcraft`` are asynchronous clients. They work with pytest-asyncio in both modes and with any loop
  scope. They work with anyio's plugin on asyncio.
- ``sync_direct`` and ``sync_altcraft`` are blocking clients, which need no other plugin.
- ``dispatchkit_sandbox`` is the `Sandbox` that they talk to: order its faults, and count its launches.
- ``dispatchkit_clock`` is the `FakeClock` of the sandbox and the clients.
- ``dispatchkit_options`` has the options of the clients. Override it to change them.

Each test has its own. The module imports pytest only, and fixtures import what they need.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatchkit import AltcraftClient, ClientOptions, DirectClient, sync
    from dispatchkit.sandbox import Sandbox
    from dispatchkit.testing.clock import FakeClock

__all__ = [
    "altcraft",
    "direct",
    "dispatchkit_clock",
    "dispatchkit_options",
    "dispatchkit_sandbox",
    "pytest_configure",
    "sync_altcraft",
    "sync_direct",
]


_FIXTURES = {"asyncio": "dispatchkit.testing.asyncio_fixtures", "anyio": "dispatchkit.testing.anyio_fixtures"}
"""The module of the fixtures for each plugin."""


def pytest_configure(config: pytest.Config) -> None:
    """Add the fixtures of the asynchronous plugins that are there."""
    for name, module in _FIXTURES.items():
        if config.pluginmanager.has_plugin(name):
            with suppress(TypeError):  # pytest-asyncio before 0.24 has no loop scopes, and must not fail for others
                config.pluginmanager.register(import_module(module), module)


@pytest.fixture
def dispatchkit_clock() -> FakeClock:
    """The clock of the sandbox and of the clients. It jumps, so that a wait of a minute takes no time."""
    from dispatchkit.testing.clock import FakeClock  # noqa: PLC0415 - see above

    return FakeClock()


@pytest.fixture
def dispatchkit_options() -> ClientOptions:
    """The options of the clients: an attempt may take a second. Override it in a ``conftest.py`` or a test module."""
    return {"attempt_timeout": 1.0}


@pytest.fixture
def dispatchkit_sandbox(dispatchkit_clock: FakeClock) -> Iterator[Sandbox]:
    """Both providers on loopback, in a thread of their own."""
    from dispatchkit.sandbox import Sandbox  # noqa: PLC0415 - see above

    with Sandbox(clock=dispatchkit_clock.timestamp) as sandbox:
        yield sandbox


@pytest.fixture
def direct(request: pytest.FixtureRequest) -> DirectClient:
    """A `dispatchkit.DirectClient` on ``dispatchkit_sandbox``."""
    return cast("DirectClient", _asynchronous(request, "direct"))


@pytest.fixture
def altcraft(request: pytest.FixtureRequest) -> AltcraftClient:
    """A `dispatchkit.AltcraftClient` on ``dispatchkit_sandbox``."""
    return cast("AltcraftClient", _asynchronous(request, "altcraft"))


def _asynchronous(request: pytest.FixtureRequest, name: str) -> object:
    """A client whose connections the event loop of the test opens and closes."""
    scope: str | None
    has_plugin, item = request.config.pluginmanager.has_plugin, cast("pytest.Item", request.node)
    if item.get_closest_marker("anyio") is not None and has_plugin(_FIXTURES["asyncio"]) and _is_auto(request.config):
        raise pytest.UsageError(
            f"the fixture {name!r} cannot serve two event loops: pytest-asyncio in auto mode runs this test, too. "
            "Remove @pytest.mark.anyio, or set asyncio_mode = strict"
        )
    if "anyio_backend" in request.fixturenames and has_plugin(_FIXTURES["anyio"]):
        scope = "anyio"
    elif has_plugin(_FIXTURES["asyncio"]):
        mark = item.get_closest_marker("asyncio")
        scope = None if mark is None else cast("str | None", mark.kwargs.get("loop_scope"))
        if scope is None:
            scope = "function"
            with suppress(ValueError):  # pytest-asyncio before 0.26 has no such option
                scope = cast("str", request.config.getini("asyncio_default_test_loop_scope"))
    else:
        raise pytest.UsageError(
            f"the fixture {name!r} needs pytest-asyncio (0.24 or newer), or anyio's plugin and @pytest.mark.anyio; "
            f"'sync_{name}' needs neither"
        )
    return cast("object", request.getfixturevalue(f"_dispatchkit_{name}_{scope}"))


def _is_auto(config: pytest.Config) -> bool:
    """Whether pytest-asyncio runs every asynchronous test, also those with another plugin's mark."""
    mode: object = config.getoption("asyncio_mode") or config.getini("asyncio_mode")
    return mode == "auto"


@pytest.fixture
def sync_direct(
    dispatchkit_sandbox: Sandbox, dispatchkit_clock: FakeClock, dispatchkit_options: ClientOptions
) -> Iterator[sync.DirectClient]:
    """A `dispatchkit.sync.DirectClient` on ``dispatchkit_sandbox``."""
    from dispatchkit.testing.clients import sync_direct_client  # noqa: PLC0415 - see above

    with sync_direct_client(dispatchkit_sandbox, dispatchkit_clock, dispatchkit_options) as client:
        yield client


@pytest.fixture
def sync_altcraft(
    dispatchkit_sandbox: Sandbox, dispatchkit_clock: FakeClock, dispatchkit_options: ClientOptions
) -> Iterator[sync.AltcraftClient]:
    """A `dispatchkit.sync.AltcraftClient` on ``dispatchkit_sandbox``."""
    from dispatchkit.testing.clients import sync_altcraft_client  # noqa: PLC0415 - see above

    with sync_altcraft_client(dispatchkit_sandbox, dispatchkit_clock, dispatchkit_options) as client:
        yield client

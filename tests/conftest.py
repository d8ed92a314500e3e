"""What the whole suite shares: both event loops, and a fix for aioresponses."""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import itertools
import os
from collections.abc import Callable, Iterator
from unittest.mock import Mock

import aiohttp
import pytest
from aioresponses import core as aioresponses_core

from dispatchkit.core import secret
from dispatchkit.core.pacing.adaptive_limit import AdaptiveLimit
from dispatchkit.sandbox import Sandbox
from tests import launcher
from tests.postgres import Server

try:
    import uvloop
except ImportError:  # the extra `speed` is not there on every platform
    uvloop = None  # type: ignore[assignment]


# No test trusts the machine's certificates. To read them is a third of the import of aiohttp, which hundreds of
# processes repeat.
os.environ["SSL_CERT_FILE"] = os.devnull
# Texts are in English, whatever the language of the machine is.
os.environ["LANGUAGE"] = "en"
# Users do not set these. One hides what is left in a buffer, the other makes each process compile everything again.
for _name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(_name, None)


_folders = itertools.count()
"""Numbers of the folders that stand for those of the user."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every asynchronous test on asyncio's loop, and the core's on uvloop as well."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if uvloop is not None and {"core", "faults"} & set(item.path.relative_to(config.rootpath).parts):
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Let the processes that share the suite share the work of compiling it, too.

    pytest rewrites the assertions of each module, and keeps the byte code. Each process imports all modules, and begins
    at another one, so most modules were rewritten by another process. All collect them in the same order afterwards.
    """
    config = session.config
    shared = getattr(config, "workerinput", None)
    if shared is None or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    modules = sorted((config.rootpath / "tests").rglob("test_*.py"))
    first = len(modules) * int(shared["workerid"].removeprefix("gw")) // shared["workercount"]
    for module in (*modules[first:], *modules[:first]):
        importlib.import_module(".".join(module.relative_to(config.rootpath).with_suffix("").parts))


_ON_BOTH_LOOPS = ("tests/core/transport/", "tests/faults/")
_DECISIONS = ("tests/faults/test_policy.py", "tests/faults/test_siblings.py")
"""What touches sockets runs on both loops in the first stage, but for two modules whose subject is decisions. All else
runs on asyncio's loop in the first stage and on uvloop's in the second."""


@pytest.hookimpl(tryfirst=True)  # before the marks select
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to the second stage what the loop hardly changes, and refuse a test whose name tells an object's address.

    Processes that share the suite would not know such a test as one.
    """
    for item in items:
        on_uvloop = item.name.partition("[")[2].startswith("uvloop")
        if on_uvloop and (not item.nodeid.startswith(_ON_BOTH_LOOPS) or item.nodeid.startswith(_DECISIONS)):
            item.add_marker(pytest.mark.second_stage)
    if unsteady := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"give these parameters ids, as their names differ at every run: {unsteady}")


def pytest_collection_finish() -> None:
    """Keep the collector from looking through thousands of collected tests again and again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _quick_fingerprints() -> Iterator[None]:
    """Fingerprint tokens at once, here and in commands. It is slow on purpose, and most tests of a ledger do it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secret, "FINGERPRINT_ROUNDS", 1)
        patch.setitem(launcher.CONSTANTS, "dispatchkit.core.secret:FINGERPRINT_ROUNDS", 1)
        yield


@pytest.fixture(scope="session", autouse=True)
def _fix_aioresponses() -> Iterator[None]:
    """Let aioresponses 0.7.9 build a response of aiohttp 3.14, which asks for one more argument.

    See https://github.com/pnuckowski/aioresponses/issues/289. It does nothing once either side has changed.
    """
    needs_it = "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters
    knows_it = "stream_writer" in inspect.getsource(aioresponses_core)
    if not needs_it or knows_it:
        yield
        return

    class FixedResponse(aiohttp.ClientResponse):
        def __init__(self, *args: object, **kwargs: object) -> None:
            kwargs.setdefault("stream_writer", Mock(output_size=0))
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aioresponses_core, "ClientResponse", FixedResponse)
        yield


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No command of a test sees the user's ledger and profiles, or writes there."""
    folder = tmp_path_factory.getbasetemp() / "home"
    for name in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(folder / f"{next(_folders)}" / name.lower()))
    monkeypatch.delenv("DISPATCHKIT_PROFILE", raising=False)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox in this process, in a thread of its own, for what runs in another process."""
    with Sandbox() as played:
        yield played


@pytest.fixture
def no_ramp(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, runs begin with all their workers: for tests of what comes later."""
    monkeypatch.setattr(AdaptiveLimit, "ramp", lambda self: None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A real PostgreSQL: one for each process that runs tests, started by the first test that asks for it."""
    server = Server()
    server.start()
    yield server
    server.stop("immediate")
    server.remove()


@pytest.fixture
def dsn(postgres: Server) -> str:
    """An empty database, for one test."""
    return asyncio.run(postgres.create())

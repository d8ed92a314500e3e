"""What runs in the processes under test: dispatchkit's command line, or a script, with shorter times.

    NEMESIS='{"lease": 4, ...}' python -m tests.nemesis.process direct start 1-1000 ...
    NEMESIS='{"lease": 4, ...}' python -m tests.nemesis.process engine.py

A constant is replaced by name, in the module that defines it and before any other module imports it. A name that this
release does not have is passed over, so the harness runs on releases with other names too; `patched` says which were
found. Nothing else of the product is touched.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pkgutil
import signal
import sys
import types
from typing import Any

__all__ = ["main", "patch"]

_CONSTANTS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("claim", ("core.claim_age", "core.claim", "core.fanout.claim_age"), ("CLAIM_AGE",)),
    ("lease", ("ledger.store", "ledger.liveness"), ("LEASE_TIMEOUT", "STALE")),
    ("heartbeat", ("ledger.store", "ledger.liveness"), ("HEARTBEAT_INTERVAL", "BEAT")),
    ("look", ("spread.engine", "workers.engine", "workers.procrastinate_queue"), ("_LOOK_EVERY",)),
    ("avoid", ("spread.engine", "workers.engine", "workers.procrastinate_queue"), ("_AVOID",)),
    ("again", ("spread.engine", "workers.engine", "workers.procrastinate_queue"), ("_AGAIN",)),
    (
        "longest",
        ("ledger.link", "ledger.postgres.connection", "postgres.connection"),
        ("_LONGEST", "_MAX_WAIT", "MAX_WAIT"),
    ),
    (
        "answer",
        ("ledger.link", "ledger.postgres.connection", "ledger.postgres.connect"),
        ("_ANSWER", "ANSWER_TIMEOUT"),
    ),
    (
        "connect",
        ("ledger.link", "ledger.postgres.connection", "ledger.postgres.driver_settings"),
        ("_CONNECT", "_CONNECT_TIMEOUT"),
    ),
)
"""What each time is called, and where it may be, the likeliest place first. The order is that of the imports."""

_LAG = ("state_lag", "lag")
"""The field of `RetryPolicy`."""


def patch(times: dict[str, float]) -> list[str]:
    """Put other times in the place of the product's own. Returns what was found, as ``module:NAME``."""
    patched = []
    if "lag" in times:
        patched += _patch_retry(times["lag"])
    for key, places, names in _CONSTANTS:
        if key not in times:
            continue
        for place in places:
            module = _module(f"dispatchkit.{place}")
            for name in names:
                if module is not None and hasattr(module, name):
                    # Whoever has imported it by name already has a copy of its own.
                    patched += _everywhere(module, name, times[key])
    if "attempt" in times:
        patched += _patch_attempt(times["attempt"])
    return patched


def _everywhere(module: types.ModuleType, name: str, value: float) -> list[str]:
    before = getattr(module, name)
    changed = type(before)(value) if type(before) in {int, float} else type(before)(seconds=value)
    patched = []
    for other in [each for key, each in sys.modules.items() if key.startswith("dispatchkit")]:
        if vars(other).get(name) is before:
            setattr(other, name, changed)
            patched.append(f"{other.__name__}:{name}")
    return patched


def _patch_retry(lag: float) -> list[str]:
    """The default of the field, for policies that are made from now on, and the policy that is there already."""
    module = _module("dispatchkit.core.call.retry")
    if module is None:
        return []
    defaults = module.RetryPolicy.__init__.__kwdefaults__ or {}
    patched = []
    for name in _LAG:
        if name in defaults:
            defaults[name] = lag
            object.__setattr__(module.DEFAULT_RETRY, name, lag)
            patched.append(f"{module.__name__}:RetryPolicy.{name}")
    return patched


def _patch_attempt(attempt: float) -> list[str]:
    """A worker has no ``--attempt-timeout``, so the clients get another default."""
    patched = []
    for name in ("DirectClient", "AltcraftClient"):
        module = _module(f"dispatchkit.{name.removesuffix('Client').lower()}.client")
        defaults = getattr(getattr(module, name, None), "__init__", _patch_attempt).__kwdefaults__ or {}
        if "attempt_timeout" in defaults:
            defaults["attempt_timeout"] = attempt
            patched.append(f"{name}.attempt_timeout")
    return patched


def _differing(found: list[str]) -> str | None:
    """Import everything, and tell which modules have another value of a constant than was patched."""
    import dispatchkit  # noqa: PLC0415 - only now, with other times

    for each in pkgutil.walk_packages(dispatchkit.__path__, "dispatchkit."):
        if not each.name.endswith("__main__"):
            importlib.import_module(each.name)
    wrong = []
    for module, name in (each.split(":") for each in found if ":" in each and "." not in each.split(":")[1]):
        value = getattr(sys.modules[module], name)
        wrong += [
            f"{key}:{name} is {vars(other)[name]}, not {value}"
            for key, other in sys.modules.items()
            if key.startswith("dispatchkit") and not name.startswith("_") and vars(other).get(name, value) != value
        ]
    if not any(each.endswith(":CLAIM_AGE") for each in found) or not any(
        each.endswith(":LEASE_TIMEOUT") for each in found
    ):
        wrong.append(f"CLAIM_AGE or LEASE_TIMEOUT was not found: {found}")
    return "; ".join(wrong) or None


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def main() -> None:
    """Become what the arguments say."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it does not outlive the harness
    times = json.loads(os.environ.get("NEMESIS", "{}"))
    if times.pop("loop", "uvloop") == "asyncio":
        sys.modules["uvloop"] = None  # type: ignore[assignment]  # then it cannot be imported
    if (sys.argv[1:2] and sys.argv[1].startswith(("spread", "plan", "worker"))) or sys.argv[1:2] == ["engine"]:
        times.setdefault("look", 0.5)
    elif sys.argv[1:2] != ["patched"]:
        for key in ("look", "avoid", "again"):  # what the other commands never import
            times.pop(key, None)
    found = patch(times)
    if sys.argv[1:2] == ["patched"]:
        print("\n".join(found))
        raise SystemExit(_differing(found))
    if sys.argv[1:2] == ["engine"]:
        from tests.nemesis.engine import main as engine  # noqa: PLC0415 - only now, with other times

        raise SystemExit(engine(*sys.argv[2:]))
    from dispatchkit.cli import main as command  # noqa: PLC0415 - only now, with other times

    command()


if __name__ == "__main__":
    main()

"""What runs in the processes under test: dispatchkit's command line, or a script, with shorter times.

    NEMESIS='{"lease": 4, ...}' python -m tests.nemesis.process direct start 1-1000 ...
    NEMESIS='{"lease": 4, ...}' python -m tests.nemesis.process engine.py

A constant is replaced in every module that has it, before other modules import it. `patched` lists the replaced
constants. Nothing more of the product is changed.
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

_CONSTANTS: dict[str, tuple[str, str]] = {
    "claim": ("dispatchkit.core.claim", "CLAIM_AGE"),
    "lease": ("dispatchkit.ledger.chunk", "LEASE_TIMEOUT"),
    "heartbeat": ("dispatchkit.ledger.chunk", "HEARTBEAT_INTERVAL"),
    "look": ("dispatchkit.workers.procrastinate_queue", "_LOOK_EVERY"),
    "avoid": ("dispatchkit.workers.procrastinate_queue", "_AVOID"),
    "again": ("dispatchkit.workers.procrastinate_queue", "_AGAIN"),
    "longest": ("dispatchkit.ledger.postgres.connection", "_MAX_WAIT"),
    "answer": ("dispatchkit.ledger.postgres.connect", "ANSWER_TIMEOUT"),
    "connect": ("dispatchkit.ledger.postgres.driver_settings", "_CONNECT_TIMEOUT"),
}
"""Module and name of each time, in the order of the imports."""


def patch(times: dict[str, float]) -> list[str]:
    """Replace times of the product. Returns the replaced constants, as ``module:NAME``."""
    patched = []
    if "lag" in times:
        patched.append(_patch_retry(times["lag"]))
    for key, (module, name) in _CONSTANTS.items():
        if key in times:
            # Modules that imported the constant by name have a copy.
            patched += _everywhere(importlib.import_module(module), name, times[key])
    if "attempt" in times:
        patched += _patch_attempt(times["attempt"])
    return patched


def _everywhere(module: types.ModuleType, name: str, value: float) -> list[str]:
    before = getattr(module, name)
    changed = type(before)(value) if type(before) in {int, float} else type(before)(seconds=value)
    patched = []
    for other in [loaded for key, loaded in sys.modules.items() if key.startswith("dispatchkit")]:
        if vars(other).get(name) is before:
            setattr(other, name, changed)
            patched.append(f"{other.__name__}:{name}")
    return patched


def _patch_retry(lag: float) -> str:
    """Replace the default of `RetryPolicy.state_lag`, also in the default policy."""
    retry: Any = importlib.import_module("dispatchkit.core.call.retry")
    assert "state_lag" in retry.RetryPolicy.__init__.__kwdefaults__
    retry.RetryPolicy.__init__.__kwdefaults__["state_lag"] = lag
    object.__setattr__(retry.DEFAULT_RETRY, "state_lag", lag)
    return "dispatchkit.core.call.retry:RetryPolicy.state_lag"


def _patch_attempt(attempt: float) -> list[str]:
    """Replace the clients' default of ``attempt_timeout``: a worker has no option for it."""
    client: Any = importlib.import_module("dispatchkit.core.call.client")
    defaults = client.Client.__init__.__kwdefaults__
    assert "attempt_timeout" in defaults
    defaults["attempt_timeout"] = attempt
    return ["Client.attempt_timeout"]


def _differing(patched: list[str]) -> str | None:
    """Import all modules, and describe those with another value of a patched constant."""
    import dispatchkit  # noqa: PLC0415 - only now, with other times

    for module in pkgutil.walk_packages(dispatchkit.__path__, "dispatchkit."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    wrong = []
    for place in patched:
        owner, _, name = place.partition(":")
        if not name or "." in name:
            continue
        value = getattr(sys.modules[owner], name)
        wrong += [
            f"{key}:{name} is {vars(other)[name]}, not {value}"
            for key, other in sys.modules.items()
            if key.startswith("dispatchkit") and not name.startswith("_") and vars(other).get(name, value) != value
        ]
    return "; ".join(wrong) or None


def main() -> None:
    """Run the command line, a script or a check, by the arguments."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it does not outlive the harness
    times = json.loads(os.environ.get("NEMESIS", "{}"))
    if times.pop("loop", "uvloop") == "asyncio":
        sys.modules["uvloop"] = None  # type: ignore[assignment]  # then it cannot be imported
    if (sys.argv[1:2] and sys.argv[1].startswith(("plan", "worker"))) or sys.argv[1:2] == ["engine"]:
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

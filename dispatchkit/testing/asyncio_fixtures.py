"""The asynchronous fixtures of `plugin` under pytest-asyncio: one for each loop scope that a test may have."""

from __future__ import annotations

from typing import Final, Literal

import pytest_asyncio

from dispatchkit.testing.asynchronous import PROVIDERS, fixture_function

__all__: list[str] = []

_SCOPES: Final[tuple[Literal["function", "class", "module", "package", "session"], ...]] = (
    "function",
    "class",
    "module",
    "package",
    "session",
)

for _provider in PROVIDERS:
    for _scope in _SCOPES:
        # Each is a fixture of one test. Only its event loop is that of the scope.
        _fixture = pytest_asyncio.fixture(loop_scope=_scope)(fixture_function(_provider))
        globals()[f"_dispatchkit_{_provider}_{_scope}"] = _fixture

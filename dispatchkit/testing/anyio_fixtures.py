"""The asynchronous fixtures of `plugin` under anyio's plugin."""

from __future__ import annotations

import pytest

from dispatchkit.testing.asynchronous import PROVIDERS, fixture_function

__all__: list[str] = []

for _provider in PROVIDERS:
    globals()[f"_dispatchkit_{_provider}_anyio"] = pytest.fixture(fixture_function(_provider))

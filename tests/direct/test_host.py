"""The host of the client of Direct: what is given, else the environment's, else the provider's own."""

from __future__ import annotations

import pytest

from dispatchkit import DirectClient, sync

OWN = "https://direct.i-dgtl.ru"


def host(client: DirectClient) -> str:
    return client._settings()["base_url"]


@pytest.mark.parametrize(
    ("given", "variable", "used"),
    [
        ("https://a.test", "https://b.test", "https://a.test"),
        (None, "https://b.test", "https://b.test"),
        (None, "", OWN),
    ],
)
def test_host_has_an_order(monkeypatch: pytest.MonkeyPatch, given: str | None, variable: str, used: str) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_URL", variable)
    assert host(DirectClient("t", base_url=given)) == used
    with sync.DirectClient("t", base_url=given) as direct:
        assert host(direct._async_client) == used


def test_empty_host_is_refused() -> None:
    with pytest.raises(ValueError, match="no host"):
        DirectClient("t", base_url="")

"""i-Digital Direct in the registry of providers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatchkit.providers import Provider

if TYPE_CHECKING:
    from dispatchkit.direct.commands import DirectAuth

__all__ = ["PROVIDER"]

PROVIDER: Provider[DirectAuth] = Provider(
    name="direct",
    client="dispatchkit.direct.client:DirectClient",
    commands={
        "start": "dispatchkit.direct.commands:StartDispatch",
        "stop": "dispatchkit.direct.commands:StopDispatch",
    },
    token_variable="DISPATCHKIT_DIRECT_TOKEN",  # noqa: S106 - the name of the variable
    url_variable="DISPATCHKIT_DIRECT_URL",
    base_url="https://direct.i-dgtl.ru",
    noun=("dispatch", "dispatches"),
    command_line="dispatchkit.cli.commands.direct:app",
    help="Start, stop and list dispatches of i-Digital Direct.",
)

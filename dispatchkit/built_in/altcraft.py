"""Altcraft in the registry of providers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatchkit.providers import Provider

if TYPE_CHECKING:
    from dispatchkit.altcraft.base import AltcraftWire

__all__ = ["PROVIDER"]


def _wire(text: str) -> str:
    if text not in {"json", "xml"}:
        raise ValueError("give 'json' or 'xml'")
    return text


def _yes(text: str) -> bool:
    if text not in {"yes", "no"}:
        raise ValueError("give true or false")
    return text == "yes"


PROVIDER: Provider[AltcraftWire] = Provider(
    name="altcraft",
    client="dispatchkit.altcraft.client:AltcraftClient",
    commands={
        "activate": "dispatchkit.altcraft.commands:ActivateMailing",
        "launch": "dispatchkit.altcraft.commands:LaunchBroadcast",
        "launch-regular": "dispatchkit.altcraft.commands:LaunchRegular",
        "deactivate": "dispatchkit.altcraft.commands:DeactivateMailing",
    },
    token_variable="DISPATCHKIT_ALTCRAFT_TOKEN",  # noqa: S106 - the name of the variable
    url_variable="DISPATCHKIT_ALTCRAFT_URL",
    noun=("mailing", "mailings"),
    settings={"wire": _wire, "deduplicates": _yes},
    command_line="dispatchkit.cli.commands.altcraft:app",
    help="Activate, launch, deactivate and show mailings of Altcraft.",
)

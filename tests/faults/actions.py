"""The commands that the fault tests perform, and how to prepare a provider and a client for each."""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs
from tenacity import wait_random_exponential

from dispatchkit import (
    ActivateMailing,
    AltcraftClient,
    DeactivateMailing,
    DirectClient,
    LaunchBroadcast,
    RetryPolicy,
    StartDispatch,
    StopDispatch,
    sync,
)
from dispatchkit.altcraft.codec import WireForm
from dispatchkit.altcraft.reads import ReadStatus
from dispatchkit.core.clock import SYSTEM
from dispatchkit.core.command import Command
from dispatchkit.core.pacing.pace import Pace
from dispatchkit.direct.commands import ReadDispatches
from dispatchkit.sandbox import AltcraftProvider, Call, DirectProvider
from dispatchkit.sandbox.altcraft import ALTCRAFT_TOKEN
from dispatchkit.sandbox.direct import DIRECT_TOKEN
from tests.faults.hostile_server import Provider

TARGET = 10000000125

JITTER = wait_random_exponential(multiplier=0.001, max=0.01)
QUICK = RetryPolicy(wait=JITTER, throttled_wait=JITTER, state_lag=0.03)
"""The default policy a thousand times faster."""


class OwnTime(type(SYSTEM)):  # type: ignore[misc]
    """The machine's clock, but an account of its own: what one call meets must not slow down another's."""


def alone() -> dict[str, Any]:
    return {"clock": OwnTime(), "pace": Pace(failure_threshold=1)}


AnyClient: TypeAlias = DirectClient | AltcraftClient
BlockingClient: TypeAlias = sync.DirectClient | sync.AltcraftClient


@attrs.frozen
class Action:
    """One command, done to `TARGET`."""

    name: str
    command: Command[Any, Any]
    act_name: str
    """What the provider calls the act."""
    state: str
    """What shows it afterwards: "status" (both ways), "log" (a trace, whose absence proves nothing)."""
    wire: WireForm = "json"

    @property
    def direct(self) -> bool:
        return isinstance(self.command, StartDispatch | StopDispatch)

    @property
    def has_request_id(self) -> bool:
        return not self.direct

    @property
    def vouched(self) -> dict[str, Any]:
        """The settings of a client whose user vouches for the provider's deduplication, where it has any."""
        return {"deduplicates": True} if self.has_request_id else {}

    @property
    def reads(self) -> Command[Any, Any]:
        """A harmless call to the same provider."""
        return ReadDispatches(dispatch_id=TARGET) if self.direct else ReadStatus(TARGET)

    def provider(self, **settings: Any) -> Provider:
        """A provider in which the command can be done, once."""
        if not self.direct:
            active = [] if self.act_name == "activate" or self.name.startswith("run_now") else [TARGET]
            return AltcraftProvider([TARGET], active=active, **settings)
        provider = DirectProvider([TARGET], **settings)
        if self.act_name == "stop":
            headers = {"Authorization": f"Basic {DIRECT_TOKEN}"}
            provider.answer(Call("POST", f"/api/v1/dispatch/{TARGET}/start", {}, headers))
        return provider

    def acts(self, provider: Provider) -> int:
        return sum(act.action == self.act_name and act.target == TARGET for act in provider.acts)

    def client(self, url: str, **settings: Any) -> AnyClient:
        settings = alone() | settings
        if self.direct:
            return DirectClient(DIRECT_TOKEN, base_url=url, **settings)
        return AltcraftClient(url, ALTCRAFT_TOKEN, wire=self.wire, **settings)

    def blocking(self, url: str, **settings: Any) -> BlockingClient:
        settings = alone() | settings
        if self.direct:
            return sync.DirectClient(DIRECT_TOKEN, base_url=url, **settings)
        return sync.AltcraftClient(url, ALTCRAFT_TOKEN, wire=self.wire, **settings)


START = Action("start", StartDispatch(TARGET), "start", "status")
STOP = Action("stop", StopDispatch(TARGET), "stop", "status")
ACTIVATE = Action("activate", ActivateMailing(TARGET), "activate", "status")
RUN_NOW = Action("run_now", ActivateMailing(TARGET, run_now=True), "launch", "log")
LAUNCH = Action("launch", LaunchBroadcast(TARGET, content={"field": "value"}), "launch", "log")
DEACTIVATE = Action("deactivate", DeactivateMailing(TARGET), "deactivate", "status")
LAUNCH_XML = Action("launch xml", LaunchBroadcast(TARGET, limit=300), "launch", "log", "xml")
DEACTIVATE_XML = Action("deactivate xml", DeactivateMailing(TARGET), "deactivate", "status", "xml")

ACTIONS = (START, STOP, ACTIVATE, RUN_NOW, LAUNCH, DEACTIVATE, LAUNCH_XML, DEACTIVATE_XML)

"""`LaunchCheck`: what is known of a target before its launch, and what speaks against the launch."""

from __future__ import annotations

import enum
from typing import ClassVar

import attrs

from dispatchkit.errors import DispatchkitError, NotFoundError
from dispatchkit.values import Value

__all__ = ["LaunchCheck", "Objection", "unread_check"]


class Objection(enum.StrEnum):
    """What speaks against a launch. Each is read off the provider's state; none is a promise of the provider.

    Example:
        >>> Objection("finished").text
        'finished'
    """

    STARTED = "started"
    """A launch was requested already: it is under way, planned or paused."""
    FINISHED = "finished"
    """It was launched, and the provider calls it finished."""
    STOPPED = "stopped"
    """It was stopped for good."""
    INACTIVE = "inactive"
    """It is not active, and this launch needs an active one."""
    UNKNOWN_TARGET = "unknown_target"
    """The provider lists no such target."""
    UNKNOWN_STATUS = "unknown_status"
    """Its status is a word that dispatchkit does not know."""
    NO_RECIPIENTS = "no_recipients"
    """The provider counts no recipients."""
    FEW_RECIPIENTS = "few_recipients"
    """Less than a tenth of the audience can be sent to. The share is dispatchkit's own choice."""
    UNREAD = "unread"
    """Its state could not be read; `LaunchCheck.unread` says why."""
    AUDIENCE_UNREAD = "audience_unread"
    """Its audience could not be counted; `LaunchCheck.unread` says why."""

    @property
    def text(self) -> str:
        """The objection in words."""
        return _TEXTS[self]


_TEXTS = {
    Objection.STARTED: "started already",
    Objection.FINISHED: "finished",
    Objection.STOPPED: "stopped",
    Objection.INACTIVE: "not active",
    Objection.UNKNOWN_TARGET: "unknown to the provider",
    Objection.UNKNOWN_STATUS: "status not known",
    Objection.NO_RECIPIENTS: "no recipients",
    Objection.FEW_RECIPIENTS: "few recipients",
    Objection.UNREAD: "could not be read",
    Objection.AUDIENCE_UNREAD: "audience not counted",
}


@attrs.frozen(kw_only=True)
class LaunchCheck(Value):
    """The provider's state of one target before a launch. It may change until the launch.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     [check] = await direct.check([7])
        ...     check.status, check.recipients, check.is_launchable
        ('initiated', 1235, True)
    """

    __to_dict_also__: ClassVar[tuple[str, ...]] = ("is_launchable",)

    target: int
    name: str | None = None
    """None if the provider's answer has none."""
    status: str | None = None
    """The provider's word; None if it could not be read."""
    recipients: int | None = None
    """How many recipients the provider counts; None if it does not say."""
    is_estimate: bool = False
    """Whether the provider counts the recipients again at the launch, so that `recipients` is an estimate."""
    objections: tuple[Objection, ...] = ()
    """What speaks against a launch; empty if nothing is known to."""
    unread: str | None = None
    """Why the state or the audience could not be read."""

    @property
    def is_launchable(self) -> bool:
        """Whether nothing is known that speaks against a launch. It is no promise that the launch succeeds."""
        return not self.objections


def unread_check(target: int, error: DispatchkitError) -> LaunchCheck:
    """The check of a target whose state could not be read."""
    if isinstance(error, NotFoundError):
        return LaunchCheck(target=target, objections=(Objection.UNKNOWN_TARGET,))
    return LaunchCheck(target=target, objections=(Objection.UNREAD,), unread=error.summary)

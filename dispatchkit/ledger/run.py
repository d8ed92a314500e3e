"""A run of a ledger: what it is planned with, what a ledger tells of it, and the numbers of its targets."""

from __future__ import annotations

import json
from datetime import datetime
from typing import cast

import attrs

from dispatchkit.core.reprs import RichRepr, describe
from dispatchkit.core.validators import MAX_SECONDS
from dispatchkit.redaction import redact_urls
from dispatchkit.values import HIDDEN, SHOWN, Value, shown_as

__all__ = ["Counts", "Run", "RunPlan"]


def _settings(text: str) -> dict[str, str]:
    try:
        settings: object = json.loads(text)
    except ValueError:
        settings = None
    known = cast("dict[str, object]", settings) if isinstance(settings, dict) else {}
    return {name: redact_urls(str(value)) for name, value in known.items()}


@attrs.frozen(kw_only=True)
class RunPlan:
    """The settings of a new run."""

    name: str
    settings: str
    """JSON: provider, host and format, for a resume. Never a token."""
    host: str
    """The client's base URL. Repeats are searched among runs with the same host and account."""
    account: str | None
    """The account's name, if the client has one."""
    fingerprint: str
    """A slow hash of the token. It identifies an account without a name."""
    attempt_timeout: float
    """Seconds that one attempt may take."""
    repeat_window: float | None = None
    """Seconds within which no other run may have launched one of the targets; None allows it."""
    canary: int | None = None
    """The number of targets that go first; see ``canary`` in `FanOutOptions`."""
    planned_by: str | None = None
    planned_on: str | None = None
    profile: str | None = None
    launch_options: str | None = None


def _window(seconds: float | None) -> float | str | None:
    return "always" if seconds is not None and seconds >= MAX_SECONDS else seconds


@attrs.frozen(repr=False)
class Run(Value):
    """A run of the ledger.

    Example:
        >>> async with Sandbox() as sandbox, Ledger("launch.db") as ledger:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...         report = await direct.start_many([7, 8], ledger=ledger, run="black-friday").finish()
        ...     [(run.name, run.total, run.plan_complete) for run in await ledger.runs()]
        [('black-friday', 2, True)]
    """

    number: int
    """Key in the database."""
    name: str
    settings: str = attrs.field(metadata=shown_as("settings", _settings))
    """JSON: the settings of the client, for a resume. Never a token."""
    created: datetime
    total: int
    """Number of targets that are planned so far."""
    plan_complete: bool
    """Whether all commands are planned. Only then can the run be resumed without them."""
    stopped: bool
    account: str | None = None
    """The account's name, if the client had one."""
    fingerprint: str = attrs.field(default="", repr=False, metadata=HIDDEN)
    """The fingerprint of the account's token."""
    attempt_timeout: float = 0.0
    """Seconds: the longest attempt timeout of all holders."""
    restored: bool = False
    """Whether the database was restored, copied or failed over since the plan: planned targets may be launched."""
    stops: int = 0
    """Number of stops."""
    repeat_window: float | None = attrs.field(default=None, metadata=shown_as("repeat_window", _window))
    """Seconds within which no other run may have launched one of its targets. The longest one, 1e9, means always."""
    canary: int | None = None
    """The number of targets that go first; see ``canary`` in `FanOutOptions`."""
    contents_pruned: datetime | None = None
    """When `Ledger.prune` deleted the contents of its commands; None if they are there."""
    planned_by: str | None = None
    """The user whose process planned it; None if the system does not tell."""
    planned_on: str | None = None
    """The name of the machine that planned it."""
    profile: str | None = None
    """The profile of the client that planned it; None if it had none."""
    launch_options: str | None = attrs.field(default=None, repr=False, metadata=HIDDEN)
    """JSON: pace, guards and files of the command line that planned it, for the line that resumes it; None without."""

    def __rich_repr__(self) -> RichRepr:
        settings = _settings(self.settings)
        yield self.name
        yield "provider", settings.get("provider"), None
        yield "base_url", settings.get("base_url"), None
        yield "account", self.account, None
        yield "created", f"{self.created:%Y-%m-%d %H:%M:%S}"
        yield "total", self.total
        yield "plan_complete", self.plan_complete, True
        yield "stopped", self.stopped, False
        yield "restored", self.restored, False
        yield "stops", self.stops, 0
        yield "repeat_window", _window(self.repeat_window), None
        yield "canary", self.canary, None
        yield "contents_pruned", self.contents_pruned, None

    def __repr__(self) -> str:
        return describe(self)


@attrs.frozen
class Counts(Value):
    """The numbers of targets by state, of a run or a chunk.

    Example:
        >>> Counts(planned=700, done=300)
        Counts(planned=700, sending=0, done=300, rejected=0, not_sent=0, unknown=0)
    """

    planned: int = 0
    """Targets without a request."""
    sending: int = 0
    """Targets in flight, or left by a process that died."""
    done: int = 0
    rejected: int = 0
    not_sent: int = 0
    unknown: int = 0
    unknown_for_good: int = attrs.field(default=0, repr=False, metadata=SHOWN)
    """Number of unknown targets that nothing can settle, so that a resume leaves them alone."""

    @property
    def left(self) -> int:
        """The number of targets that a resume settles or launches."""
        return self.planned + self.sending + self.not_sent + self.unknown - self.unknown_for_good

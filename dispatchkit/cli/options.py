"""The options of each kind of command. A class of options is one parameter of a command and many on the command line.

Everything here is imported for ``--help``, so it is dataclasses and not attrs, and nothing that needs aiohttp. Each
method of a dataclass takes time to make, so a class that is only a base has none. All have the repr of `Options`, and
none are compared.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar, get_type_hints

import typer

from dispatchkit.cli.invocation import Invocation, refuse_swallowed
from dispatchkit.cli.parameters.connection import (
    AttemptTimeout,
    CaFile,
    ClientCert,
    ClientKey,
    Insecure,
    Profile,
    Proxy,
    Sandbox,
    Timeout,
    TokenFile,
)
from dispatchkit.cli.parameters.guards import (
    Again,
    Canary,
    CanaryTimeout,
    Check,
    DryRun,
    GiveUpAfter,
    MaxLaunches,
    NeverRepeat,
    NotAfter,
    NotBefore,
    RepeatWindow,
    ResumeDryRun,
    SkipUnlaunchable,
    StopAfterFailures,
    Yes,
    Zone,
)
from dispatchkit.cli.parameters.ids import Column, Encoding, Expected, From, FromWhole, Ids, IncludeUnknown, Sheet
from dispatchkit.cli.parameters.launch import Attach, Audience, Content, Limit
from dispatchkit.cli.parameters.ledger import (
    Account,
    AccountChanged,
    Copied,
    EndHolder,
    Ledger,
    LedgerArgument,
    NoLedger,
    RunName,
    RunOfLedger,
)
from dispatchkit.cli.parameters.output import Failures, Json, JsonLines, LogFile, Notify, Quiet
from dispatchkit.cli.parameters.pace import Concurrency, Rate
from dispatchkit.cli.parameters.watch import Deadline, Every, StalledAfter, Watch

__all__ = [
    "ActingOptions",
    "CheckOptions",
    "ConnectionOptions",
    "LaunchOptions",
    "Options",
    "ReadIdsOptions",
    "ReadOptions",
    "ResumeOptions",
    "RunOptions",
    "WatchOptions",
    "options_from",
]

O = TypeVar("O", bound="Options")  # noqa: E741 - a class of options


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Options:
    """Options of every command."""

    invocation: Invocation = field(default_factory=Invocation, repr=False, compare=False)
    """The command line itself; no option."""

    def __repr__(self) -> str:
        shown = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, kw_only=True, eq=False, init=False, repr=False)
class ConnectionOptions(Options):
    """Options of every command that calls a provider."""

    profile: Profile = None
    token_file: TokenFile = None
    proxy: Proxy = field(default=None, repr=False)
    insecure: Insecure = False
    ca_file: CaFile = None
    client_cert: ClientCert = None
    client_key: ClientKey = None
    timeout: Timeout = None
    attempt_timeout: AttemptTimeout = None


@dataclass(frozen=True, kw_only=True, eq=False, init=False, repr=False)
class ReadOptions(ConnectionOptions):
    """Options of every command that only reads."""

    json: JsonLines = False


@dataclass(frozen=True, kw_only=True, eq=False, init=False, repr=False)
class ReadIdsOptions(ReadOptions):
    """Options of every command that reads the state of ids."""

    ids: Ids = None
    from_: FromWhole = None
    column: Column = None
    sheet: Sheet = None
    encoding: Encoding = None


@dataclass(frozen=True, kw_only=True, eq=False, init=False, repr=False)
class WatchOptions(ReadIdsOptions):
    """Options of every command that watches ids."""

    watch: Watch = False
    every: Every = None
    deadline: Deadline = None
    stalled_after: StalledAfter = None


@dataclass(frozen=True, kw_only=True, eq=False, init=False, repr=False)
class ActingOptions(ConnectionOptions):
    """Options of every command that launches or stops."""

    yes: Yes = False
    max_launches: MaxLaunches = None
    stop_after_failures: StopAfterFailures = None
    give_up_after: GiveUpAfter = None
    canary: Canary = None
    canary_timeout: CanaryTimeout = None
    not_before: NotBefore = None
    not_after: NotAfter = None
    zone: Zone = None
    never_repeat: NeverRepeat = False
    account: Account = None
    account_changed: AccountChanged = False
    copied: Copied = False
    end_holder: EndHolder = False
    concurrency: Concurrency = "64"
    rate: Rate = None
    failures: Failures = None
    log_file: LogFile = None
    notify: Notify = None
    json: Json = False
    quiet: Quiet = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RunOptions(ActingOptions):
    """Options of every command that acts on ids."""

    ids: Ids = None
    from_: From = None
    column: Column = None
    sheet: Sheet = None
    encoding: Encoding = None
    include_unknown: IncludeUnknown = False
    expected: Expected = None
    dry_run: DryRun = False
    ledger: Ledger = field(default=None, repr=False)
    no_ledger: NoLedger = False
    run: RunName = None
    repeat_window: RepeatWindow = None
    again: Again = False
    sandbox: Sandbox = False


@dataclass(frozen=True, kw_only=True, eq=False, init=False, repr=False)
class CheckOptions:
    """Options of a launch that can read its targets first."""

    check: Check = False
    skip_unlaunchable: SkipUnlaunchable = False


@dataclass(frozen=True, kw_only=True, eq=False, init=False, repr=False)
class LaunchOptions:
    """Options of a launch that override the mailing for one run."""

    audience: Audience = None
    limit: Limit = None
    content: Content = None
    attach: Attach = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ResumeOptions(ActingOptions):
    """Options of ``resume``."""

    where: LedgerArgument = field(default=None, repr=False)
    run: RunOfLedger = None
    dry_run: ResumeDryRun = False


def options_from(options: type[O]) -> Callable[[Callable[[O], None]], Callable[..., None]]:
    """Let a command take a dataclass of options as one value, and the command line show each of its fields.

    The fields of the most specific class come first.
    """
    hints = get_type_hints(options, include_extras=True)
    order = [name for base in options.__mro__ for name in inspect.get_annotations(base)]
    defaults = {
        each.name: inspect.Parameter.empty if each.default is MISSING else each.default
        for each in fields(options)
        if each.name != "invocation"
    }
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=hints[name])
        for name in sorted(defaults, key=order.index)
    ]
    parameters.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))

    def decorate(command: Callable[[O], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_options(*, context: typer.Context, **values: Any) -> None:
            refuse_swallowed(context)
            command(options(**values, invocation=Invocation.of(context)))

        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        vars(with_options)["__signature__"] = inspect.Signature(parameters)
        return with_options

    return decorate

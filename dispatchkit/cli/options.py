"""The options, each declared once. A class of options is one parameter of a command and many on the command line.

Everything here is imported for ``--help``, so it is dataclasses and not attrs, and nothing that needs aiohttp.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from dispatchkit.core.call.retry import RetryPolicy
    from dispatchkit.core.pacing.pace import Pace

__all__ = [
    "AUTO_WORKERS",
    "Account",
    "ActingOptions",
    "ClientSettings",
    "ConnectionOptions",
    "Guards",
    "LaunchOptions",
    "LedgerArgument",
    "NeverRepeat",
    "ReadOptions",
    "ResumeOptions",
    "RunOptions",
    "duration",
    "give_up_seconds",
    "options_from",
]

AUTO_WORKERS = 1024
"""How many workers there are where the concurrency is found out: as many as may ever be in flight."""

O = TypeVar("O", bound="ConnectionOptions")  # noqa: E741 - a class of options

_Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="IDS", help="Ids and ranges of ids: 7 12 100-200, or 7,12,100-200."),
]
_From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Read the ids from a file, one a line; # starts a comment. - is standard input. CSV and .xlsx need "
        "--column, unless a sheet has one column only. What --failures, --json and ledger export wrote is taken as it "
        "is, without what is done.",
    ),
]
_Column = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The file is a table with a header row; take the ids from this column."),
]
_Sheet = Annotated[str | None, typer.Option(metavar="NAME", help="Take the ids from this sheet of an .xlsx file.")]
_Encoding = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The encoding of the file, such as cp1251. Default: UTF-8, or what it says."),
]
_IncludeUnknown = Annotated[
    bool,
    typer.Option(
        "--include-unknown", help="Of a file that tells outcomes, take also those that may have happened already."
    ),
]
_Failures = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write everything that does not come to done to a CSV for --from, at once; out of a ledger, at the "
        "end. It must be new or empty.",
    ),
]
_Ledger = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        help="Remember every launch, before it leaves, in this SQLite file or PostgreSQL database. The same line again "
        "goes on where the run ended. Default: what DISPATCHKIT_LEDGER holds, if there is a --run.",
    ),
]
_RunName = Annotated[str | None, typer.Option("--run", metavar="NAME", help="What this run is called in the ledger.")]
_TokenFile = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Read the token from a file instead of the environment. - is standard input."),
]
_Timeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="The most that one call may take, repeats and waits included. Default: 240."),
]
_AttemptTimeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="The most that one attempt may take. Default: 70.")
]
_Concurrency = Annotated[
    str,
    typer.Option(
        metavar="N|auto", help="How many calls are in flight at most; auto finds out what the provider bears."
    ),
]
_Rate = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="Launches a second at most, evenly spaced; with a ledger in PostgreSQL, of all processes that use the "
        "account together. Default: no limit.",
    ),
]
_MaxLaunches = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Begin so many at most, whatever the list holds.")
]
_Expected = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Refuse to start unless there are exactly so many ids.")
]
_StopAfterFailures = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Start nothing new after so many outcomes that are not done.")
]
_GiveUpAfter = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="End the run when the provider has answered nothing for so long: 90s, 15m, 1h, or never. A pause that the "
        "provider asked for does not count. Default: 1h.",
    ),
]
_Insecure = Annotated[
    bool, typer.Option("--insecure", help="Allow plain http to another machine. It shows the token on the way.")
]
_Proxy = Annotated[str | None, typer.Option(metavar="URL", help="Go through this HTTP proxy.")]
Account = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The name of the provider's account. A ledger's run is launched for the account it was planned for, "
        "whatever token the account has by then.",
    ),
]
NeverRepeat = Annotated[
    bool,
    typer.Option(
        "--never-repeat",
        help="Never launch anew what may have been launched already. It is only looked up, and else stays unknown.",
    ),
]
_AccountChanged = Annotated[
    bool,
    typer.Option(
        "--account-changed",
        help="The account of the run has a new token, or another name. Go on with the run for this one.",
    ),
]
_Copied = Annotated[
    bool,
    typer.Option(
        "--copied", help="The ledger file is a copy, and nobody uses the original any more. Go on with the copy."
    ),
]
_EndHolder = Annotated[
    bool,
    typer.Option(
        "--end-holder",
        help="If the process that works on the run hangs, or is suspended, end it and take the run over. A process "
        "that is at work is never ended: use stop-run.",
    ),
]
_Sandbox = Annotated[
    bool,
    typer.Option(
        "--sandbox", help="Send it all to a sandbox started for the occasion. Needs no account, asks nothing."
    ),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the requests and send none. Needs no token.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, however many ids there are.")]
_Json = Annotated[
    bool, typer.Option("--json", help="One JSON object an outcome on standard output; all else on standard error.")
]
_JsonLines = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress; failures and the summary are shown.")]
_Audience = Annotated[
    str | None,
    typer.Option(
        metavar="KIND:ID", help="Whom this run goes to instead of the mailing's own audience: list:1 or segment:5."
    ),
]
_Limit = Annotated[int | None, typer.Option(metavar="N", min=0, help="The sending limit of this run.")]
_Content = Annotated[
    str | None, typer.Option(metavar="JSON|@FILE", help="A JSON object for the apicontent variables, or @ and a file.")
]
_Attach = Annotated[
    list[Path] | None, typer.Option(metavar="PATH", help="A file for the messages. May be given many times.")
]


LedgerArgument = Annotated[list[str] | None, typer.Argument(metavar="LEDGER", help="A file or a URL.")]


class ClientSettings(TypedDict, total=False):
    """Keywords of both clients."""

    insecure: bool
    proxy: str | None
    timeout: float
    attempt_timeout: float
    pace: Pace
    retry: RetryPolicy
    account: str | None


class Guards(TypedDict):
    """Keywords of a fan-out."""

    concurrency: int
    max_launches: int | None
    stop_after_failures: int | None
    give_up_after: float | None


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smh])", re.ASCII)
_SECONDS = {"h": 3600, "m": 60, "s": 1}


def give_up_seconds(text: str | None) -> float | None:
    """The seconds of ``--give-up-after``, an hour if it was not given; None means never.

    Raises:
        ValueError: It is no duration.
    """
    if text == "never":
        return None
    found = _DURATION.fullmatch("1h" if text is None else text)
    value = 0.0 if found is None else float(found[1]) * _SECONDS[found[2]]
    if not 0 < value < math.inf:
        raise ValueError(f"--give-up-after must be a time such as 90s, 15m or 1h, or never, not {text!r}")
    return value


def duration(seconds: float) -> str:
    """Seconds as ``--give-up-after`` takes them."""
    unit = next((unit for unit, size in _SECONDS.items() if seconds % size == 0), "s")
    return f"{seconds / _SECONDS[unit]:g}{unit}"


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """What every command that talks to a provider takes."""

    timeout: _Timeout = None
    attempt_timeout: _AttemptTimeout = None
    token_file: _TokenFile = None
    insecure: _Insecure = False
    proxy: _Proxy = field(default=None, repr=False)

    def client_settings(self) -> ClientSettings:
        """The settings that both clients take; what was not given is left to the client."""
        settings = ClientSettings(insecure=self.insecure, proxy=self.proxy)
        if self.timeout is not None:
            settings["timeout"] = self.timeout
        if self.attempt_timeout is not None:
            settings["attempt_timeout"] = self.attempt_timeout
        return settings


@dataclass(frozen=True, kw_only=True)
class ReadOptions(ConnectionOptions):
    """What every command that only reads takes."""

    json: _JsonLines = False


@dataclass(frozen=True, kw_only=True)
class ActingOptions(ConnectionOptions):
    """What every command takes that launches or stops something."""

    failures: _Failures = None
    yes: _Yes = False
    json: _Json = False
    quiet: _Quiet = False
    concurrency: _Concurrency = "64"
    rate: _Rate = None
    max_launches: _MaxLaunches = None
    stop_after_failures: _StopAfterFailures = None
    give_up_after: _GiveUpAfter = None
    never_repeat: NeverRepeat = False
    account: Account = None
    account_changed: _AccountChanged = False
    copied: _Copied = False
    end_holder: _EndHolder = False

    def client_settings(self) -> ClientSettings:
        """See `ConnectionOptions.client_settings`."""
        settings = super().client_settings()
        settings["account"] = self.account
        if self.never_repeat:
            from dispatchkit.core.call.retry import RetryPolicy  # noqa: PLC0415 - attrs, which --help does without

            settings["retry"] = RetryPolicy(repeat_unclear=False)
        if self.rate is not None or self.concurrency == "auto":
            from dispatchkit.core.pacing.pace import DEFAULT_PACE, Pace  # noqa: PLC0415 - attrs, which --help does without

            concurrency = "auto" if self.concurrency == "auto" else DEFAULT_PACE.concurrency
            settings["pace"] = Pace(rate=self.rate, concurrency=concurrency)
        return settings

    def guards(self) -> Guards:
        """What bounds the run.

        Raises:
            ValueError: ``--concurrency`` is neither a number nor auto, or ``--give-up-after`` is no duration.
        """
        if self.concurrency != "auto" and re.fullmatch("0*[1-9][0-9]*", self.concurrency) is None:
            raise ValueError(f"--concurrency must be an integer from 1 up, or auto, not {self.concurrency!r}")
        return Guards(
            concurrency=AUTO_WORKERS if self.concurrency == "auto" else int(self.concurrency),
            max_launches=self.max_launches,
            stop_after_failures=self.stop_after_failures,
            give_up_after=give_up_seconds(self.give_up_after),
        )


@dataclass(frozen=True, kw_only=True)
class RunOptions(ActingOptions):
    """What every command that acts on ids takes."""

    ids: _Ids = None
    from_: _From = None
    column: _Column = None
    sheet: _Sheet = None
    encoding: _Encoding = None
    include_unknown: _IncludeUnknown = False
    ledger: _Ledger = field(default=None, repr=False)
    run: _RunName = None
    sandbox: _Sandbox = False
    dry_run: _DryRun = False
    expected: _Expected = None


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """What a launch may override for one run."""

    audience: _Audience = None
    limit: _Limit = None
    content: _Content = None
    attach: _Attach = None


def options_from(options: type[O]) -> Callable[[Callable[[O], None]], Callable[..., None]]:
    """Let a command take a dataclass of options as one value, and the command line show each of its fields.

    The fields of the most specific class come first.
    """
    hints = get_type_hints(options, include_extras=True)
    order = [name for base in options.__mro__ for name in vars(base).get("__annotations__", {})]
    defaults = {
        field.name: inspect.Parameter.empty if field.default is MISSING else field.default for field in fields(options)
    }
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=hints[name])
        for name in sorted(defaults, key=order.index)
    ]

    def decorate(command: Callable[[O], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_options(**values: Any) -> None:
            command(options(**values))

        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        vars(with_options)["__signature__"] = inspect.Signature(parameters)
        return with_options

    return decorate


@dataclass(frozen=True, kw_only=True)
class ResumeOptions(ActingOptions):
    """What ``resume`` takes."""

    where: LedgerArgument = field(default=None, repr=False)
    run: Annotated[str | None, typer.Option(metavar="NAME", help="Which run; a single one needs no name.")] = None

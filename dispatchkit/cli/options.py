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
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from dispatchkit.cli.invocation import Invocation, refuse_swallowed
from dispatchkit.cli.panels import CONNECTION, GUARDS, IDS, LAUNCH, LEDGER, OUTPUT, PACE

__all__ = [
    "Account",
    "ActingOptions",
    "ConnectionOptions",
    "Csv",
    "GiveUpAfter",
    "Insecure",
    "JsonLines",
    "LaunchOptions",
    "LedgerArgument",
    "NeverRepeat",
    "Options",
    "Proxy",
    "ReadIdsOptions",
    "ReadOptions",
    "ResumeOptions",
    "RunArgument",
    "RunOptions",
    "SharedLedger",
    "duration",
    "give_up_seconds",
    "options_from",
    "repeat_seconds",
]

O = TypeVar("O", bound="Options")  # noqa: E741 - a class of options

_Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IDS",
        help="Ids and ranges of ids: 7 12 100-200, or 7,12,100-200.",
        rich_help_panel=IDS,
        show_default=False,
    ),
]
_From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Read the ids from a file, one per line; # starts a comment. - is standard input. CSV and .xlsx need "
        "--column, unless a sheet has one column only. A file that --failures, --json or 'ledger export' wrote is read "
        "as it is, without what is done.",
        rich_help_panel=IDS,
    ),
]
_FromWhole = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Read the ids from a file, one per line; # starts a comment. - is standard input. CSV and .xlsx need "
        "--column, unless a sheet has one column only. A file that dispatchkit wrote is read as it is, and all of its "
        "ids are taken, whatever their outcome.",
        rich_help_panel=IDS,
    ),
]
_Column = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The file is a table with a header row; read the ids from this column.",
        rich_help_panel=IDS,
    ),
]
_Sheet = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Read the ids from this sheet of an .xlsx file.", rich_help_panel=IDS),
]
_Encoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The encoding of the file, such as cp1251. Default: UTF-8, or that of its byte order mark.",
        rich_help_panel=IDS,
    ),
]
_IncludeUnknown = Annotated[
    bool,
    typer.Option(
        "--include-unknown",
        help="From a file with outcomes, also take ids whose outcome is unknown. They may have been launched.",
        rich_help_panel=IDS,
    ),
]
_Expected = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Go on only if there are exactly this many ids.", rich_help_panel=IDS),
]
_Failures = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write every id that is not done to this CSV, which --from reads. The file must be new or empty. With "
        "a ledger, it is written when the run ends.",
        rich_help_panel=OUTPUT,
    ),
]
_Ledger = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        help="Record each launch in this SQLite file or PostgreSQL database before it is sent, so that the run can be "
        "resumed. Default: DISPATCHKIT_LEDGER.",
        rich_help_panel=LEDGER,
    ),
]
_RunName = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="NAME",
        help="The name of the run in the ledger. The same command with the same name resumes the run. Default: a new "
        "name from date, time and command.",
        rich_help_panel=LEDGER,
    ),
]
_RepeatWindow = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Refuse the run if another run of the ledger has launched one of the ids within this time: 90s, 15m, 1h, "
        "or never. Default: 1h for a launch without --run, else never.",
        rich_help_panel=GUARDS,
    ),
]
_TokenFile = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Read the token from a file instead of the environment. - is standard input.",
        rich_help_panel=CONNECTION,
    ),
]
_Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="The longest time for one call, with its retries and waits. Default: 240.",
        rich_help_panel=CONNECTION,
    ),
]
_AttemptTimeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="The longest time for one attempt. Default: 70.", rich_help_panel=CONNECTION),
]
_Concurrency = Annotated[
    str,
    typer.Option(
        metavar="N|auto",
        help="The largest number of calls in flight; auto adapts it to the provider.",
        rich_help_panel=PACE,
    ),
]
_Rate = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="The most launches per second, evenly spaced. With a ledger in PostgreSQL, it holds for all processes "
        "that use the account. Default: no limit.",
        rich_help_panel=PACE,
    ),
]
_MaxLaunches = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Send at most this many launches or stops.", rich_help_panel=GUARDS),
]
_StopAfterFailures = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Send no more after this many failures.", rich_help_panel=GUARDS),
]
GiveUpAfter = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="End the run when the provider has not answered for this long: 90s, 15m, 1h, or never. A pause that the "
        "provider asked for does not count. Default: 1h.",
        rich_help_panel=GUARDS,
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help="Allow plain http to another machine. Everyone on the way can read the token.",
        rich_help_panel=CONNECTION,
    ),
]
Proxy = Annotated[
    str | None, typer.Option(metavar="URL", help="Connect through this HTTP proxy.", rich_help_panel=CONNECTION)
]
CaFile = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Trust the authorities in this PEM file instead of the system's.",
        rich_help_panel=CONNECTION,
    ),
]
ClientCert = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Show this certificate, a PEM file, to a server that asks for one.",
        rich_help_panel=CONNECTION,
    ),
]
ClientKey = Annotated[
    str | None,
    typer.Option(
        metavar="PATH", help="The key of --client-cert, unless it is in the same file.", rich_help_panel=CONNECTION
    ),
]
Account = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Your name for the provider's account. A run in a ledger stays with its account, also when the account "
        "gets a new token.",
        rich_help_panel=LEDGER,
    ),
]
NeverRepeat = Annotated[
    bool,
    typer.Option(
        "--never-repeat",
        help="Never send a launch again that may have happened. Only look it up; if that does not settle it, it stays "
        "unknown.",
        rich_help_panel=GUARDS,
    ),
]
_AccountChanged = Annotated[
    bool,
    typer.Option(
        "--account-changed",
        help="The account of the run has a new token or a new name: resume the run with the current one.",
        rich_help_panel=LEDGER,
    ),
]
_Copied = Annotated[
    bool,
    typer.Option(
        "--copied",
        help="The ledger file is a copy, and its original is out of use: use the copy.",
        rich_help_panel=LEDGER,
    ),
]
_EndHolder = Annotated[
    bool,
    typer.Option(
        "--end-holder",
        help="If the process that holds the run hangs or is suspended, end it and take the run over. A working "
        "process is never ended: use stop-run.",
        rich_help_panel=LEDGER,
    ),
]
_Sandbox = Annotated[
    bool,
    typer.Option(
        "--sandbox",
        help="Send everything to a sandbox on this machine, which ends with the command. Needs no account and asks "
        "nothing.",
        rich_help_panel=CONNECTION,
    ),
]
_DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show the requests and send none. Needs no token and no connection.", rich_help_panel=GUARDS
    ),
]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Go on without a question.", rich_help_panel=GUARDS)]
_Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Write one JSON object per outcome to standard output, and everything else to standard error.",
        rich_help_panel=OUTPUT,
    ),
]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Write one JSON object per line instead of a table.", rich_help_panel=OUTPUT)
]
Csv = Annotated[bool, typer.Option("--csv", help="Write a CSV instead of a table.", rich_help_panel=OUTPUT)]
_Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show failures and the summary, but no progress.", rich_help_panel=OUTPUT)
]
_Audience = Annotated[
    str | None,
    typer.Option(
        metavar="KIND:ID",
        help="Send this launch to another audience than the mailing's own: list:1 or segment:5.",
        rich_help_panel=LAUNCH,
    ),
]
_Limit = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help="The sending limit of this launch.", rich_help_panel=LAUNCH),
]
_Content = Annotated[
    str | None,
    typer.Option(
        metavar="JSON|@FILE",
        help="A JSON object with the apicontent variables, or @ and the name of a file that holds it.",
        rich_help_panel=LAUNCH,
    ),
]
_Attach = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="PATH", help="A file to attach to the messages. May be given several times.", rich_help_panel=LAUNCH
    ),
]

LedgerArgument = Annotated[
    list[str] | None, typer.Argument(metavar="LEDGER", help="A file or a URL. Default: DISPATCHKIT_LEDGER.")
]
RunArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="LEDGER RUN", help="A file or a URL, and the name of a run. A single run needs no name."),
]
SharedLedger = Annotated[
    str,
    typer.Option(
        envvar="DISPATCHKIT_LEDGER",
        metavar="URL",
        help="The ledger that all workers share: postgresql://user@host:port/database.",
        rich_help_panel=LEDGER,
    ),
]

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smh])", re.ASCII)
_SECONDS = {"h": 3600, "m": 60, "s": 1}


def give_up_seconds(text: str | None) -> float | None:
    """The seconds of ``--give-up-after``, an hour if it was not given; None means never.

    Raises:
        ValueError: It is no duration.
    """
    return _seconds("--give-up-after", "1h" if text is None else text)


def repeat_seconds(text: str | None, *, default: str) -> float | None:
    """The seconds of ``--repeat-window``; None means never.

    Raises:
        ValueError: It is no duration.
    """
    return _seconds("--repeat-window", default if text is None else text)


def _seconds(option: str, text: str) -> float | None:
    if text == "never":
        return None
    found = _DURATION.fullmatch(text)
    value = 0.0 if found is None else float(found[1]) * _SECONDS[found[2]]
    if not 0 < value < math.inf:
        raise ValueError(f"{option} must be a time such as 90s, 15m or 1h, or never, not {text!r}")
    return value


def duration(seconds: float) -> str:
    """Seconds as ``--give-up-after`` takes them."""
    unit = next((unit for unit, size in _SECONDS.items() if seconds % size == 0), "s")
    return f"{seconds / _SECONDS[unit]:g}{unit}"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every command."""

    invocation: Invocation = field(default_factory=Invocation, repr=False, compare=False)
    """The command line itself; no option."""


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions(Options):
    """Options of every command that calls a provider."""

    token_file: _TokenFile = None
    proxy: Proxy = field(default=None, repr=False)
    insecure: Insecure = False
    ca_file: CaFile = None
    client_cert: ClientCert = None
    client_key: ClientKey = None
    timeout: _Timeout = None
    attempt_timeout: _AttemptTimeout = None


@dataclass(frozen=True, kw_only=True)
class ReadOptions(ConnectionOptions):
    """Options of every command that only reads."""

    json: JsonLines = False


@dataclass(frozen=True, kw_only=True)
class ReadIdsOptions(ReadOptions):
    """Options of every command that reads the state of ids."""

    ids: _Ids = None
    from_: _FromWhole = None
    column: _Column = None
    sheet: _Sheet = None
    encoding: _Encoding = None


@dataclass(frozen=True, kw_only=True)
class ActingOptions(ConnectionOptions):
    """Options of every command that launches or stops."""

    yes: _Yes = False
    max_launches: _MaxLaunches = None
    stop_after_failures: _StopAfterFailures = None
    give_up_after: GiveUpAfter = None
    never_repeat: NeverRepeat = False
    account: Account = None
    account_changed: _AccountChanged = False
    copied: _Copied = False
    end_holder: _EndHolder = False
    concurrency: _Concurrency = "64"
    rate: _Rate = None
    failures: _Failures = None
    json: _Json = False
    quiet: _Quiet = False


@dataclass(frozen=True, kw_only=True)
class RunOptions(ActingOptions):
    """Options of every command that acts on ids."""

    ids: _Ids = None
    from_: _From = None
    column: _Column = None
    sheet: _Sheet = None
    encoding: _Encoding = None
    include_unknown: _IncludeUnknown = False
    expected: _Expected = None
    dry_run: _DryRun = False
    ledger: _Ledger = field(default=None, repr=False)
    run: _RunName = None
    repeat_window: _RepeatWindow = None
    sandbox: _Sandbox = False


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Options of a launch that override the mailing for one run."""

    audience: _Audience = None
    limit: _Limit = None
    content: _Content = None
    attach: _Attach = None


@dataclass(frozen=True, kw_only=True)
class ResumeOptions(ActingOptions):
    """Options of ``resume``."""

    where: LedgerArgument = field(default=None, repr=False)
    run: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The name of the run. A single run needs no name.", rich_help_panel=LEDGER),
    ] = None


def options_from(options: type[O]) -> Callable[[Callable[[O], None]], Callable[..., None]]:
    """Let a command take a dataclass of options as one value, and the command line show each of its fields.

    The fields of the most specific class come first.
    """
    hints = get_type_hints(options, include_extras=True)
    order = [name for base in options.__mro__ for name in vars(base).get("__annotations__", {})]
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

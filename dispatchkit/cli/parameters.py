"""The parameters of the command line, each declared once: type, name, help text and panel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dispatchkit.cli.panels import CONNECTION, GUARDS, IDS, LAUNCH, LEDGER, OUTPUT, PACE

__all__ = [
    "Account",
    "AccountChanged",
    "Again",
    "Attach",
    "AttemptTimeout",
    "Audience",
    "CaFile",
    "ClientCert",
    "ClientKey",
    "Column",
    "Concurrency",
    "Content",
    "Copied",
    "Csv",
    "DryRun",
    "Encoding",
    "EndHolder",
    "Expected",
    "Failures",
    "From",
    "FromWhole",
    "GiveUpAfter",
    "Ids",
    "IncludeUnknown",
    "Insecure",
    "Json",
    "JsonLines",
    "Ledger",
    "LedgerArgument",
    "Limit",
    "MaxLaunches",
    "NeverRepeat",
    "NoLedger",
    "Profile",
    "Proxy",
    "Quiet",
    "Rate",
    "RepeatWindow",
    "RunArgument",
    "RunName",
    "RunOfLedger",
    "Sandbox",
    "SharedLedger",
    "Sheet",
    "StopAfterFailures",
    "Timeout",
    "TokenFile",
    "Yes",
]

Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IDS",
        help="Ids and ranges of ids: 7 12 100-200, or 7,12,100-200.",
        rich_help_panel=IDS,
        show_default=False,
    ),
]
From = Annotated[
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
FromWhole = Annotated[
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
Column = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The file is a table with a header row; read the ids from this column.",
        rich_help_panel=IDS,
    ),
]
Sheet = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Read the ids from this sheet of an .xlsx file.", rich_help_panel=IDS),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The encoding of the file, such as cp1251. Default: UTF-8, or that of its byte order mark.",
        rich_help_panel=IDS,
    ),
]
IncludeUnknown = Annotated[
    bool,
    typer.Option(
        "--include-unknown",
        help="From a file with outcomes, also take ids whose outcome is unknown. They may have been launched.",
        rich_help_panel=IDS,
    ),
]
Expected = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Go on only if there are exactly this many ids.", rich_help_panel=IDS),
]
Failures = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write every id that is not done to this CSV, which --from reads. The file must be new or empty. With "
        "a ledger, it is written when the run ends.",
        rich_help_panel=OUTPUT,
    ),
]
Ledger = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        help="Record each launch in this SQLite file or PostgreSQL database before it is sent. The run can then be "
        "resumed. Default: DISPATCHKIT_LEDGER, else a file of your own in the state folder. A stop is recorded only "
        "in a ledger that is named.",
        rich_help_panel=LEDGER,
    ),
]
NoLedger = Annotated[
    bool,
    typer.Option(
        "--no-ledger",
        help="Record nothing: the run cannot be resumed, and a repeat of it is not noticed.",
        rich_help_panel=LEDGER,
    ),
]
RunName = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="NAME",
        help="The name of the run in the ledger. The same command with the same name resumes the run. Default: a new "
        "name from date, time and command.",
        rich_help_panel=LEDGER,
    ),
]
RepeatWindow = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Leave out ids that another run of the ledger has launched, or may have launched, within this time: 90s, "
        "15m, 1h, always. Default: always for starts of dispatches, 1h for launches of mailings.",
        rich_help_panel=GUARDS,
    ),
]
Again = Annotated[
    bool,
    typer.Option(
        "--again",
        help="Launch also what another run of the ledger has launched, or may have launched.",
        rich_help_panel=GUARDS,
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Take host, account, token and pace from this profile of config.toml, as far as neither an option nor the "
        "environment sets them. Default: DISPATCHKIT_PROFILE.",
        rich_help_panel=CONNECTION,
    ),
]
TokenFile = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Read the token from a file instead of the environment. - is standard input.",
        rich_help_panel=CONNECTION,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="The longest time for one call, with its retries and waits. Default: 240.",
        rich_help_panel=CONNECTION,
    ),
]
AttemptTimeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="The longest time for one attempt. Default: 70.", rich_help_panel=CONNECTION),
]
Concurrency = Annotated[
    str,
    typer.Option(
        metavar="N|auto",
        help="The largest number of calls in flight; auto adapts it to the provider.",
        rich_help_panel=PACE,
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="The most launches per second, evenly spaced. With a ledger in PostgreSQL, it holds for all processes "
        "that use the account. Default: no limit.",
        rich_help_panel=PACE,
    ),
]
MaxLaunches = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Send at most this many launches or stops.", rich_help_panel=GUARDS),
]
StopAfterFailures = Annotated[
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
AccountChanged = Annotated[
    bool,
    typer.Option(
        "--account-changed",
        help="The account of the run has a new token or a new name: resume the run with the current one.",
        rich_help_panel=LEDGER,
    ),
]
Copied = Annotated[
    bool,
    typer.Option(
        "--copied",
        help="The ledger file is a copy, and its original is out of use: use the copy.",
        rich_help_panel=LEDGER,
    ),
]
EndHolder = Annotated[
    bool,
    typer.Option(
        "--end-holder",
        help="If the process that holds the run hangs or is suspended, end it and take the run over. A working "
        "process is never ended: use stop-run.",
        rich_help_panel=LEDGER,
    ),
]
Sandbox = Annotated[
    bool,
    typer.Option(
        "--sandbox",
        help="Send everything to a sandbox on this machine, which ends with the command. Needs no account and asks "
        "nothing.",
        rich_help_panel=CONNECTION,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show the requests and send none. Needs no token and no connection.", rich_help_panel=GUARDS
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Go on without a question.", rich_help_panel=GUARDS)]
Json = Annotated[
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
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show failures and the summary, but no progress.", rich_help_panel=OUTPUT)
]
Audience = Annotated[
    str | None,
    typer.Option(
        metavar="KIND:ID",
        help="Send this launch to another audience than the mailing's own: list:1 or segment:5.",
        rich_help_panel=LAUNCH,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help="The sending limit of this launch.", rich_help_panel=LAUNCH),
]
Content = Annotated[
    str | None,
    typer.Option(
        metavar="JSON|@FILE",
        help="A JSON object with the apicontent variables, or @ and the name of a file that holds it.",
        rich_help_panel=LAUNCH,
    ),
]
Attach = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="PATH", help="A file to attach to the messages. May be given several times.", rich_help_panel=LAUNCH
    ),
]

LedgerArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="LEDGER", help="A file or a URL. Default: DISPATCHKIT_LEDGER, else your own file."),
]
RunArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="LEDGER RUN",
        help="A file or a URL, and the name of a run. Default: DISPATCHKIT_LEDGER, else your own file. A single run "
        "needs no name.",
    ),
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
RunOfLedger = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The name of the run. A single run needs no name.", rich_help_panel=LEDGER),
]

"""``dispatchkit worker``: launch what was planned with ``dispatchkit plan``, until told to stop."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dispatchkit.cli.commands.plan import LEDGER
from dispatchkit.cli.options import give_up_seconds

__all__ = ["worker"]


def worker(
    *,
    ledger: Annotated[str, LEDGER],
    chunks: Annotated[int, typer.Option(metavar="N", min=1, help="How many chunks at the same time.")] = 1,
    concurrency: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many calls are in flight at most, for each chunk.")
    ] = 64,
    url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROVIDER=URL",
            help="The host of a provider, such as altcraft=https://your-platform; once for each. Default: what the "
            "provider's variable holds (DISPATCHKIT_ALTCRAFT_URL), or the provider's own host.",
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow plain http to another machine. It shows the token on the way.")
    ] = False,
    proxy: Annotated[str | None, typer.Option(metavar="URL", help="Go through this HTTP proxy.")] = None,
    account: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The name of the provider's account. Only runs that were planned for it are launched, whatever token "
            "it has by then.",
        ),
    ] = None,
    give_up_after: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Give a chunk back, and leave its run out for a minute, when the provider has answered nothing for so "
            "long: 90s, 15m, 1h, or never. Default: 1h.",
        ),
    ] = None,
    never_repeat: Annotated[
        bool,
        typer.Option(
            "--never-repeat",
            help="Never launch anew what may have been launched already. It is only looked up, and else stays unknown.",
        ),
    ] = False,
) -> None:
    """Launch what was planned with 'dispatchkit plan', until Ctrl-C or SIGTERM. As many workers may run as you like.

    Each provider's token comes from its variable, such as DISPATCHKIT_DIRECT_TOKEN. The first Ctrl-C starts nothing new
    and awaits what is in flight, for half a minute at most. The second gives that up.
    """
    from dispatchkit import RetryPolicy  # noqa: PLC0415 - heavy
    from dispatchkit.cli.input.values import exit_on_user_error  # noqa: PLC0415 - heavy
    from dispatchkit.cli.loop import run_loop  # noqa: PLC0415 - heavy
    from dispatchkit.cli.run.worker import parse_urls, run_worker  # noqa: PLC0415 - heavy
    from dispatchkit.cli.text import escape_control, write  # noqa: PLC0415 - heavy
    from dispatchkit.ledger.address import Address  # noqa: PLC0415 - heavy

    with exit_on_user_error():
        retry = RetryPolicy(repeat_unclear=False) if never_repeat else None
        silence = give_up_seconds(give_up_after)
        working = run_worker(
            Address.of(ledger),
            urls=parse_urls(url or []),
            insecure=insecure,
            proxy=proxy,
            account=account,
            chunks=chunks,
            concurrency=concurrency,
            retry=retry,
            give_up_after=silence,
        )
        ended = run_loop(working)
    if ended is not None:
        write(sys.stderr, f"dispatchkit: {escape_control(str(ended))}\n")
        raise typer.Exit(1)

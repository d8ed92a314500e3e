"""``dispatchkit worker``: launch what was planned with ``dispatchkit plan``, until told to stop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from dispatchkit.cli.commands.plan import LEDGER
from dispatchkit.cli.options import give_up_seconds

if TYPE_CHECKING:
    from dispatchkit import AltcraftClient, DirectClient

__all__ = ["worker"]


def worker(
    *,
    ledger: Annotated[str, LEDGER],
    chunks: Annotated[int, typer.Option(metavar="N", min=1, help="How many chunks at the same time.")] = 1,
    concurrency: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many calls are in flight at most, for each chunk.")
    ] = 64,
    direct_url: Annotated[
        str, typer.Option(metavar="URL", help="The host of i-Digital Direct, as scheme://host[:port].")
    ] = "https://direct.i-dgtl.ru",
    altcraft_url: Annotated[
        str | None,
        typer.Option(metavar="URL", envvar="DISPATCHKIT_ALTCRAFT_URL", help="Your Altcraft platform, likewise."),
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

    The tokens come from DISPATCHKIT_DIRECT_TOKEN and DISPATCHKIT_ALTCRAFT_TOKEN. The first Ctrl-C starts nothing new
    and awaits what is in flight, for half a minute at most. The second gives that up.
    """
    from dispatchkit import RetryPolicy  # noqa: PLC0415 - heavy
    from dispatchkit.cli.input.values import exit_on_user_error  # noqa: PLC0415 - heavy
    from dispatchkit.cli.loop import run_loop  # noqa: PLC0415 - heavy
    from dispatchkit.cli.run.worker import run_worker  # noqa: PLC0415 - heavy
    from dispatchkit.cli.text import escape_control, write  # noqa: PLC0415 - heavy
    from dispatchkit.ledger.address import Address  # noqa: PLC0415 - heavy

    def client(provider: str, wire: str) -> DirectClient | AltcraftClient:
        from dispatchkit import AltcraftClient, DirectClient  # noqa: PLC0415 - heavy

        if provider == "direct":
            return DirectClient(base_url=direct_url, insecure=insecure, proxy=proxy, account=account)
        if provider != "altcraft":
            raise ValueError(f"the run is of a provider that this release does not know: {provider!r}")
        if wire not in {"json", "xml"}:
            raise ValueError(f"the run is of a wire that this release does not know: {wire!r}")
        return AltcraftClient(altcraft_url, wire=wire, insecure=insecure, proxy=proxy, account=account)  # type: ignore[arg-type]

    with exit_on_user_error():
        retry = RetryPolicy(repeat_unclear=False) if never_repeat else None
        silence = give_up_seconds(give_up_after)
        address = Address.of(ledger)
        ended = run_loop(
            run_worker(address, client, chunks=chunks, concurrency=concurrency, retry=retry, give_up_after=silence)
        )
    if ended is not None:
        write(sys.stderr, f"dispatchkit: {escape_control(str(ended))}\n")
        raise typer.Exit(1)

"""``dispatchkit sandbox``: serve, print how to use it, and list the acts at the end."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import TYPE_CHECKING

from dispatchkit.cli.input.ids import from_arguments
from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.invocation import command_line
from dispatchkit.cli.loop import on_interrupt, run_loop
from dispatchkit.cli.text import write
from dispatchkit.cli.translate import _, ngettext
from dispatchkit.sandbox import Ids, Sandbox

if TYPE_CHECKING:
    from dispatchkit.cli.commands.sandbox import SandboxOptions

__all__ = ["serve", "summary"]


def serve(options: SandboxOptions) -> None:
    """Serve until Ctrl-C.

    Raises:
        typer.Exit: With status 2; the port is taken, or an id is none.
    """
    with exit_on_user_error():
        sandbox = Sandbox(
            port=options.port,
            dispatches=_ids("--dispatches", options.dispatches),
            mailings=_ids("--mailings", options.mailings),
            active=() if options.active is None else _ids("--active", options.active),
            deduplicates=options.deduplicates,
        )
        run_loop(_until_interrupted(sandbox, options.dispatches, options.mailings, options.active))


def _ids(option: str, text: str) -> Ids:
    try:
        return Ids(*from_arguments([text]).parts)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


async def _until_interrupted(sandbox: Sandbox, dispatches: str, mailings: str, active: str | None) -> None:
    ended = asyncio.Event()
    with on_interrupt(ended.set):
        async with sandbox:
            first = dispatches.replace(",", "-").partition("-")[0]
            mailing = mailings.replace(",", "-").partition("-")[0]
            write(
                sys.stdout,
                _(
                    "Both providers at {url}, until Ctrl-C.\n"
                    "Direct: dispatches {dispatches}, token {direct_token}\n"
                    "Altcraft: mailings {mailings}, active {active}, token {altcraft_token}\n\n"
                    "In another terminal:"
                ).format(
                    url=sandbox.url,
                    dispatches=dispatches,
                    direct_token=sandbox.direct_token,
                    mailings=mailings,
                    active=active or _("none"),
                    altcraft_token=sandbox.altcraft_token,
                )
                + f"\n\nexport DISPATCHKIT_DIRECT_URL={sandbox.url} DISPATCHKIT_DIRECT_TOKEN={sandbox.direct_token}\n"
                f"export DISPATCHKIT_ALTCRAFT_URL={sandbox.url} DISPATCHKIT_ALTCRAFT_TOKEN={sandbox.altcraft_token}\n"
                f"{command_line('direct', 'start', first, '--base-url', sandbox.url)}\n"
                f"{command_line('altcraft', 'activate', mailing, '--run-now', '--base-url', sandbox.url)}\n\n",
            )
            await ended.wait()
        write(sys.stdout, summary(sandbox))


def summary(sandbox: Sandbox) -> str:
    """The acts by kind, and the ids that were launched more than once."""
    acts = Counter((act.provider, act.action) for act in sandbox.acts)
    lines = [ngettext("{count:,} request.", "{count:,} requests.", sandbox.requests).format(count=sandbox.requests)]
    lines += [f"{provider} {action}: {count:,}" for (provider, action), count in sorted(acts.items())]
    twice = [
        ngettext(
            "{provider} {number}: launched {count} time", "{provider} {number}: launched {count} times", count
        ).format(provider=provider, number=number, count=count)
        for provider, launches in (("direct", sandbox.direct.launches), ("altcraft", sandbox.altcraft.launches))
        for number, count in launches.items()
        if count > 1
    ]
    lines += twice[:20]
    if len(twice) > 20:
        more = len(twice) - 20
        lines.append(
            ngettext(
                "and {count:,} more id launched more than once", "and {count:,} more ids launched more than once", more
            ).format(count=more)
        )
    return "\n".join(lines) + "\n"

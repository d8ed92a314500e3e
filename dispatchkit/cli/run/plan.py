"""Plan a run in chunks, for workers on any number of machines."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

import dispatchkit
from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.invocation import command_line
from dispatchkit.cli.lazy import load
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.run.earlier import in_other_runs
from dispatchkit.cli.text import counted, escape_control, write
from dispatchkit.cli.translate import _, ngettext
from dispatchkit.errors import AccountMismatchError, LedgerError, RepeatedTargetsError
from dispatchkit.providers import installed_provider

if TYPE_CHECKING:
    from dispatchkit.cli.invocation import PlanOptions
    from dispatchkit.cli.options import RunOptions
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command

__all__ = ["plan_run"]

W = TypeVar("W")
R = TypeVar("R")

_NAMED = 5
"""Other runs that a refusal names."""


def plan_run(
    plan: PlanOptions,
    options: RunOptions,
    client: Client[W],
    commands: Iterable[Command[W, R]],
    *,
    total: int,
    noun: tuple[str, str],
    repeat_window: float | None,
) -> NoReturn:
    """Plan the run, and hand its chunks to the workers.

    Args:
        plan: The run, its ledger and its pace.
        options: The options of the launch.
        client: Whose commands they are.
        commands: What is planned.
        total: How many they are.
        noun: What they are about: the word for one, and for many.
        repeat_window: Seconds within which no other run may have launched one of them.

    Raises:
        typer.Exit: Always, with the exit status.
    """
    with exit_on_user_error():
        chunks = run_loop(_plan(plan, options, client, commands, repeat_window))
    text = ngettext(
        "Planned {targets} in {count:,} chunk as run {run!r}. To launch them: {line}",
        "Planned {targets} in {count:,} chunks as run {run!r}. To launch them: {line}",
        chunks,
    ).format(
        targets=counted(total, *noun),
        count=chunks,
        run=escape_control(plan.run),
        line=escape_control(_worker(options, client)),
    )
    write(sys.stdout, f"{text}\n")
    raise typer.Exit(0)


def _repeated(error: RepeatedTargetsError, plan: PlanOptions, options: RunOptions) -> str:
    """A refusal of repeats, with the line that plans all the same. The run that was refused keeps its window."""
    runs = sorted(error.runs.items(), key=lambda item: -item[1])
    count = sum(error.runs.values())
    named = [_("{count:,} in run {name!r}").format(count=number, name=name) for name, number in runs[:_NAMED]]
    others = ", ".join([*named, *in_other_runs(len(runs) - _NAMED)])
    all_the_same = options.invocation.again("--again", without=("repeat_window",), instead={"run": f"{plan.run}-2"})
    return ngettext(
        "{count:,} of these ids was launched, or may have been: {others}. No worker launches any of the run. Leave "
        "them out, or plan all the same as another run: {line}",
        "{count:,} of these ids were launched, or may have been: {others}. No worker launches any of the run. Leave "
        "them out, or plan all the same as another run: {line}",
        count,
    ).format(count=count, others=others, line=all_the_same)


def _worker(options: RunOptions, client: Client[W]) -> str:
    """The line that starts a worker on any machine which has the environment of this one."""
    given = options.invocation.given
    base_url = client._settings()["base_url"]
    url = [] if base_url == _own_url(client.provider) else ["--url", f"{client.provider}={base_url}"]
    reach = given("insecure", "proxy", "ca_file", "client_cert", "client_key", "account")
    return command_line("worker", *given("ledger"), *url, *reach)


def _own_url(provider: str) -> str | None:
    """The host that a worker takes without ``--url``, if there is one."""
    try:
        return installed_provider(provider).own_url().rstrip("/")
    except ValueError:
        return None


async def _plan(
    plan: PlanOptions,
    options: RunOptions,
    client: Client[W],
    commands: Iterable[Command[W, R]],
    repeat_window: float | None,
) -> int:
    # They need the extra workers.
    plan_chunks = load("dispatchkit.workers:plan_chunks")
    in_postgres = load("dispatchkit.workers.chunk:in_postgres")
    enqueue = load("dispatchkit.workers.procrastinate_queue:enqueue")
    async with client, dispatchkit.Ledger(plan.ledger) as ledger:
        if options.account_changed:
            await ledger.change_account(plan.run, client)
        try:
            chunks = await plan_chunks(
                ledger,
                plan.run,
                client,
                commands,
                size=plan.chunk_size,
                rate=plan.rate,
                concurrency=plan.concurrency,
                repeat_window=repeat_window,
            )
        except AccountMismatchError:
            raise LedgerError(
                _(
                    "run {run!r} was planned for another account, or with another token: nothing was planned. "
                    "Use the token (and the --account) of that account. If it is the same account with a new "
                    "token or name: {line}"
                ).format(run=plan.run, line=options.invocation.again("--account-changed"))
            ) from None
        except RepeatedTargetsError as error:
            raise LedgerError(_repeated(error, plan, options)) from None
        await enqueue(await in_postgres(ledger), ((plan.run, chunk) for chunk in chunks))
    return len(chunks)

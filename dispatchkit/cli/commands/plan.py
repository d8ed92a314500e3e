"""``dispatchkit spread``: plan a run for workers on any number of machines. What follows is the launch, as always."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Never, NoReturn, TypeVar, cast

import typer

from dispatchkit.cli.commands import altcraft, direct

if TYPE_CHECKING:
    from dispatchkit.cli.options import RunOptions
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command

__all__ = ["LEDGER", "Spread", "app", "spreading"]

R = TypeVar("R")
W = TypeVar("W")

LEDGER = typer.Option(
    envvar="DISPATCHKIT_LEDGER", metavar="URL", help="The ledger that all share: postgresql://user@host:port/database."
)

_spreading: ContextVar[Spread | None] = ContextVar("spreading", default=None)

app = typer.Typer(no_args_is_help=True, help="Plan a run in chunks, for workers on any number of machines.")


def _launches(commands: typer.Typer) -> typer.Typer:
    """Only what acts on ids, not what reads."""
    some = typer.Typer(no_args_is_help=True, help=commands.info.help)
    some.registered_commands = [
        each
        for each in commands.registered_commands
        if each.callback is not None and each.callback.__name__ in {"start", "stop", "activate", "launch", "deactivate"}
    ]
    return some


app.add_typer(_launches(direct.app), name="direct")
app.add_typer(_launches(altcraft.app), name="altcraft")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """What comes before the launch on the command line."""

    ledger: str
    run: str
    from_: str | None
    chunk_size: int
    rate: float | None
    concurrency: int | None

    def adopt(self, options: RunOptions) -> RunOptions:
        """The options of the launch, with those that stand before it.

        Raises:
            ValueError: They contradict each other, or do not go with a run that is launched later.
        """
        here = {
            "--ledger": options.ledger,
            "--run": options.run,
            "--sandbox": options.sandbox,
            "--json": options.json,
            "--failures": options.failures,
            "--max-launches": options.max_launches,
            "--stop-after-failures": options.stop_after_failures,
            "--give-up-after": options.give_up_after,
            "--never-repeat": options.never_repeat,
            "--copied": options.copied,
            "--end-holder": options.end_holder,
        }
        for name, value in here.items():
            if value:
                raise ValueError(f"{name} does not go with spread: workers launch what is planned here")
        if options.rate is not None or options.concurrency != "64":
            raise ValueError("with spread, --rate and --concurrency stand before the launch: they hold for all workers")
        if self.from_ is not None:
            if options.from_ is not None:
                raise ValueError("--from is given twice")
            options = dataclasses.replace(options, from_=self.from_)
        return options

    def plan(
        self,
        client: Client[W],
        commands: Iterable[Command[W, R]],
        total: int,
        noun: tuple[str, str],
        *,
        account_changed: bool,
    ) -> NoReturn:
        """Plan the run, and hand its chunks to the workers.

        Args:
            client: Whose commands they are.
            commands: What is planned.
            total: How many they are.
            noun: What they are about: the word for one, and for many.
            account_changed: Whether the run's account has a new token or name, which is the client's.

        Raises:
            typer.Exit: Always, with the exit status.
        """
        from dispatchkit.cli.input.values import mistakes_in_one_line  # noqa: PLC0415 - heavy
        from dispatchkit.cli.output.text import clean, put  # noqa: PLC0415 - heavy
        from dispatchkit.cli.run.drive import run_loop  # noqa: PLC0415 - heavy
        from dispatchkit.errors import LedgerError  # noqa: PLC0415 - heavy

        try:
            with mistakes_in_one_line():
                chunks = run_loop(self._plan(client, commands, account_changed=account_changed))
        except LedgerError as error:
            put(sys.stderr, f"dispatchkit: {clean(str(error))}\n")
            raise typer.Exit(1) from None
        put(
            sys.stdout,
            f"Planned {total:,} {noun[total != 1]} in {chunks:,} {'chunk' if chunks == 1 else 'chunks'} as the run "
            f"{clean(self.run)!r}. Workers launch them: dispatchkit worker\n",
        )
        raise typer.Exit(0)

    async def _plan(self, client: Client[W], commands: Iterable[Command[W, R]], *, account_changed: bool) -> int:
        from dispatchkit import Ledger  # noqa: PLC0415 - heavy
        from dispatchkit.errors import AccountMismatchError, LedgerError  # noqa: PLC0415 - heavy
        from dispatchkit.workers import plan_chunks  # noqa: PLC0415 - heavy
        from dispatchkit.workers.chunk import in_postgres  # noqa: PLC0415 - an extra
        from dispatchkit.workers.procrastinate_queue import enqueue  # noqa: PLC0415 - an extra

        async with client, Ledger(self.ledger) as ledger:
            if account_changed:
                await ledger.change_account(self.run, cast("Client[Never]", client))
            try:
                chunks = await plan_chunks(
                    ledger,
                    self.run,
                    client,
                    commands,
                    size=self.chunk_size,
                    rate=self.rate,
                    concurrency=self.concurrency,
                )
            except AccountMismatchError:
                raise LedgerError(
                    f"run {self.run!r} was planned for another account, or with another token of this one: nothing was "
                    "planned. Use the token (and the --account) of that account. If it is the same account with a new "
                    "token or name: the same command with --account-changed"
                ) from None
            await enqueue(self.ledger, await in_postgres(ledger), ((self.run, chunk) for chunk in chunks))
        return len(chunks)


@app.callback()
def spread(
    context: typer.Context,
    *,
    ledger: Annotated[str, LEDGER],
    run: Annotated[str, typer.Option(metavar="NAME", help="What to call the run.")],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="As after the launch: read the ids from a file.")
    ] = None,
    chunk_size: Annotated[int, typer.Option(metavar="N", min=1, help="How many launches make a chunk.")] = 1000,
    rate: Annotated[
        float | None, typer.Option(metavar="N", help="Launches a second at most, of all workers together.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Calls in flight at most, of all workers together.")
    ] = None,
) -> None:
    """Plan a run in chunks, for workers on any number of machines.

    dispatchkit spread --run NAME --from ids.csv direct start
    """
    found = Spread(ledger=ledger, run=run, from_=from_, chunk_size=chunk_size, rate=rate, concurrency=concurrency)
    before = _spreading.set(found)
    context.call_on_close(lambda: _spreading.reset(before))


def spreading() -> Spread | None:
    """What came before the launch on the command line, if it is to be spread."""
    return _spreading.get()

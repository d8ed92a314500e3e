"""Plan a run in chunks, for workers on any number of machines."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Never, NoReturn, TypeVar, cast

import typer

if TYPE_CHECKING:
    from dispatchkit.cli.options import RunOptions
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command

__all__ = ["PlanOptions", "plan_options"]

W = TypeVar("W")
R = TypeVar("R")
_plan_options: ContextVar[PlanOptions | None] = ContextVar("plan_options", default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What comes before the launch on the command line."""

    ledger: str = dataclasses.field(repr=False)
    run: str
    from_: str | None
    chunk_size: int
    rate: float | None
    concurrency: int | None

    def merge_options(self, options: RunOptions) -> RunOptions:
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
                raise ValueError(f"{name} does not go with plan: workers launch what is planned here")
        if options.rate is not None or options.concurrency != "64":
            raise ValueError("with plan, --rate and --concurrency stand before the launch: they hold for all workers")
        if self.from_ is not None:
            if options.from_ is not None:
                raise ValueError("--from is given twice")
            options = dataclasses.replace(options, from_=self.from_)
        return options

    def select(self) -> Callable[[], None]:
        """Let the launch that follows on the command line be planned. Returns what takes that back."""
        before = _plan_options.set(self)
        return lambda: _plan_options.reset(before)

    def plan(
        self,
        client: Client[W],
        commands: Iterable[Command[W, R]],
        total: int,
        noun: tuple[str, str],
        options: RunOptions,
    ) -> NoReturn:
        """Plan the run, and hand its chunks to the workers.

        Args:
            client: Whose commands they are.
            commands: What is planned.
            total: How many they are.
            noun: What they are about: the word for one, and for many.
            options: The options of the launch. Workers need those that say how the provider is reached.

        Raises:
            typer.Exit: Always, with the exit status.
        """
        from dispatchkit.cli.input.values import exit_on_user_error  # noqa: PLC0415 - heavy
        from dispatchkit.cli.loop import run_loop  # noqa: PLC0415 - heavy
        from dispatchkit.cli.text import escape_control, write  # noqa: PLC0415 - heavy
        from dispatchkit.errors import LedgerError  # noqa: PLC0415 - heavy

        try:
            with exit_on_user_error():
                chunks = run_loop(self._plan(client, commands, account_changed=options.account_changed))
        except LedgerError as error:
            write(sys.stderr, f"dispatchkit: {escape_control(str(error))}\n")
            raise typer.Exit(1) from None
        write(
            sys.stdout,
            f"Planned {total:,} {noun[total != 1]} in {chunks:,} {'chunk' if chunks == 1 else 'chunks'} as the run "
            f"{escape_control(self.run)!r}. Workers launch them: {escape_control(self._worker(client, options))}\n",
        )
        raise typer.Exit(0)

    def _worker(self, client: Client[W], options: RunOptions) -> str:
        """The line that starts a worker on any machine that has the token in its environment."""
        from dispatchkit.cli.input.ledger_ref import LedgerRef  # noqa: PLC0415 - heavy
        from dispatchkit.cli.text import redact_urls  # noqa: PLC0415 - heavy
        from dispatchkit.providers import installed_provider  # noqa: PLC0415 - heavy

        words = list[str]()
        base_url = client.settings()["base_url"]
        if base_url != installed_provider(client.provider).base_url:
            words += ["--url", f"{client.provider}={base_url}"]
        if options.insecure:
            words.append("--insecure")
        if options.proxy is not None:
            words += ["--proxy", redact_urls(options.proxy)]
        if options.account is not None:
            words += ["--account", options.account]
        named = os.environ.get("DISPATCHKIT_LEDGER") != self.ledger
        return LedgerRef(self.ledger, self.run, named).worker(*words)

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
            await enqueue(await in_postgres(ledger), ((self.run, chunk) for chunk in chunks))
        return len(chunks)


def plan_options() -> PlanOptions | None:
    """What came before the launch on the command line, if it is to be planned."""
    return _plan_options.get()

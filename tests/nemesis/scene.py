"""One run under one fault: its provider, its ledger, its processes, and how it is brought to an end."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from tests.nemesis.book import Book
from tests.nemesis.command import Command
from tests.nemesis.database import Server
from tests.nemesis.judge import Report, Verdict, judge
from tests.nemesis.provider import Provider
from tests.nemesis.proxy import GRANTED, Proxy
from tests.nemesis.times import Times

__all__ = ["Kind", "NotFiredError", "Plays", "Scene", "Store", "check_times"]

Store = Literal["sqlite", "postgres"]
Kind = Literal["command", "worker"]
Plays = Literal["direct", "altcraft"]

_MANY = 4
"""So many claims at least are unsent when a process is suspended as the database grants some."""
_TOKEN = "dG9rZW4="
_RUN = "nemesis"


class NotFiredError(Exception):
    """The fault did not come at the right moment: the run proves nothing, and is repeated with another seed."""


@dataclasses.dataclass
class Scene:
    """What a fault has to work with. The harness makes one for each run, and `close`s it."""

    fault: str
    store: Store
    kind: Kind
    chance: random.Random
    times: Times
    total: int
    loop: str
    """``asyncio`` or ``uvloop``."""
    plays: Plays = "direct"
    """The provider that is played."""
    server: Server | None = None
    """A PostgreSQL server for all runs; a fault that harms the server itself has its own."""

    provider: Provider = dataclasses.field(init=False)
    proxy: Proxy | None = dataclasses.field(init=False, default=None)
    """Between the first process and its database. Every other process goes past it."""
    book: Book = dataclasses.field(init=False)
    commands: list[Command] = dataclasses.field(init=False, default_factory=list)
    quiet: list[tuple[float, float]] = dataclasses.field(init=False, default_factory=list)
    """Times between which no start may arrive."""
    proof: list[str] = dataclasses.field(init=False, default_factory=list)
    """What shows that the fault came at the right moment."""
    extra: Verdict = dataclasses.field(init=False, default_factory=Verdict)
    """What the fault itself has found to be false."""
    environment: dict[str, str] = dataclasses.field(init=False, default_factory=dict)
    finish_by: Callable[[], Awaitable[None]] | None = dataclasses.field(init=False, default=None)
    """What brings the run to its end, where it is not an operator."""
    clean_up: list[Callable[[], Awaitable[object]]] = dataclasses.field(init=False, default_factory=list)
    """What is undone at the end, however the run ended."""

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nemesis-"))
        self.provider = Provider(
            random.Random(self.chance.random()), late=self.chance.choice((0.0, 0.003)), latest=0.7 * self.times.lag
        )
        # Workers make their clients themselves, with the default of the platform.
        self.provider.deduplicates = self.kind == "worker" or self.chance.random() < 0.5
        self.first = self.chance.randrange(1, 10**11)  # ids do not fit 32 bits
        self._database = f"nemesis_{self.chance.randrange(16**12):012x}"
        self._dsn = ""

    def through_proxy(self) -> None:
        """Have every process go through the proxy, as the server behind it changes."""
        self._dsn = self.proxied
        self.book = Book(self._dsn)

    def use_copy(self, path: Path) -> None:
        """Go on with another file, which is judged at the end."""
        self._dsn = str(path)
        self.book = Book(self._dsn)

    def hung(self, name: str, what: str = "did not end") -> None:
        """Count a process that does not end as a false report: it says that it is at work."""
        self.extra.false += 1
        self.extra.note(f"{name} {what}")

    async def open(self) -> None:
        """Start the provider, and make an empty ledger."""
        await self.provider.open()
        if self.store == "postgres":
            assert self.server is not None
            await self.server.database(self._database)
            self.proxy = Proxy(self.server.port)
            await self.proxy.open()
            self._dsn = self.server.dsn(self._database)
        self.book = Book(self.ledger)

    async def close(self) -> None:
        """End and remove all that is this run's."""
        for command in self.commands:
            await command.end()
        for undo in self.clean_up:
            with contextlib.suppress(Exception):
                await undo()
        await self.book.close()
        await self.provider.close()
        if self.proxy is not None:
            await self.proxy.close()
        if self.server is not None:
            with contextlib.suppress(Exception):
                await self.server.drop(self._database)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def targets(self) -> range:
        """The ids."""
        return range(self.first, self.first + self.total)

    @property
    def ledger(self) -> str:
        """The ledger, past the proxy."""
        return self._dsn or str(self.folder / "ledger.db")

    @property
    def proxied(self) -> str:
        """The ledger, through the proxy where there is one."""
        if self.proxy is None or self.server is None:
            return self.ledger
        return self.server.dsn(self._database, port=self.proxy.port)

    # Processes

    async def run(
        self, name: str, *words: object, before: Sequence[str] = (), more: dict[str, str] | None = None
    ) -> Command:
        """Start a process with the scaled times."""
        environment = {
            "NEMESIS": json.dumps({**self.times.constants(), "loop": self.loop}),
            "DISPATCHKIT_DIRECT_TOKEN": _TOKEN,
            "DISPATCHKIT_ALTCRAFT_TOKEN": _TOKEN,
            "PYTHONDONTWRITEBYTECODE": "",
            "SSL_CERT_FILE": "/dev/null",
            **self.environment,
            **(more or {}),
        }
        command = await Command.start(name, [str(word) for word in words], environment, before=before)
        self.commands.append(command)
        return command

    @property
    def _launch(self) -> list[object]:
        """The command that launches the targets."""
        ids = f"{self.first}-{self.first + self.total - 1}"
        if self.plays == "direct":
            return ["direct", "start", ids, "--base-url", self.provider.url]
        deduplicates = "--deduplicates" if self.provider.deduplicates else "--no-deduplicates"
        return ["altcraft", "launch", ids, "--base-url", self.provider.url, deduplicates]

    def _start_words(self, ledger: str) -> list[object]:
        return [*self._launch, "--ledger", ledger, "--run", _RUN, *self._common]

    @property
    def _common(self) -> list[object]:
        return ["--yes", "--quiet", "--json", "--concurrency", 64, "--attempt-timeout", self.times.attempt]

    async def start(self, name: str = "first", *, proxied: bool = True, **settings: Any) -> Command:
        """The first process: the command that plans and launches, or a worker of a run that is planned already."""
        ledger = self.proxied if proxied else self.ledger
        if self.kind == "worker":
            return await self.worker(name, ledger, **settings)
        return await self.run(name, *self._start_words(ledger), **settings)  # type: ignore[arg-type]

    async def plan(self, *, chunks: int = 4) -> None:
        """Plan the run for workers, or for an engine."""
        size = -(-self.total // chunks)
        for word in ("plan", "spread"):
            words = [word, "--ledger", self.ledger, "--run", _RUN, "--chunk-size", size]
            planning = await self.run(word, *words, *self._launch, "--yes")
            if await planning.wait(60) == 0:
                return
        raise RuntimeError(f"the run could not be planned: {planning.last_words()}")

    async def worker(self, name: str, ledger: str | None = None, **settings: Any) -> Command:
        """A worker."""
        words = ["worker", "--ledger", ledger or self.ledger, "--url", f"{self.plays}={self.provider.url}"]
        return await self.run(name, *words, **settings)  # type: ignore[arg-type]

    async def second(self, name: str = "second", *more: object, **settings: Any) -> Command:
        """Another process that goes on with the run, past the proxy."""
        if self.kind == "worker":
            return await self.worker(name, **settings)
        return await self.run(name, "resume", self.ledger, "--run", _RUN, *self._common, *more, **settings)  # type: ignore[arg-type]

    async def begin(self, **settings: Any) -> Command:
        """Plan if need be, start the first process, and wait until it launches."""
        if self.kind == "worker":
            await self.plan()
        first = await self.start(**settings)
        await self.acts(1, first)
        return first

    async def acts(self, count: int, *commands: Command) -> None:
        """Wait until the provider has so many acts.

        Raises:
            NotFiredError: The processes ended before, or it took too long.
        """
        waiting = asyncio.ensure_future(self.provider.acted(count))
        until = time.monotonic() + 60 + 2 * self.times.lag  # an act may be late, and its chunk waits for it
        try:
            while not waiting.done():
                if (commands and not any(command.alive for command in commands)) or time.monotonic() > until:
                    told = " | ".join(command.last_words() for command in commands)
                    raise NotFiredError(f"only {self.provider.count} of {count} acts, then: {told}")
                await asyncio.wait([waiting], timeout=0.05)
        finally:
            waiting.cancel()

    def somewhere(self, least: float = 0.02, most: float = 0.7) -> int:
        """A number of acts at which a fault strikes."""
        return max(2, int(self.total * self.chance.uniform(least, most)))

    # Moments

    async def unsent(self) -> set[int]:
        """Ids that are claimed without an outcome, and whose start has not arrived."""
        claimed = {self.first + index for index in await self.book.open_claims()}
        return {target for target in claimed if not self.provider.arrived.get(target)}

    async def suspend(self, command: Command) -> set[int]:
        """Suspend a process between the claim and the write of some of its launches.

        Not in the middle of a transaction of SQLite: its own lock would keep everybody else away.

        Returns:
            The ids that are claimed and not sent: what it is in danger of launching when it wakes.

        Raises:
            NotFiredError: It was never caught in such a moment.
        """
        if self.proxy is not None and self.chance.random() < 0.6:
            for _ in range(20):
                await self.suspend_at_grant(command, after=self.chance.randrange(3))
                unsent = await self.unsent()
                if len(unsent) >= _MANY:
                    self.proof.append(f"{command.name} in state T at a grant, {len(unsent)} claims unsent, {self.done}")
                    return unsent
                command.wake()
                await asyncio.sleep(0.005)
            raise NotFiredError("too little was claimed and unsent whenever the process was suspended")
        for _ in range(100):
            if not await command.suspend():
                break
            await asyncio.sleep(0.02)  # what is in the sockets arrives
            if (unsent := await self.unsent()) and not self.book.locked():
                self.proof.append(f"{command.name} in state T with {len(unsent)} claims unsent, {self.done}")
                return unsent
            command.wake()
            await asyncio.sleep(self.chance.uniform(0.003, 0.03))
        raise NotFiredError("the process was never suspended between a claim and its write")

    async def suspend_at_grant(self, command: Command, *, after: int = 0, timeout: float = 10.0) -> None:
        """Suspend a process at the very moment in which the database grants claims, before it hears of it.

        Args:
            command: The process; it must use the proxy.
            after: How many grants to let pass.
            timeout: Seconds to wait for it.

        Raises:
            NotFiredError: Nothing was granted.
        """
        assert self.proxy is not None
        struck = asyncio.Event()

        def on_answer(data: bytes) -> None:
            nonlocal after
            if not struck.is_set() and GRANTED in data:
                after -= 1
                if after < 0:
                    command.signal(signal.SIGSTOP)
                    struck.set()

        self.proxy.on_answer = on_answer
        try:
            await asyncio.wait_for(struck.wait(), timeout)
        except TimeoutError:
            raise NotFiredError("no claim was granted any more") from None
        finally:
            self.proxy.on_answer = None
        await asyncio.sleep(0.03)
        if not command.suspended:
            raise NotFiredError("it had ended before it was suspended")

    @property
    def done(self) -> str:
        """How far the provider has come, for people."""
        return f"{self.provider.count} of {self.total} acts"

    async def over(self) -> bool:
        """Whether every target is final, as the ledger's tables say."""
        return await self.book.final() >= self.total

    async def until_over(self, timeout: float, *commands: Command) -> bool:
        """Wait until every target is final, or until the processes have ended."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if await self.over():
                return True
            if commands and not any(command.alive for command in commands):
                return await self.over()
            await asyncio.sleep(0.1)
        return False

    # The end

    async def finish(self) -> None:
        """Go on with the run as an operator would, until nothing is left, within bounds."""
        for command in self.commands:
            command.wake()
        if self.proxy is not None:
            self.proxy.heal()
        if self.kind == "worker":
            await self._finish_workers()
        else:
            for command in self.commands:
                if command.alive and await command.wait(2 * self.times.timeout) is None:
                    self.hung(command.name)
                    await command.kill()
        left = idle = 0
        for number in range(6):
            before, left = left, self.total - await self.book.final()
            idle = idle + 1 if left == before and number else 0
            if not left or idle > 2:
                return  # what stays unknown is no longer worked on
            last = await self.run(f"resume-{number}", "resume", self.ledger, "--run", _RUN, *self._common)
            status = await last.wait(2 * self.times.timeout)
            if status is None:
                self.hung(last.name)
                await last.kill()
            elif status == 0:
                return
            elif status == 2 and self.kind == "command":  # the plan is not whole: the same line again finishes it
                again = await self.run(f"again-{number}", *self._start_words(self.ledger))
                await again.wait(self.times.timeout)
            if status not in {3, None} and not await self.over():
                await asyncio.sleep(self.times.lease / 2)

    async def _finish_workers(self) -> None:
        working = [command for command in self.commands if command.alive and "worker" in command.words]
        if not working:
            working = [await self.worker("last")]
        if not await self.until_over(self.times.timeout, *working):
            left = collections.Counter((await self.states()).values())
            self.proof.append(f"left by the workers: {dict(left)}")
        for each in working:
            each.signal(signal.SIGTERM)
        for each in working:
            if await each.wait(15 + self.times.attempt) is None:
                self.hung(each.name, "did not end after SIGTERM")
                await each.kill()

    async def states(self) -> dict[int, str]:
        """What the ledger reports of each target."""
        export = await self.run("export", "ledger", "export", self.ledger, _RUN, "--json")
        if await export.wait(60) != 0:
            raise RuntimeError(f"the ledger could not be exported: {export.last_words()}")
        return export.told()

    async def verdict(self) -> Verdict:
        """Judge the run, once everything has ended and everything late has happened."""
        late = [max(times) for times in self.provider.arrived.values() if times]
        await asyncio.sleep(
            max(0.2, max(late, default=0) + self.provider.latest - time.monotonic() + 0.1)
            if self.provider.late
            else 0.2
        )
        reports = [
            Report(
                each.name,
                each.began,
                each.ended or time.monotonic(),
                each.status,
                each.told(),
                claims_all=each.words[0] in {"direct", "altcraft", "resume", "engine"},
            )
            for each in self.commands
            if each.words[0] in {"direct", "altcraft", "resume", "worker", "engine"} and "--help" not in each.words
        ]
        found = judge(self.targets, self.provider.acts, await self.states(), reports, self.quiet)
        found.false += self.extra.false
        found.notes += self.extra.notes
        return found


async def check_times(times: Times) -> None:
    """Check that every module of the product has the times that are asked for.

    Raises:
        RuntimeError: One of them has another.
    """
    asked = await Command.start("patched", ["patched"], {"NEMESIS": json.dumps(times.constants())})
    try:
        status = await asked.wait(60)
        if status != 0:
            raise RuntimeError(f"the product's times could not be replaced: {asked.text()} {asked.text(errors=True)}")
    finally:
        await asked.end()

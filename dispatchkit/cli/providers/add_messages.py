"""``dispatchkit direct add-messages``: check a file of messages, ask, and add them batch by batch, in their order.

The run ends with the first batch that is not done: a later one would hide it. What is left is said by line.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import stat
import sys
from contextlib import ExitStack, suppress
from itertools import islice
from typing import TYPE_CHECKING, TextIO

import typer

import dispatchkit
from dispatchkit.built_in.direct import PROVIDER
from dispatchkit.cli.input.profile import with_profile
from dispatchkit.cli.input.question import PRODUCTION, Description, ask
from dispatchkit.cli.input.values import exit_on_user_error, token
from dispatchkit.cli.lazy import load
from dispatchkit.cli.loop import on_interrupt, run_loop
from dispatchkit.cli.option_names import as_options
from dispatchkit.cli.output.tables import as_csv
from dispatchkit.cli.providers.message_file import MessageFile, Row
from dispatchkit.cli.providers.views import read
from dispatchkit.cli.run.dry_run import describe_request
from dispatchkit.cli.settings import client_settings
from dispatchkit.cli.text import counted, escape_control, redact_urls, state_word, write
from dispatchkit.cli.translate import _, ngettext
from dispatchkit.core.call.request import request_of
from dispatchkit.core.secret import Secret
from dispatchkit.direct.commands import STATUSES, DirectAuth, ReadDispatch
from dispatchkit.direct.messages import AddMessages
from dispatchkit.errors import DispatchkitError, RejectedError, State
from dispatchkit.profiles import is_loopback

if TYPE_CHECKING:
    from pathlib import Path

    from dispatchkit import AddedMessages, DirectClient, FanOut, Outcome
    from dispatchkit.cli.commands.direct import AddMessagesOptions

__all__ = ["add_messages"]

_OPEN = ("initiated", "changing")
"""The statuses of a dispatch that may not have been started yet."""
_SHOWN = 20
_INTERRUPTED = 130
_UNKNOWN = 3
"""The exit status where some may have been added."""
_COLUMNS = ("line", "destination", "state", "message_uuid", "error_code")


def add_messages(options: AddMessagesOptions) -> None:
    """Check everything, then show the first request, or ask, add and report.

    Raises:
        typer.Exit: Always, with the exit status.
    """
    with exit_on_user_error():
        options = with_profile(options, PROVIDER)
        ReadDispatch(options.id)
        if options.dry_run and options.json:
            raise ValueError(_("--dry-run shows a request, not results: it does not go with --json"))
        if options.sandbox and options.invocation.given("base_url"):
            raise ValueError(_("give either --sandbox or --base-url, not both: the sandbox is a host of its own"))
        file = MessageFile(options.from_, options.encoding, lambda more: options.invocation.again(*shlex.split(more)))
        file.check()
        if options.expected not in {None, file.count}:
            text = ngettext(
                "there are {count:,} message, but --expected is {expected:,}: nothing was sent",
                "there are {count:,} messages, but --expected is {expected:,}: nothing was sent",
                file.count,
            )
            raise ValueError(text.format(count=file.count, expected=options.expected))
        if options.skip >= file.count:
            text = ngettext(
                "--skip {skip} leaves none of {count:,} message: nothing was sent",
                "--skip {skip} leaves none of {count:,} messages: nothing was sent",
                file.count,
            )
            raise ValueError(text.format(skip=options.skip, count=file.count))
    if options.dry_run:
        _show(options, file)
        raise typer.Exit(0)
    with exit_on_user_error():
        key = "" if options.sandbox else token(options, PROVIDER.token_variable)
        if not options.sandbox:
            _ask(options, file, key)
        results = None if options.results is None else _open_new(options.results)
    with ExitStack() as stack:
        if results is not None:
            stack.enter_context(results)
        with exit_on_user_error():
            code = run_loop(
                _in_sandbox(options, file, results) if options.sandbox else _run(options, file, results, key)
            )
    raise typer.Exit(code)


def _show(options: AddMessagesOptions, file: MessageFile) -> None:
    """Print the first request, and how many there are."""
    left = file.count - options.skip
    with exit_on_user_error():
        batch = next(file.batches(options.batch_size, skip=options.skip))
        command = AddMessages(options.id, [message for _line, message in batch])
        request = request_of(command, DirectAuth(Secret("***", environment=PROVIDER.token_variable)), None)
    host = "http://127.0.0.1" if options.sandbox else (options.base_url or "").rstrip("/")
    text = _("{requests} with {messages}. None was sent.").format(
        requests=counted(-(-left // options.batch_size), "request", "requests"),
        messages=counted(left, "message", "messages"),
    )
    write(sys.stdout, f"{describe_request(request, host)}\n\n{text}\n")


async def _in_sandbox(options: AddMessagesOptions, file: MessageFile, results: TextIO | None) -> int:
    sandbox_type = load("dispatchkit.sandbox:Sandbox")
    async with sandbox_type(dispatches=[options.id]) as sandbox:
        client = dispatchkit.DirectClient(sandbox.direct_token, base_url=sandbox.url, **client_settings(options))
        async with client:
            return await _Run(options, file, results).add(client)


async def _run(options: AddMessagesOptions, file: MessageFile, results: TextIO | None, key: str) -> int:
    async with _client(options, key) as client:
        return await _Run(options, file, results).add(client)


def _client(options: AddMessagesOptions, key: str) -> DirectClient:
    return dispatchkit.DirectClient(key, base_url=options.base_url, **client_settings(options))


def _ask(options: AddMessagesOptions, file: MessageFile, key: str) -> None:
    """Read the dispatch, and ask.

    Raises:
        ValueError: It was started.
        typer.Exit: It cannot be read, or the answer is no.
    """
    dispatch = read(_client(options, key), ReadDispatch(options.id), interrupted=_("Nothing was sent."))
    if dispatch.status in STATUSES and dispatch.status not in _OPEN:
        text = _(
            "dispatch {id} has the status {status!r}: it was started, so it takes no more messages. Nothing was sent"
        )
        raise ValueError(text.format(id=options.id, status=dispatch.status))
    if not options.yes:
        name = dispatch.dispatch_name or _("no name")
        ask(_described(options, file, f"{name}, {dispatch.status}"))


def _described(options: AddMessagesOptions, file: MessageFile, what: str) -> Description:
    left = file.count - options.skip
    host, profile = options.base_url or "", options.invocation.profile
    is_production = not is_loopback(host) if profile is None else profile.is_production_at(host)
    details = [] if profile is None else [(_("profile"), profile.name)]
    details += [
        (_("host"), f"{host}{PRODUCTION}" if is_production else host),
        (_("dispatch"), what),
        (_("file"), file.path),
    ]
    if options.skip:
        details.append((_("left out"), _("the first {count:,}").format(count=options.skip)))
    if file.variables:
        details.append((_("variables"), ", ".join(file.variables)))
    action = ngettext(
        "add {count:,} message to dispatch {id}, which sends none of them yet",
        "add {count:,} messages to dispatch {id}, which sends none of them yet",
        left,
    )
    return Description(action.format(count=left, id=options.id), tuple(details))


def _open_new(path: Path) -> TextIO:
    """Open the file of the results, which only its owner may read.

    Raises:
        ValueError: The file holds something.
        OSError: It cannot be written to.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    stream = os.fdopen(descriptor, "w", encoding="utf-8", newline="")
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        stream.close()
        raise ValueError(
            _("{path} is not empty, and --results writes over nothing: name another file").format(path=path)
        )
    write(stream, as_csv(_COLUMNS, ()))
    return stream


class _Run:
    """Adds the messages of a file, and tells what became of each."""

    def __init__(self, options: AddMessagesOptions, file: MessageFile, results: TextIO | None) -> None:
        self._options = options
        self._file = file
        self._results = results
        self._added = 0
        self._refused: list[str] = []
        self._refused_count = 0
        self._taken = options.skip
        self._reported = options.skip
        """The number of messages that were told of, or left out."""
        self._batch: FanOut[AddedMessages] | None = None
        """The batch that is under way."""
        self._ending: asyncio.Task[None] | None = None
        self._interrupted = False
        self._unwritten = False

    async def add(self, client: DirectClient) -> int:
        """Add all messages. Returns the exit status."""
        try:
            with on_interrupt(self._stop):
                for batch in self._file.batches(self._options.batch_size, skip=self._options.skip):
                    if self._interrupted or self._unwritten or not await self._add(client, batch):
                        break
        except (OSError, ValueError) as error:  # the file was changed meanwhile
            write(sys.stderr, f"dispatchkit: {escape_control(str(error))}\n")
        self._tell_of_rest()
        return self._summary()

    async def _add(self, client: DirectClient, batch: list[Row]) -> bool:
        """Add one batch. Returns whether it is done."""
        command = AddMessages(self._options.id, [message for _line, message in batch], first=self._taken)
        self._batch = dispatchkit.FanOut(client, [command], concurrency=1)
        outcome: Outcome[AddedMessages] | None = None
        with suppress(RejectedError):  # of the token or the account, which the outcome names as well
            async for each in self._batch:
                outcome = each
        if self._ending is not None:
            await self._ending
        if outcome is None:  # it was stopped before its turn
            return False
        if outcome.error is not None:
            self._tell_of_failure(batch, outcome.error)
            return False
        self._taken += len(batch)
        self._tell(batch, outcome.result)
        return True

    def _stop(self) -> None:
        """Start nothing new. The second time, end the batch that is under way."""
        batch = self._batch
        if not self._interrupted:
            self._interrupted = True
            if batch is not None:
                batch.stop()
            self._say(_("Stopping after the batch that is under way. Ctrl-C again cancels it."))
        elif batch is not None and self._ending is None:
            self._ending = asyncio.create_task(batch.close())

    def _say(self, text: str) -> None:
        """Write a line, below the one that shows how far it is."""
        write(sys.stderr, f"\r\x1b[K{text}\n" if self._is_live else f"{text}\n")

    @property
    def _is_live(self) -> bool:
        return sys.stderr.isatty() and not self._options.json

    def _tell_of_rest(self) -> None:
        """Tell of the messages that were not sent. Unless it is asked for, nothing lists them one by one."""
        if self._results is None and not self._options.json:
            return
        with suppress(OSError, ValueError):  # the file was changed meanwhile, which is said already
            for batch in self._file.batches(self._options.batch_size, skip=self._reported):
                if self._unwritten:
                    break
                self._write([(line, message.destination, State.NOT_SENT.value, None, None) for line, message in batch])

    def _tell(self, batch: list[Row], added: AddedMessages) -> None:
        self._added += added.added
        self._refused_count += added.refused
        rows = [
            (
                line,
                result.destination,
                "added" if result.is_added else "refused",
                result.message_uuid,
                result.error_code,
            )
            for (line, _message), result in zip(batch, added.results, strict=True)
        ]
        refused = ((line, code) for line, _destination, state, _uuid, code in rows if state == "refused")
        for line, code in islice(refused, max(0, _SHOWN - len(self._refused))):
            text = _("line {line:,}: the provider refused the message with code {code}")
            self._refused.append(text.format(line=line, code=code))
        self._write(rows)
        if self._is_live:
            text = _("{done:,} of {total:,}").format(done=self._taken, total=self._file.count)
            write(sys.stderr, f"\r{text}\x1b[K")

    def _tell_of_failure(self, batch: list[Row], error: DispatchkitError) -> None:
        if error.state is State.UNKNOWN:
            self._taken += len(batch)
        self._write([(line, message.destination, error.state.value, None, None) for line, message in batch])
        lines = _("Lines {first:,} to {last:,}: {state}: ").format(
            first=batch[0][0], last=batch[-1][0], state=state_word(error.state.value)
        )
        text = f"{as_options(error.summary)}. {as_options(error.hint)}"
        self._say(escape_control(redact_urls(lines + text)))

    def _write(self, rows: list[tuple[int, str, str, str | None, int | None]]) -> None:
        self._reported += len(rows)
        if self._results is not None and not self._unwritten:
            self._unwritten = not write(
                self._results, as_csv(None, (dict(zip(_COLUMNS, row, strict=True)) for row in rows))
            )
        if self._options.json:
            # A log may keep standard output, so it names no destination.
            keys = [name for name in _COLUMNS if name != "destination"]
            objects = ({key: value for key, value in zip(_COLUMNS, row, strict=True) if key in keys} for row in rows)
            write(sys.stdout, "".join(f"{json.dumps(fields)}\n" for fields in objects))

    def _summary(self) -> int:
        if self._is_live:
            write(sys.stderr, "\r\x1b[K")
        for text in self._refused:
            write(sys.stderr, f"{text}\n")
        if self._refused_count > len(self._refused):
            more = self._refused_count - len(self._refused)
            write(sys.stderr, _("and {count:,} more").format(count=more) + "\n")
        left = self._file.count - self._taken
        unknown = self._taken - self._options.skip - self._added - self._refused_count
        text = ngettext(
            "Added {count:,} message to dispatch {id}; {refused:,} refused, {unknown:,} unknown, {left:,} not sent.",
            "Added {count:,} messages to dispatch {id}; {refused:,} refused, {unknown:,} unknown, {left:,} not sent.",
            self._added,
        ).format(count=self._added, id=self._options.id, refused=self._refused_count, unknown=unknown, left=left)
        out = sys.stderr if self._options.json else sys.stdout
        write(out, f"{text}\n")
        if left:
            again = self._options.invocation.again("--skip", str(self._taken), without=("skip", "results"))
            write(sys.stderr, _("To add the rest: {line}").format(line=again) + "\n")
        if self._unwritten:
            write(sys.stderr, _("The results could not be written, so nothing more was sent.") + "\n")
        if unknown:
            return _UNKNOWN
        if self._interrupted and left:
            return _INTERRUPTED
        return int(left > 0 or self._refused_count > 0 or self._unwritten)

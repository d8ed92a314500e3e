"""``dispatchkit altcraft status`` and ``log``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from dispatchkit import AltcraftClient, MailingProgress
from dispatchkit.altcraft.reads import ReadLog, ReadStatus
from dispatchkit.built_in.altcraft import PROVIDER
from dispatchkit.cli.input.profile import with_profile
from dispatchkit.cli.input.values import exit_on_user_error, token
from dispatchkit.cli.output.watch import WatchForm, show_once, show_watch, unread_note
from dispatchkit.cli.providers.views import moment, read, read_ids, show_log, show_statuses
from dispatchkit.cli.providers.watch_times import watch_times
from dispatchkit.cli.settings import client_settings
from dispatchkit.cli.translate import N_, _, ngettext

if TYPE_CHECKING:
    from dispatchkit.cli.commands.altcraft import AltcraftReadOptions, LogOptions, StatusOptions

__all__ = ["connect", "log", "status"]


def _state(progress: MailingProgress) -> str | None:
    if progress.is_active is None:
        return None
    if progress.starts > progress.ends:
        return _("started")
    if progress.is_completed:
        return _("completed")
    return _("active") if progress.is_active else _("not active")


def _log_note(progress: MailingProgress) -> str | None:
    missing = (
        ngettext(
            "{count:,} entries of the log not listed", "{count:,} entries of the log not listed", progress.log_missing
        ).format(count=progress.log_missing)
        if progress.log_missing
        else None
    )
    return "; ".join(filter(None, (missing, progress.last_error))) or None


_FORM: WatchForm[MailingProgress] = WatchForm(
    noun=PROVIDER.noun,
    names=(N_("active"), N_("completed"), N_("starts"), N_("ends"), N_("errors")),
    cells=lambda progress: (
        progress.is_active,
        progress.is_completed,
        progress.starts,
        progress.ends,
        progress.errors,
    ),
    state=_state,
    note=lambda progress: unread_note(progress) or _log_note(progress),
)


def status(options: StatusOptions) -> None:
    """Read whether mailings are active, and show it."""
    with exit_on_user_error():
        ids = read_ids(options, ReadStatus)
        times, since = watch_times(options), moment("--since", options.since)
        client = connect(options)
    if options.watch:
        show_watch(
            client,
            lambda: client.watch(ids, since=since, **times),
            _FORM,
            total=len(ids),
            json=options.json,
            invocation=options.invocation,
        )
        return
    if since is not None:
        rows = show_once(client, lambda: client.watch(ids, since=since), _FORM, total=len(ids), json=options.json)
        if any(row.unread is not None or row.errors for row in rows):
            raise typer.Exit(1)
        return
    show_statuses(
        client,
        map(ReadStatus, ids),
        (N_("mailing"), N_("active"), N_("completed"), N_("status")),
        lambda read: (read.is_active, read.is_completed, read.status),
        json=options.json,
        flexible=("status",),
    )


def log(options: LogOptions) -> None:
    """Read the log of a mailing, and show it."""
    with exit_on_user_error():
        command = ReadLog(options.id, since=moment("--since", options.since), limit=options.limit)
        client = connect(options)
    show_log(read(client, command), json=options.json)


def connect(options: AltcraftReadOptions) -> AltcraftClient:
    """The client of a command that reads."""
    options = with_profile(options, PROVIDER)
    key = token(options, PROVIDER.token_variable)
    return AltcraftClient(options.base_url, key, wire=options.wire, **client_settings(options))

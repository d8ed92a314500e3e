"""``dispatchkit altcraft mailings``, ``mailing`` and ``counters``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

from dispatchkit import AltcraftClient, ChannelCounters, Mailing
from dispatchkit.altcraft.counters import ReadCounters
from dispatchkit.altcraft.mailings import ReadMailing, ReadMailings
from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.output.tables import Form, Rows, form_of
from dispatchkit.cli.providers.altcraft_views import connect
from dispatchkit.cli.providers.overrides import audience
from dispatchkit.cli.providers.views import list_was_cut, read, unread
from dispatchkit.cli.text import write
from dispatchkit.cli.translate import N_
from dispatchkit.errors import DispatchkitError

if TYPE_CHECKING:
    from dispatchkit import Listing
    from dispatchkit.cli.commands.altcraft import CountersOptions, MailingOptions, MailingsOptions

__all__ = ["counters", "mailing", "mailings"]

_COUNTS = (
    N_("subscribed sendable"),
    N_("unconfirmed sendable"),
    N_("subscribed"),
    N_("unsubscribed"),
    N_("complained"),
    N_("hardbounced"),
    N_("unconfirmed"),
    N_("suspended"),
    N_("invalid"),
)
"""Columns for counts of `ChannelCounters`. Not all of them: a mailing reaches the first alone."""


def mailings(options: MailingsOptions) -> None:
    """Read the mailings that pass every filter, and show them.

    Raises:
        typer.Exit: With status 1, if the platform did not list all.
    """
    with exit_on_user_error():
        form = form_of(json=options.json, csv=options.csv)
        ReadMailings(kind=options.kind, mailing_type=options.type, is_active=options.active)
        client = connect(options)

    async def reading(client: AltcraftClient) -> Listing[Mailing]:
        async with client:
            return await client.mailings(
                kind=options.kind, mailing_type=options.type, is_active=options.active, limit=options.limit
            )

    try:
        listing = run_loop(reading(client))
    except DispatchkitError as error:
        raise typer.Exit(unread(error)) from None
    _show_mailings(listing, form)
    if listing.missing and options.limit is None:
        write(sys.stderr, list_was_cut(listing.total or 0, len(listing)))
        raise typer.Exit(1)


def mailing(options: MailingOptions) -> None:
    """Read one mailing, and show it."""
    with exit_on_user_error():
        form = form_of(json=options.json, csv=options.csv)
        command = ReadMailing(options.id, kind=options.kind)
        client = connect(options)
    _show_mailings([read(client, command)], form)


def counters(options: CountersOptions) -> None:
    """Read the counters of an audience by channel, and show them."""
    with exit_on_user_error():
        form = form_of(json=options.json, csv=options.csv)
        of = audience("AUDIENCE", options.audience)
        command = ReadCounters(of, resource_id=options.resource_id, list_id=options.list_id)
        client = connect(options)
    rows = Rows(form, ChannelCounters, (N_("channel"), *_COUNTS))
    for each in read(client, command):
        rows.add(each, each.channel, *(getattr(each.status, name.replace(" ", "_")) for name in _COUNTS))
    rows.flush()


_NAMES: Sequence[str] = (N_("mailing"), N_("type"), N_("active"), N_("name"), N_("updated (UTC)"))


def _show_mailings(listing: Iterable[Mailing], form: Form) -> None:
    rows = Rows(form, Mailing, _NAMES, optional=("updated (UTC)", "type"), flexible=("name",))
    for each in listing:
        if not rows.add(each, each.mailing_id, each.type, each.is_active, each.name, each.update_time):
            return
    rows.flush()

"""``dispatchkit direct status`` and ``list``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatchkit import DirectClient, DispatchProgress
from dispatchkit.built_in.direct import PROVIDER
from dispatchkit.cli.input.profile import with_profile
from dispatchkit.cli.input.values import exit_on_user_error, token
from dispatchkit.cli.output.watch import WatchForm, show_watch
from dispatchkit.cli.providers.views import check_status, moment, read, read_ids, show_dispatches, show_statuses
from dispatchkit.cli.providers.watch_times import watch_times
from dispatchkit.cli.settings import client_settings
from dispatchkit.cli.translate import N_
from dispatchkit.direct.commands import ReadDispatch, ReadDispatches

if TYPE_CHECKING:
    from dispatchkit import Dispatch, DispatchCounts
    from dispatchkit.cli.commands.direct import ListOptions, StatusOptions

__all__ = ["list_dispatches", "status"]

_COUNTERS = (N_("total"), N_("delivered"), N_("undelivered"), N_("sending"), N_("sent"), N_("unsent"))
"""Of the messages, as the provider names them."""


_FORM: WatchForm[DispatchProgress] = WatchForm(
    noun=PROVIDER.noun,
    names=(N_("name"), *_COUNTERS),
    cells=lambda progress: (progress.name, *_counters(progress.messages)),
    state=lambda progress: progress.status,
    optional=("unsent", "sent"),
    flexible=("name",),
)


def _counters(counts: DispatchCounts | None) -> tuple[int | None, ...]:
    return tuple(None if counts is None else getattr(counts, name) for name in _COUNTERS)


def status(options: StatusOptions) -> None:
    """Read the dispatches one by one, and show the status and the counters of each."""
    with exit_on_user_error():
        options = with_profile(options, PROVIDER)
        ids = read_ids(options, ReadDispatch)
        times = watch_times(options)
        client = DirectClient(
            token(options, PROVIDER.token_variable), base_url=options.base_url, **client_settings(options)
        )
    if options.watch:
        show_watch(
            client,
            lambda: client.watch(ids, **times),
            _FORM,
            total=len(ids),
            json=options.json,
            invocation=options.invocation,
        )
        return
    show_statuses(
        client,
        map(ReadDispatch, ids),
        (N_("dispatch"), N_("status"), N_("name"), *_COUNTERS),
        _cells,
        json=options.json,
        optional=("unsent", "sent"),
        flexible=("name", "status"),
    )


def _cells(dispatch: Dispatch) -> tuple[object, ...]:
    return dispatch.status, dispatch.dispatch_name, *_counters(dispatch.messages)


def list_dispatches(options: ListOptions) -> None:
    """Read the dispatches that pass every filter, and show them."""
    with exit_on_user_error():
        options = with_profile(options, PROVIDER)
        command = ReadDispatches(
            dispatch_id=options.dispatch_id,
            status=options.status,
            dispatch_name=options.dispatch_name,
            traffic_center_id=options.traffic_center_id,
            created_from=moment("--created-from", options.created_from),
            created_to=moment("--created-to", options.created_to),
        )
        key = token(options, PROVIDER.token_variable)
        client = DirectClient(key, base_url=options.base_url, **client_settings(options))
    listing = read(client, command)
    with exit_on_user_error():
        check_status(listing, options.status)
    show_dispatches(listing, json=options.json)

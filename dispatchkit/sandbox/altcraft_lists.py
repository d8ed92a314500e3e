"""The lists and counters of the played Altcraft, as pure functions.

The words of ``type``, the names and all numbers are the sandbox's own: the contract has none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dispatchkit.sandbox.fields import Fields
    from dispatchkit.sandbox.wire import Json

_COUNTS = (("email", 1235, 1000), ("sms", 500, 400))
"""The channels: each with the number of subscriptions in all, and of those that can be reached."""
_UNREACHED = ("unsubscribed", "complained", "hardbounced", "unconfirmed", "suspended", "invalid")


def kind_of(*, regular: bool) -> str:
    """The sandbox's word for the type of a mailing."""
    return "regular" if regular else "broadcast"


def item(mailing_id: int, *, regular: bool, active: bool, updated: float) -> dict[str, Json]:
    """A mailing, as a list and ``get`` show it."""
    return {
        "id": mailing_id,
        "name": f"рассылка {mailing_id}",
        "description": "",
        "type": kind_of(regular=regular),
        "is_active": active,
        "update_time": datetime.fromtimestamp(updated, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def page(items: Iterable[dict[str, Json]], fields: Fields) -> tuple[list[Json], int]:
    """One page of the items in ascending order of ids, and how many pass the filters on all pages."""
    first, limit = fields.integer("from_id"), fields.limit("limit")
    kind, active = fields.text("type"), fields.optional_flag("is_active")
    matching = [
        each
        for each in items
        if (kind is None or each["type"] == kind) and (active is None or each["is_active"] is active)
    ]
    shown: list[Json] = [each for each in matching if first is None or _id(each) >= first]
    return shown[: 1000 if limit is None else limit], len(matching)


def _id(each: dict[str, Json]) -> int:
    number = each["id"]
    return number if isinstance(number, int) else 0


def counters(email: tuple[int, int] | None) -> list[Json]:
    """The counters of an audience, by channel.

    Args:
        email: The numbers of the channel ``email``, which is then the only one. None: the sandbox's own channels.
    """
    return [
        {
            "channel": channel,
            "status": {
                "all": total,
                "subscribed": sendable,
                **dict.fromkeys(_UNREACHED, 0),
                "unsubscribed": total - sendable,
                "subscribed_sendable": sendable,
                "unconfirmed_sendable": 0,
            },
        }
        for channel, total, sendable in (_COUNTS if email is None else [("email", *email)])
    ]

"""Targets that other runs of the ledger launched, or may have launched, before this launch."""

# The command line is part of the package, and uses the machinery of clients and ledgers.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar, cast

import attrs

from dispatchkit.cli.input.ids import Targets
from dispatchkit.cli.input.question import describe_ids
from dispatchkit.cli.text import utc
from dispatchkit.cli.translate import _, ngettext
from dispatchkit.core.fanout.id_set import IdSet
from dispatchkit.ledger.codec import encode_in_thread
from dispatchkit.ledger.run import RunPlan

if TYPE_CHECKING:
    from typing import Never

    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command
    from dispatchkit.ledger.ledger import Ledger

__all__ = ["Earlier", "EarlierRun", "find_earlier", "in_other_runs"]

R = TypeVar("R")
W = TypeVar("W")

_NAMED = 5
"""Other runs that are named."""
_TARGET_BYTES = 8
"""Bytes of a key that hold the id."""
_WORDS = {
    "done": _("done"),
    "unknown": _("unclear"),
    "sending": _("in flight"),
    "planned": _("about to be launched"),
}


@attrs.define
class EarlierRun:
    """What one other run launched of the targets."""

    name: str
    latest: datetime
    states: Counter[str] = attrs.Factory(Counter[str])
    ids: list[int] = attrs.Factory(list[int])

    def __str__(self) -> str:
        states = ", ".join(f"{self.states[state]:,} {word}" for state, word in _WORDS.items() if self.states[state])
        ids = describe_ids(Targets((number, number) for number in self.ids))
        return _("{states} in run {name!r}, the latest at {time} UTC ({ids})").format(
            states=states, name=self.name, time=utc(self.latest), ids=ids
        )

    @property
    def is_clear(self) -> bool:
        """Whether all of it is done."""
        return set(self.states) == {"done"}


def in_other_runs(count: int) -> list[str]:
    """The words for runs that are not named; none if all are."""
    text = ngettext("and in {count:,} other run", "and in {count:,} other runs", count)
    return [text.format(count=count)] if count > 0 else []


@attrs.frozen
class Earlier:
    """The targets that other runs launched, the latest run first."""

    runs: Sequence[EarlierRun] = ()
    ids: IdSet = attrs.field(factory=IdSet)
    count: int = 0

    def __str__(self) -> str:
        return "; ".join([*map(str, self.runs[:_NAMED]), *in_other_runs(len(self.runs) - _NAMED)])

    def without(self, targets: Targets) -> Targets:
        """The targets that no other run launched."""
        return targets.without(self.ids) if self.count else targets


async def find_earlier(
    ledger: Ledger,
    run: str,
    client: Client[W],
    command: Callable[[int], Command[W, R]],
    targets: Targets,
    *,
    within: float,
) -> Earlier:
    """Find the targets that other runs of the account launched a short time ago, or launch now.

    Only ids that another run has too are compared. So a list of new ids costs a look into the index of each run.

    Args:
        ledger: The ledger.
        run: The run of this launch, which does not count.
        client: The client, whose account counts.
        command: The command for an id.
        targets: The ids.
        within: Seconds.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    store, settings = await ledger._open_store(), client._run_settings()
    plan = RunPlan(
        name=run,
        settings="",
        host=settings.settings.get("base_url", ""),
        account=settings.account,
        fingerprint=await asyncio.to_thread(settings.fingerprint),
        attempt_timeout=settings.attempt_timeout,
    )
    low, high = min(map(min, targets.parts)), max(map(max, targets.parts))
    bounds = low.to_bytes(_TARGET_BYTES, "big"), (high + 1).to_bytes(_TARGET_BYTES, "big")
    runs: dict[str, EarlierRun] = {}
    ids, count, wanted = IdSet(), 0, _Wanted(targets.parts)
    async for found in store.launched(plan, low=bounds[0], high=bounds[1], within=within):
        number = int.from_bytes(found.key[:_TARGET_BYTES], "big")
        if number not in wanted:
            continue
        key, _ = await encode_in_thread(cast("Command[Never, object]", command(number)))
        if key != found.key:
            continue
        other = runs.setdefault(found.run, EarlierRun(found.run, found.at))
        other.latest = max(other.latest, found.at)
        other.states[found.state] += 1
        other.ids.append(number)
        count += ids.add(number)
    return Earlier([*runs.values()], ids, count)


class _Wanted:
    """The ids of a launch, as a set that is made when it is first asked."""

    def __init__(self, parts: Iterable[Sequence[int]]) -> None:
        self._parts = [*parts]
        self._single: IdSet | None = None

    def __contains__(self, number: int) -> bool:
        if self._single is None:
            self._single = IdSet()
            for part in self._parts:
                if not isinstance(part, range):
                    self._single.add_new(part)
        return number in self._single or any(number in part for part in self._parts if isinstance(part, range))

"""What Direct answers, as values."""

from __future__ import annotations

import attrs

from dispatchkit.core.decode import rename, strict_converter

__all__ = ["Dispatch", "DispatchPage", "StartedBody", "StartedDispatch", "direct_converter"]


@attrs.frozen
class StartedDispatch:
    """A dispatch whose start the provider has accepted."""

    dispatch_id: int
    settled: bool = False
    """Whether the answer was lost and the dispatch's status shows that it started."""


@attrs.frozen
class StartedBody:
    """What a start is answered with."""

    dispatch_id: int


@attrs.frozen
class Dispatch:
    """A dispatch as ``GET /dispatch`` lists it."""

    dispatch_id: int
    status: str
    """``initiated``, ``changing``, ``scheduled``, ``sending``, ``awaiting``, ``done``, ``paused``, ``stopped``; a word
    that is not among them is passed on as it is."""


@attrs.frozen
class DispatchPage:
    """The answer of ``GET /dispatch``."""

    items: list[Dispatch]


direct_converter = strict_converter()
rename(direct_converter, StartedBody, dispatch_id="dispatchId")
rename(direct_converter, Dispatch, dispatch_id="dispatchId")

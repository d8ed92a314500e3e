"""What Direct answers, as values."""

from __future__ import annotations

import attrs

from dispatchkit.core.decode import rename, strict_converter

__all__ = ["StartedDispatch", "direct_converter"]


@attrs.frozen
class StartedDispatch:
    """A dispatch whose start the provider has accepted."""

    dispatch_id: int


direct_converter = strict_converter()
rename(direct_converter, StartedDispatch, dispatch_id="dispatchId")

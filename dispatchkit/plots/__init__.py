"""Charts of a run as inline SVG text, for the report and the web page. Pure functions: no I/O, and no dependency.

Each chart has a title and a description for screen readers, and labels beside its lines. Lines differ by their dashes
too, so a chart prints in black and white. It takes its colours from the page (``currentColor``) and from the custom
properties of `STYLE`. It has no script and no ``style`` attribute, so a strict Content-Security-Policy allows it.

>>> from datetime import UTC, datetime
>>> from dispatchkit import Bucket
>>> from dispatchkit.plots import outcomes_over_time
>>> outcomes_over_time([Bucket(datetime(2026, 1, 31, 9, tzinfo=UTC), done=7)])[:56]
'<svg xmlns="http://www.w3.org/2000/svg" class="dk-plot" '
"""

from __future__ import annotations

from dispatchkit.plots.charts import latency_over_time, outcomes_over_time, rate_over_time
from dispatchkit.plots.points import MAX_POINTS, regular
from dispatchkit.plots.style import STYLE

__all__ = ["MAX_POINTS", "STYLE", "latency_over_time", "outcomes_over_time", "rate_over_time", "regular"]

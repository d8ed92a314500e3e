"""The style sheet of the charts."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """\
.dk-plot {
  --dk-done: #1a7f37; --dk-rejected: #b35900; --dk-not-sent: #57606a; --dk-unknown: #cf222e; --dk-other: #0969da;
  display: block; width: 100%; height: auto; max-width: 60rem; font-family: inherit;
}
.dk-plot .dk-grid { opacity: 0.2; }
.dk-plot .dk-line { fill: none; stroke-width: 2; }
.dk-plot .dk-area { stroke: none; opacity: 0.15; }
.dk-plot .dk-title { font-weight: 600; }
.dk-plot .dk-done { stroke: var(--dk-done); }
.dk-plot .dk-rejected { stroke: var(--dk-rejected); }
.dk-plot .dk-not-sent { stroke: var(--dk-not-sent); }
.dk-plot .dk-unknown { stroke: var(--dk-unknown); }
.dk-plot .dk-other { stroke: var(--dk-other); }
.dk-plot .dk-area.dk-other { fill: var(--dk-other); stroke: none; }
@media (prefers-color-scheme: dark) {
  .dk-plot {
    --dk-done: #3fb950; --dk-rejected: #f0a35e; --dk-not-sent: #9aa4af; --dk-unknown: #ff7b72; --dk-other: #58a6ff;
  }
}
@media print {
  .dk-plot {
    --dk-done: #000; --dk-rejected: #000; --dk-not-sent: #000; --dk-unknown: #000; --dk-other: #000; color: #000;
  }
}
"""
"""CSS for the charts, to embed or to serve. Every rule begins with ``.dk-plot``, so it changes only the charts."""

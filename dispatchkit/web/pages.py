"""The pages as HTML. They hold words and an empty frame; the script fills in what the server tells.

The page holds as JSON what the server knows at once, so the first paint needs no second request. No page holds text of
the ledger as markup: it is JSON here, and text nodes in the browser.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape

__all__ = ["refusal", "run_page", "runs_page", "target_page"]

_COUNTS = (
    ("done", "Done"),
    ("rejected", "Rejected"),
    ("not_sent", "Not sent"),
    ("unknown", "Unknown"),
    ("sending", "Sending"),
    ("planned", "Planned"),
)


def _page(title: str, main: str, *, kind: str, where: str, csrf: str, data: Mapping[str, object]) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/control-room.css">
<script type="module" src="/control-room.js"></script>
</head>
<body data-page="{kind}" data-csrf="{escape(csrf)}">
<a class="skip" href="#main">Skip to the content</a>
<header>
<p class="brand"><a href="/">dispatchkit</a> <span>control room</span></p>
<p class="where" title="The ledger">{escape(where)}</p>
<p id="link" class="live-state"><span class="dot" aria-hidden="true"></span> <span id="link-text">connecting</span></p>
</header>
<div id="alert" class="banner" role="alert" hidden></div>
<main id="main" tabindex="-1">
{main}
</main>
<p id="announce" class="visually-hidden" role="status" aria-live="polite" aria-atomic="true"></p>
<script type="application/json" id="data">{_json(data)}</script>
</body>
</html>
"""


def _json(data: Mapping[str, object]) -> str:
    """JSON that ends no element, whatever its texts hold."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def runs_page(*, where: str, csrf: str, data: Mapping[str, object]) -> str:
    """The list of runs."""
    main = """<h1>Runs</h1>
<p id="empty" hidden>This ledger holds no run yet.</p>
<div class="scroll" role="region" aria-label="Runs" tabindex="0">
<table id="runs">
<caption class="visually-hidden">The runs of the ledger, newest first</caption>
<thead><tr><th scope="col">Run</th><th scope="col">State</th><th scope="col">Progress</th>
<th scope="col" class="number">Failures</th><th scope="col" class="number">Targets</th>
<th scope="col">Created (UTC)</th></tr></thead>
<tbody></tbody>
</table>
</div>
<nav id="pages" aria-label="Pages of the list" hidden>
<a id="newer" rel="prev">Newer</a> <span id="page-number"></span> <a id="older" rel="next">Older</a>
</nav>"""
    return _page("Runs - dispatchkit", main, kind="runs", where=where, csrf=csrf, data=data)


def run_page(name: str, *, where: str, csrf: str, data: Mapping[str, object]) -> str:
    """One run."""
    counts = "".join(
        f'<div class="count {key}"><dt>{label}</dt><dd data-count="{key}">-</dd></div>' for key, label in _COUNTS
    )
    main = f"""<nav aria-label="Path"><a href="/">All runs</a></nav>
<div class="title"><h1>{escape(name)}</h1> <span id="state" class="state">...</span>
<button id="stop" type="button" class="danger" disabled>Stop this run</button></div>
<p id="about" class="quiet"></p>
<section aria-labelledby="progress-title">
<h2 id="progress-title">Progress</h2>
<div class="bar"><progress id="progress" max="1" value="0" aria-label="Targets with an outcome"></progress>
<span id="percent">-</span></div>
<dl class="counts">{counts}</dl>
<dl class="facts">
<div><dt>Targets</dt><dd id="total">-</dd></div>
<div><dt>Outcomes a second</dt><dd id="rate">-</dd></div>
<div><dt>Time left</dt><dd id="time-left">-</dd></div>
</dl>
<p id="note" hidden></p>
<div id="stopped" class="notice" role="status" hidden></div>
<div id="resume" class="notice" hidden><p>To resume this run, type in a terminal:</p>
<pre tabindex="0"><code id="resume-line"></code></pre>
<button id="copy" type="button">Copy the line</button></div>
</section>
<section aria-labelledby="plots-title">
<h2 id="plots-title">Over time</h2>
<div id="plots" class="plots"><p class="quiet">No outcome yet.</p></div>
</section>
<section aria-labelledby="failures-title">
<h2 id="failures-title">Failures by kind</h2>
<p id="failures-note" class="quiet">None yet.</p>
<div class="scroll" role="region" aria-label="Failures by kind" tabindex="0" id="kinds-region" hidden>
<table id="kinds"><caption class="visually-hidden">Failures by kind, the most frequent first</caption>
<thead><tr><th scope="col" class="number">Targets</th><th scope="col">Outcome</th><th scope="col">Code</th>
<th scope="col">Kind (numbers as #)</th></tr></thead><tbody></tbody></table></div>
<form id="search" role="search" hidden><label for="words">Search the failures</label>
<div class="row"><input id="words" type="search" maxlength="100" autocomplete="off" spellcheck="false">
<button>Search</button> <button type="button" id="clear" hidden>All kinds</button></div></form>
<p id="found-note" role="status" class="quiet"></p>
<div class="scroll" role="region" aria-label="Failed targets" tabindex="0" id="found-region" hidden>
<table id="found"><caption class="visually-hidden">Failed targets</caption>
<thead><tr><th scope="col">Target</th><th scope="col">Outcome</th><th scope="col">Why</th>
<th scope="col">Time (UTC)</th></tr></thead><tbody></tbody></table></div>
</section>
<section aria-labelledby="target-title">
<h2 id="target-title">One target's story</h2>
<form id="target"><label for="id">Id of a dispatch or mailing</label>
<div class="row"><input id="id" inputmode="numeric" pattern="[0-9]{{1,19}}" maxlength="19" autocomplete="off" required>
<button>Show</button></div></form>
</section>
<section aria-labelledby="workers-title">
<h2 id="workers-title">Workers</h2>
<p id="workers-note" class="quiet">No process holds this run.</p>
<div class="scroll" role="region" aria-label="Workers" tabindex="0" id="workers-region" hidden>
<table id="workers"><caption class="visually-hidden">Processes that hold the run</caption>
<thead><tr><th scope="col">Process</th><th scope="col">Host</th><th scope="col">Chunks</th>
<th scope="col">Targets</th><th scope="col">Since (UTC)</th><th scope="col" class="number">Heartbeat</th></tr></thead>
<tbody></tbody></table></div>
</section>
<dialog id="confirm" aria-labelledby="confirm-title" aria-describedby="confirm-text">
<h2 id="confirm-title">Stop this run?</h2>
<p id="confirm-text"></p>
<p class="quiet">Calls in flight are awaited, and nothing new starts, on every machine. To go on later, resume the run
on the command line.</p>
<p id="confirm-error" role="alert" hidden></p>
<div class="row"><button id="cancel" type="button">Do not stop</button>
<button id="confirm-stop" type="button" class="danger">Stop the run</button></div>
</dialog>"""
    return _page(f"{name} - dispatchkit", main, kind="run", where=where, csrf=csrf, data=data)


def target_page(name: str, heading: str, *, where: str, csrf: str, data: Mapping[str, object]) -> str:
    """Everything that is stored of one target."""
    main = f"""<nav aria-label="Path"><a href="/">All runs</a> / <a id="back">{escape(name)}</a></nav>
<h1>{escape(heading)}</h1>
<div id="stories"></div>
<p class="quiet">Contents of messages are stored, and never shown here.</p>"""
    return _page(f"{heading} - dispatchkit", main, kind="target", where=where, csrf=csrf, data=data)


def refusal(title: str, *lines: str) -> str:
    """A page that says why there is none, and what to do."""
    text = "".join(f"<p>{escape(line)}</p>\n" for line in lines)
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>
<link rel="stylesheet" href="/control-room.css"></head>
<body><main id="main"><h1>{escape(title)}</h1>
{text}</main></body>
</html>
"""

"""The page of a report: one HTML file without a script, that prints on two pages of A4.

Every text is escaped in `_text`, and nowhere else.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import dispatchkit
from dispatchkit.cli.output.report_file import HTML_START
from dispatchkit.cli.text import counted, escape_control, state_word, utc
from dispatchkit.cli.translate import LANGUAGE, _, ngettext
from dispatchkit.cli.views.ledger import left_out, unknown_for_good
from dispatchkit.errors import LedgerError
from dispatchkit.plots import STYLE, latency_over_time, outcomes_over_time, rate_over_time
from dispatchkit.plots.scale import duration
from dispatchkit.providers import installed_provider, parse_settings
from dispatchkit.redaction import redact_urls

if TYPE_CHECKING:
    from dispatchkit.cli.views.report_facts import RunReport
    from dispatchkit.cli.views.snapshot import RunSnapshot
    from dispatchkit.json_rows import Json

__all__ = ["as_page"]

_STYLE = """\
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 1.4rem 0 0.4rem; border-bottom: 1px solid; }
p { margin: 0.4rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 1rem; margin: 0; }
dt { opacity: 0.75; }
dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.15rem 0.6rem 0.15rem 0; border-bottom: 1px solid #8884; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td { overflow-wrap: anywhere; }
td.short { white-space: nowrap; }
code { font-size: 0.9em; overflow-wrap: anywhere; }
.sub { opacity: 0.75; }
.facts { display: grid; grid-template-columns: 1fr 1fr; gap: 0 2rem; }
section, svg, tr { break-inside: avoid; }
@media (max-width: 40rem) { .facts { grid-template-columns: 1fr; } }
@page { size: A4; margin: 12mm 14mm; }
@media print {
  body { font-size: 9pt; line-height: 1.3; margin: 0; padding: 0; max-width: none; color: #000; background: #fff; }
  h2 { margin: 0.7rem 0 0.25rem; }
  .facts { grid-template-columns: 1fr 1fr; }
  .failures { font-size: 8pt; }
  .failures td { padding-top: 0.05rem; padding-bottom: 0.05rem; }
  .dk-plot { max-height: 48mm; }
}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STATES = (
    ("done", _("the provider said yes")),
    ("rejected", _("the provider said no, and did nothing")),
    ("not_sent", _("nothing left this machine")),
    ("unknown", _("it may have happened")),
    ("sending", _("in flight, or left by a process that died")),
    ("planned", _("not begun")),
)


def as_page(report: RunReport, *, targets_file: str | None = None) -> str:
    """The page.

    Args:
        report: The facts.
        targets_file: The name of the file beside it that has all targets.
    """
    run = report.snapshot.run
    over = report.snapshot.over
    title = _("Run {name}").format(name=run.name)
    head = (
        f'{HTML_START}\n<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{_text(_POLICY)}">'
        f"<title>{_text(title)}</title>\n<style>\n{_STYLE}{STYLE}</style></head>\n"
    )
    made_at = utc(report.made_at)
    so_far = _("So far, at {time} UTC: the run is not over.").format(time=made_at) if not over else ""
    made = _("Made at {time} UTC by dispatchkit {version}.").format(time=made_at, version=dispatchkit.__version__)
    until = report.made_at if report.snapshot.holders else None
    charts = [
        outcomes_over_time(report.series, until=until, counts=report.snapshot.counts),
        rate_over_time(report.series, until=until),
        latency_over_time(report.series, until=until),
    ]
    parts = [
        f"<header><h1>{_text(title)}</h1>",
        f"<p><strong>{_text(so_far)}</strong></p>" if so_far else "",
        f'<p class="sub">{_text(made)}</p></header>',
        '<div class="facts">' + _section(_("What"), _facts(_what(report))) + _section(_("Who"), _facts(_who(report))),
        _section(_("When"), _facts(_when(report))) + _section(_("How it went"), _facts(_how(report))) + "</div>",
        _section(_("Outcomes"), _outcomes(report)),
        _section(_("Over time"), charts[0]),
        *(f"<section>{chart}</section>" for chart in charts[1:]),
        _section(_("Failures"), _failures(report)),
        _section(_("What to do next"), _next(report, targets_file)),
    ]
    body = "\n".join(part for part in parts if part)
    language = f' lang="{_text(LANGUAGE)}"' if LANGUAGE else ""
    return f"{head}<body{language}>\n{body}\n</body></html>\n"


def _text(value: object) -> str:
    """A value as the text of an element or an attribute."""
    return html.escape(escape_control(str(value)))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>"


def _facts(facts: Iterable[tuple[str, object]]) -> str:
    return f"<dl>{''.join(f'<dt>{_text(name)}</dt><dd>{_text(value)}</dd>' for name, value in facts)}</dl>"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], *, kind: str, numbers: Sequence[int]) -> str:
    def cells(name: str, values: Sequence[object]) -> str:
        marks = ['class="number"' if place in numbers else "" for place in range(len(values))]
        return "".join(f"<{name} {mark}>{_text(v)}</{name}>" for mark, v in zip(marks, values, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table>'


def _what(report: RunReport) -> list[tuple[str, object]]:
    run, first = report.snapshot.run, report.first_target
    try:
        settings = parse_settings(run.settings)
        noun = installed_provider(settings.get("provider", "")).noun
    except (LedgerError, ImportError):
        settings, noun = {}, ("target", "targets")
    targets = counted(run.total, *noun)
    if not run.plan_complete:
        targets = _("{targets} so far: the plan is not complete").format(targets=targets)
    facts: list[tuple[str, object]] = [(_("targets"), targets)]
    command = None if first is None else first.to_dict()["command"]
    if isinstance(command, dict):
        facts.append((_("command"), command.get("type")))
        facts += [
            (_("{field} of the first").format(field=_words(name)), _value(value))
            for name, value in _own(command, first)
        ]
    return facts + [(_words(name), redact_urls(value)) for name, value in settings.items()]


def _own(command: dict[str, Json], first: object) -> list[tuple[str, Json]]:
    """The fields of a command beside its type and its id, without those that say nothing."""
    target = getattr(first, "target", None)
    return [
        (name, value)
        for name, value in command.items()
        if name != "type" and value not in (None, [], {}, False) and not (value == target and name.endswith("_id"))
    ]


def _who(report: RunReport) -> list[tuple[str, object]]:
    run = report.snapshot.run
    facts = [
        (_("planned by"), run.planned_by),
        (_("planned on"), run.planned_on),
        (_("profile"), run.profile),
        (_("account"), run.account),
    ]
    held = [
        (_("held by"), _("process {pid} on {host}").format(pid=holder.pid, host=holder.host))
        for holder in report.snapshot.holders[:5]
    ]
    return [(name, value) for name, value in (*facts, *held) if value]


def _when(report: RunReport) -> list[tuple[str, object]]:
    first, last = report.first_request, report.last_outcome
    ended = _moment(last)
    if first is not None and last is not None:
        took = duration((last - first).total_seconds())
        ended = _("{moment} ({duration} later)").format(moment=ended, duration=took)
    return [
        (_("planned"), _moment(report.snapshot.run.created)),
        (_("first request"), _moment(first)),
        (_("last outcome"), ended),
    ]


def _how(report: RunReport) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        (_("state"), _(report.snapshot.state)),
        (_("left"), counted(report.snapshot.left, "target", "targets")),
    ]
    if report.snapshot.launched_elsewhere:
        facts.append((_("left out"), left_out(report.snapshot)))
    if report.median_latency is not None and report.p95_latency is not None:
        text = _("median {median}, 95 % below {p95}").format(
            median=duration(report.median_latency), p95=duration(report.p95_latency)
        )
        facts.append((_("from claim to outcome"), text))
    retried = counted(report.retried, "target", "targets")
    if report.retried:
        retried = _("{targets}, at most {count:,}").format(targets=retried, count=report.most_attempts)
    facts.append((_("more than one attempt"), retried))
    if report.snapshot.run.stops:
        facts.append((_("stopped"), counted(report.snapshot.run.stops, "time", "times")))
    if report.snapshot.paused_until is not None:
        facts.append((_("account paused until"), _moment(report.snapshot.paused_until)))
    return facts


def _outcomes(report: RunReport) -> str:
    total = report.snapshot.run.total
    rows = [
        (state_word(state), f"{count:,}", f"{count / total:.2%}", meaning)
        for state, meaning in _STATES
        if (count := getattr(report.snapshot.counts, state)) or state in {"done", "rejected", "not_sent", "unknown"}
        if total
    ]
    return _table((_("outcome"), _("targets"), _("share"), _("means")), rows, kind="outcomes", numbers=(1, 2))


def _failures(report: RunReport) -> str:
    if not report.failures:
        return _paragraph(_("None.") if report.snapshot.over else _("None so far."))
    rows: list[tuple[object, ...]] = []
    for kind in report.failures:
        code, examples = "-" if kind.code is None else kind.code, ", ".join(map(str, kind.examples))
        rows.append((state_word(kind.state), code, kind.summary or "-", f"{kind.count:,}", examples or "-"))
    head = (_("outcome"), _("code"), _("reason"), _("targets"), _("for example"))
    table = _table(head, rows, kind="failures", numbers=(3,))
    if report.other_failures:
        text = ngettext(
            "{count:,} target failed in other ways.", "{count:,} targets failed in other ways.", report.other_failures
        )
        table += _paragraph(text.format(count=report.other_failures))
    return table


def _next(report: RunReport, targets_file: str | None) -> str:
    counts = report.snapshot.counts
    parts: list[str] = []
    if report.snapshot.holders:
        parts.append(_paragraph(_("A process works on the run. Make the report again once it is over.")))
    elif not report.snapshot.run.plan_complete:
        parts.append(_paragraph(_("The plan is not complete. Run the command that launched it again.")))
    elif report.resume is not None:
        parts.append(f"{_paragraph(_of_a_resume(report.snapshot))}{_line(report.resume)}")
        parts.append(_paragraph(report.resume_remark) if report.resume_remark else "")
    else:
        parts.append(_paragraph(_("Nothing is left to do.")) if not counts.unknown_for_good else "")
    if counts.unknown_for_good:
        parts.append(_paragraph(unknown_for_good(counts.unknown_for_good)))
    if report.snapshot.run.total > counts.done:
        parts.append(_paragraph(_("The targets that are not done, as CSV:")) + _line(report.list_failures))
    if targets_file is not None:
        text = _paragraph(_("All targets are in {file}, as CSV."))
        parts.append(text.format(file=f"<code>{_text(targets_file)}</code>"))
    else:
        parts.append(_paragraph(_("All targets, as CSV:")) + _line(f"{report.export} --csv"))
    return "".join(parts)


def _of_a_resume(snapshot: RunSnapshot) -> str:
    """What a resume does, in one line that ends with a colon."""
    counts = snapshot.counts
    unclear, rest = counts.unknown - counts.unknown_for_good + counts.sending, counts.planned + counts.not_sent
    if unclear and snapshot.launched_elsewhere:  # these may be unclear ones
        targets = counted(snapshot.left, "target", "targets")
        return _("A resume settles or launches {targets}:").format(targets=targets)
    rest -= snapshot.launched_elsewhere
    targets = counted(rest, "target", "targets")
    if not unclear:
        return _("A resume launches {targets}:").format(targets=targets)
    unclear_targets = counted(unclear, "unclear target", "unclear targets")
    if not rest:
        return _("A resume settles {unclear_targets}:").format(unclear_targets=unclear_targets)
    return _("A resume settles {unclear_targets} and launches {targets}:").format(
        unclear_targets=unclear_targets, targets=targets
    )


def _paragraph(text: str) -> str:
    return f"<p>{_text(text)}</p>"


def _line(command: str) -> str:
    return f"<p><code>{_text(command)}</code></p>"


def _moment(moment: datetime | None) -> str:
    return _("none yet") if moment is None else f"{utc(moment)} UTC"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""``dispatchkit ledger report``: the facts of a run in one file, which needs no script, and replaces only its like."""

from __future__ import annotations

import asyncio
import csv
import errno
import json
import os
import re
import tempfile
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import Ledger, StartDispatch, State
from dispatchkit.cli.output.report_file import HTML_START, ReportFile
from dispatchkit.cli.views import report_facts
from dispatchkit.core.clock import SYSTEM
from dispatchkit.ledger.claim import Claim, Record
from dispatchkit.ledger.codec import encode
from tests.cli.conftest import Played, run
from tests.ledger.stores import holder
from tests.ledger.test_store import run_plan
from tests.schema import fits
from tests.workers.conftest import Field

EVIL = '<script>alert("1")</script> & https://user:hunter2@host/'


class Page(HTMLParser):
    """The text of a page, and what is in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open, "it is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " | ".join(word.strip() for word in self.words if word.strip())


@pytest.fixture
def ledger(played: Played, tmp_path: Path) -> Path:
    """A run with one target done and one rejected."""
    file = tmp_path / "l.db"
    assert run("direct", "start", "1,5000", "--yes", "--base-url", played.url, "--ledger", file, "--run", "a").code == 1
    return file


async def written(
    file: Path,
    outcomes: list[tuple[State, dict[str, Any]]],
    *,
    total: int | None = None,
    resumed: list[tuple[State, dict[str, Any]]] | None = None,
) -> None:
    """A run ``a`` with these outcomes, of dispatches from 1 on. Those of a resume come last."""
    async with Ledger(file) as ledger:
        store = await ledger._open_store()
        number = (await store.begin(run_plan("a", settings='{"provider": "direct", "base_url": "https://x"}'))).number
        await store.plan(number, [encode(StartDispatch(each + 1)) for each in range(total or len(outcomes))])
        await store.planned(number)
        for token, some in (("one", outcomes), ("two", resumed or [])):
            assert await store.acquire(number, 0, holder(token), attempt_timeout=1.0) is None
            now = SYSTEM.now()
            await store.claim([Claim(number, 0, index, token, None, now) for index in range(len(some))])
            records: list[Record] = []
            for index, (state, more) in enumerate(some):
                fields = {"summary": "", "code": None, "request_id": None, "attempts": 1, **more}
                at = now + timedelta(seconds=1)
                records.append(Record(number, 0, index, token, state, **fields, at=at, since=now))
            await store.record(records)
            await store.release(number, 0, token)


def test_report_has_the_facts(ledger: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.html"
    assert run("ledger", "report", ledger, "a", "-o", file).code == 0
    page = Page(file.read_text())
    for fact in (
        "Run a | Made at ",
        "targets | 2 dispatches | command | StartDispatch | ",
        "provider | direct",
        "planned by | ",
        "state | over",
        "done | 1 | 50.00% | the provider said yes",
        "rejected | 1 | 50.00%",
        "Outcomes over time",
        "outcomes a second",
        "from claim to outcome",
        "5000",
        f"dispatchkit ledger failures {ledger} a --csv",
        f"dispatchkit ledger export {ledger} a --csv",
        "Nothing is left to do.",
    ):
        assert fact in page.text, fact
    assert "So far" not in page.text
    assert page.tags.count("svg") == 3
    assert file.stat().st_mode & 0o777 == 0o600


def test_page_needs_nothing_else(ledger: Path) -> None:
    page = Page(run("ledger", "report", ledger, "-o", "-").out)
    assert not {"script", "link", "img", "iframe", "a"} & {*page.tags}
    assert not {"style", "src", "href"} & {*page.attributes}
    assert not [name for name in page.attributes if name.startswith("on")]


def test_json_has_the_same_facts(ledger: Path) -> None:
    told = json.loads(run("ledger", "report", ledger, "a", "--json").out)
    fits(told, "RunReport")
    assert told["snapshot"]["counts"]["done"] == 1
    assert (told["retried"], told["most_attempts"], told["resume"]) == (0, 1, None)
    [kind] = told["failures"]
    assert (kind["state"], kind["count"], kind["examples"]) == ("rejected", 1, [5000])
    assert sum(bucket["done"] for bucket in told["series"]) == 1
    assert told["median_latency"] is not None
    assert told["snapshot"]["run"]["planned_on"]


def test_profile_is_reported(played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "config"
    folder.mkdir(mode=0o700)
    config = folder / "config.toml"
    config.write_text(f'[profiles.retail]\nprovider = "direct"\nurl = "{played.url}"\ntoken = "hunter2"\n')
    config.chmod(0o600)
    monkeypatch.setattr("dispatchkit.profiles.profiles_file", lambda: config)
    file = tmp_path / "l.db"
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", played.sandbox.direct_token)
    assert run("direct", "start", "1", "--yes", "--profile", "retail", "--ledger", file).code == 0
    page = run("ledger", "report", file, "-o", "-").out
    assert "<dt>profile</dt><dd>retail</dd>" in page
    assert "hunter2" not in page + run("ledger", "report", file, "--json").out


async def test_texts_are_escaped(tmp_path: Path) -> None:
    file = tmp_path / "l.db"
    await written(file, [(State.REJECTED, {"summary": EVIL, "code": "<b>"})])
    report = await _page(file)
    assert "<script" not in report
    assert "<b>" not in report
    assert "hunter2" not in report
    assert '<script>alert("1")</script>' in Page(report).text


async def _page(file: Path, *options: str) -> str:
    return (await asyncio.to_thread(run, "ledger", "report", file, "-o", "-", *options)).out


async def test_unclear_targets_are_explained(tmp_path: Path) -> None:
    file = tmp_path / "l.db"
    unknown: tuple[State, dict[str, Any]] = (State.UNKNOWN, {"summary": "no answer", "attempts": 3})
    await written(file, [unknown, unknown, (State.UNKNOWN, {"is_final": True}), (State.NOT_SENT, {})], total=6)
    text = Page(await _page(file)).text
    assert "A resume settles 2 unclear targets and launches 3 targets:" in text
    assert f"dispatchkit resume {file} --run a" in text
    assert "1 target stays unknown" in text
    assert "more than one attempt | 2 targets, at most 3" in text
    assert "unknown | - | no answer | 2 | 1, 2" in text


async def test_chart_agrees_with_table(tmp_path: Path) -> None:
    file = tmp_path / "l.db"
    await written(file, [(State.NOT_SENT, {}), (State.DONE, {})], resumed=[(State.DONE, {})])
    page = Page((await asyncio.to_thread(run, "ledger", "report", file, "a", "-o", "-")).out)
    assert "not sent | 0 | 0.00% |" in page.text
    assert "not sent 1, now 0" in page.text
    assert "2 done, 1 not sent (now 0)." in page.text


async def test_kinds_of_failures_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "l.db"
    outcomes = [(State.REJECTED, {"summary": f"{n} {'x' * 500}"}) for n in range(50)]
    await written(file, [*outcomes, *outcomes[:2]])
    page = await _page(file)
    assert "32 targets failed in other ways." not in page
    assert "30 targets failed in other ways." in page
    assert page.count("<tr><td >rejected</td>") == 21, "20 kinds, and one row of outcomes"
    assert "x" * 161 not in page
    monkeypatch.setattr(report_facts, "_COUNTED_KINDS", 5)
    page = await _page(file)
    assert page.count("<tr><td >rejected</td>") == 6
    assert "45 targets failed in other ways." in page


async def test_held_run_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "l.db"
    async with Ledger(file) as ledger:
        store = await ledger._open_store()
        number = (await store.begin(run_plan("a"))).number
        await store.plan(number, [encode(StartDispatch(1))])
        await store.planned(number)
        assert await store.acquire(number, 0, holder(), attempt_timeout=1.0) is None
        text = Page(await _page(file)).text
    assert re.search(r"So far, at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: the run is not over\.", text)
    assert "A process works on the run." in text
    assert "No outcome yet." in text


def test_targets_are_written_beside(ledger: Path, tmp_path: Path) -> None:
    file, targets = tmp_path / "a.html", tmp_path / "a.csv"
    for _ in range(2):
        assert run("ledger", "report", ledger, "-o", file, "--targets", targets, "--force").code == 0
    assert targets.read_text() == run("ledger", "export", ledger, "--csv").out.replace("\r\n", "\n")
    assert [row["target"] for row in csv.DictReader(targets.read_text().splitlines())] == ["1", "5000"]
    assert "<code>a.csv</code>" in file.read_text()
    assert {path.name for path in tmp_path.iterdir()} >= {"a.html", "a.csv"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("options", [("-o", "x.html"), ("-o", "x.html", "--json"), ("-o", "-", "--targets", "x.html")])
def test_another_file_is_kept(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.html"
    file.write_text("<!doctype html>\n<p>mine")
    result = run("ledger", "report", ledger, *options)
    assert result.code == 2
    assert "is not replaced: name another file" in result.err
    assert file.read_text() == "<!doctype html>\n<p>mine"


def test_report_replaces_a_report(ledger: Path, tmp_path: Path) -> None:
    file, link = tmp_path / "a.html", tmp_path / "link.html"
    file.touch()
    link.symlink_to(file)
    assert run("ledger", "report", ledger, "-o", link).code == 0
    assert run("ledger", "report", ledger, "-o", link, "--force").code == 0
    assert link.is_symlink()
    assert file.read_text().startswith(HTML_START)
    line = ("ledger", "report", ledger, "-o", tmp_path / "a.json", "--json")
    assert run(*line).code == 0
    assert (refused := run(*line)).code == 2
    assert f"{line[4]} holds an earlier report: name another file, or add --force to replace it" in refused.err
    assert run(*line, "--force").code == 0


def test_report_says_where_it_is(ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("ledger", "report", ledger, "a", "-o", "a.html", "--targets", "a.csv")
    assert (result.code, result.out) == (0, "")
    assert result.err == "The report of run 'a' is in a.html.\nAll targets of run 'a' are in a.csv.\n"
    result = run("ledger", "report", ledger, "a", "-o", "-", "--targets", "b.csv")
    assert result.out.startswith(HTML_START)
    assert result.err == "All targets of run 'a' are in b.csv.\n"


@pytest.mark.parametrize("name", ["mkstemp", "fsync", "replace"])
def test_error_names_the_file(ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), ".a.html-x1y2")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr({"mkstemp": tempfile, "fsync": os, "replace": Path}[name], name, fail)
    result = run("ledger", "report", ledger, "a", "-o", "a.html")
    next_step = "Free some space, or name a file on another disk"
    assert (result.code, result.err) == (2, f"dispatchkit: a.html: No space left on device. {next_step}\n")
    assert not Path("a.html").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "name the file: -o FILE, or -o - for standard output"),
        (("-o", "missing/x.html"), "there is no folder"),
        (("-o", "."), "is no file"),
        (("-o", "-", "--targets", "-"), "are the same: name two files"),
        (("-o", "x", "--targets", "./x"), "are the same: name two files"),
    ],
)
def test_wrong_file_is_explained(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("ledger", "report", ledger, "a", *options)
    assert (result.code, result.out) == (2, "")
    assert text in result.err
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "x"))] == []


def test_wrong_run_is_explained(ledger: Path, tmp_path: Path) -> None:
    result = run("ledger", "report", ledger, "b", "-o", tmp_path / "b.html")
    assert result.code == 2
    assert "holds no run 'b'; it holds 'a'" in result.err
    assert not (tmp_path / "b.html").exists()


def test_failed_write_keeps_earlier_file(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("start 1")
    output = ReportFile(str(file), "start", replaces=True)
    with pytest.raises(UnicodeEncodeError), output:
        output.write("start 2 \ud800")
    assert file.read_text() == "start 1"
    assert [*tmp_path.iterdir()] == [file]


def test_shared_ledger_is_reported(field: Field) -> None:
    assert run("direct", "start", "1-4", "--yes", "--base-url", field.sandbox.url).code == 0
    told = json.loads(run("ledger", "report", "--json").out)
    fits(told, "RunReport")
    assert told["snapshot"]["counts"]["done"] == sum(bucket["done"] for bucket in told["series"]) == 4
    assert told["first_request"] <= told["last_outcome"]

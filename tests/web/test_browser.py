"""The control room in a real Chromium: a run is watched, stopped, resumed and watched to its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import Ledger, State
from dispatchkit.sandbox import Sandbox
from tests.web.browser import CHROMIUM, Page, open_page
from tests.web.rooms import fill

pytestmark = [
    pytest.mark.second_stage,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

TOTAL = 20_000
SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
MAX_WEIGHT = 100_000
"""Bytes of a page with everything that it loads."""


@asynccontextmanager
async def command(where: Path, port: int = 0) -> AsyncIterator[str]:
    """The command line serves a ledger, and prints a link."""
    line = [sys.executable, "-m", "dispatchkit", "web", "--ledger", str(where), "--port", str(port)]
    server = await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.PIPE)
    try:
        assert server.stdout is not None
        await server.stdout.readline()
        found = re.search(r"http://\S+", (await server.stdout.readline()).decode())
        assert found is not None
        yield found[0]
    finally:
        server.terminate()
        assert await server.wait() == 0


@asynccontextmanager
async def room(where: Path) -> AsyncIterator[tuple[Page, str]]:
    """A browser in the control room that the command line serves."""
    async with command(where) as link, open_page() as page:
        await page.size(1200, 900)
        await page.goto(link)
        yield page, link.partition("/open")[0]


def environment(sandbox: Sandbox) -> dict[str, str]:
    return {**os.environ, "DISPATCHKIT_DIRECT_TOKEN": sandbox.direct_token, "DISPATCHKIT_DIRECT_URL": sandbox.url}


async def done(page: Page) -> int:
    return int((await page.text("[data-count=done]")).replace(",", ""))


async def test_run_is_stopped_and_resumed(sandbox: Sandbox, tmp_path: Path) -> None:
    where, environ = tmp_path / "launch.db", environment(sandbox)
    words = [
        "--ledger",
        str(where),
        "--run",
        "black friday",
        "--rate",
        "1000",
        "--yes",
        "--quiet",
        "--max-launches",
        str(TOTAL),
    ]
    line = [sys.executable, "-m", "dispatchkit", "direct", "start", f"1-{TOTAL}", *words]
    launch = await asyncio.create_subprocess_exec(*line, env=environ)
    async with asyncio.timeout(30):
        while not where.exists():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.1)
    async with room(where) as (page, _):
        await page.until("document.querySelector('#runs a') !== null")
        await page.run("document.querySelector('#runs a').click()")
        await page.until("document.querySelector('#state')?.textContent === 'running'")
        await page.until("Number(document.querySelector('[data-count=done]').textContent.replaceAll(',', '')) > 1000")
        assert "process holds this run" in await page.text("#workers-note")
        assert await page.run("document.querySelectorAll('#workers tbody tr').length") == 1
        first = await done(page)
        await asyncio.sleep(2.5)
        assert await done(page) > first, "the page is live"

        await page.run("document.querySelector('#stop').click()")
        question = await page.text("#confirm-text")
        assert question.startswith('Run "black friday": ')
        assert f"of {TOTAL:,} done" in question
        await page.run("document.querySelector('#confirm-stop').click()")
        await page.until("document.querySelector('#stopped').textContent !== ''", timeout=5)
        assert re.match(
            r"Run 'black friday' is stopped \([\d,]+ calls? in flight\)\. Waiting until", await page.text("#stopped")
        )
        assert await asyncio.wait_for(launch.wait(), 10) == 1
        async with Ledger(where) as ledger:
            launched = (await ledger.counts("black friday")).done
        assert 1000 < launched < TOTAL
        await page.until("document.querySelector('#stopped').textContent.includes('no process launches any more')")
        await page.until("document.querySelector('#state').textContent === 'stopped'")
        assert sum(sandbox.direct.launches.values()) == launched

        resume = await page.text("#resume-line")
        assert resume == f"dispatchkit resume {where} --run 'black friday' --rate 1000"
        program, *rest = shlex.split(resume)
        assert program == "dispatchkit"
        again = [sys.executable, "-m", "dispatchkit", *rest, "--yes", "--quiet"]
        resumed = await asyncio.create_subprocess_exec(*again, env=environ)
        await page.until("document.querySelector('#state').textContent === 'running'")
        await page.until("document.querySelector('#state').textContent === 'over'", timeout=90)
        assert await resumed.wait() == 0
        assert await done(page) == TOTAL
        await page.until("document.querySelectorAll('#plots svg').length === 3")
        assert page.complaints == []
    assert len(sandbox.direct.launches) == TOTAL
    assert set(sandbox.direct.launches.values()) == {1}


@pytest.fixture
async def ledger(tmp_path: Path) -> Path:
    failures = [(index, State.REJECTED, f"Dispatch {index + 1} not found (code 4040)") for index in range(1, 60)]
    await fill(tmp_path / "launch.db", failures=[(0, State.UNKNOWN, SCRIPT), *failures], total=200)
    return tmp_path / "launch.db"


async def complete(page: Page, address: str) -> None:
    await page.goto(address)
    await page.until("document.querySelectorAll('#plots svg').length === 3")
    await page.until("document.querySelectorAll('#kinds tbody tr').length === 2")


async def test_error_text_stays_text(ledger: Path) -> None:
    async with room(ledger) as (page, base):
        await complete(page, f"{base}/run?name=friday")
        await page.run("document.querySelectorAll('#kinds button')[1].click()")
        await page.until("document.querySelectorAll('#found tbody tr').length === 1")
        assert SCRIPT in await page.text("#found")
        await page.run("document.querySelector('#found a').click()")
        await page.until("document.querySelector('#stories section') !== null")
        assert SCRIPT in await page.text("#stories")
        assert await page.run("document.querySelectorAll('#stories script, #stories img').length") == 0
        assert page.complaints == []


async def test_keyboard_alone_stops(ledger: Path) -> None:
    async with room(ledger) as (page, base):
        await complete(page, f"{base}/run?name=friday")
        for _ in range(10):
            await page.press("Tab")
            if await page.run("document.activeElement.id") == "stop":
                break
        assert await page.run("document.activeElement.id") == "stop"
        assert await page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        await page.press("Enter")
        await page.until("document.querySelector('#confirm').open")
        assert await page.run("document.activeElement.id") == "cancel", "Enter twice stops nothing"
        await page.press("Escape")
        await page.until("!document.querySelector('#confirm').open")
        assert await page.run("document.activeElement.id") == "stop", "the focus returns"
        await page.press("Enter")
        await page.until("document.querySelector('#confirm').open")
        for _ in range(6):  # the dialog keeps the focus
            await page.press("Tab")
            assert await page.run(
                "document.activeElement === document.body || document.activeElement.closest('#confirm') !== null"
            )
            if await page.run("document.activeElement.id") == "confirm-stop":
                break
        await page.press("Enter")
        await page.until("document.querySelector('#stopped').textContent.includes('is stopped')")
        assert await page.run("document.activeElement.id") == "stopped"
    async with Ledger(ledger) as stopped:
        assert (await stopped.run("friday")).stopped


CONTRAST = """
(() => {
  const numbers = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const light = (colour) => numbers(colour).slice(0, 3).map(linear)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || element.closest("script, svg") || !element.checkVisibility() || element.disabled) continue;
    const [one, other] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) poor.push([element.tagName, element.className, element.textContent.slice(0, 30), ratio]);
  }
  return JSON.stringify(poor);
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
async def test_pages_fit_and_read_well(ledger: Path, tmp_path: Path, width: int, scheme: str) -> None:
    async with room(ledger) as (page, base):
        await page.size(width, 900, scheme=scheme)
        for name, path in {"runs": "/", "run": "/run?name=friday", "target": "/target?run=friday&id=1"}.items():
            await (complete(page, base + path) if name == "run" else page.goto(base + path))
            if name == "run":
                await page.run("document.querySelector('#kinds button').click()")
                await page.until("document.querySelectorAll('#found tbody tr').length > 0")
            await page.screenshot(Path(os.environ.get("SCREENSHOTS", tmp_path)) / f"{name}-{width}-{scheme}.png")
            assert await page.run("document.documentElement.scrollWidth") <= width
            assert json.loads(await page.run(CONTRAST)) == []
        await page.goto(f"{base}/run?name=friday")
        await page.run("document.querySelector('#stop').click()")
        await page.screenshot(Path(os.environ.get("SCREENSHOTS", tmp_path)) / f"stop-{width}-{scheme}.png")
        assert json.loads(await page.run(CONTRAST)) == []
        assert await page.run("document.documentElement.scrollWidth") <= width


def named(nodes: list[Any], role: str) -> list[str]:
    return [node["name"]["value"] for node in nodes if not node["ignored"] and node["role"]["value"] == role]


async def test_screen_reader_finds_its_way(ledger: Path) -> None:
    async with room(ledger) as (page, base):
        await complete(page, f"{base}/run?name=friday")
        nodes = (await page.call("Accessibility.getFullAXTree"))["nodes"]
        assert named(nodes, "heading") == [
            "friday", "Progress", "Over time", "Failures by kind", "One target's story", "Workers",
        ]  # fmt: skip
        assert len(named(nodes, "main")) == len(named(nodes, "banner")) == 1
        for role in ("button", "link", "textbox", "searchbox", "table", "region", "progressbar", "navigation"):
            assert all(named(nodes, role)), role
        assert len(named(nodes, "img")) + len(named(nodes, "image")) >= 3, "the charts have names"
        heard = "window.heard = 0; new MutationObserver(() => window.heard++).observe("
        await page.run(
            f"{heard}document.querySelector('#announce'), {{childList: true, characterData: true, subtree: true}})"
        )
        await asyncio.sleep(4)
        assert await page.run("window.heard") == 0, "a live region does not chatter"


async def test_missing_ledger_is_told(ledger: Path) -> None:
    async with room(ledger) as (page, base):
        await complete(page, f"{base}/run?name=friday")
        moved = ledger.rename(ledger.with_name("moved.db"))  # noqa: ASYNC240 - at once
        await page.until("document.querySelector('#alert').textContent.includes('The ledger is away')")
        assert await page.run("document.querySelector('#link').dataset.state") == "away"
        moved.rename(ledger)
        await page.until("document.querySelector('#alert').hidden")
        await page.until("document.querySelector('#link').dataset.state === 'live'")
        assert await page.text("#announce") == "The ledger is back."


async def test_missing_server_is_told(ledger: Path) -> None:
    async with open_page() as page:
        async with command(ledger) as link:
            base = link.partition("/open")[0]
            await page.goto(link)
            await complete(page, f"{base}/run?name=friday")
        await page.until("document.querySelector('#alert').textContent.includes('The server is away')")
        async with command(ledger, int(base.rpartition(":")[2])) as link:
            await page.until("document.querySelector('#alert').textContent.includes('open the link')")
            await page.goto(link)
            await page.until("document.querySelectorAll('#runs tbody tr').length === 1")


async def test_page_is_light(ledger: Path) -> None:
    async with room(ledger) as (page, base):
        await page.call("Network.setCacheDisabled", cacheDisabled=True)
        for path in ("/", "/run?name=friday", "/target?run=friday&id=1"):
            page.received = 0
            await page.goto(base + path)
            await asyncio.sleep(0.5)
            assert 5_000 < page.received < MAX_WEIGHT, path

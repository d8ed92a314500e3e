"""A control room on a real socket, over a ledger that is filled as a run fills it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import attrs

from dispatchkit import Ledger, StartDispatch, State
from dispatchkit.ledger.chunk import Holder
from dispatchkit.ledger.claim import Claim, Record
from dispatchkit.ledger.codec import encode
from dispatchkit.ledger.run import Run, RunPlan
from dispatchkit.ledger.store import Store
from dispatchkit.web.app import ControlRoom
from dispatchkit.web.serve import serve
from dispatchkit.web.source import LedgerSource

__all__ = ["SETTINGS", "Room", "Visitor", "fill", "serving"]

SETTINGS = json.dumps({"provider": "direct", "base_url": "http://127.0.0.1:9"})


def resume_line(run: Run, *options: str) -> str:
    return " ".join(["dispatchkit resume launch.db --run", run.name, *options])


async def fill(
    where: Path | str, name: str = "friday", *, failures: Sequence[tuple[int, State, str]] = (), total: int = 10
) -> None:
    """A run of dispatches from 1 on, of which some have failed and the last one is planned."""
    async with Ledger(where) as ledger:
        await fill_store(await ledger._open_store(), name, failures=failures, total=total)


async def fill_store(
    store: Store, name: str, *, failures: Sequence[tuple[int, State, str]] = (), total: int = 10
) -> Run:
    plan = RunPlan(name=name, settings=SETTINGS, host="h", account=None, fingerprint="f", attempt_timeout=1.0)
    run = await store.begin(plan)
    await store.plan(run.number, [encode(StartDispatch(number)) for number in range(1, total + 1)])
    await store.planned(run.number)
    if not total:
        return run
    await store.acquire(run.number, 0, Holder("token", 1, "host"), attempt_timeout=1.0)
    why = {index: (state, summary) for index, state, summary in failures}
    began = datetime.now(UTC)
    await store.claim([Claim(run.number, 0, index, "token", f"r-{index}", began) for index in range(total - 1)])
    records = []
    for index in range(total - 1):
        state, summary = why.get(index, (State.DONE, ""))
        at = began + timedelta(milliseconds=20)
        records.append(Record(run.number, 0, index, "token", state, summary, None, f"r-{index}", 1, at, since=began))
    await store.record(records)
    await store.release(run.number, 0, "token")
    return run


@attrs.frozen
class Room:
    """A server, and the links that it has printed."""

    base: str
    links: list[str]

    @asynccontextmanager
    async def visitor(self) -> AsyncIterator[Visitor]:
        """A browser that has opened the latest link."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            visitor = Visitor(self.base, session)
            response = await session.get(self.links[-1])
            assert response.status == 200
            yield visitor


@attrs.frozen
class Visitor:
    """A browser with a cookie."""

    base: str
    session: aiohttp.ClientSession

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with self.session.get(self.base + path, headers=headers) as response:
            return response.status, await response.text()

    async def csrf(self) -> str:
        _, text = await self.get("/")
        return text.partition('data-csrf="')[2].partition('"')[0]

    async def post(self, body: Any, **headers: str) -> tuple[int, str]:
        async with self.session.post(self.base + "/stop", json=body, headers=headers) as response:
            return response.status, await response.text()

    async def stop(self, run: str, number: int = 1) -> tuple[int, Any]:
        """Stop a run, as the page does."""
        headers = {"Origin": self.base, "X-CSRF-Token": await self.csrf(), "Sec-Fetch-Site": "same-origin"}
        status, text = await self.post({"run": run, "number": number}, **headers)
        return status, json.loads(text) if text.startswith("{") else text

    @asynccontextmanager
    async def events(self, query: str) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
        """The events of a stream, by name."""
        async with self.session.get(f"{self.base}/events?{query}") as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"

            async def read() -> AsyncIterator[tuple[str, Any]]:
                name = ""
                async for line in response.content:
                    kind, _, value = line.decode().rstrip("\n").partition(": ")
                    if kind == "event":
                        name = value
                    elif kind == "data":
                        yield name, json.loads(value)

            yield read()


@asynccontextmanager
async def serving(where: Path | str, **more: Any) -> AsyncIterator[Room]:
    """A control room over a ledger."""
    links: list[str] = []
    printed, ended = asyncio.Event(), asyncio.Event()

    def announce(link: str) -> None:
        links.append(link)
        printed.set()

    file = where if isinstance(where, Path) else None

    def opened() -> Ledger:
        if file is not None and not file.exists():
            raise ValueError(f"there is no ledger {file.name}: no such file")
        return Ledger(where)

    room = ControlRoom(source=LedgerSource(opened, file), where="launch.db", resume_line=resume_line, **more)
    task = asyncio.create_task(serve(room, port=0, tls=None, announce=announce, ended=ended))
    waiting = asyncio.create_task(printed.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield Room(links[0].partition("/open")[0], links)
    finally:
        waiting.cancel()
        ended.set()
        await task

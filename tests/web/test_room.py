"""What the control room shows and does, over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import ActivateMailing, Attachment, Audience, Ledger, State
from dispatchkit.ledger.codec import encode
from dispatchkit.ledger.run import RunPlan
from dispatchkit.ledger.run_snapshot import stop_run
from dispatchkit.ledger.sqlite.store import SqliteStore
from dispatchkit.web import look
from dispatchkit.web.failures import READ, FailureIndex
from dispatchkit.web.feed import Feed, Part
from tests.postgres import Server
from tests.web.rooms import SETTINGS, Room, fill, fill_store, resume_line, serving

pytestmark = pytest.mark.second_stage  # real processes, sockets and databases

FAILURES = [
    (1, State.REJECTED, "Dispatch 2 not found (code 4040, HTTP 404)"),
    (3, State.REJECTED, "Dispatch 4 not found (code 4040, HTTP 404)"),
    (5, State.UNKNOWN, "no answer in 70 s"),
]


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    await fill(tmp_path / "launch.db", failures=FAILURES)
    async with serving(tmp_path / "launch.db") as room:
        yield room


def data_of(text: str) -> Any:
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


async def wait_for(stream: AsyncIterator[tuple[str, Any]], name: str) -> Any:
    async with asyncio.timeout(15):
        async for kind, told in stream:
            if kind == name:
                return told
    raise AssertionError(f"the stream ended without {name}")


async def test_runs_are_listed_in_pages(tmp_path: Path) -> None:
    for number in range(23):
        await fill(tmp_path / "launch.db", f"run {number}", total=2)
    async with serving(tmp_path / "launch.db") as room, room.visitor() as visitor:
        first = data_of((await visitor.get("/"))[1])["runs"]
        second = data_of((await visitor.get("/?page=2"))[1])["runs"]
        beyond = data_of((await visitor.get("/?page=9"))[1])["runs"]
    assert [run["name"] for run in first["runs"]] == [f"run {number}" for number in range(22, 2, -1)]
    assert (first["page"], first["pages"], first["total"]) == (1, 2, 23)
    assert [run["name"] for run in second["runs"]] == ["run 2", "run 1", "run 0"]
    assert beyond == second
    assert first["runs"][0]["state"] == "unfinished"


async def test_run_is_shown_at_once(room: Room) -> None:
    async with room.visitor() as visitor:
        shown = data_of((await visitor.get("/run?name=friday"))[1])["run"]
    counts = {"done": 6, "rejected": 2, "not_sent": 0, "unknown": 1, "sending": 0, "planned": 1}
    assert shown["counts"] == counts
    assert (shown["state"], shown["left"], shown["can_stop"]) == ("unfinished", 2, True)
    assert shown["resume"] == "dispatchkit resume launch.db --run friday"
    assert shown["settings"]["provider"] == "direct"


async def test_stream_has_plots_and_failures(room: Room) -> None:
    async with room.visitor() as visitor, visitor.events("run=friday") as stream:
        assert (await wait_for(stream, "run"))["name"] == "friday"
        plots = (await wait_for(stream, "plots"))["plots"]
        failures = await wait_for(stream, "failures")
    assert len(plots) == 3
    assert all(plot.startswith("<svg") and " style=" not in plot for plot in plots)
    assert [(each["count"], each["kind"]) for each in failures["kinds"]] == [
        (2, "Dispatch # not found (code 4040, HTTP 404)"),
        (1, "no answer in 70 s"),
    ]
    assert (failures["read"], failures["total"], failures["more"]) == (3, 3, 0)


async def test_failures_are_searched(room: Room) -> None:
    async with room.visitor() as visitor:
        kind = "state=rejected&kind=Dispatch+%23+not+found+(code+4040,+HTTP+404)"
        of_kind = json.loads((await visitor.get(f"/failures?run=friday&{kind}"))[1])
        of_words = json.loads((await visitor.get("/failures?run=friday&words=NO+answer"))[1])
        of_request = json.loads((await visitor.get("/failures?run=friday&words=r-3"))[1])
        nothing = json.loads((await visitor.get(f"/failures?run=friday&words=answer&{kind}"))[1])
    assert [each["target"] for each in of_kind["failures"]] == ["2", "4"]
    assert [each["index"] for each in of_words["failures"]] == [5]
    assert [each["request_id"] for each in of_request["failures"]] == ["r-3"]
    assert nothing == {"found": 0, "failures": []}


async def test_target_tells_its_story(room: Room) -> None:
    async with room.visitor() as visitor:
        by_id = data_of((await visitor.get("/target?run=friday&id=6"))[1])["story"]
        by_index = data_of((await visitor.get("/target?run=friday&index=5"))[1])["story"]
        planned = data_of((await visitor.get("/target?run=friday&id=10"))[1])["story"]
    assert by_id == by_index
    [target] = by_id["targets"]
    assert (target["target"], target["state"], target["summary"]) == ("6", "unknown", "no answer in 70 s")
    assert target["command"] == {"type": "StartDispatch", "dispatch_id": "6"}
    assert [claim["request_id"] for claim in target["claims"]] == ["r-5"]
    assert [outcome["state"] for outcome in target["outcomes"]] == ["unknown"]
    [target] = planned["targets"]
    assert (target["state"], target["claims"], target["outcomes"]) == ("planned", [], [])


async def test_stop_uses_commands_words(room: Room, tmp_path: Path) -> None:
    async with room.visitor() as visitor:
        status, told = await visitor.stop("friday")
        shown = data_of((await visitor.get("/run?name=friday"))[1])["run"]
    assert status == 200
    async with Ledger(tmp_path / "launch.db") as ledger:
        assert (await ledger.run("friday")).stopped
        stopped = await stop_run(ledger, await ledger.run("friday"), resume_line)
    assert stopped is not None
    pattern = "Run 'friday' is stopped (no process holds it). Waiting until "
    assert told["accepted"].startswith(pattern)
    assert stopped.accepted().startswith(pattern)
    assert told["confirmed"].startswith("Run 'friday' is stopped: no process launches any more of it after ")
    assert 4 < told["wait"] <= 5
    assert (shown["state"], shown["can_stop"]) == ("stopped", False)


async def test_namesake_is_not_stopped(room: Room, tmp_path: Path) -> None:
    async with room.visitor() as visitor:
        _, told = await visitor.stop("friday", number=7)
        assert told == {"nothing": "The ledger holds no such run 'friday' any more: nothing was stopped."}
        _, told = await visitor.stop("monday")
        assert "nothing was stopped" in told["nothing"]
    async with Ledger(tmp_path / "launch.db") as ledger:
        assert not (await ledger.run("friday")).stopped


async def test_over_run_is_not_stopped(tmp_path: Path) -> None:
    async with Ledger(tmp_path / "launch.db") as ledger:
        await fill_store(await ledger._open_store(), "empty", total=0)
    async with serving(tmp_path / "launch.db") as room, room.visitor() as visitor:
        assert await visitor.stop("empty") == (200, {"nothing": "Run 'empty' is over: nothing to stop."})


async def test_page_tells_of_missing_ledger(tmp_path: Path) -> None:
    where = tmp_path / "launch.db"
    async with serving(where) as room, room.visitor() as visitor:
        _, text = await visitor.get("/")
        assert data_of(text) == {"ledger": {"away": "there is no ledger launch.db: no such file"}}
        async with visitor.events("page=1") as stream:
            assert "no such file" in (await wait_for(stream, "ledger"))["away"]
            await fill(where)
            assert (await wait_for(stream, "ledger"))["away"] is None
            assert [run["name"] for run in (await wait_for(stream, "runs"))["runs"]] == ["friday"]
            where.rename(tmp_path / "moved.db")
            assert "no such file" in (await wait_for(stream, "ledger"))["away"]
            assert (await visitor.get("/target?run=friday&id=1"))[0] == 503
            status, told = await visitor.stop("friday")
            assert (status, "no such file" in told["error"]) == (503, True)
            (tmp_path / "moved.db").rename(where)
            assert (await wait_for(stream, "ledger"))["away"] is None


async def test_deleted_run_is_gone(room: Room, tmp_path: Path) -> None:
    async with room.visitor() as visitor, visitor.events("run=friday") as stream:
        await wait_for(stream, "failures")
        async with Ledger(tmp_path / "launch.db") as ledger:
            await ledger.stop("friday")
            assert await (await ledger._open_store()).delete(1)
        async with asyncio.timeout(10):
            while "gone" not in (told := await wait_for(stream, "run")):
                pass
    assert told == {"gone": "The ledger holds no run 'friday'."}


async def test_viewers_share_one_reader(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    async def counted(*args: Any, **more: Any) -> Any:
        nonlocal looks
        looks += 1
        return await look.look_at_run(*args, **more)

    monkeypatch.setattr("dispatchkit.web.watch.look_at_run", counted)
    query = "run=friday"
    async with room.visitor() as visitor, visitor.events(query) as one, visitor.events(query) as other:
        for _ in range(3):
            for stream in (one, other):
                await wait_for(stream, "run")
    assert looks <= 4


async def test_slow_ledger_is_read_less(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("dispatchkit.web.feed.time.monotonic", lambda: now)
    monkeypatch.setattr("dispatchkit.web.feed.time.process_time", lambda: now)

    async def slow() -> dict[str, object]:
        nonlocal now
        now += 0.1
        return {}

    part = Part("run", slow, every=1.0, share=0.02)
    assert part.is_due
    await part.read()
    now = 4.9
    assert not part.is_due
    now = 5.0
    assert part.is_due
    part.read_soon()
    assert part.is_due


async def test_quiet_feed_ticks() -> None:
    async def nothing() -> None:
        return None

    feed = Feed([Part("run", nothing, every=1.0)])
    async with aclosing(feed.follow()) as stream:
        assert await anext(stream) == b"event: tick\ndata: {}\n\n"
    await feed.close()


async def test_changed_blocks_only_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [(index, State.UNKNOWN, "lost") for index in (0, 1500, 2999)]
    async with Ledger(tmp_path / "launch.db") as ledger:
        store = await ledger._open_store()
        run = await fill_store(store, "friday", failures=failures, total=3001)
        index = FailureIndex(run.number)
        read: list[int] = []
        targets = SqliteStore.targets

        def counted(self: SqliteStore, run: int, **more: Any) -> Any:
            read.append(more["start"])
            return targets(self, run, **more)

        monkeypatch.setattr(SqliteStore, "targets", counted)
        await index.refresh(store)
        assert read == [0, 1024, 2048]
        await index.refresh(store)
        assert read == [0, 1024, 2048]
    assert [failure.at_index for failure in index.known] == [0, 1500, 2999]


async def test_first_failures_are_read(tmp_path: Path) -> None:
    failures = [(index, State.REJECTED, f"no {index}") for index in range(READ + 2000)]
    async with Ledger(tmp_path / "launch.db") as ledger:
        store = await ledger._open_store()
        run = await fill_store(store, "friday", failures=failures, total=READ + 2001)
        index = FailureIndex(run.number)
        await index.refresh(store)
        kinds = index.kinds(READ + 2000)
    assert (kinds["read"], kinds["total"]) == (READ, READ + 2000)
    assert len(index.known) == READ


async def test_database_is_watched(postgres: Server) -> None:
    dsn = await postgres.create()
    await fill(dsn, failures=FAILURES)
    async with serving(dsn) as room, room.visitor() as visitor:
        async with visitor.events("run=friday") as stream:
            assert (await wait_for(stream, "run"))["counts"]["done"] == 6
            assert len((await wait_for(stream, "plots"))["plots"]) == 3
            assert (await wait_for(stream, "failures"))["total"] == 3
        story = data_of((await visitor.get("/target?run=friday&id=6"))[1])["story"]
        assert [outcome["state"] for outcome in story["targets"][0]["outcomes"]] == ["unknown"]
        status, told = await visitor.stop("friday")
        assert (status, "is stopped" in told["accepted"]) == (200, True)
        assert data_of((await visitor.get("/"))[1])["runs"]["runs"][0]["state"] == "stopped"


async def test_database_comes_back(postgres: Server) -> None:
    dsn = await postgres.create()
    await fill(dsn, failures=FAILURES)
    async with serving(dsn) as room, room.visitor() as visitor, visitor.events("run=friday") as stream:
        await wait_for(stream, "run")
        await asyncio.to_thread(postgres.stop, "immediate")
        try:
            assert (await wait_for(stream, "ledger"))["away"]
        finally:
            await asyncio.to_thread(postgres.start)
        while (told := await wait_for(stream, "ledger"))["away"] is not None:
            pass
        assert told == {"away": None}
        assert (await wait_for(stream, "run"))["counts"]["done"] == 6


async def test_address_hides_password(tmp_path: Path) -> None:
    async with serving("postgresql://me:hunter2@127.0.0.1:1/x") as room, room.visitor() as visitor:
        _, text = await visitor.get("/")
    assert "away" in text
    assert "hunter2" not in text


async def test_command_is_shown_in_words(tmp_path: Path) -> None:
    files = [Attachment("price.pdf", b"x", "application/pdf"), Attachment("Полис.pdf", b"y", "application/pdf")]
    command = ActivateMailing(82, run_now=True, audience=Audience("segment", 5), content={"sum": 1}, attachments=files)
    async with Ledger(tmp_path / "launch.db") as ledger:
        store = await ledger._open_store()
        plan = RunPlan(name="friday", settings=SETTINGS, host="h", account=None, fingerprint="f", attempt_timeout=1.0)
        run = await store.begin(plan)
        await store.plan(run.number, [encode(command)])
        await store.planned(run.number)
    async with serving(tmp_path / "launch.db") as room, room.visitor() as visitor:
        story = data_of((await visitor.get("/target?run=friday&id=82"))[1])["story"]
    assert story["targets"][0]["command"] == {
        "type": "ActivateMailing",
        "mailing_id": "82",
        "run_now": "yes",
        "audience": "segment 5",
        "content_keys": "sum",
        "attachments": "price.pdf, Полис.pdf",
    }

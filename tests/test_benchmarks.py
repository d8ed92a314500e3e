"""The benchmarks run, on what is installed, and compare like with like. What they measure here means nothing."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Iterator

import pytest

from benchmarks import attachments, blocking_call, fanout, large_run, listing, pacing, startup, sync_overhead
from benchmarks.__main__ import main
from benchmarks.contestants import CURL, OURS, PEERS, REQWEST, sample
from benchmarks.faults.contestants import CONTESTANTS, CallResult, tell
from benchmarks.faults.lossy_server import FAULTS, REFUSED, LossyServer
from benchmarks.faults.scorecard import NOT_SENT, measure, report, score_of, version
from benchmarks.ledger import SQLITE
from benchmarks.loop_blocks import LoopBlocks
from benchmarks.server import Server, Starts, provider
from dispatchkit.sandbox import Call, Reply
from dispatchkit.sync import portal

HEADS: dict[bytes, None] = {}
CONNECTIONS: list[Starts] = []


class Recording(Starts):
    """Answers as the benchmarks' own server does, and keeps what is asked."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        CONNECTIONS.append(self)

    def data_received(self, data: bytes) -> None:
        for head in (self.pending + data).split(b"\r\n\r\n")[:-1]:
            HEADS.setdefault(head)
        super().data_received(data)


@pytest.fixture
def recording() -> Iterator[Server]:
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(Recording, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield Server("test", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", os.getpid())

    async def close() -> None:
        server.close()
        for connection in CONNECTIONS:
            connection.transport.abort()
        CONNECTIONS.clear()
        await asyncio.sleep(0)  # a transport closes its socket a turn later

    asyncio.run_coroutine_threadsafe(close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.mark.second_stage
@pytest.mark.parametrize("peer", [peer.name for peer in PEERS.values() if not peer.missing()])
def test_contestants_send_same_request(peer: str, recording: Server) -> None:
    HEADS.clear()
    taken = sample(peer, PEERS[peer].loops[0] and "asyncio", recording, workers=3, seconds=0.05)
    assert taken.requests > 0
    assert taken.cpu > 0
    for head in HEADS:
        first, *lines = head.decode().split("\r\n")
        assert re.fullmatch(r"POST /api/v1/dispatch/1\d{10}/start HTTP/1\.1", first)
        sent = {name.lower(): text for name, text in (line.split(": ", 1) for line in lines)}
        assert sent.pop("host") == recording.url.removeprefix("http://")
        assert sent.pop("content-length", "0") == "0"
        assert sent.pop("authorization") == "Basic a2V5OmtleQ=="
        assert sent.pop("accept") == "application/json"
        assert sent.pop("accept-encoding") == "identity"
        assert sent.pop("user-agent").startswith("dispatchkit/")
        assert not sent


@pytest.mark.second_stage
def test_command_shows_ratios_and_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "FAN_OUT_PEERS", [PEERS["dispatchkit FanOut"], PEERS["aiohttp, default"]])
    main(["fanout", "--rounds", "1", "--seconds", "0.05", "--workers", "4"])
    printed = capsys.readouterr().out
    assert re.search(r"^\| dispatchkit FanOut +\| +\d+\.\d\d \|", printed, re.MULTILINE)
    assert re.search(r"^\| aiohttp, default +\| +1\.00 \|", printed, re.MULTILINE)
    assert all(f"Missing: {peer.name}" in printed for peer in PEERS.values() if peer.missing())
    assert "Failed" not in printed


def test_ratios_compare_same_round() -> None:
    def record(peer: str, loop: str, turn: int, cpu: float, seconds: float) -> fanout.Record:
        return fanout.Record(1000, seconds, cpu, None, peer=peer, loop=loop, workers=32, round=turn)

    ours = [record(OURS, loop, turn, 1.0 + turn, 1.0) for loop in ("asyncio", "uvloop") for turn in range(3)]
    rust = [record(REQWEST, "uvloop", turn, 2.0 + 2 * turn, 0.5) for turn in range(2)]  # it failed in the third round
    curl = [record(CURL, "", turn, 1.0, 1.0 + turn) for turn in range(3)]
    lines = fanout.beside([*ours, *rust, *curl]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert cells == [
        [f"dispatchkit / {REQWEST}", "uvloop", "32", "0.50", "0.50 to 0.50", "0.50", "0.50 to 0.50"],
        [f"dispatchkit / {CURL}", "asyncio", "32", "2.00", "1.00 to 3.00", "2.00", "1.00 to 3.00"],
        [f"dispatchkit / {CURL}", "uvloop", "32", "2.00", "1.00 to 3.00", "2.00", "1.00 to 3.00"],
    ]


def test_answers_differ_in_header_fields() -> None:
    written: list[bytes] = []

    class Sink(asyncio.Transport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            written.append(bytes(data))

    server = Starts()
    server.connection_made(Sink())
    server.data_received(b"POST /api/v1/dispatch/7/start HTTP/1.1\r\nHost: here\r\n\r\n" * 12)
    heads = [answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:] for answer in written]
    assert {len(fields) for fields in heads} == {10, 11, 12, 13, 14, 15}
    assert all(len({field.partition(b":")[0] for field in fields}) == len(fields) for fields in heads)
    assert len({b"".join(fields) for fields in heads}) == 12


async def test_loop_blocks_keep_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 0.004, 0.054, 0.056])
    monkeypatch.setattr("benchmarks.loop_blocks.time.perf_counter", lambda: next(moments, 0.056))
    with LoopBlocks() as blocks:
        for _ in range(2):
            blocks._note()
    assert blocks.longest == pytest.approx(0.049)


@pytest.mark.second_stage
def test_pacing_is_measured() -> None:
    (paced,) = pacing.measure(["asyncio"], rounds=1, seconds=0.5, rates=[200])
    assert paced.achieved > 0 < paced.cpu
    assert 0 < paced.p99_gap <= paced.longest_gap
    assert "| 200/s on asyncio |" in pacing.report([paced])


def test_pacing_counts_steady_arrivals() -> None:
    ramp, steady = [0.0, 0.5], [1 + number / 200 for number in range(200)]
    paced = pacing._paced("asyncio", 200, 0.25, [*ramp, *steady, 3.0])
    assert (paced.rate, paced.cpu) == (200, 0.25)
    assert paced.achieved == pytest.approx(200 / 2)
    assert paced.p99_gap == pytest.approx(1 / 200)
    assert paced.longest_gap == pytest.approx(3 - steady[-1])


@pytest.mark.second_stage
def test_large_calls_are_measured() -> None:
    sent, shared = attachments.measure(["asyncio"], rounds=1, mebibytes=1, workers=2)
    (listed,) = listing.measure(["asyncio"], rounds=1, items=200)
    assert sent.memory > 0 < sent.block < sent.seconds
    assert listed.memory > 0 < listed.block < listed.seconds
    assert "ledger: none, 2 workers x 1 MiB" in attachments.report([sent])
    assert "ledger: none, one file, 2 workers x 1 MiB" in attachments.report([shared])
    stored = attachments.measure_ledgers(["asyncio"], rounds=1, sizes=[1], workers=2)
    assert [each.ledger for each in stored] == ["SQLite", "SQLite, resumed", "PostgreSQL", "PostgreSQL, resumed"]
    assert "ledger: SQLite, resumed, 2 workers x 1 MiB" in attachments.report(stored)
    assert "200 dispatches" in listing.report([listed])


@pytest.mark.second_stage
def test_large_run_is_measured() -> None:
    with provider() as server:
        told = large_run.report(server, "asyncio", kind=SQLITE, targets=2000, rounds=1)
    rows = {line.split("|")[1].strip() for line in told.splitlines() if line.startswith("|")}
    assert {
        *(f"plan, {size} targets" for size in ("200", "2,000")),
        *(f"resume at half, to its first outcome, {size} targets" for size in ("200", "2,000")),
        "same line again, beyond read the input",
        *(f"{name}, beyond start of a process" for name in ("list", "show", "resume of nothing")),
        "a look of --follow",
    } < rows
    assert "2,000 launches, once: " in told


@pytest.mark.second_stage
def test_own_cost_is_measured() -> None:
    with provider() as server:
        started = startup.measure(server, rounds=1)
        turns = blocking_call.measure(server, ["asyncio"], rounds=1)
    assert {"python -c pass", "one call, in Python"} <= {each.what for each in started}
    assert all(each.cpu > 0 < each.seconds for each in started)
    assert len(turns) == blocking_call.TURNS
    assert all(turn.asynchronous_cpu > 0 < turn.blocking_cpu and turn.hop_cpu > 0 for turn in turns)
    assert "| asyncio |" in blocking_call.report(turns)
    assert "one call, in Python" in startup.report(started)


def test_overhead_of_blocking_face(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portal, "new_event_loop", portal.new_event_loop)  # it is put back afterwards
    for name, few in (("TURNS", 1), ("HOPS", 2), ("RESULTS", 2000)):
        monkeypatch.setattr(sync_overhead, name, few)
    sync_overhead.main(["--loop", "asyncio"])
    printed = capsys.readouterr().out
    assert re.search(r"a bare hop [\d.]+ us, a call [\d.]+ us, ratio [\d.]+$", printed, re.MULTILINE)
    assert re.search(r"results across the thread: [\d,]+ a second$", printed, re.MULTILINE)


OUR_ROWS = ["dispatchkit, Direct", "dispatchkit, Altcraft", "dispatchkit, Direct, state hidden"]
POST = b"POST /launch HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nbody"


@pytest.mark.second_stage
async def test_scorecard_counts_and_tells() -> None:
    faults = ("closed", "502", "cut")
    card = await measure([*OUR_ROWS, "httpx", "requests"], faults)
    assert not card.strays
    assert {each.split(" ")[0] for each in card.skipped} == {
        name for name in ("httpx", "requests") if version(CONTESTANTS[name]) is None
    }
    by_key = {(score.contestant, score.fault): score for score in card.scores}
    for name, verdict in zip(OUR_ROWS, ("done", "done", "may have happened"), strict=True):
        for fault in faults:
            assert (by_key[name, fault].acts, by_key[name, fault].verdict) == (1, verdict)
    for name in card.versions:
        assert [by_key[name, control].acts for control in (REFUSED, NOT_SENT)] == [0, 0]
    if "requests" in card.versions:
        assert by_key["requests", "closed"].verdict == "as if not sent"
    assert all(f"| {name} " in report(card) for name in card.versions)


@pytest.mark.parametrize("fault", FAULTS)
async def test_lossy_server_acts_then_fails(fault: str) -> None:
    acted: list[Call] = []

    def answer(call: Call) -> Reply:
        acted.append(call)
        return Reply(200, b"{}")

    async with LossyServer(fault, answer, Reply(400)) as server:
        for first in (True, False):
            host, _, port = server.url.removeprefix("http://").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(POST)
            if first and fault == "silent":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.05)
            elif first and fault == "reset":
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            else:
                writer.write_eof()
                got = await asyncio.wait_for(reader.read(), 5)
                whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
                if not first:
                    assert got == whole
                elif fault in {"closed", "cut"}:
                    assert got == (b"" if fault == "closed" else whole[:-1])
                else:
                    assert got.startswith(b"HTTP/1.1 %b " % fault.encode())
            writer.close()
        assert [call.body for call in acted] == [call.body for call in server.requests] == [b"body", b"body"]


async def test_lossy_server_refuses_without_acting() -> None:
    async with LossyServer(REFUSED, lambda _: Reply(200), Reply(400)) as server:
        reader, writer = await asyncio.open_connection(*server.url.removeprefix("http://").split(":"))
        writer.write(POST)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 400 ")
        writer.close()
        assert not server.requests


def test_verdict_follows_result_and_controls() -> None:
    def verdict(told: CallResult, requests: int = 1, *keys: str) -> tuple[int, str]:
        calls = [Call("POST", "/", headers={"Idempotency-Key": key}) for key in keys] or [Call("POST", "/")] * requests
        controls: dict[tuple[str, int | None], str] = {("ConnectionError", None): NOT_SENT}
        score = score_of(CONTESTANTS["stripe"], "closed", calls, None, told, controls)
        return score.acts, score.verdict

    def failed(error: Exception) -> CallResult:
        def fail() -> None:
            raise error

        return tell(fail)

    assert verdict(tell(dict)) == (1, "done")
    assert verdict(tell(dict), 2) == (2, "success, though it acted 2 times")
    assert verdict(tell(dict), 2, "a", "a") == (1, "done")
    assert verdict(tell(dict), 2, "a", "b") == (2, "success, though it acted 2 times")
    assert verdict(failed(RuntimeError("It may have happened."))) == (1, "may have happened")
    assert verdict(failed(OSError("closed"))) == (1, "an error of its own")
    assert verdict(CallResult("ConnectionError", True, None, False, "", 0.0)) == (1, "as if not sent")

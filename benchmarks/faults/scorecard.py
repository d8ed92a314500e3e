"""Run the fault scorecard: every contestant under every fault, each library in a process of its own.

A library's whole run is bounded by `LIMIT` seconds. A silent provider is met with a timeout of `SILENT` seconds. The
library's documented setting sets it; all other settings are the defaults.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import os
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.contestants import CONTESTANTS, DISPATCH, MAILING, SECRET, CallResult, Contestant
from benchmarks.faults.lossy_server import FAULTS, REFUSED, LossyServer
from benchmarks.machine import ROOT, table
from dispatchkit.sandbox import AltcraftProvider, Call, DirectProvider, Reply
from tests.faults.tls import CERTIFICATE, LEAF, serving

SILENT = 1.0
LIMIT = 120.0
CONCURRENCY = 3
NOT_SENT = "not sent"
"""A control, no fault: nothing listens on the port."""
CONTROLS = (REFUSED, NOT_SENT)

READS = frozenset({"/api/v1/dispatch", "/api/v1.1/campaigns/get_status", "/api/v1.1/campaigns/log_v2"})


@dataclass(frozen=True)
class Score:
    """One contestant under one fault."""

    contestant: str
    fault: str
    requests: int
    """How many complete requests reached the provider."""
    acts: int
    """How often it acted, given that it recognises a repeat where the library's documentation says so."""
    keys: bool
    """Whether each request carried the key by which the provider recognises a repeat."""
    told: CallResult
    verdict: str


@dataclass(frozen=True)
class Scorecard:
    """All scores, and the contestants that took no part."""

    scores: list[Score]
    versions: dict[str, str]
    skipped: list[str]
    strays: list[str]
    """Connections beyond loopback that a library tried and was refused."""


def version(contestant: Contestant) -> str | None:
    """The installed version of its package; None without it."""
    try:
        return importlib.metadata.version(contestant.package)
    except importlib.metadata.PackageNotFoundError:
        return None


async def measure(names: Iterable[str] = CONTESTANTS, faults: Sequence[str] = FAULTS) -> Scorecard:
    """Run the installed ones of these contestants."""
    entered = [CONTESTANTS[name] for name in names]
    versions = {each.name: found for each in entered if (found := version(each)) is not None}
    skipped = [f"{each.name} (pip install {each.package})" for each in entered if each.name not in versions]
    strays: list[str] = []
    turn = asyncio.Semaphore(CONCURRENCY)

    async def one(contestant: Contestant) -> list[Score]:
        async with turn:
            try:
                return await _run(contestant, faults, strays)
            except RuntimeError as error:
                skipped.append(f"{contestant.name}: {error}")
                return []

    taken = await asyncio.gather(*(one(each) for each in entered if each.name in versions))
    return Scorecard([score for scores in taken for score in scores], versions, skipped, strays)


async def _run(contestant: Contestant, faults: Sequence[str], strays: list[str]) -> list[Score]:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        context = _tls(folder) if contestant.insists_on_tls else None
        servers: dict[str, tuple[LossyServer, Callable[[], int] | None]] = {}
        for fault in (*faults, REFUSED):
            answer, refusal, acts = _provider(contestant)
            server = LossyServer(fault, answer, refusal, reads=READS, context=context)
            servers[fault] = (await stack.enter_async_context(server), acts)
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))  # it does not listen, so a connection is refused
        scheme = "https" if context else "http"
        calls = [(fault, server.url, SILENT if fault == "silent" else None) for fault, (server, _) in servers.items()]
        calls.append((NOT_SENT, f"{scheme}://127.0.0.1:{deaf.getsockname()[1]}", None))
        output = await _child(contestant, calls, folder)
    strays += [f"{contestant.name}: {stray}" for stray in output["strays"]]
    told = {fault: CallResult(**found) for fault, found in output["told"].items()}
    controls = {(told[control].name, told[control].status): control for control in CONTROLS}
    return [
        score_of(contestant, fault, server.requests, acts, told[fault], controls)
        for fault, (server, acts) in servers.items()
    ] + [score_of(contestant, NOT_SENT, [], None, told[NOT_SENT], controls)]


def score_of(
    contestant: Contestant,
    fault: str,
    requests: Sequence[Call],
    acts: Callable[[], int] | None,
    told: CallResult,
    controls: dict[tuple[str, int | None], str],
) -> Score:
    keys = [call.header(contestant.key) for call in requests] if contestant.key else []
    has_keys = bool(keys) and None not in keys
    acted = acts() if acts is not None else len(set(keys)) if has_keys else len(requests)
    if fault in CONTROLS:
        verdict = "(control)"
    elif not told.is_error:
        verdict = "done" if acted == 1 else f"success, though it acted {acted} times"
    elif told.says:
        verdict = "may have happened"
    else:
        same = controls.get((told.name, told.status))
        verdict = f"as if {same}" if same else "an error of its own"
    return Score(contestant.name, fault, len(requests), acted, has_keys, told, verdict)


def _provider(contestant: Contestant) -> tuple[Callable[[Call], Reply], Reply, Callable[[], int] | None]:
    """Its answers, its refusal, and how often it acted where it counts that itself."""
    if contestant.name.startswith("dispatchkit, Direct"):
        direct = DirectProvider([DISPATCH], token=SECRET)
        refusal = Reply.of_json(403, {"error": {"code": 4031, "msg": "Inappropriate dispatch status"}})

        def answer_direct(call: Call) -> Reply:
            hidden = contestant.hides_state and call.method == "GET"
            return Reply.of_web_server(503) if hidden else direct.answer(call)

        return answer_direct, refusal, direct.launches.total
    if contestant.name == "dispatchkit, Altcraft":
        # Without deduplication, since not every platform has it.
        altcraft = AltcraftProvider([MAILING], active=[MAILING], deduplicates=False)
        refusal = Reply.of_json(200, {"data": None, "error": 400, "error_text": "Incorrect request"})
        return altcraft.answer, refusal, altcraft.launches.total
    media_type = {"Content-Type": contestant.media_type}
    answer = Reply(contestant.answers_with, contestant.answer.encode(), media_type)
    return lambda _: answer, Reply(400, contestant.refusal.encode(), media_type), None


def _tls(folder: Path) -> ssl.SSLContext:
    """A certificate for 127.0.0.1. The authority is trusted through requests' documented variable."""
    (folder / "ca.pem").write_text(CERTIFICATE, encoding="utf-8")
    return serving(folder, LEAF)


async def _child(contestant: Contestant, calls: Sequence[object], folder: Path) -> dict[str, Any]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "SYSTEMROOT") if name in os.environ}
    authority = {"REQUESTS_CA_BUNDLE": str(folder / "ca.pem")} if contestant.insists_on_tls else {}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.faults.contestants",
        contestant.name,
        json.dumps(calls),
        cwd=ROOT,
        # A home of its own: stripe keeps a file there. AWS's metadata service is no loopback host.
        env={**kept, **authority, "HOME": str(folder), "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "*"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), LIMIT)
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise RuntimeError(f"not done after {LIMIT:g} s") from None
    if process.returncode:
        raise RuntimeError((errors.decode().strip().splitlines() or ["no word"])[-1])
    return json.loads(output)  # type: ignore[no-any-return]


def report(card: Scorecard) -> str:
    """The tables: how often the provider acted, and what the caller was told."""
    faults = [fault for fault in dict.fromkeys(score.fault for score in card.scores) if fault not in CONTROLS]
    by_key = {(score.contestant, score.fault): score for score in card.scores}
    names = [name for name in card.versions if (name, NOT_SENT) in by_key]
    acts = table(
        ["acts of the provider for one call", *faults],
        [[f"{name} ({card.versions[name]})", *(_acts(by_key[name, fault]) for fault in faults)] for name in names],
    )
    told: list[list[str]] = []
    for name in names:
        groups: dict[tuple[str, str, str], list[str]] = {}
        for fault in (*faults, *CONTROLS):
            score = by_key[name, fault]
            groups.setdefault((_acts(score), _told(score.told), score.verdict), []).append(fault)
        waits = CONTESTANTS[name].waits
        told += [[name, CONTESTANTS[name].calls, waits, ", ".join(group), *cells] for cells, group in groups.items()]
    head = ["contestant", "call", "waits by default", "faults", "acts", "the caller gets", "which says"]
    lines = [f"- Skipped: {each}." for each in card.skipped]
    lines += [f"- Tried to leave loopback, and was stopped: {each}." for each in card.strays]
    return "\n\n".join(part for part in (acts, table(head, told), "\n".join(lines)) if part)


def _acts(score: Score) -> str:
    return str(score.acts) if score.acts == score.requests else f"{score.acts} ({score.requests} requests, one key)"


def _told(told: CallResult) -> str:
    name = told.name.rpartition(".")[2] if told.is_error else told.name
    return f"`{name}`" if told.status is None or not told.is_error else f"`{name}` with the status"

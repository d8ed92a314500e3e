"""A provider outside of the package: 57 lines are enough for all that dispatchkit does."""

from __future__ import annotations

import asyncio
import os
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from dispatchkit import AuthenticationError, Counts, Ledger, sync
from dispatchkit.provider import FanOut, Probe, Secret
from dispatchkit.workers import launch_chunk, plan_chunks
from dispatchkit.workers.chunk import in_postgres
from dispatchkit.workers.procrastinate_queue import enqueue
from tests.launcher import COMMAND, Process, complete
from tests.providers.conftest import SmsServer
from tests.providers.example_provider import SmsClient, StartSms, SyncSmsClient
from tests.test_readme import block
from tests.workers.conftest import HURRIED, wait_until

pytestmark = pytest.mark.second_stage

EXAMPLE = Path(__file__).parent / "example_provider.py"
ROOT = EXAMPLE.parents[2]


def test_readme_shows_the_example() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert block("python", "class SmsClient") == text
    assert len(text.splitlines()) <= 60


async def test_call_is_done(sms: SmsServer) -> None:
    async with SmsClient("t", base_url=sms.url) as client:
        assert await client.perform(StartSms(7)) == "started"
    assert sms.starts == {7: 1}


async def test_lost_answer_is_settled(sms: SmsServer) -> None:
    sms.lost_answers = 1
    async with SmsClient("t", base_url=sms.url) as client:
        assert await client.perform(StartSms(7)) == "started"
    assert sms.starts == {7: 1}


async def test_refused_token_is_masked(sms: SmsServer) -> None:
    async with SmsClient("secret-token", base_url=sms.url) as client:
        with pytest.raises(AuthenticationError) as raised:
            await client.perform(StartSms(7))
    assert "secret-token" not in str(raised.value)
    assert "***" in str(raised.value)


class _WatchedSms(StartSms):
    def goes_out(self, since: datetime, *, launches: int = 1) -> Probe[Secret, str]:
        del launches
        return self.probe(since)


async def test_canary_needs_a_state(sms: SmsServer) -> None:
    async with SmsClient("t", base_url=sms.url) as client:
        with pytest.raises(ValueError, match="StartSms has none: nothing was sent"):
            await FanOut(client, map(StartSms, range(1, 51)), canary=2).finish()
        assert sms.starts == {}
        assert (await FanOut(client, map(_WatchedSms, range(1, 51)), canary=2).finish()).done == 50


async def test_fan_out_starts_all(sms: SmsServer) -> None:
    async with SmsClient("t", base_url=sms.url) as client:
        report = await FanOut(client, map(StartSms, range(1, 51))).finish()
    assert report.done == 50
    assert sms.starts == dict.fromkeys(range(1, 51), 1)


@pytest.mark.usefixtures("sms_is_registered")
async def test_ledger_resumes(sms: SmsServer, tmp_path: Path) -> None:
    async with SmsClient("t", base_url=sms.url) as client, Ledger(tmp_path / "a.db") as ledger:
        commands = [StartSms(number) for number in range(1, 51)]
        first = await FanOut(client, commands, ledger=ledger, run="r", max_launches=20).finish()
        again = await FanOut(client, commands, ledger=ledger, run="r").finish()
        assert (first.done, again.done, again.previously_finished) == (20, 50, 20)
        assert [target.command async for target in ledger.targets("r")][:1] == [
            '{"type":"sms.start","version":1,"campaign":1}'
        ]
    assert sms.starts == dict.fromkeys(range(1, 51), 1)


def test_blocking_twin_starts(sms: SmsServer) -> None:
    with SyncSmsClient(SmsClient("t", base_url=sms.url)) as client:
        assert client.perform(StartSms(7)) == "started"
        assert [outcome.error for outcome in sync.FanOut(client, map(StartSms, [8, 9]))] == [None, None]
    assert sms.starts == {7: 1, 8: 1, 9: 1}


@pytest.fixture
def installed(tmp_path: Path, sms: SmsServer) -> dict[str, str]:
    """The environment of a process in which the example's package is installed."""
    info = tmp_path / "packages" / "sms_kit-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sms-kit\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dispatchkit.providers]\nsms = sms_kit:SMS\n")
    (info.parent / "sms_kit.py").write_text(EXAMPLE.read_text(encoding="utf-8"))
    return {**os.environ, "SMS_TOKEN": "t", "PYTHONPATH": f"{info.parent}{os.pathsep}{ROOT}"}


@pytest.mark.second_stage
@pytest.mark.usefixtures("sms_is_registered")
def test_resume_finds_the_installed_provider(sms: SmsServer, tmp_path: Path, installed: dict[str, str]) -> None:
    async def launch_some() -> None:
        async with SmsClient("t", base_url=sms.url) as client, Ledger(tmp_path / "a.db") as ledger:
            await FanOut(client, map(StartSms, range(1, 51)), ledger=ledger, run="r", max_launches=20).finish()

    asyncio.run(launch_some())
    resume = [*COMMAND, "resume", str(tmp_path / "a.db"), "--yes"]
    without = complete(resume, env={**installed, "PYTHONPATH": str(ROOT)})
    assert (without.returncode, without.stdout) == (2, "")
    assert without.stderr.startswith(
        "dispatchkit: the ledger names the provider 'sms', which is not installed: install "
    )
    assert without.stderr.count("\n") == 1
    ended = complete(resume, env=installed)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sms.starts == dict.fromkeys(range(1, 51), 1)


def plan(dsn: str, sms: SmsServer) -> None:
    async def planning() -> None:
        async with SmsClient("t", base_url=sms.url) as client, Ledger(dsn) as ledger:
            chunks = await plan_chunks(ledger, "r", client, map(StartSms, range(1, 51)), size=20)
            await enqueue(await in_postgres(ledger), [("r", chunk) for chunk in chunks])

    asyncio.run(planning())


@pytest.mark.usefixtures("sms_is_registered")
def test_worker_finds_the_installed_provider(sms: SmsServer, dsn: str, installed: dict[str, str]) -> None:
    plan(dsn, sms)
    command = [*COMMAND, "worker", "--url", f"sms={sms.url}"]
    environment = {**installed, "DISPATCHKIT_LEDGER": dsn}
    worker = Process(command, constants=HURRIED, stderr=subprocess.PIPE, text=True, env=environment)

    async def counts() -> Counts:
        async with Ledger(dsn) as ledger:
            return await ledger.counts("r")

    try:
        wait_until(lambda: asyncio.run(counts()) == Counts(done=50))
    finally:
        worker.terminate()
        worker.communicate(timeout=15)
    assert sms.starts == dict.fromkeys(range(1, 51), 1)


@pytest.mark.usefixtures("sms_is_registered")
async def test_launch_chunk_needs_a_host(sms: SmsServer, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SmsClient("t", base_url=sms.url) as client:
        await plan_chunks(dsn, "r", client, map(StartSms, [1, 2]))
    monkeypatch.setenv("SMS_TOKEN", "t")
    with pytest.raises(ValueError, match="no host for the provider 'sms'"):
        await launch_chunk(dsn, "r", 0)

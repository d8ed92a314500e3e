"""The parts of a plan: the same commands again are neither hashed one by one nor written again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import ActivateMailing, Audience, LaunchBroadcast, Ledger, StartDispatch, StopDispatch
from dispatchkit.ledger import plan as planning
from dispatchkit.ledger.codec import decode, encode, encode_text
from dispatchkit.ledger.plan import name_repeats, name_targets
from dispatchkit.ledger.repeat import Repeat
from dispatchkit.ledger.sqlite.store import SqliteStore
from dispatchkit.ledger.template import Template
from tests.ledger.test_store import run_plan

CONTENT = {"a": 1}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_PLAN_ROWS", 4)


async def planned(ledger: Ledger, commands: Sequence[Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[int]]:
    """The run with these commands, and how many rows each write of the plan had."""
    store = await ledger._open_store()
    written: list[int] = []
    real = SqliteStore.plan

    async def plan(self: Any, run: int, rows: Any, **more: Any) -> None:
        written.append(len(rows))
        await real(self, run, rows, **more)

    monkeypatch.setattr(SqliteStore, "plan", plan)
    run = await store.begin(run_plan("a"))
    assert await planning.plan(store, run, commands, lambda: False)
    monkeypatch.setattr(SqliteStore, "plan", real)
    return await store.run("a"), written


async def test_same_commands_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [*map(StartDispatch, range(1, 11))]
    async with Ledger(tmp_path / "launch.db") as ledger:
        assert (await planned(ledger, commands, monkeypatch))[1] == [4, 4, 2]
        run, written = await planned(ledger, commands, monkeypatch)
        assert (run.total, written) == (10, [])
        run, written = await planned(ledger, [*commands[:9], StartDispatch(99)], monkeypatch)
        assert (run.total, written) == (11, [2])
        run, written = await planned(ledger, [*commands[:3], StopDispatch(4), *commands[4:]], monkeypatch)
        assert (run.total, written) == (12, [4, 2])
        assert [target.target async for target in ledger.targets("a")] == [*range(1, 11), 99, 4]


@pytest.mark.parametrize("count", [3, 4, 9])
@pytest.mark.parametrize(
    "command",
    [StartDispatch, partial(LaunchBroadcast, audience=Audience("list", 5)), partial(ActivateMailing, content=CONTENT)],
)
async def test_digests_are_those_of_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any, count: int
) -> None:
    async with Ledger(tmp_path / "launch.db") as ledger:
        run, _ = await planned(ledger, [*map(command, range(1, count + 1))], monkeypatch)
        parts = await (await ledger._open_store()).plan_parts(run.number)
    assert planning.digests(command, range(1, count + 1)) == parts
    assert planning.digests(command, range(2, count + 2)) != parts


def test_template_writes_equal_commands_only() -> None:
    first, audience = LaunchBroadcast(7, audience=Audience("list", 5)), Audience("list", 5)
    template = Template.of(first, encode(first)[1])
    assert template is not None
    assert template.write(StartDispatch(7)) is None
    assert template.write(LaunchBroadcast(7, audience=audience)) is None  # equal, but not the same object
    assert template.write(LaunchBroadcast(7, audience=first.audience, limit=3)) is None
    other = LaunchBroadcast(12345, audience=first.audience)
    assert template.write(other) == encode_text(other)
    assert template.read(encode_text(other)) == other


def test_changeable_content_has_no_template() -> None:
    command = ActivateMailing(7, content={"a": 1})
    assert Template.of(command, encode(command)[1]) is None


@pytest.mark.parametrize("number", ["0", "-1", "01", "1.0", "1e3", "true", "\u0661", "1" * 19, ""])
def test_template_reads_plain_numbers_only(number: str) -> None:
    template = Template.of(StartDispatch(7), encode(StartDispatch(7))[1])
    assert template is not None
    assert template.read(encode(StartDispatch(7))[1].replace("7", number)) is None


def test_repeated_texts_read_the_same() -> None:
    commands: list[Any] = [StartDispatch(7), StartDispatch(8), StopDispatch(8), ActivateMailing(8), StartDispatch(9)]
    assert [decode(encode(command)[1]) for command in commands for _ in range(2)] == [
        command for command in commands for _ in range(2)
    ]


@pytest.mark.parametrize(("count", "expected"), [(2, "7, 8"), (3, "7, 8, ...")])
def test_first_targets_are_named(count: int, expected: str) -> None:
    commands = [encode_text(StartDispatch(number)) for number in (7, 8)]
    repeat = Repeat("noon", count, commands, datetime(2026, 1, 31, 12, tzinfo=UTC), range(count))
    assert name_targets(repeat) == expected
    assert name_repeats([repeat]) == f"{count} in run 'noon', the latest at 2026-01-31 12:00:00 UTC ({expected})"


@pytest.mark.parametrize(
    "damaged",
    [
        '{"type":"direct.stop"}',
        "",
        "{}",
        "\n",
        "%s\n%s",
        "%s ",
        " %s",
        '{"type":"direct.start","version":1,"dispatch_id":08}',
    ],
)
def test_template_reads_whole_pages(damaged: str) -> None:
    texts = [encode(StartDispatch(number))[1] for number in (7, 80, 10**17)]
    template = Template.of(StartDispatch(7), texts[0])
    assert template is not None
    assert template.numbers(texts) == ["7", "80", f"{10**17}"]
    damaged = damaged.replace("%s", texts[0])
    for page in ([damaged], [*texts, damaged], [damaged, *texts], [texts[0], damaged, texts[1]]):
        assert template.numbers(page) is None

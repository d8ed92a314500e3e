"""A list of the wrong things is refused before its first launch; one wrong thing among others is an outcome."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import AltcraftClient, FanOut, Ledger, Report, StartDispatch
from tests.harness import played


async def aids(ids: list[Any]) -> AsyncIterator[Any]:
    for each in ids:
        yield each


FORMS: list[Callable[[list[Any]], Any]] = [list, iter, tuple, aids]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["5"] * 10, "the first 10 are of type str, such as '5': nothing was launched. To launch them, convert them: "),
        (["5"] * 10 + [5], "the first 10 are of type str"),
        (["5", "6"], "all are of type str"),
        ([5.0], r"the only one is of type float, such as 5\.0: .*a float rounds"),
        ([True, False], "all are of type bool, .*these are flags"),
        ([None, "5"], "all are of type NoneType, str"),
        ([(5, "x")] * 3, r"all are of type tuple, .*\[row\[0\] for row in rows\]"),
        ([{"id": 5}] * 3, r"all are of type dict, .*\[row\['id'\] for row in rows\]"),
        ([StartDispatch(5)] * 3, r"all are of type StartDispatch, .*FanOut\(client, commands\)"),
        ([Decimal(5)] * 3, "all are of type Decimal, .*pass integers"),
    ],
)
async def test_wrong_types_are_refused(form: Callable[[list[Any]], Any], items: list[Any], message: str) -> None:
    client, transport = played()
    with pytest.raises(TypeError, match=f"ids must be integers, but {message}"):
        await client.start_many(form(items)).finish()
    assert transport.seen == []


@pytest.mark.parametrize("name", ["activate_many", "launch_many", "launch_regular_many"])
async def test_altcraft_refuses_them_too(name: str) -> None:
    async with AltcraftClient("http://127.0.0.1:9", "t") as altcraft:
        with pytest.raises(TypeError, match="ids must be integers, but all are of type str"):
            await getattr(altcraft, name)(["5", "6"]).finish()


@pytest.mark.parametrize("form", FORMS)
async def test_single_wrong_type_is_outcome(form: Callable[[list[Any]], Any]) -> None:
    client, transport = played()
    run = client.start_many(form(["x"] * 9 + [5, "y"]))
    outcomes = [outcome async for outcome in run]
    assert sorted(outcome.index for outcome in outcomes) == list(range(11))
    assert [number for _, number in transport.seen] == [5]
    assert (run.report.done, run.report.not_sent) == (1, 10)


@pytest.mark.parametrize("form", FORMS)
async def test_wrong_values_are_outcomes(form: Callable[[list[Any]], Any]) -> None:
    client, _ = played()
    assert (await client.start_many(form([0] * 12)).finish()).not_sent == 12


@pytest.mark.parametrize("form", FORMS)
async def test_ids_for_commands_are_refused(form: Callable[[list[Any]], Any]) -> None:
    client, _ = played()
    run = FanOut(client, form([5, 6]))
    with pytest.raises(
        TypeError, match=r"commands must be commands, .*all are of type int: .*map\(StartDispatch, ids\)"
    ):
        await run.finish()
    assert run.report.total == 0


@pytest.mark.parametrize("form", FORMS)
async def test_empty_list_is_allowed(form: Callable[[list[Any]], Any]) -> None:
    client, _ = played()
    assert (await client.start_many(form([])).finish()).total == 0


async def test_ledger_holds_nothing_of_them(tmp_path: Path) -> None:
    client, _ = played()
    async with Ledger(str(tmp_path / "l.db")) as ledger:
        with pytest.raises(TypeError, match="ids must be integers"):
            await client.start_many(["5"] * 10, ledger=ledger, run="a").finish()  # type: ignore[list-item]
        assert [run.total for run in await ledger.runs()] in ([], [0])


async def test_slow_stream_is_not_delayed() -> None:
    client, transport = played()
    seen = []

    def ids() -> Iterator[int]:
        for number in range(1, 4):
            seen.append((number, len(transport.seen)))
            yield number

    assert await client.start_many(ids(), concurrency=1).finish() == Report(done=3)
    assert seen == [(1, 0), (2, 1), (3, 2)]

"""However workers come, go, die and renew: together they never hold more than the account allows."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dispatchkit.core.clock import SYSTEM
from dispatchkit.core.pacing.pace import Pace
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.postgres.connection import Connection, ReconnectingConnection
from dispatchkit.ledger.postgres.driver_settings import DriverSettings
from dispatchkit.ledger.postgres.store import PostgresStore
from dispatchkit.testing import FakeClock
from dispatchkit.workers.fair_share import RENEW, Share
from dispatchkit.workers.shared_pace import SharedAccount
from tests.harness import acquire, until
from tests.workers.conftest import DatabaseProxy

pytestmark = pytest.mark.second_stage


@attrs.frozen
class Lease:
    """What a worker holds, and what it was told that all together may use."""

    worker: str
    held: Share
    wanted: Share


def fair_share(worker: str, wanted: Share, others: Sequence[Lease]) -> Share:
    """What a worker may hold: the model of what the statement of a renewal does in SQL.

    Args:
        worker: Its name; of a concurrency that cannot be divided evenly, the first by name get one more.
        wanted: What all together may use, as this worker was told. The strictest of them holds.
        others: The leases of the others that have not expired.
    """
    wants = [wanted, *(other.wanted for other in others)]
    rank = sum(other.worker < worker for other in others)
    number = len(wants)
    rate = _least([want.rate for want in wants])
    if rate is not None:
        taken = math.fsum(_bound(other.held.rate) for other in others)
        # What is left after a division may be a hair more than what is left.
        left = rate - taken - 1e-9 * rate
        rate = max(0.0, min(rate / number, left)) if others else rate
    concurrency = _least([want.concurrency for want in wants])
    if concurrency is not None:
        fair = int(concurrency) // number + (rank < int(concurrency) % number)
        free = concurrency - sum(_bound(other.held.concurrency) for other in others)
        concurrency = int(max(0, min(fair, free)))
    return Share(rate, None if concurrency is None else int(concurrency))


def _least(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _bound(value: float | None) -> float:
    """One that was told of no bound may use any amount, until it renews and learns of it."""
    return math.inf if value is None else value


class Workers(RuleBasedStateMachine):
    """Leases as the table holds them. A lease counts until its worker renews it, leaves, or it expires."""

    @initialize(
        rate=st.none() | st.floats(0.01, 1e6), concurrency=st.none() | st.integers(1, 500), strict=st.booleans()
    )
    def begin(self, rate: float | None, concurrency: int | None, strict: bool) -> None:
        self.wanted = Share(rate, concurrency)
        self.leases = dict[str, Lease]()
        self.names = (f"{number * 7919 % 101:03}" for number in itertools.count())

    @rule()
    def join(self) -> None:
        self.renew_as(next(self.names))

    @rule(place=st.integers(0, 50))
    def renew(self, place: int) -> None:
        if self.leases:
            self.renew_as(sorted(self.leases)[place % len(self.leases)])

    @rule(place=st.integers(0, 50))
    def leave_or_die(self, place: int) -> None:
        if self.leases:
            del self.leases[sorted(self.leases)[place % len(self.leases)]]

    @rule()
    def renew_all_twice(self) -> None:
        for name in [*self.leases, *self.leases]:
            self.renew_as(name)
        held = [lease.held for lease in self.leases.values()]
        if held and self.wanted.rate is not None:
            assert math.isclose(math.fsum(lease.rate or 0 for lease in held), self.wanted.rate, rel_tol=1e-6)
        if held and self.wanted.concurrency is not None:
            assert sum(lease.concurrency or 0 for lease in held) == self.wanted.concurrency

    def renew_as(self, name: str) -> None:
        others = [lease for lease in self.leases.values() if lease.worker != name]
        self.leases[name] = Lease(name, fair_share(name, self.wanted, others), self.wanted)

    @invariant()
    def never_more_than_all(self) -> None:
        held = [lease.held for lease in getattr(self, "leases", {}).values()]
        if held and self.wanted.rate is not None:
            assert math.fsum(lease.rate or 0 for lease in held) <= self.wanted.rate
        if held and self.wanted.concurrency is not None:
            assert sum(lease.concurrency or 0 for lease in held) <= self.wanted.concurrency
        assert all((lease.rate is None) == (self.wanted.rate is None) for lease in held)


Workers.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestWorkers = Workers.TestCase


@settings(deadline=None)
@given(st.lists(st.none() | st.integers(1, 100), min_size=2, max_size=6))
def test_strictest_run_limits_all(wants: list[int | None]) -> None:
    leases: dict[str, Lease] = {}
    for _ in range(3):
        for number, want in enumerate(wants):
            others = [lease for name, lease in leases.items() if name != str(number)]
            leases[str(number)] = Lease(
                str(number), fair_share(str(number), Share(None, want), others), Share(None, want)
            )
    told = [want for want in wants if want is not None]
    held = [lease.held.concurrency for lease in leases.values()]
    if told:
        assert sum(each or 0 for each in held) == min(told)
    else:
        assert held == [None] * len(wants)


async def test_dead_shares_return_to_table(dsn: str) -> None:
    store = PostgresStore(dsn)
    await store.open()
    accounts = [SharedAccount(store.new_connection(), "k", Pacer(Pace(), SYSTEM)) for _ in range(3)]
    for account in accounts:
        account.wanted["chunk"] = Share(90.0, 9)
    first, second, third = accounts
    await first.renew()
    assert first.held == Share(90.0, 9)
    assert first._pacer.pace == Pace(rate=90.0, concurrency=9)
    second.launching = 1
    await second.renew()
    assert second.held.nothing  # all is taken
    assert second._pacer.paused_for() > 1
    await asyncio.gather(first.renew(), third.renew())
    for _ in range(3):
        for account in accounts:
            await account.renew()
    assert [account.held.concurrency for account in accounts] == [3, 3, 3]
    assert math.isclose(sum(account.held.rate or 0 for account in accounts), 90.0, rel_tol=1e-6)
    ends = "UPDATE dispatchkit.lease SET expires = now() WHERE worker = $1"
    await store.connection.run(lambda connection: connection.execute(ends, third._worker))
    for account in (first, second, first):
        await account.renew()
    assert {first.held.concurrency, second.held.concurrency} == {4, 5}
    for account in accounts:
        await account._leave()
    assert (
        await store.connection.run(lambda connection: connection.fetchval("SELECT count(*) FROM dispatchkit.lease"))
        == 0
    )
    assert first._pacer.pace == Pace()
    await store.close()


async def test_shares_in_flight_stay_reserved(dsn: str) -> None:
    store = PostgresStore(dsn)
    await store.open()
    first, second = (SharedAccount(store.new_connection(), "k", Pacer(Pace(), SYSTEM)) for _ in range(2))
    for account in (first, second):
        account.wanted["chunk"] = Share(None, 10)
    await first.renew()
    permits = [first._pacer.try_acquire() for _ in range(8)]
    await second.renew()
    for _ in range(2):  # the first renewal learns that it has less, the next one gives it up
        await first.renew()
    await second.renew()
    assert (first.held.concurrency, second.held.concurrency) == (5, 2)
    for permit in permits:
        first._pacer.release(permit, answered=True, elapsed=0.01)
    await first.renew()
    await second.renew()
    assert (first.held.concurrency, second.held.concurrency) == (5, 5)
    for account in (first, second):
        await account._leave()
    await store.close()


async def test_shared_pause_does_not_grow(dsn: str) -> None:
    store = PostgresStore(dsn)
    await store.open()
    first, second = (SharedAccount(store.new_connection(), "k", Pacer(Pace(), SYSTEM)) for _ in range(2))
    for account in (first, second):
        await account.renew()
    first._pacer.throttle(3.0)
    await first.look()
    for _ in range(20):
        await second.look()
        await first.look()
    assert 2.5 < second._pacer.paused_for() < 3.1
    assert first._pacer.paused_for() < 3.1
    for account in (first, second):
        await account._leave()
    await store.close()


@contextlib.asynccontextmanager
async def _pair(
    dsn: str, pace: Pace | None = None
) -> AsyncIterator[tuple[PostgresStore, SharedAccount, SharedAccount]]:
    """Two processes of one account, as far as the database can tell."""
    store = PostgresStore(dsn)
    await store.open()
    first, second = (SharedAccount(store.new_connection(), "k", Pacer(pace or Pace(), SYSTEM)) for _ in range(2))
    for account in (first, second):
        await account.renew()
    try:
        yield store, first, second
    finally:
        for account in (first, second):
            await account._leave()
        await store.close()


async def _stored(store: PostgresStore) -> float:
    """Seconds that are left of the pause in the database."""
    statement = "SELECT extract(epoch FROM paused_until - clock_timestamp())::float8 FROM dispatchkit.account"
    left: float = await store.connection.run(lambda connection: connection.fetchval(statement))
    return left


@pytest.mark.parametrize("how", ["look", "renew"])
async def test_max_pause_bounds_stored_pause(dsn: str, how: str) -> None:
    async with _pair(dsn) as (store, first, second):
        first._pacer.throttle(1767225600.0)
        await first.look()
        assert 3590 < await _stored(store) <= 3600
        ten_years = "UPDATE dispatchkit.account SET paused_until = clock_timestamp() + interval '10 years'"
        await store.connection.run(lambda connection: connection.execute(ten_years))
        await getattr(second, how)()
        assert 3590 < await _stored(store) <= 3600
        assert 3590 < second._pacer.paused_for() <= 3600
        await asyncio.sleep(0.2)
        await getattr(second, how)()
        assert await _stored(store) < 3599.8, "its end does not move on"


async def test_smallest_max_pause_applies(dsn: str) -> None:
    async with _pair(dsn) as (store, first, second):
        second._own = Pace(max_pause=60.0)
        second._pacer.set(second._own)
        first._pacer.throttle(3600.0)
        await first.look()
        await second.look()
        assert 55 < await _stored(store) <= 60
        await first.look()
        assert 55 < first._pacer.paused_for() <= 60


async def test_lifted_pause_ends_everywhere(dsn: str) -> None:
    async with _pair(dsn) as (store, first, second):
        first._pacer.throttle(600.0)
        await first.look()
        await second.renew()
        waiting = [asyncio.ensure_future(acquire(account._pacer)) for account in (first, second)]
        await asyncio.sleep(0)
        assert [key for key, _ in await store.pauses()] == ["k"]
        assert await store.lift_pauses(["k", "other"]) == ["k"]
        assert await store.lift_pauses(["k"]) == []
        await first.renew()
        await second.look()
        assert all(await asyncio.wait_for(asyncio.gather(*waiting), 5))
        assert await store.pauses() == []
        first._pacer.throttle(30.0)
        await first.look()
        await second.look()
        assert second._pacer.paused_for() > 25, "a pause that is new is told"


async def test_lifted_pause_stays_lifted(dsn: str) -> None:
    async with _pair(dsn) as (store, first, _):
        first._pacer.throttle(600.0)
        await first.look()
        await store.lift_pauses(["k"])
        # Of the next chunk: it has the pacer of the one before.
        later = SharedAccount(store.new_connection(), "k", first._pacer)
        await later.renew()
        assert first._pacer.paused_for() == 0
        assert await _stored(store) < 0
        await later._leave()


async def test_waiting_for_share_is_silent(dsn: str) -> None:
    async with _pair(dsn) as (store, first, second):
        first._pacer.throttle(600.0)
        await first.look()
        await second.look()
        second.launching = 1
        second._apply(Share(0, 0))
        await second.look()
        await store.lift_pauses(["k"])
        await second.look()
        assert 0 < second._pacer.paused_for() <= RENEW + 0.5
        assert await _stored(store) < 0


async def _accounts(store: PostgresStore, number: int) -> list[SharedAccount]:
    accounts = [SharedAccount(store.new_connection(), "k", Pacer(Pace(), SYSTEM)) for _ in range(number)]
    for account in accounts:
        account.wanted["chunk"] = Share(90.0, 9)
    return accounts


def _use(accounts: Sequence[SharedAccount]) -> tuple[float, int]:
    held = [account.held for account in accounts]
    return math.fsum(lease.rate or 0 for lease in held), sum(lease.concurrency or 0 for lease in held)


@pytest.mark.parametrize("seed", range(3))
async def test_renewals_match_model(dsn: str, seed: int) -> None:
    draw = random.Random(seed)
    store = PostgresStore(dsn)
    await store.open()
    accounts = await _accounts(store, 5)
    leases = (
        "SELECT worker, rate, concurrency, wanted_rate, wanted_concurrency FROM dispatchkit.lease WHERE worker <> $1"
    )
    for _ in range(80):
        account = draw.choice(accounts)
        match draw.randrange(8):
            case 0:
                wanted = Share(draw.choice([None, 90.0, 30.0]), draw.choice([None, 9, 4]))
                account.wanted["chunk"] = wanted
            case 1:  # it was suspended, and its lease has ended
                account._apply(Share(0, 0))
                ends = "DELETE FROM dispatchkit.lease WHERE worker = $1"
                await store.connection.run(
                    lambda connection, ends=ends, name=account._worker: connection.execute(ends, name)  # type: ignore[misc]
                )
            case _:
                pass
        rows = await store.connection.run(lambda connection, name=account._worker: connection.fetch(leases, name))  # type: ignore[misc]
        others = [
            Lease(name, Share(rate, parse_ledger_args), Share(*wants)) for name, rate, parse_ledger_args, *wants in rows
        ]
        expected = fair_share(account._worker, account.wanted["chunk"], others)
        await account.renew()
        assert account.held.concurrency == expected.concurrency
        assert account.held.rate == pytest.approx(expected.rate)
        found = await store.connection.run(
            lambda connection, name=account._worker: connection.fetchrow(  # type: ignore[misc]
                "SELECT rate, concurrency FROM dispatchkit.lease WHERE worker = $1", name
            )
        )
        for held, booked in zip((account.held.rate, account.held.concurrency), found, strict=True):
            assert booked is None or (held is not None and held <= booked)
    for account in accounts:
        await account._leave()
    await store.close()


@pytest.mark.second_stage
async def test_simultaneous_renewals_keep_rate(dsn: str) -> None:
    store = PostgresStore(dsn)
    await store.open()
    accounts = await _accounts(store, 4)
    for account in accounts:
        await account.look()  # it connects
    await store.connection.run(
        lambda connection: connection.execute("INSERT INTO dispatchkit.account (key) VALUES ('k')")
    )

    async def renew_together(connection: Connection) -> None:
        async with connection.transaction():  # all of them wait for one lock, with what they have read before it
            await connection.execute("SELECT FROM dispatchkit.account FOR UPDATE")
            renewing.extend(asyncio.create_task(account.renew()) for account in accounts)
            await asyncio.sleep(0.3)

    for _ in range(4):
        renewing = list[asyncio.Task[None]]()
        await store.connection.run(renew_together)
        await asyncio.gather(*renewing)
        rate, parse_ledger_args = _use(accounts)
        assert rate <= 90.0
        assert parse_ledger_args <= 9
    assert rate == pytest.approx(90.0)
    assert parse_ledger_args == 9
    for account in accounts:
        await account._leave()
    assert (
        await store.connection.run(lambda connection: connection.fetchval("SELECT count(*) FROM dispatchkit.lease"))
        == 0
    )
    await store.close()


async def test_reduction_books_after_worker_knows(dsn: str) -> None:
    store = PostgresStore(dsn)
    await store.open()
    first, second = await _accounts(store, 2)
    await first.renew()
    await second.renew()  # nothing is left
    link = first._connection
    answer = link.run
    lost = asyncio.Event()

    async def lose(work: Callable[[Connection], Awaitable[None]]) -> None:
        used = first._held
        await answer(work)
        first._apply(used)  # as if the answer were under way still
        lost.set()

    first._connection.run = lose  # type: ignore[assignment,method-assign]
    await first.renew()
    assert lost.is_set()
    await second.renew()
    assert second.held == Share(0.0, 0)
    first._connection.run = answer  # type: ignore[method-assign]
    for _ in range(2):
        await first.renew()
    await second.renew()
    assert second.held == Share(pytest.approx(45.0), 4 + (second._worker < first._worker))  # type: ignore[arg-type]
    for account in (first, second):
        await account._leave()
    await store.close()


@contextlib.asynccontextmanager
async def _running(
    dsn: str, monkeypatch: pytest.MonkeyPatch, wanted: Share
) -> AsyncIterator[tuple[SharedAccount, DatabaseProxy, asyncio.Task[None]]]:
    """A worker at work, on a database whose answers can be delayed. All times are a tenth."""
    for name, value in {"EXPIRES": 1.2, "ANSWER_LIMIT": 0.5, "RENEW": 0.1, "_LOOK": 0.025}.items():
        monkeypatch.setattr(f"dispatchkit.workers.shared_pace.{name}", value)
    store = PostgresStore(dsn)
    await store.open()
    with DatabaseProxy(dsn) as proxy:
        account = SharedAccount(
            ReconnectingConnection(DriverSettings(Address.of(proxy.dsn))), "k", Pacer(Pace(), SYSTEM)
        )
        account.wanted["chunk"], account.launching = wanted, 1
        for ask in (account.renew, account.look):  # the first time each takes two answers: its plan comes first
            await ask()
        keeping = asyncio.create_task(account.keep())
        try:
            yield account, proxy, keeping
        finally:
            proxy.delay = 0.0
            keeping.cancel()
            await asyncio.wait([keeping])
            await store.close()


BOUNDS = pytest.mark.parametrize("wanted", [Share(90.0, 9), Share()])


@pytest.mark.second_stage
@BOUNDS
async def test_slow_answers_keep_the_lease(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wanted: Share
) -> None:
    async with _running(dsn, monkeypatch, wanted) as (account, proxy, _):
        connection = account._isolated
        proxy.delay = 0.3
        for _ in range(60):
            await asyncio.sleep(0.05)
            assert not account._pacer.paused_for()
        assert account.held == wanted
        assert account._isolated is connection
    assert caplog.messages == []


@pytest.mark.second_stage
@BOUNDS
async def test_late_responses_pause_once(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wanted: Share
) -> None:
    caplog.set_level(logging.WARNING, "dispatchkit.ledger")
    async with _running(dsn, monkeypatch, wanted) as (account, proxy, _):
        connection = account._isolated
        for pauses in (1, 2):
            proxy.delay = 0.8
            await until(lambda: bool(account._pacer.paused_for()))
            answers = proxy.answers
            for _ in range(30):
                await asyncio.sleep(0.05)
                assert account._pacer.paused_for()
            assert proxy.answers - answers <= 5  # no busy loop
            assert caplog.messages == ["the run pauses: the database answers in 1 s; the limit is 0 s"] * pauses
            proxy.delay = 0.0
            await until(lambda: not account._pacer.paused_for())
            assert account.held == wanted
        assert account._isolated is connection


@pytest.mark.second_stage
async def test_missing_response_pauses_before_lease(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with _running(dsn, monkeypatch, Share(90.0, 9)) as (account, proxy, keeping):
        proxy.delay = 60.0
        await until(lambda: bool(account._pacer.paused_for()))
        assert SYSTEM.boottime() < account._until
        assert caplog.messages == ["the run pauses: the database has not answered for 1 s; the limit is 0 s"]
        keeping.cancel()
        _, pending = await asyncio.wait([keeping], timeout=20)  # the database answers in a minute
        assert not pending


@pytest.mark.second_stage
async def test_refused_renewal_explains_pause(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with _running(dsn, monkeypatch, Share(90.0, 9)) as (account, _, _):
        admin = ReconnectingConnection(DriverSettings(Address.of(dsn)))
        await admin.run(lambda connection: connection.execute("ALTER TABLE dispatchkit.lease RENAME TO away"))
        await until(lambda: bool(account._pacer.paused_for()))
        await admin.run(lambda connection: connection.execute("ALTER TABLE dispatchkit.away RENAME TO lease"))
        await until(lambda: not account._pacer.paused_for())
        await admin.close()
    (message,) = caplog.messages
    assert message.startswith("the run pauses: the ledger's database refused a statement")


class Conflicting:
    """A connection whose statements meet other transactions."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = [*errors]

    async def execute(self, _: str) -> str:
        return ""

    async def fetchrow(self, *_: object) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "row"


async def test_conflicts_are_repeated() -> None:
    clock = FakeClock()
    link = ReconnectingConnection(DriverSettings(Address.of("postgresql://app@127.0.0.1/x")))
    account: Any = SharedAccount(link, "k", Pacer(Pace(), clock), clock=clock)
    conflicts = [asyncpg.SerializationError("conflict")] * 3
    assert await account._serialized(Conflicting(*conflicts), "SELECT") == "row"
    assert clock.time == pytest.approx(3 * 0.025)  # the clock's random number is 0.5, of 0.05 s
    other = Conflicting(conflicts[0], asyncpg.DeadlockDetectedError("deadlock"))
    with pytest.raises(asyncpg.DeadlockDetectedError):
        await account._serialized(other, "SELECT")
    assert other.errors == []

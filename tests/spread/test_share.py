"""However workers come, go, die and renew: together they never hold more than the account allows."""

from __future__ import annotations

import asyncio
import itertools
import math

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dispatchkit.core.clock import SYSTEM
from dispatchkit.core.pace import Pace
from dispatchkit.core.pacer import Pacer
from dispatchkit.ledger.postgres import PostgresStore
from dispatchkit.spread.account import SharedAccount
from dispatchkit.spread.share import Lease, Share, share


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
            assert math.isclose(math.fsum(each.rate or 0 for each in held), self.wanted.rate, rel_tol=1e-6)
        if held and self.wanted.concurrency is not None:
            assert sum(each.concurrency or 0 for each in held) == self.wanted.concurrency

    def renew_as(self, name: str) -> None:
        others = [lease for lease in self.leases.values() if lease.worker != name]
        self.leases[name] = Lease(name, share(name, self.wanted, others), self.wanted)

    @invariant()
    def never_more_than_all(self) -> None:
        held = [lease.held for lease in getattr(self, "leases", {}).values()]
        if held and self.wanted.rate is not None:
            assert math.fsum(each.rate or 0 for each in held) <= self.wanted.rate
        if held and self.wanted.concurrency is not None:
            assert sum(each.concurrency or 0 for each in held) <= self.wanted.concurrency
        assert all((each.rate is None) == (self.wanted.rate is None) for each in held)


Workers.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestWorkers = Workers.TestCase


@settings(deadline=None)
@given(st.lists(st.none() | st.integers(1, 100), min_size=2, max_size=6))
def test_the_strictest_of_several_runs_holds_for_all_of_them(wants: list[int | None]) -> None:
    leases: dict[str, Lease] = {}
    for _ in range(3):
        for number, want in enumerate(wants):
            others = [lease for name, lease in leases.items() if name != str(number)]
            leases[str(number)] = Lease(str(number), share(str(number), Share(None, want), others), Share(None, want))
    told = [want for want in wants if want is not None]
    held = [lease.held.concurrency for lease in leases.values()]
    if told:
        assert sum(each or 0 for each in held) == min(told)
    else:
        assert held == [None] * len(wants)


async def test_the_table_gives_each_its_part_and_takes_back_what_the_dead_had(dsn: str) -> None:
    store = PostgresStore(dsn)
    await store.open()
    accounts = [SharedAccount(store.another(), "k", Pacer(Pace(), SYSTEM)) for _ in range(3)]
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
    for _ in range(2):
        for account in accounts:
            await account.renew()
    assert [account.held.concurrency for account in accounts] == [3, 3, 3]
    assert math.isclose(sum(account.held.rate or 0 for account in accounts), 90.0, rel_tol=1e-6)
    ends = "UPDATE dispatchkit.lease SET expires = now() WHERE worker = $1"
    await store.link.ask(lambda link: link.execute(ends, third._worker))
    for account in (first, second, first):
        await account.renew()
    assert {first.held.concurrency, second.held.concurrency} == {4, 5}
    for account in accounts:
        await account._leave()
    assert await store.link.ask(lambda link: link.fetchval("SELECT count(*) FROM dispatchkit.lease")) == 0
    assert first._pacer.pace == Pace()
    await store.close()


async def test_what_is_in_flight_is_not_given_to_others_before_it_is_back(dsn: str) -> None:
    store = PostgresStore(dsn)
    await store.open()
    first, second = (SharedAccount(store.another(), "k", Pacer(Pace(), SYSTEM)) for _ in range(2))
    for account in (first, second):
        account.wanted["chunk"] = Share(None, 10)
    await first.renew()
    tickets = [first._pacer.enter() for _ in range(8)]
    await second.renew()
    await first.renew()
    await second.renew()
    assert (first.held.concurrency, second.held.concurrency) == (5, 2)
    for ticket in tickets:
        first._pacer.release(ticket, answered=True, took=0.01)
    await first.renew()
    await second.renew()
    assert (first.held.concurrency, second.held.concurrency) == (5, 5)
    for account in (first, second):
        await account._leave()
    await store.close()


async def test_a_pause_of_one_is_a_pause_of_all_and_does_not_grow_on_its_way(dsn: str) -> None:
    store = PostgresStore(dsn)
    await store.open()
    first, second = (SharedAccount(store.another(), "k", Pacer(Pace(), SYSTEM)) for _ in range(2))
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

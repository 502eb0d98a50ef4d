"""Instances that lead and follow over a real PostgreSQL; what a term runs is a stand-in that tells what was asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from support.clock import FakeClock
from support.factories import row, snapshot
from support.instances import instance, wall_ms
from support.postgres import Server, new_server
from support.stores import entries
from support.until import until

from relay.board import Board, UpstreamState
from relay.clock import SharedClock
from relay.errors import NotLeader, StoreBroken, StoreUnavailable
from relay.metrics import Metrics
from relay.store.base import LEAD_RENEWAL
from relay.store.postgres import PostgresStore
from relay.upstream.intake import Intake
from relay.upstream.leadership import FOLLOW_EVERY, LEAD_PATIENCE, Leadership, tell_time


class Term:
    """Stands in for the upstream room."""

    def __init__(self) -> None:
        self.running, self.left = asyncio.Event(), asyncio.Event()
        self.sweeps: list[str] = []
        self.fails: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.supervisor = self
        self.intake = Intake()

    def want_sweep(self, reason: str) -> None:
        self.sweeps.append(reason)

    async def run(self) -> None:
        self.running.set()
        try:
            await self.fails
        finally:
            self.left.set()


class Member:
    """One instance: its leadership, on a clock that the test moves."""

    def __init__(self, url: str, name: str) -> None:
        self.clock = FakeClock()
        self.board = Board()
        self.board.lead.shared = True
        self.metrics = Metrics("0")
        self.terms: list[Term] = []
        self.configured = 0
        self.store = PostgresStore(url, wall_ms, lambda _seconds: None, self.clock.sleep)
        around = (self.board, self.metrics, self.clock, Random(1))
        self.leadership = Leadership(instance(name), self.store, self._begin, self._configure, *around)  # type: ignore[arg-type]  # a stand-in

    def _begin(self) -> Any:
        self.terms.append(Term())
        return self.terms[-1]

    async def _configure(self) -> None:
        self.configured += 1

    async def start(self) -> None:
        await self.store.open(entries(("alpha",)))
        self.task = asyncio.create_task(self.leadership.run())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])

    async def leads(self) -> Term:
        """Once it does, and has looked around."""
        await until(lambda: self.terms and self.leadership.term is self.terms[-1] and self.terms[-1].running.is_set())
        return self.terms[-1]

    async def follows(self) -> None:
        await until(lambda: self.board.upstream.state is UpstreamState.FOLLOWING)

    async def live(self, seconds: float) -> None:
        """Time passes in small steps, and the database may answer in between."""
        for _ in range(round(seconds / 0.5)):
            await self.clock.advance(0.5)
            await asyncio.sleep(0.005)

    def metric(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"houdini_relay_{name}")


@pytest.fixture(scope="module")
def server() -> Server:
    return new_server()


@pytest.fixture
async def url(server: Server) -> AsyncIterator[str]:
    async with server.database() as made:
        yield made


@asynccontextmanager
async def members(url: str, *names: str) -> AsyncIterator[list[Member]]:
    """The first leads, the others follow."""
    made = [Member(url, name) for name in names]
    try:
        for number, one in enumerate(made):
            await one.start()
            await (one.follows() if number else one.leads())
        yield made
    finally:
        for one in made:
            await one.stop()
            await one.store.close()


async def listen(server: Server, url: str, count: int) -> bool:
    """Whether so many instances hear hints by now."""
    name = url.rpartition("/")[2].partition("?")[0]
    asked = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = $1 AND query ILIKE 'listen%'"
    return (await server.ask(asked, name))[0]["n"] == count


async def lapse(server: Server, url: str) -> None:
    """The leader's lease has ended, as it does when it is not renewed."""
    name = url.rpartition("/")[2].partition("?")[0]
    await server.ask("UPDATE leader SET expires_at = now() - interval '1 s'", database=name)


async def test_one_leads_and_the_others_know_where(url: str):
    async with members(url, "one", "two") as (one, two):
        assert (one.board.lead.epoch, one.configured, one.metric("leading")) == (1, 1, 1)
        assert (two.terms, two.configured, two.metric("leading")) == ([], 0, 0)
        assert two.board.lead.follows
        assert two.board.lead.leader == "host-of-one"
        assert (two.board.lead.instances, two.metric("instances")) == (2, 2)
        await one.live(LEAD_RENEWAL)
        await until(lambda: one.board.lead.instances == 2)


async def test_a_lead_that_is_given_back_is_taken_at_once(url: str, server: Server):
    async with members(url, "one", "two") as (one, two):
        await until(lambda: two.clock.sleepers)
        await until(lambda: listen(server, url, 2))
        await one.stop()
        await two.leads()  # though its clock stands still
        assert one.terms[0].left.is_set()
        assert one.board.upstream.state is UpstreamState.STOPPED
        assert two.board.lead.epoch == 2
        assert two.board.lead.leader == "host-of-two"


async def test_a_leader_that_was_asleep_for_too_long_stops_before_it_asks_again(url: str, server: Server):
    async with members(url, "one", "two") as (one, two):
        await lapse(server, url)
        await two.live(FOLLOW_EVERY)
        await two.leads()
        first = one.terms[0]
        await one.live(LEAD_RENEWAL)
        await until(first.left.is_set)
        await one.live(2)
        await one.follows()
        assert one.terms == [first]
        assert one.metric("leading") == 0


async def test_what_is_refused_for_want_of_the_lead_ends_the_term(url: str):
    async with members(url, "one") as (one,):
        first = one.terms[0]
        first.fails.set_exception(NotLeader("another"))
        await until(first.left.is_set)
        await until(lambda: one.clock.sleepers)
        await one.live(2)
        second = await one.leads()
        assert second is not first  # nothing of the first term is believed in the second
        assert one.board.lead.epoch == 1  # it had the lease all along


async def test_frames_that_could_not_be_stored_are_taken_along_into_the_next_term(url: str):
    async with members(url, "one") as (one,):
        first = one.terms[0]
        for frame in (snapshot("o1", 0), snapshot("o1", 2), snapshot("o2", 0)):
            first.intake.offer(frame)
        await first.intake.put([row("o3", 4)])  # what REST shows is asked for anew
        first.fails.set_exception(StoreUnavailable("away"))
        await until(first.left.is_set)
        await until(lambda: one.clock.sleepers)
        await one.live(2)
        second = await one.leads()
        taken = [(entry.snapshot.houdini_id, entry.snapshot.status) for entry in await second.intake.take(10)]
        assert taken == [("o1", 0), ("o1", 2), ("o2", 0)]


async def test_what_another_leader_may_know_better_is_not_taken_along(url: str, server: Server):
    async with members(url, "one", "two") as (one, two):
        one.terms[0].intake.offer(snapshot("o1", 0))
        await lapse(server, url)
        await two.live(FOLLOW_EVERY)
        await two.leads()
        await one.live(LEAD_RENEWAL)
        await until(one.terms[0].left.is_set)
        await two.stop()
        while len(one.terms) == 1:
            await one.live(0.5)
        assert one.board.lead.epoch == 3
        assert len(one.terms[1].intake) == 0


async def test_a_defect_is_not_taken_for_an_outage(url: str):
    async with members(url, "one") as (one,):
        one.terms[0].fails.set_exception(StoreBroken("damaged"))
        with pytest.raises(StoreBroken):
            await one.task


async def test_terms_that_do_not_last_are_spaced_more_and_more(url: str):
    async with members(url, "one") as (one,):
        began = []
        for _ in range(5):
            term = await one.leads()
            began.append(one.clock.mono())
            term.fails.set_exception(StoreUnavailable("away"))
            await until(term.left.is_set)
            count = len(one.terms)
            while len(one.terms) == count:
                await one.live(0.5)
        spaces = [later - earlier for earlier, later in pairwise(began)]
        assert max(spaces[2:]) > 2.0


async def test_an_outage_ends_the_term_in_time_and_all_goes_on_after_it(url: str, server: Server):
    async with members(url, "one") as (one,):
        first = one.terms[0]
        await asyncio.to_thread(server.stop, "immediate")
        try:
            began = one.clock.mono()
            while not first.left.is_set():
                await one.live(0.5)
            assert one.clock.mono() - began <= LEAD_PATIENCE + 1.0
            await until(lambda: one.board.gate.reason is not None)
            assert "cannot be reached" in (one.board.lead.store_away or "")
            assert one.metric("store_available") == 0
            await one.live(30)
            assert one.terms == [first]
        finally:
            await asyncio.to_thread(server.start)
        while len(one.terms) == 1:
            await one.live(0.5)
        await one.leads()
        assert (one.board.gate.reason, one.board.lead.store_away, one.metric("store_available")) == (None, None, 1)


async def test_a_short_outage_costs_no_term(url: str, server: Server):
    async with members(url, "one") as (one,):
        await asyncio.to_thread(server.stop, "immediate")
        await one.live(LEAD_RENEWAL + 1)
        await asyncio.to_thread(server.start)
        await one.live(3)
        assert len(one.terms) == 1
        assert not one.terms[0].left.is_set()


async def test_a_sweep_that_is_asked_for_anywhere_reaches_the_leader(url: str):
    async with members(url, "one", "two") as (one, two):
        await one.leadership.want_sweep("asked for")
        assert one.terms[0].sweeps == ["asked for"]
        await one.live(2 * LEAD_RENEWAL)
        assert one.terms[0].sweeps == ["asked for"]
        await two.leadership.want_sweep("asked for")
        await one.live(2 * LEAD_RENEWAL)
        assert one.terms[0].sweeps == ["asked for"] * 2
        assert one.leadership.intake() is one.terms[0].intake
        assert two.leadership.intake() is None


async def test_a_new_leader_does_not_take_up_what_was_asked_of_the_last(url: str):
    async with members(url, "one", "two") as (one, two):
        await two.leadership.want_sweep("asked for")
        await one.stop()
        await two.live(FOLLOW_EVERY)
        term = await two.leads()
        await two.live(2 * LEAD_RENEWAL)
        assert term.sweeps == []


async def test_a_shared_clock_goes_by_the_database_and_not_by_the_machine(url: str):
    store = PostgresStore(url, wall_ms, lambda _seconds: None)
    machine = FakeClock(wall_ms=1_000)
    clock = SharedClock(machine)
    assert clock.wall_ms() == 1_000
    try:
        await tell_time(clock, store)  # before it is open, which goes by it
        assert abs(clock.wall_ms() - wall_ms()) < 5_000
    finally:
        await store.close()
    before = clock.wall_ms()
    machine.step_wall(-600)
    assert clock.wall_ms() == before
    await machine.advance(2)
    assert clock.wall_ms() == before + 2_000
    await tell_time(machine, store)  # one that is not shared is left alone

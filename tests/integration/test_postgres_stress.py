"""Everything at once, from several instances: no lane stuck or doubled, nothing out of order, no deadlock."""

import asyncio
import os
import random
from collections import defaultdict
from contextlib import suppress
from datetime import timedelta

import pytest
from msgspec.structs import replace
from support.factories import event
from support.instances import add, instance, instances, wall_ms
from support.postgres import shared_server
from support.stores import again, dead, delivered, trips, up_to

from relay.model import Delivery
from relay.standing import Breaker, Ordering, Permit, Standing
from relay.store import postgres_verbs
from relay.store.postgres import PostgresStore
from relay.store.values import Settlement, TargetEntry

TARGETS = (
    TargetEntry("calm", timeout_ms=0),
    TargetEntry("latest", Ordering.LATEST_ONLY, timeout_ms=0),
    TargetEntry("loose", Ordering.NONE, timeout_ms=0),
    TargetEntry("rough", timeout_ms=0),
)
NAMES = tuple(one.name for one in TARGETS)
ORDERS = 40
SECONDS = float(os.environ.get("STRESS_SECONDS", "5"))


class Load:
    """What is done, and the order in which events were attempted."""

    def __init__(self, stores: list[PostgresStore], seed: int) -> None:
        self.stores = stores
        self.chance = random.Random(seed)
        self.sequences: dict[str, int] = defaultdict(int)
        self.attempted: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.done: dict[str, int] = defaultdict(int)
        self.over = False

    async def produce(self) -> None:
        """The leader's part, notices from everybody among it."""
        number = 0
        while not self.over:
            lanes = [f"o{self.chance.randrange(ORDERS):03}" for _ in range(self.chance.choice((1, 4, 12)))]
            batch = []
            for lane in lanes:
                self.sequences[lane] += 1
                batch.append(event(lane, status=self.sequences[lane] % 4, sequence=self.sequences[lane]))
            await add(self.stores[0], *batch, targets=NAMES)
            number += 1
            if number % 7 == 0:
                assert await self.stores[0].renew()
                notice = event("relay:alpha", facts=None, webhook_id=f"n{number}", type="relay.x")
                await add(self.chance.choice(self.stores), notice, targets=NAMES)
            self.done["events"] += len(batch)
            await asyncio.sleep(self.chance.random() * 0.02)

    async def deliver(self, store: PostgresStore, target: str) -> None:
        while not self.over:
            await self.deliver_once(store, target)
            await asyncio.sleep(self.chance.random() * 0.02)

    async def deliver_once(self, store: PostgresStore, target: str, *, kindly: bool = False) -> int:
        def permits(standing: Standing) -> Permit:
            if standing.breaker is Breaker.OPEN and not standing.stopped:
                return Permit(1, probe=True)
            return up_to(self.chance.choice((1, 5, 30)))(standing)

        claim = await store.claim(target, permits, wall_ms())
        for one in claim.deliveries:
            if one.event.facts is not None and not one.manual:  # a replay is of the past
                self.attempted[target, one.event.lane].append(one.event.facts.sequence)
        fate = 1.0 if kindly else self.chance.random()
        if fate < 0.05:  # killed: the lease has to end
            self.done["lost"] += len(claim.deliveries)
            for one in claim.deliveries:
                store._held.pop(one.id, None)
        elif fate < 0.1:
            await store.release(claim.deliveries)
        elif claim.deliveries:
            if fate < 0.2:  # too slow: somebody else has it meanwhile
                await asyncio.sleep(0.25)
            outcomes = [delivered(one, wall_ms()) if kindly else self.outcome(one) for one in claim.deliveries]
            await store.settle(outcomes, trips, wall_ms())
            self.done["settled"] += len(outcomes)
        return len(claim.deliveries)

    def outcome(self, one: Delivery) -> Settlement:
        fate = self.chance.random()
        if fate < (0.5 if one.target == "rough" else 0.05):
            return again(one, wall_ms() + self.chance.randrange(300), at_ms=wall_ms())
        return dead(one) if fate > 0.98 else delivered(one, wall_ms())

    async def meddle(self, store: PostgresStore) -> None:
        """People, the janitor, and a configuration that changes."""
        place: int | None = 0
        while not self.over:
            target, now_ms = self.chance.choice(NAMES), wall_ms()
            some = self.chance.randrange(1, 2_000)
            wish = self.chance.randrange(9)
            if wish == 0:
                await store.cancel(some, now_ms)
            elif wish == 1:
                await store.retry_now(some, now_ms)
            elif wish == 2:
                await store.expire(target, now_ms - 200, 0, 50, now_ms)
            elif wish == 3:
                await store.trim(target, 200, 20, now_ms)
            elif wish == 4:
                await store.replay(target, [f"evt_o{some % ORDERS:03}_{some % 9 + 1}"], now_ms)
            elif wish == 5:
                await store.pause(target, now_ms)
                await store.resume(target, now_ms)
            elif wish == 6:
                place = (await store.prune(now_ms - 2_000, place or 0, 50)).next_place
            elif wish == 7:
                reach = str(self.chance.randrange(3))
                await store.configure([replace(one, reach=reach) for one in TARGETS])
            else:
                await store.backlog()
                await store.expire_notices(target, now_ms - 500, 20, now_ms)
            self.done["wishes"] += 1
            await asyncio.sleep(self.chance.random() * 0.03)


async def test_everything_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(postgres_verbs, "LEASE_GRACE", timedelta(milliseconds=200))
    seed = random.randrange(10**6)
    async with shared_server().database() as url, instances(url, 3, TARGETS) as stores:
        assert await stores[0].lead(instance("leader")) == 1
        load = Load(list(stores), seed)
        workers = [load.produce(), *(load.meddle(store) for store in stores[1:])]
        workers += [load.deliver(store, name) for store in stores for name in NAMES]
        tasks = [asyncio.create_task(one) for one in workers]
        await asyncio.wait(tasks, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
        load.over = True
        await asyncio.gather(*tasks)
        await drain(load, stores[0])
        database = url.rpartition("/")[2].partition("?")[0]
        deadlocks = await shared_server().ask("SELECT deadlocks FROM pg_stat_database WHERE datname = $1", database)
        assert deadlocks[0][0] == 0
        assert await stores[0].check() == []
    print(seed, dict(load.done))
    assert {where: seen for where, seen in load.attempted.items() if where[0] != "loose" and seen != sorted(seen)} == {}
    assert load.done["settled"] > 100


async def drain(load: Load, store: PostgresStore) -> None:
    """Whatever is left can still be delivered: no lane is stuck."""
    with suppress(TimeoutError):
        async with asyncio.timeout(30):
            while any(one.pending for one in (await store.backlog()).values()):
                for name in NAMES:
                    await load.deliver_once(store, name, kindly=True)
                await asyncio.sleep(0.02)
    assert {name: one.pending for name, one in (await store.backlog()).items() if one.pending} == {}

"""examples/deploy/partition.sql, run on a store with a life, and what works on it afterwards."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from support.factories import event
from support.instances import instance, instances, wall_ms
from support.postgres import shared_server
from support.stores import Bench, dead, delivered, up_to

from relay.store.postgres import PostgresStore
from relay.store.reads import Filter
from relay.store.values import IngestPlan

SCRIPT = Path(__file__).parents[2] / "examples" / "deploy" / "partition.sql"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with shared_server().database() as made:
        yield made


async def part(url: str) -> None:
    script = await asyncio.to_thread(SCRIPT.read_text)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


async def furnish(url: str) -> tuple[list[object], int]:
    """All that can be seen of its deliveries, and their room."""
    bench = Bench(lambda: PostgresStore(url, wall_ms, lambda _seconds: None))
    await bench.open()
    for number in range(40):
        await bench.add_life(f"o{number:02}", 3)
    heads = await bench.claim(limit=21)
    await bench.settle(*(delivered(one) for one in heads[:20]), dead(heads[20]))
    seen = list((await bench.store.list_deliveries(Filter(), None, 1_000)).items)
    size = await bench.store.size_bytes()
    await bench.store.close()
    return seen, size


async def test_everything_is_as_it_was_and_goes_on(url: str):
    before, size = await furnish(url)
    await part(url)
    async with instances(url, 2) as (one, other):
        assert list((await one.list_deliveries(Filter(), None, 1_000)).items) == before
        assert await one.check() == []
        assert await one.size_bytes() > size, "the room is in the parts"
        await one.lead(instance("one"))
        bench = Bench(lambda: one)
        await bench.add(event("new"), targets=["alpha"])
        assert (await one.list_deliveries(Filter(), None, 1)).items[0].id == before[0].id + 1
        seen: dict[str, list[int]] = {}
        while (await one.backlog())["alpha"].pending:
            for store in (one, other):
                claimed = (await store.claim("alpha", up_to(7), wall_ms())).deliveries
                for delivery in claimed:
                    seen.setdefault(delivery.event.lane, []).append(delivery.event.facts.sequence)
                await store.settle([delivered(delivery) for delivery in claimed], lambda was, _: was, wall_ms())
        assert all(order == sorted(order) for order in seen.values())
        assert sum(map(len, seen.values())) == 121 - 21
        pruned = await one.prune(wall_ms() + 1_000, 0, 1_000)
        assert pruned.deliveries > 0
        assert await other.check() == []


async def test_a_delivery_is_still_made_once(url: str):
    await furnish(url)
    await part(url)
    async with instances(url, 1) as (store,):
        await store.lead(instance("one"))
        with pytest.raises(asyncpg.UniqueViolationError):
            await Bench(lambda: store).add(event("o00", 1, sequence=1, webhook_id="evt_o00_1"))
        await store.ingest([], lambda _known: IngestPlan(now_ms=1))


async def test_a_claim_looks_at_no_more_than_its_index(url: str):
    await furnish(url)
    await part(url)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET enable_seqscan = off")
        plan = await connection.fetch(
            "EXPLAIN SELECT id FROM deliveries WHERE state = 0 AND target_id = 1 AND due_ms <= 5 "
            "AND (leased_until IS NULL OR leased_until <= now()) "
            "ORDER BY due_ms, id LIMIT 16 FOR NO KEY UPDATE SKIP LOCKED"
        )
    finally:
        await connection.close()
    text = "\n".join(row[0] for row in plan)
    assert "Merge Append" in text
    assert "Sort  " not in text
    assert text.count("Index Scan") == 8

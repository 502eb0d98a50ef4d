"""A store with a bit of everything in it, some of it odd."""

from collections.abc import Callable
from pathlib import Path

from support.factories import event
from support.stores import Bench, again, dead, delivered, question, trips

from relay.store.base import Store
from relay.store.sqlite import SqliteStore
from relay.store.values import IngestPlan


async def furnish(path: Path) -> Bench:
    """A file like that, open."""
    return await furnish_store(lambda: SqliteStore(path, lambda: 5_000, lambda _seconds: None))


async def furnish_store(make: Callable[[], Store]) -> Bench:
    """Any store like that, open."""
    bench = Bench(make)
    await bench.open()
    for number in range(30):
        await bench.add_life(f"o{number:02}", 3)
    await bench.add(event("odd", 4, body=b"\x00\xff\xfe{"), event("relay:x", facts=None, webhook_id="evt_n"))
    await bench.store.ingest([], lambda _known: IngestPlan(now_ms=1, questions=[question("o01")]))
    heads = await bench.claim()
    await bench.settle(*(delivered(one) for one in heads[:10]), *(dead(one) for one in heads[10:15]))
    await bench.settle(*(again(one, 99_000) for one in heads[15:20]), judge=trips)
    await bench.store.replay("alpha", ["evt_o00_1"], 3_000)
    await bench.store.begin_gap(1, "why")
    await bench.store.meta_set("k", "v")
    await bench.store.pause("beta", 7)
    return bench

"""A process that uses a store as the relay does and says what it did only once that is committed.

`python store_child.py DATABASE ROUNDS`: prints `opened`, `I <webhook ids>` and `A <delivery ids>`; exits with 3 and
a sentence when the store breaks.
"""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.factories import event, known
from support.stores import as_it_was, delivered, entries, up_to

from relay.errors import StoreError
from relay.model import KnownOrder
from relay.store.sqlite import SqliteStore
from relay.store.values import IngestPlan, PlannedEvent

TARGETS = ("alpha", "beta")


def next_events(orders: Mapping[str, KnownOrder], houdini_ids: list[str]) -> IngestPlan:
    plan = IngestPlan(now_ms=1_000)
    for houdini_id in houdini_ids:
        before = orders.get(houdini_id)
        sequence = before.sequence + 1 if before else 1
        body = b'{"fill":"%s"}' % (b"x" * 800)
        plan.orders[houdini_id] = known(houdini_id, sequence % 5, sequence=sequence, last_frame=body)
        plan.events.append(PlannedEvent(event(houdini_id, sequence % 5, sequence, body=body), TARGETS))
    return plan


async def work(store: SqliteStore, rounds: int) -> None:
    chance = Random()
    for _ in range(rounds):
        ids = sorted({f"o{chance.randrange(30)}" for _ in range(chance.choice([1, 3, 12]))})
        plan = await store.ingest(ids, lambda orders, ids=ids: next_events(orders, ids))
        print("I", *(planned.event.webhook_id for planned in plan.events), flush=True)
        for target in TARGETS:
            claimed = (await store.claim(target, up_to(chance.choice([1, 10])), 5_000)).deliveries
            await store.settle([delivered(one) for one in claimed], as_it_was, 2_000)
            print("A", *(one.id for one in claimed), flush=True)


async def main(path: Path, rounds: int) -> int:
    store = SqliteStore(path, lambda: 1_000, lambda _seconds: None)
    try:
        await store.open(entries(TARGETS))
        print("opened", flush=True)
        await work(store, rounds)
    except StoreError as error:
        print(error, file=sys.stderr, flush=True)
        return 3
    finally:
        await store.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]))))

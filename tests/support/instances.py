"""Several instances over one PostgreSQL database, in one process."""

import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from support.factories import event, known
from support.stores import TARGETS, entries

from relay.model import Event
from relay.store.postgres import PostgresStore
from relay.store.values import IngestPlan, Instance, PlannedEvent, TargetEntry


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def instance(name: str) -> Instance:
    return Instance(name, f"host-of-{name}", wall_ms())


@asynccontextmanager
async def instances(
    url: str, count: int, targets: Collection[str | TargetEntry] = TARGETS
) -> AsyncIterator[Sequence[PostgresStore]]:
    """Open stores; none leads yet."""
    async with AsyncExitStack() as stack:
        made = [PostgresStore(url, wall_ms, lambda _seconds: None) for _ in range(count)]
        for store in made:
            await store.open(entries(targets))
            stack.push_async_callback(store.close)
        yield made


async def crash(store: PostgresStore) -> None:
    """As a killed process does: connections go, and nothing is given back."""
    store._held.clear()
    store._instance, store._epoch = None, None
    await store.close()


async def add(
    store: PostgresStore, *events: Event, targets: Sequence[str] = TARGETS, now_ms: int | None = None
) -> None:
    at_ms = wall_ms() if now_ms is None else now_ms

    def plan(_known: object) -> IngestPlan:
        planned = IngestPlan(now_ms=at_ms)
        for one in events:
            if one.facts is not None:
                facts = one.facts
                planned.orders[one.lane] = known(one.lane, facts.status, sequence=facts.sequence, last_frame=one.body)
            planned.events.append(PlannedEvent(one, tuple(targets)))
        return planned

    await store.ingest({one.lane for one in events if one.facts is not None}, plan)


def life(houdini_id: str, length: int) -> list[Event]:
    return [event(houdini_id, status=number % 4, sequence=number) for number in range(1, length + 1)]

"""What a command does to a PostgreSQL store by itself; the relay may run meanwhile."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from relay.config.store_url import StoreUrl
from relay.store.migrate import migrate_postgres
from relay.store.postgres import PostgresStore
from relay.store.postgres_link import Link
from relay.store.values import Pruned

PRUNE_BATCH = 5_000
"""Rows a transaction."""


async def migrate_database(url: StoreUrl) -> Sequence[str]:
    """Create or migrate its tables; returns the names of the migrations applied.

    Raises:
        StoreError: it cannot be reached or used, or was migrated by a newer version.
    """
    link = Link(url)
    await link.open()
    try:
        return await migrate_postgres(link)
    finally:
        await link.close()


async def reach_database(url: StoreUrl) -> None:
    """Ask it for the time.

    Raises:
        StoreError: it cannot be reached, or does not let this user in.
    """
    link = Link(url)
    try:
        await link.run(lambda session: session.value("clock"))
    finally:
        await link.close()


async def check_database(url: StoreUrl) -> Sequence[str]:
    """Every invariant that does not hold, a sentence each; changes nothing.

    Raises:
        StoreError: it cannot be reached or used, or has another schema.
    """
    async with attached(url) as store:
        return await store.check()


async def prune_database(url: StoreUrl, before_ms: int, now_ms: int, tell: Callable[[Pruned], None]) -> Pruned:
    """Remove what ended before that moment; `tell` gets the sum so far after every batch, each of which is committed.

    Raises:
        StoreError: it cannot be reached or used, or has another schema.
    """
    async with attached(url, lambda: now_ms) as store:
        total, place = Pruned(0, 0, 0, 0), 0
        while True:
            step = await store.prune(before_ms, place, PRUNE_BATCH)
            total = Pruned(
                total.deliveries + step.deliveries,
                total.events + step.events,
                total.orders + step.orders,
                step.next_place,
            )
            tell(total)
            if step.next_place is None:
                return total
            place = step.next_place


@asynccontextmanager
async def attached(url: StoreUrl, now_ms: Callable[[], int] = lambda: 0) -> AsyncIterator[PostgresStore]:
    """The store as it is: not migrated, no target configured, nobody told anything.

    Raises:
        StoreError: it cannot be reached or used, or has another schema.
    """
    store = PostgresStore(url, now_ms, lambda _seconds: None)
    await store.attach()
    try:
        yield store
    finally:
        await store.close()

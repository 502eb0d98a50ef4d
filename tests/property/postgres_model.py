"""The same hands over the PostgreSQL store: what a kill leaves behind are leases, which time ends."""

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import store_queries
from queue_model import QueueBench
from store_model import LONGEST_WAIT_MS, METRICS, PARTNER, TARGETS, Crashed, Relay
from support.instances import instance
from support.postgres import lapse, shared_server
from support.stores import entries

from relay.store.postgres import PostgresStore
from relay.store.postgres_link import Session
from relay.upstream.ingest import Ingest
from relay.upstream.intake import Intake

T = TypeVar("T")
Rows = list[tuple[Any, ...]]

DIALECT: Final = {
    store_queries.LANES: """
SELECT target_id, lane, string_agg(state || ':' || id, ' ') FROM deliveries WHERE state < 2
GROUP BY target_id, lane
HAVING count(*) FILTER (WHERE state = 0) != 1 OR min(id) != min(id) FILTER (WHERE state = 0)
""",
    store_queries.SEQUENCES: """
SELECT lane, string_agg(sequence::text, ',') FROM events GROUP BY lane
HAVING min(sequence) != 1 OR max(sequence) != count(*) OR count(DISTINCT sequence) != count(*)
""",
    store_queries.FAN_OUT: """
SELECT e.type, string_agg(t.name, ',') FROM events e LEFT JOIN deliveries d ON d.event_id = e.id AND d.replay = 0
LEFT JOIN targets t ON t.id = d.target_id GROUP BY e.id
""",
}
"""What SQLite says in other words."""


async def read(session: Session, query: str, *bound: Any) -> Rows:
    text = DIALECT.get(query, query)
    for number in range(1, len(bound) + 1):
        text = text.replace("?", f"${number}", 1)
    return [tuple(row) for row in await session.connection.fetch(text, *bound)]


async def kill(store: PostgresStore, url: str) -> None:
    """Memory is gone, the lead and all leases are left to run out, and have by the time anybody looks."""
    store._held.clear()
    store._instance, store._epoch = None, None
    await store.close()
    await lapse(url)


class PostgresQueueBench(QueueBench):
    """One process after the other on the same database."""

    def start(self, file: Path, names: Iterable[str]) -> None:
        if not hasattr(self, "database"):
            self.database = self.do(shared_server().create_database())
        super().start(file, names)

    async def _start(self) -> None:
        self.store = PostgresStore(shared_server().url(self.database), lambda: self.now, lambda _seconds: None)
        await self.store.open(self.configured.values())
        await self.store.lead(instance("only"))
        self.store.on_superseded(self._add_told)

    def rows(self, query: str, *bound: Any) -> Rows:
        return self.do(self.store._run(lambda session: read(session, query, *bound)))

    def crash(self) -> None:
        self.do(kill(self.store, shared_server().url(self.database)))
        self.start(self.file, self.configured)

    def close(self) -> None:
        self.do(self.store.close())
        self.do(shared_server().drop_database(self.database))
        self.loop.close()


class DyingStore(PostgresStore):
    """On demand a transaction does everything and then the process "dies" before COMMIT."""

    dying: bool = False

    async def _run(
        self, work: Callable[[Session], Awaitable[T]], after: Callable[[T], None] | None = None, **limits: Any
    ) -> T:
        async def then_die(session: Session) -> T:
            result = await work(session)
            if self.dying:
                raise Crashed
            return result

        return await super()._run(then_die, after, **limits)


class PostgresRelay(Relay):
    """The real intake, ingest and PostgreSQL store."""

    store: Any

    async def _start(self, file: Path) -> None:
        if not hasattr(self, "database"):
            self.database = await shared_server().create_database()
        self.store = DyingStore(shared_server().url(self.database), self.clock.wall_ms, lambda _seconds: None)
        self.store.file = file
        await self.store.open(entries(TARGETS))
        await self.store.lead(instance("only"))
        self.intake = Intake()
        for target in TARGETS:
            await self.store.clamp_due(target, self.clock.wall + LONGEST_WAIT_MS)
        self.ingest = Ingest(self.intake, self.store, PARTNER, self.route, METRICS, self.clock)

    def crash(self) -> None:
        self.do(kill(self.store, shared_server().url(self.database)))
        self.start(self.store.file)

    def crash_within_ingest(self) -> bool:
        self.store.dying = True
        try:
            self.ingest_all()
        except Crashed:
            self.store.dying = False
            self.crash()
            return True
        finally:
            self.store.dying = False
        return False

    def query(self, *queries: str) -> list[Rows]:
        async def work(session: Session) -> list[Rows]:
            return [await read(session, query) for query in queries]

        return self.do(self.store._run(work))

    def close(self) -> None:
        self.stop()
        self.do(shared_server().drop_database(self.database))
        self.loop.close()

"""What claims and ingests cost while millions of deliveries wait for a dead target in the same tables."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

from bench.database import Database
from relay.clock import SystemClock
from relay.model import Attempt, DeliveryStatus, Event, KnownOrder, OrderFacts, Origin, Outcome, event_type
from relay.standing import Permit, Standing
from relay.store.postgres import PostgresStore
from relay.store.values import IngestPlan, Instance, PlannedEvent, Settlement, TargetEntry

LANE = 10
"""Deliveries of an order: one is ready, the others wait for it."""
TURNS = 500
PARTITION = Path(__file__).parents[1] / "examples" / "deploy" / "partition.sql"
LIMIT = 16

_FILL = (
    """INSERT INTO events(webhook_id, lane, type, at_ms, sequence, status, changed, origin, body)
       SELECT 'evt_' || n, 'queued-' || (n / :lane), 'order.waiting', :now, n % :lane + 1, 1, '["status"]', 'websocket',
              convert_to(repeat('x', 1000), 'UTF8')
       FROM generate_series(0, :count - 1) AS n""",
    """INSERT INTO orders(houdini_id, status, ranked_status, fields, terminal, silent, sequence, status_counts,
                          last_event_id, learned_ms, believed_ms)
       SELECT lane, 1, 1, '{"status":1}', 0, 0, :lane, '{"1":10}', max(id), :now, :now
       FROM events WHERE lane LIKE 'queued-%' GROUP BY lane""",
    """INSERT INTO deliveries(target_id, lane, event_id, state, due_ms, created_ms)
       SELECT t.id, e.lane, e.id, CASE WHEN e.sequence = 1 THEN 0 ELSE 1 END, :now, :now
       FROM events e, targets t WHERE t.name = 'dead' AND e.lane LIKE 'queued-%' ORDER BY e.id""",
    """INSERT INTO open_counts(target_id, writer, deliveries)
       SELECT target_id, 0, count(*) FROM deliveries WHERE state < 2 GROUP BY target_id""",
)


async def run(server: Database, queued: int, *, parted: bool) -> str:
    clock = SystemClock()
    store = PostgresStore(server.url, clock.wall_ms, lambda _seconds: None)
    await store.open([TargetEntry("dead"), TargetEntry("healthy")])
    if parted:
        await _part(server)
    shape = "parted table, " if parted else ""
    lines = [f"postgres claims: {shape}{queued} deliveries wait for a dead target, {LANE} an order (ms: median / p99)"]
    try:
        lines.append("  before them      " + await _cycle(store, clock, "before"))
        began = perf_counter()
        await _fill(server, queued, clock.wall_ms())
        lines.append(f"  made by SQL in {perf_counter() - began:.0f} s, {await store.size_bytes() / 2**20:.0f} MiB")
        lines.append("  beside them      " + await _cycle(store, clock, "beside"))
        lines.append("  of the dead one  " + await _claims(store, clock))
    finally:
        await store.close()
    return "\n".join(lines)


async def _part(server: Database) -> None:
    connection = await server.connect()
    try:
        await connection.execute(await asyncio.to_thread(PARTITION.read_text))
    finally:
        await connection.close()


async def _fill(server: Database, queued: int, now_ms: int) -> None:
    connection = await server.connect()
    try:
        for statement in _FILL:
            for name, value in {"lane": LANE, "now": now_ms, "count": queued}.items():
                statement = statement.replace(f":{name}", str(value))
            await connection.execute(statement, timeout=None)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


async def _cycle(store: PostgresStore, clock: SystemClock, name: str) -> str:
    """One event at a time for the healthy target: in, claimed, out."""
    spent: dict[str, list[float]] = {"ingest": [], "claim": [], "settle": [], "backlog": []}
    await store.lead(Instance("bench", "here", clock.wall_ms()))
    for number in range(TURNS):
        await store.renew()
        plan = _one_event(f"{name}-{number}", clock.wall_ms())
        began = perf_counter()
        await _ingest(store, plan)
        spent["ingest"].append(perf_counter() - began)
        began = perf_counter()
        claim = await store.claim("healthy", lambda _standing: Permit(LIMIT), clock.wall_ms())
        spent["claim"].append(perf_counter() - began)
        attempt = Attempt(clock.wall_ms(), 1.0, Outcome.OK, status_code=200)
        done = [Settlement(one, attempt, DeliveryStatus.DELIVERED) for one in claim.deliveries]
        began = perf_counter()
        await store.settle(done, _as_it_was, clock.wall_ms())
        spent["settle"].append(perf_counter() - began)
        began = perf_counter()
        await store.backlog()
        spent["backlog"].append(perf_counter() - began)
    return ", ".join(f"{verb} {_tails(seconds)}" for verb, seconds in spent.items())


async def _ingest(store: PostgresStore, plan: IngestPlan) -> None:
    await store.ingest(plan.orders.keys(), lambda _known: plan)


async def _claims(store: PostgresStore, clock: SystemClock) -> str:
    """Claims of the target that everything waits for, each given back at once."""
    taken, back = [], []
    for _ in range(TURNS):
        began = perf_counter()
        claim = await store.claim("dead", lambda _standing: Permit(LIMIT), clock.wall_ms())
        taken.append(perf_counter() - began)
        if len(claim.deliveries) != LIMIT:
            raise RuntimeError(f"{len(claim.deliveries)} were claimed instead of {LIMIT}")
        began = perf_counter()
        await store.release(claim.deliveries)
        back.append(perf_counter() - began)
    return f"claim of {LIMIT} {_tails(taken)}, release {_tails(back)}"


def _one_event(houdini_id: str, now_ms: int) -> IngestPlan:
    facts = OrderFacts(1, 1, None, ("status",), Origin.WEBSOCKET)
    event = Event(f"evt_{houdini_id}", houdini_id, event_type(1), now_ms, b"x" * 1000, facts)
    order = KnownOrder(houdini_id, 1, 1, {"status": 1}, None, False, 1, {1: 1}, b"x" * 1000, True)
    return IngestPlan(now_ms=now_ms, orders={houdini_id: order}, events=[PlannedEvent(event, ("healthy",))])


def _as_it_was(standing: Standing, _settlement: Settlement) -> Standing:
    return standing


def _tails(seconds: list[float], show: Callable[[float], str] = "{:.2f}".format) -> str:
    return f"{show(median(seconds) * 1000)} / {show(quantiles(seconds, n=100)[98] * 1000)}"

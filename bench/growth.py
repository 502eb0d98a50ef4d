"""What one delivery costs the store as it grows: ingest, claim and settlement, beside ever more that has ended."""

import argparse
import asyncio
import json
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median
from time import perf_counter

from relay.clock import SystemClock
from relay.model import Attempt, DeliveryStatus, Event, KnownOrder, OrderFacts, Origin, Outcome, event_type
from relay.standing import Permit
from relay.store.sqlite import SqliteStore
from relay.store.values import IngestPlan, PlannedEvent, Settlement, TargetEntry

SIZES = (10_000, 100_000, 1_000_000)
GROUP = 16
GROUPS = 200
ROUNDS = 5
_FILL = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
INSERT INTO {table} SELECT {values} FROM n
"""
_TABLES = {
    "orders(houdini_id, status, fields, terminal, silent, sequence, status_counts, learned_ms, believed_ms)": (
        "printf('old-%08x', i), 4, '{}', 1, 0, 1, '{}', :now, :now"
    ),
    "events(webhook_id, lane, type, at_ms, sequence, status, changed, origin, body)": (
        "printf('evt_%08x%024x', i * 2654435761 % 4294967296, i), printf('old-%08x', i), 'order.finished', :now, 1, 4, "
        "'[]', 'websocket', CAST('{}' || hex(zeroblob(100)) AS BLOB)"
    ),
    "deliveries(target_id, lane, event_id, state, due_ms, attempts_made, created_ms, finished_ms, last_outcome)": (
        "1, printf('old-%08x', i), i, 2, :now, 1, :now, :now, 'ok'"
    ),
    "attempts(delivery_id, number, at_ms, duration_ms, outcome, status_code, response_body)": (
        "i, 1, :now, 3.5, 'ok', 200, x'6f6b'"
    ),
}


async def run(sizes: Sequence[int] = SIZES) -> str:
    lines = [
        f"growth: ingest, claim and settlement of {GROUP} at a time, median of {ROUNDS} rounds of {GROUP * GROUPS}"
    ]
    for rows in sizes:
        with tempfile.TemporaryDirectory(prefix="houdini-relay-bench-") as name:
            path = Path(name) / "relay.db"
            await _fill(path, rows)
            wall, cpu = await _measure(path)
            size = path.stat().st_size / 2**20
            lines.append(
                f"  {rows:>10,} ended deliveries ({size:,.0f} MiB): {wall:.0f} us, of it {cpu:.0f} us processor"
            )
    return "\n".join(lines)


def _open(path: Path) -> SqliteStore:
    return SqliteStore(path, SystemClock().wall_ms, lambda _seconds: None)


async def _fill(path: Path, rows: int) -> None:
    store = _open(path)
    await store.open([TargetEntry("one")])
    await store.close()
    now_ms = SystemClock().wall_ms()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous=OFF")
    for table, values in _TABLES.items():
        connection.execute(_FILL.format(table=table, values=values), {"rows": rows, "now": now_ms})
    connection.commit()
    connection.close()


async def _measure(path: Path) -> tuple[float, float]:
    """Microseconds for each delivery, by the wall and of the processor."""
    store = _open(path)
    await store.open([TargetEntry("one")])
    found = [await _round(store, number) for number in range(ROUNDS + 1)][1:]  # the first one warms up
    await store.close()
    return median(wall for wall, _ in found), median(cpu for _, cpu in found)


async def _round(store: SqliteStore, number: int) -> tuple[float, float]:
    began, used = perf_counter(), _used()
    for group in range(GROUPS):
        now_ms = SystemClock().wall_ms()
        plan = _plan(f"new-{number}-{group}", now_ms)
        await store.ingest(plan.orders.keys(), lambda _known, plan=plan: plan)  # type: ignore[misc]  # bound now
        claim = await store.claim("one", lambda _standing: Permit(GROUP), now_ms)
        attempt = Attempt(now_ms, 3.5, Outcome.OK, 200, response_body=b"ok")
        settled = [Settlement(one, attempt, DeliveryStatus.DELIVERED) for one in claim.deliveries]
        await store.settle(settled, lambda standing, _settlement: standing, now_ms)
    count = GROUP * GROUPS
    return (perf_counter() - began) / count * 1e6, (_used() - used) / count * 1e6


def _plan(name: str, now_ms: int) -> IngestPlan:
    plan = IngestPlan(now_ms=now_ms)
    for number in range(GROUP):
        order_id = f"{name}-{number}"
        body = json.dumps({"houdiniId": order_id, "status": 4, "notes": "n" * 800}).encode()
        facts = OrderFacts(1, 4, None, ("status",), Origin.WEBSOCKET)
        event = Event(f"evt_{hash(order_id) & (1 << 64) - 1:032x}", order_id, event_type(4), now_ms, body, facts)
        plan.events.append(PlannedEvent(event, ("one",)))
        known = KnownOrder(order_id, 4, 4, {"status": 4}, None, silent=False, sequence=1, last_frame=body)
        plan.orders[order_id] = known
    return plan


def _used() -> float:
    usage = getrusage(RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, metavar="ROWS", help="ended deliveries (default: 10^4 to 10^6)")
    print(asyncio.run(run(parser.parse_args().sizes or SIZES)))


if __name__ == "__main__":
    main()

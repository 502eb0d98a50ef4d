"""What people and machines ask of a relay whose store holds millions of deliveries: how long each answer takes.

Half of the deliveries wait for a dead target, half have ended at a healthy one, one in a hundred of these dead.
The goal is under 50 ms of loop time and of store time for each; nothing is asserted.
"""

import argparse
import asyncio
import json
import sqlite3
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from urllib.parse import quote

import aiohttp
import psutil

from bench.apparatus import Relay, machine, peer, target
from bench.peer import STATUSES, update
from relay.clock import SystemClock
from relay.model import Event, KnownOrder, OrderFacts, Origin, event_type, iso_utc
from relay.simulator.child import free_port
from relay.store.sqlite import SqliteStore
from relay.store.values import IngestPlan, PlannedEvent, TargetEntry

GOAL_MS = 50
BATCH = 1000
ASKED = 20
"""Times that each is asked; the processor time of threads is known to 10 ms only."""
SPREAD_S = 6 * 86_400
"""The deliveries were made in the course of these seconds; nothing is expired or pruned yet."""
_ENDED = """
UPDATE deliveries SET state = iif(id % 200 = 1, 3, 2), reason = iif(id % 200 = 1, 'exhausted', NULL),
  attempts_made = 1, steps_used = 1, finished_ms = created_ms + 40, first_attempt_ms = created_ms,
  last_outcome = iif(id % 200 = 1, 'retry', 'ok'), last_status_code = iif(id % 200 = 1, 500, 200)
WHERE target_id = (SELECT id FROM targets WHERE name = 'healthy')
"""
_ATTEMPTS = """
INSERT INTO attempts(delivery_id, number, at_ms, duration_ms, outcome, status_code, response_body, headers, manual,
                     probe)
SELECT id, 1, created_ms, 40, last_outcome, last_status_code, x'6f6b', '{}', 0, 0
FROM deliveries WHERE attempts_made = 1
"""


async def run(deliveries: int) -> str:
    lines = [f"big store: {deliveries} deliveries ({machine()})"]
    with tempfile.TemporaryDirectory(prefix="houdini-relay-bench-") as name:
        began, path = perf_counter(), Path(name) / "relay.db"
        await _fill(path, deliveries // 2)
        size = path.stat().st_size / 2**20
        lines.append(f"  filled in {perf_counter() - began:.0f} s, the file has {size:.0f} MiB")
        async with peer() as other:
            one = Relay(Path(name), other, [target("healthy", other.sinks["ok"]), target("dead", free_port())])
            began = perf_counter()
            await one.start()
            lines.append(f"  ready after {perf_counter() - began:.1f} s")
            lines += await _ask_all(one, deliveries // 2)
            await one.stop()
    return "\n".join(lines)


async def _fill(path: Path, events: int) -> None:
    clock = SystemClock()
    store = SqliteStore(path, clock.wall_ms, lambda _seconds: None)
    await store.open([TargetEntry("healthy"), TargetEntry("dead")])
    began_ms = clock.wall_ms() - SPREAD_S * 1000
    for first in range(0, events, 10 * BATCH):
        waves = range(first, min(first + 10 * BATCH, events), BATCH)
        await asyncio.gather(*(_ingest(store, at, began_ms + SPREAD_S * 1000 * at // events) for at in waves))
    await store.close()
    await asyncio.to_thread(_end_healthy, path)


async def _ingest(store: SqliteStore, first: int, now_ms: int) -> None:
    steps = len(STATUSES)
    plan = IngestPlan(now_ms=now_ms)
    for number in range(first, first + BATCH):
        order, step = divmod(number, steps)
        status, houdini_id = STATUSES[step], f"big-{order:08d}"
        body = json.dumps(json.loads(update("big", number, order, status))["data"], separators=(",", ":")).encode()
        facts = OrderFacts(step + 1, status, STATUSES[step - 1] if step else None, ("status",), Origin.WEBSOCKET)
        event = Event(f"evt_big_{number}", houdini_id, event_type(status), now_ms, body, facts)
        plan.events.append(PlannedEvent(event, ("healthy", "dead")))
        plan.orders[houdini_id] = KnownOrder(
            houdini_id, status, status, {"status": status}, None, False, step + 1, {status: 1}, body, True
        )
    await store.ingest(plan.orders.keys(), lambda _known: plan)


def _end_healthy(path: Path) -> None:
    """As the engine would have, only sooner."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    with connection:
        connection.execute(_ENDED)
        connection.execute(_ATTEMPTS)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _questions(events: int) -> list[str]:
    middle = iso_utc(SystemClock().wall_ms() - SPREAD_S * 500)
    day_before = iso_utc(SystemClock().wall_ms() - SPREAD_S * 500 - 86_400_000)
    hour = iso_utc(SystemClock().wall_ms() - 3_600_000)
    lists = ["", "target=healthy", "target=dead", "type=order.finished", "type=order.deleted", f"since={hour}"]
    lists += [f"until={middle}", f"until={middle}&since={day_before}", f"order=big-{events // 12:08d}"]
    statuses = ["pending", "in_flight", "delivered", "dead", "superseded", "cancelled"]
    lists += [f"status={status}" for status in statuses]
    lists += ["target=healthy&status=dead", "target=dead&status=dead", "target=healthy&status=pending", "limit=500"]
    asked = [f"/api/v1/{kind}?{query}" for kind in ("deliveries", "events") for query in lists]
    order = quote(f"big-{events // 12:08d}")
    return ["/metrics", "/healthz", "/readyz", "/api/v1/status", "/api/v1/targets", f"/api/v1/orders/{order}", *asked]


async def _ask_all(one: Relay, events: int) -> list[str]:
    lines = [f"  {'request':<92} {'median':>8} {'longest':>8} {'loop':>7} {'store':>7}   (ms; goal {GOAL_MS})"]
    async with aiohttp.ClientSession() as session:
        for path in _questions(events):
            lines.append(await _ask(session, one, path))
        lines.append(await _walk(session, one))
        async with session.get(f"{one.admin}/metrics") as answer:
            found = [line for line in (await answer.text()).splitlines() if "loop_lag_seconds " in line]
    return lines + [f"  {line}" for line in found if not line.startswith("#")]


async def _ask(session: aiohttp.ClientSession, one: Relay, path: str) -> str:
    taken, status, before = [], 0, _busy(one.process)
    for _ in range(ASKED):
        began = perf_counter()
        async with session.get(one.admin + path) as answer:
            await answer.read()
            status = answer.status
        taken.append((perf_counter() - began) * 1000)
    loop, others = (1000 * (now - then) / ASKED for now, then in zip(_busy(one.process), before, strict=True))
    mark = "" if status == 200 else f"  status {status}"
    slow = "  SLOW" if max(loop, others) > GOAL_MS else ""
    return f"  {path:<92} {median(taken):8.1f} {max(taken):8.1f} {loop:7.1f} {others:7.1f}{mark}{slow}"


async def _walk(session: aiohttp.ClientSession, one: Relay) -> str:
    """A hundred pages one after the other, by cursor."""
    cursor, taken = "", []
    for _ in range(100):
        began = perf_counter()
        async with session.get(f"{one.admin}/api/v1/deliveries?limit=100{cursor}") as answer:
            page = await answer.json()
        taken.append((perf_counter() - began) * 1000)
        cursor = f"&cursor={page['next']}"
    return f"  {'a hundred pages of deliveries, each':<92} {median(taken):8.1f} {max(taken):8.1f}"


def _busy(process: psutil.Process) -> tuple[float, float]:
    """Seconds of processor time of the event loop's thread, and of all others: the store's, mostly."""
    loop = others = 0.0
    for thread in process.threads():
        seconds = thread.user_time + thread.system_time
        if thread.id == process.pid:
            loop += seconds
        else:
            others += seconds
    return loop, others


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.big_store", description=__doc__)
    parser.add_argument("--deliveries", type=int, default=2_000_000)
    print(asyncio.run(run(parser.parse_args().deliveries)))

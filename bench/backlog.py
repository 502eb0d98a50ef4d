"""A million deliveries for a dead target: memory, start, claims, the healthy neighbour, and the drain."""

import asyncio
import json
import tempfile
from pathlib import Path
from time import perf_counter

from bench.apparatus import PeerProcess, Relay, peer, target
from bench.peer import STATUSES, update
from relay.clock import SystemClock
from relay.model import Event, KnownOrder, OrderFacts, Origin, event_type
from relay.simulator.child import free_port
from relay.store.sqlite import SqliteStore
from relay.store.values import IngestPlan, PlannedEvent, TargetEntry

BATCH = 1000
UPDATES = 20_000
DRAIN_S = 120.0
"""Seconds after which the drain is known well enough."""


async def run(queued: int) -> str:
    lines = [f"backlog: {queued} deliveries waiting for a dead target"]
    with tempfile.TemporaryDirectory(prefix="houdini-relay-bench-") as name:
        began = perf_counter()
        await _fill(Path(name) / "relay.db", queued)
        size = (Path(name) / "relay.db").stat().st_size
        lines.append(f"  filled in {perf_counter() - began:.0f} s, the file has {size / 2**20:.0f} MiB")
        async with peer() as other:
            alone = await _healthy_alone(other)
            dead = target("dead", free_port())
            one = Relay(Path(name), other, [target("healthy", other.sinks["ok"]), dead])
            began = perf_counter()
            await one.start()
            lines.append(f"  ready after {perf_counter() - began:.2f} s (the process's start included)")
            played = await other.play("beside", UPDATES)
            memory = one.process.memory_info().rss
            ratio = played.per_second / alone
            lines.append(f"  healthy neighbour {played.per_second:.0f}/s, alone {alone:.0f}/s, ratio {ratio:.2f}")
            lines.append(f"  memory {memory / 2**20:.0f} MiB")
            await one.stop()
            lines.append(await _drain(Path(name), other, queued))
    return "\n".join(lines)


async def _fill(path: Path, queued: int) -> None:
    clock = SystemClock()
    store = SqliteStore(path, clock.wall_ms, lambda _seconds: None)
    await store.open([TargetEntry("healthy"), TargetEntry("dead")])
    waves = [asyncio.create_task(_ingest(store, first, clock.wall_ms())) for first in range(0, queued, BATCH)]
    await asyncio.gather(*waves)
    await store.close()


async def _ingest(store: SqliteStore, first: int, now_ms: int) -> None:
    steps = len(STATUSES)
    plan = IngestPlan(now_ms=now_ms)
    for number in range(first, first + BATCH):
        order, step = divmod(number, steps)
        status, houdini_id = STATUSES[step], f"queued-{order:08d}"
        body = json.dumps(json.loads(update("queued", number, order, status))["data"], separators=(",", ":")).encode()
        facts = OrderFacts(step + 1, status, STATUSES[step - 1] if step else None, ("status",), Origin.WEBSOCKET)
        event = Event(f"evt_queued_{number}", houdini_id, event_type(status), now_ms, body, facts)
        plan.events.append(PlannedEvent(event, ("dead",)))
        plan.orders[houdini_id] = KnownOrder(
            houdini_id, status, status, {"status": status}, None, False, step + 1, {status: 1}, body, True
        )
    await store.ingest(plan.orders.keys(), lambda _known: plan)


async def _healthy_alone(other: PeerProcess) -> float:
    with tempfile.TemporaryDirectory(prefix="houdini-relay-bench-") as name:
        one = Relay(Path(name), other, [target("healthy", other.sinks["ok"])])
        await one.start()
        played = await other.play("alone", UPDATES)
        await one.stop()
    return played.per_second


async def _drain(folder: Path, other: PeerProcess, queued: int) -> str:
    """The dead target comes back; its URL changes to a sink that answers, which ends all waiting."""
    one = Relay(folder, other, [target("healthy", other.sinks["ok"]), target("dead", other.sinks["ok"])])
    began = perf_counter()
    await one.start()
    left = queued
    while left > 0 and perf_counter() - began < DRAIN_S:
        await asyncio.sleep(0.5)
        left = _pending(await one.status())
    seconds = perf_counter() - began
    memory = one.process.memory_info().rss
    await one.stop()
    done = queued - left
    return f"  {done} drained in {seconds:.0f} s ({done / seconds:.0f}/s), memory {memory / 2**20:.0f} MiB"


def _pending(status: dict[str, list[dict[str, int]]]) -> int:
    return sum(entry["pending"] for entry in status["targets"])

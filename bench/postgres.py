"""`python -m bench.postgres`: several instances on one PostgreSQL database, all real processes on one machine.

How many deliveries a second one, two and four of them make, what that costs each part, how long it takes until
another leads when the leader is killed or stopped, what a longer way to the database costs, how fast a SQLite store
moves there, and what a claim costs beside two million that wait.
"""

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import aiohttp
import psutil

from bench import big_store, postgres_claims
from bench.apparatus import PeerProcess, Relay, machine, peer, relay, spread, target
from bench.database import Database, database
from bench.distance import way_to
from relay.config.store_url import StoreUrl
from relay.store.opening import check_store, copy_store

UPDATES, ROUNDS, WINDOW = 10_000, 3, 2000
INSTANCES = (1, 2, 4)
TARGETS = 4
"""Each instance takes its share of each, so that no instance has one of its own."""
TAKEOVERS = 10
FED = WINDOW // TARGETS
DISTANCES_MS = (0, 1, 5)
MOVED = 1_000_000
QUEUED = 2_000_000
CASES = ("throughput", "takeover", "distance", "moving", "claims")
_PATIENCE = 60.0
_POLL = 0.02


@dataclass(frozen=True)
class Round:
    """What one feed came to: a second, and CPU milliseconds a delivery of all instances and of the database."""

    per_second: float
    p99_ms: float
    relay_ms: float
    database_ms: float


async def throughput(server: Database) -> str:
    """By turns, so that what else the machine does hits all alike."""
    found: dict[int, list[Round]] = {count: [] for count in INSTANCES}
    alone: list[float] = []
    async with peer() as other:
        for number in range(ROUNDS):
            async with relay(other, _targets(other)):
                alone.append(
                    (await other.play(f"sqlite{number}", UPDATES // TARGETS, copies=TARGETS)).per_second * TARGETS
                )
            for count, rounds in found.items():
                async with _instances(server, other, count) as running:
                    await other.play(f"warm{number}-{count}", 400, copies=TARGETS)
                    rounds.append(await _round(server, other, running, f"pg{number}-{count}"))
    lines = [
        f"postgres throughput: {UPDATES} deliveries a round to {TARGETS} targets, {ROUNDS} rounds, window {WINDOW}",
        f"  SQLite, for comparison  {spread(alone, '{:.0f}/s'.format)}",
    ]
    for count, rounds in found.items():
        rate = spread([one.per_second for one in rounds], "{:.0f}/s".format)
        ours = spread([one.relay_ms for one in rounds], "{:.2f} ms".format)
        theirs = spread([one.database_ms for one in rounds], "{:.2f} ms".format)
        lines.append(f"  {count} x PostgreSQL  {rate}; of a core, a delivery: instances {ours}, database {theirs}")
    return "\n".join(lines)


async def takeover(server: Database) -> str:
    """From the end of the leader until another one is subscribed."""
    killed = [await _hand_over(server, kill=True) for _ in range(TAKEOVERS)]
    stopped = [await _hand_over(server, kill=False) for _ in range(TAKEOVERS)]
    show = "{:.2f} s".format
    return "\n".join(
        [
            f"postgres takeover: {TAKEOVERS} times each, two instances, until the other is subscribed upstream",
            f"  leader killed (SIGKILL)   {spread(killed, show)}",
            f"  leader stopped (SIGTERM)  {spread(stopped, show)}",
        ]
    )


async def distance(server: Database) -> str:
    """One instance, and the database further and further away."""
    lines = [
        f"postgres distance: one instance, {UPDATES} deliveries to {TARGETS} targets, by round trip to the database"
    ]
    async with peer() as other:
        for milliseconds in DISTANCES_MS:
            async with (
                way_to(server.port, milliseconds / 2000) as (port, _),
                _instances(server, other, 1, server.url.replace(f":{server.port}/", f":{port}/")) as running,
            ):
                await other.play(f"warm{milliseconds}", 400, copies=TARGETS)
                found = await _round(server, other, running, f"way{milliseconds}")
            lines.append(f"  {milliseconds} ms  {found.per_second:.0f}/s")
    return "\n".join(lines)


async def moving(server: Database) -> str:
    """`store copy` of a SQLite file with a million deliveries, and the proof that the copy is sound."""
    with tempfile.TemporaryDirectory(prefix="houdini-relay-bench-") as name:
        path, url = Path(name) / "relay.db", StoreUrl.of(server.url)
        await big_store._fill(path, MOVED // 2)
        size, began = path.stat().st_size / 2**20, perf_counter()
        copied = await copy_store(path, url, lambda _progress: None)
        took, began = perf_counter() - began, perf_counter()
        faults = await check_store(url)
        checked = perf_counter() - began
    if faults:
        raise RuntimeError(f"the copy is not sound: {faults}")
    rows = sum(copied.values())
    lines = [
        f"postgres moving: {copied['deliveries']} deliveries, {rows} rows, a file of {size:.0f} MiB",
        f"  copied and compared in {took:.0f} s, {rows / took:.0f} rows/s; `store check` {checked:.0f} s",
    ]
    for table in ("orders", "events", "deliveries", "attempts"):
        room = await server.room_of(table)
        lines.append(f"  {table}: {room / copied[table]:.0f} bytes a row, indexes included")
    return "\n".join(lines)


async def _round(server: Database, other: PeerProcess, running: Sequence[Relay], name: str) -> Round:
    before = _cpu(running), server.cpu_seconds()
    played = await other.play(name, UPDATES // TARGETS, window=FED, copies=TARGETS)
    after = _cpu(running), server.cpu_seconds()
    if played.arrived != played.sent:
        raise RuntimeError(f"{played.sent - played.arrived} of {played.sent} updates did not arrive")
    relay_ms, database_ms = ((late - early) * 1000 / UPDATES for early, late in zip(before, after, strict=True))
    return Round(played.per_second * TARGETS, played.percentile(0.99), relay_ms, database_ms)


def _cpu(running: Sequence[Relay]) -> float:
    times = [one.process.cpu_times() for one in running]
    return float(sum(one.user + one.system for one in times))


async def _hand_over(server: Database, *, kill: bool) -> float:
    async with peer() as other, _instances(server, other, 2) as (leader, follower):
        if (await leader.status())["upstream"]["state"] != "subscribed":
            leader, follower = follower, leader
        process = leader.process
        began = perf_counter()
        if kill:
            process.kill()
        else:
            process.terminate()
        await _until_subscribed(follower)
        return perf_counter() - began


async def _until_subscribed(one: Relay) -> None:
    async with asyncio.timeout(_PATIENCE), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{one.admin}/api/v1/status") as answer:
                if (await answer.json())["upstream"]["state"] == "subscribed":
                    return
            await asyncio.sleep(_POLL)


def _targets(other: PeerProcess) -> list[dict[str, object]]:
    return [target(f"target{number}", other.sinks["ok"], concurrency=64) for number in range(TARGETS)]


@asynccontextmanager
async def _instances(
    server: Database, other: PeerProcess, count: int, url: str | None = None
) -> AsyncIterator[list[Relay]]:
    await server.empty()
    async with AsyncExitStack() as stack:
        running = []
        for _ in range(count):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="houdini-relay-bench-")))
            one = Relay(folder, other, _targets(other), store={"url": url or server.url})
            await one.start()
            stack.push_async_callback(one.stop)
            running.append(one)
        yield running


async def run(cases: Sequence[str], queued: int) -> str:
    """The cases, one after the other on one server; what they found."""
    lines: list[str] = []
    tell = lines.append
    with database() as server:
        tell(f"PostgreSQL {await server.version()}, {psutil.virtual_memory().total / 2**30:.0f} GiB")
        for name, case in {"throughput": throughput, "takeover": takeover, "distance": distance}.items():
            if name in cases:
                tell(await case(server))
        if "moving" in cases:
            await server.empty()
            tell(await moving(server))
        if "claims" in cases:
            for parted in (False, True):
                await server.empty()
                tell(await postgres_claims.run(server, queued, parted=parted))
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.postgres", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)} (default: all)")
    parser.add_argument("--queued", type=int, default=QUEUED, help="deliveries that wait (default 2 * 10^6)")
    given = parser.parse_args()
    print(machine())
    print(asyncio.run(run(given.cases or CASES, given.queued)))

"""A steady stream: from the frame being written by the upstream to the receiver having the POST.

Simulator and receiver share this process, the relay is a process of its own, so on a small machine the
figures include waiting for a core.
"""

import asyncio
import os
import platform
import sqlite3
import sys
import tempfile
from pathlib import Path
from random import Random
from statistics import quantiles
from time import monotonic

import aiohttp
import psutil
import yaml

from relay.clock import SystemClock
from relay.simulator.child import RelayProcess, free_port
from relay.simulator.player import Player
from relay.simulator.receiver import Arrival, Receiver
from relay.simulator.server import SimulatedUpstream
from relay.simulator.verdict import History, Verdict, judge
from relay.simulator.world import World

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - of this benchmark alone
UPDATES_PER_ORDER = 7
SETTLE_SECONDS = 60.0


async def run(rate: float, seconds: float) -> str:
    clock, rng = SystemClock(), Random(7)
    world = World(clock, rng)
    arrived: list[tuple[float, Arrival]] = []
    upstream = SimulatedUpstream(world, partner_id="bench", secret="bench-secret")  # noqa: S106 - simulated
    receiver = Receiver(
        [SECRET], clock=clock, rng=rng, kept_bytes=4 << 30, on_arrival=lambda one: arrived.append((monotonic(), one))
    )
    with tempfile.TemporaryDirectory(prefix="houdini-relay-bench-") as name:
        await upstream.start()
        await receiver.start()
        admin = free_port()
        config = Path(name) / "config.yaml"
        config.write_text(yaml.safe_dump(_settings(Path(name), upstream, receiver, admin)))
        relay = RelayProcess(config, Path(name) / "relay.log", admin)
        try:
            await relay.start()
            await relay.until_ready()
            process = psutil.Process(relay._process.pid)  # type: ignore[union-attr] # it was started above
            before, cpu_before, began = process.num_fds(), process.cpu_times(), monotonic()
            player = Player(world, orders=int(rate * seconds / UPDATES_PER_ORDER), rate=rate, rng=rng, clock=clock)
            await player.run()
            played = monotonic() - began
            after, cpu, memory = process.num_fds(), process.cpu_times(), process.memory_info().rss
            verdict = await _settled(world, receiver)
        finally:
            code = await relay.stop()
            await receiver.stop()
            await upstream.stop()
    busy = (cpu.user + cpu.system - cpu_before.user - cpu_before.system) / played
    latencies = sorted(_latencies(world, arrived))
    return "\n".join(
        [
            f"steady: {player.updates} updates in {played:.1f} s ({player.updates / played:.0f}/s); {machine()}",
            _percentiles(latencies),
            f"relay: {busy:.2f} cores, {memory / 2**20:.0f} MiB, descriptors {before} -> {after}, exit code {code}",
            *verdict.lines(),
        ]
    )


async def _settled(world: World, receiver: Receiver) -> Verdict:
    deadline = monotonic() + SETTLE_SECONDS
    while True:
        verdict = judge(History.of(world), receiver.arrivals, ["sink"])
        if verdict.ok or monotonic() > deadline:
            return verdict
        await asyncio.sleep(1)


def _settings(folder: Path, upstream: SimulatedUpstream, receiver: Receiver, admin: int) -> dict[str, object]:
    return {
        "upstream": {
            "websocket_url": upstream.websocket_url,
            "rest_url": upstream.rest_url,
            "partner_id": "bench",
            "secret": "bench-secret",
            "backfill": {"requests_per_minute": 6000},
        },
        "store": {"url": f"sqlite:///{folder / 'relay.db'}"},
        "targets": [{"name": "sink", "url": f"http://127.0.0.1:{receiver.port}/sink", "secrets": [SECRET]}],
        "admin": {"listen": f"127.0.0.1:{admin}"},
        "log": {"format": "json"},
    }


def _latencies(world: World, arrived: list[tuple[float, Arrival]]) -> list[float]:
    """Milliseconds from a frame's write to its first acknowledged arrival."""
    found, seen = [], set()
    for at, arrival in arrived:
        if not arrival.acknowledged or arrival.webhook_id in seen or arrival.houdini_id is None:
            continue
        seen.add(arrival.webhook_id)
        for change in world.orders[arrival.houdini_id].changes:
            if change.pushes and any(body in arrival.body for body in change.bodies):
                found.append((at - change.pushes[0].at) * 1000)
                break
    return found


def _percentiles(latencies: list[float]) -> str:
    cuts = quantiles(latencies, n=1000)
    picked = {"p50": cuts[499], "p99": cuts[989], "p99.9": cuts[998], "max": latencies[-1]}
    figures = ", ".join(f"{name} {value:.1f} ms" for name, value in picked.items())
    return f"frame written to POST received, {len(latencies)} of them: {figures}"


def machine() -> str:
    return (
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, aiohttp {aiohttp.__version__}, "
        f"SQLite {sqlite3.sqlite_version}, {platform.system()} {platform.release().split('-')[0]}"
    )

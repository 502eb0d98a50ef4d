"""Durable deliveries per second against the storeless script, by turns, on the same machine in the same run."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from bench.apparatus import PeerProcess, Played, machine, peer, relay, slow_disk, spread, target

WINDOW = 2000
TARGETS = 10
SLOWER_MS = (1.0, 5.0)
FIGURES = Path("build/bench/throughput.json")
RATES = (50.0, 500.0, 2000.0)


async def run(updates: int, rounds: int) -> str:
    storeless: list[Played] = []
    one_target: list[Played] = []
    ten_targets: list[Played] = []
    slow_disks: dict[float, list[Played]] = {milliseconds: [] for milliseconds in SLOWER_MS}
    latency: dict[float, tuple[list[Played], list[Played]]] = {rate: ([], []) for rate in RATES}
    async with peer() as other:
        for number in range(rounds):
            async with script(other):
                storeless.append(await other.play(f"script{number}", updates, window=WINDOW))
                for rate, (plain, _) in latency.items():
                    plain.append(await other.play(f"script{number}-{rate}", round(rate * 5), rate=rate))
            async with relay(other, [target("one", other.sinks["ok"])]):
                one_target.append(await other.play(f"one{number}", updates, window=WINDOW))
                for rate, (_, durable) in latency.items():
                    durable.append(await other.play(f"one{number}-{rate}", round(rate * 5), rate=rate))
            for milliseconds, slow in slow_disks.items():
                with slow_disk(milliseconds) as command:
                    async with relay(other, [target("one", other.sinks["ok"])], command=command):
                        slow.append(await other.play(f"slow{number}-{milliseconds}", updates, window=WINDOW))
            async with relay(other, [target(f"target{index}", other.sinks["ok"]) for index in range(TARGETS)]):
                ten_targets.append(await other.play(f"ten{number}", updates // 4, window=WINDOW, copies=TARGETS))
    lines = [
        f"throughput: {updates} updates a round, {rounds} rounds, window {WINDOW}",
        f"  storeless script {_rate(storeless)}",
        f"  relay, 1 target  {_rate(one_target)}, ratio {_ratio(one_target, storeless)}",
        f"  relay, 10 targets {_rate(ten_targets)} updates, "
        f"cost per delivery against 1 target {_cost(ten_targets, one_target)}",
        *(
            f"  relay, syncs {milliseconds:g} ms slower {_rate(slow)}, ratio {_ratio(slow, storeless)}"
            for milliseconds, slow in slow_disks.items()
        ),
        "latency, frame sent to POST received (ms): p50 / p99 / p99.9",
    ]
    _keep(storeless, one_target, ten_targets, slow_disks, latency)
    for rate, (plain, durable) in latency.items():
        lines.append(f"  {rate:.0f}/s: script {_tails(plain)}; relay {_tails(durable)}")
    return "\n".join(lines)


def _keep(
    storeless: list[Played],
    one_target: list[Played],
    ten_targets: list[Played],
    slow_disks: dict[float, list[Played]],
    latency: dict[float, tuple[list[Played], list[Played]]],
) -> None:
    """The medians, for `python -m bench.plot`."""
    rates = {"script": storeless, "relay": one_target, "relay, 10 targets": ten_targets}
    rates |= {f"relay, syncs +{milliseconds:g} ms": slow for milliseconds, slow in slow_disks.items()}
    figures = {
        "machine": machine(),
        "per_second": {name: median(one.per_second for one in played) for name, played in rates.items()},
        "latency_ms": {
            f"{rate:.0f}": {
                name: [median(one.percentile(share) for one in played) for share in (0.5, 0.99)]
                for name, played in (("script", plain), ("relay", durable))
            }
            for rate, (plain, durable) in latency.items()
        },
    }
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    FIGURES.write_text(json.dumps(figures, indent=2))


@asynccontextmanager
async def script(other: PeerProcess) -> AsyncIterator[None]:
    webhook = f"http://127.0.0.1:{other.sinks['ok']}/hook"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.storeless", other.websocket, webhook, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


def _rate(played: Sequence[Played]) -> str:
    return spread([one.per_second for one in played], "{:.0f}/s".format)


def _ratio(mine: Sequence[Played], theirs: Sequence[Played]) -> str:
    return spread([one.per_second / two.per_second for one, two in zip(mine, theirs, strict=True)], "{:.2f}".format)


def _cost(ten: Sequence[Played], one: Sequence[Played]) -> str:
    costs = [single.per_second / (TARGETS * many.per_second) for many, single in zip(ten, one, strict=True)]
    return spread(costs, "{:.2f}".format)


def _tails(played: Sequence[Played]) -> str:
    return " / ".join(
        spread([one.percentile(share) for one in played], "{:.2f}".format) for share in (0.5, 0.99, 0.999)
    )

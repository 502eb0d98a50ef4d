"""The soak: a steady stream with every fault at random, for as long as asked; nothing lost, and no growth.

Upstream and receiver share this process, the relay is one of its own and is never restarted. Orders that have ended
and are settled are judged and forgotten on the way, so this process does not grow either. Exit code 1 if anything
was lost, doubled or out of order, or if memory, descriptors or threads of the relay grew.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from time import monotonic

from stage import Stage

from bench.steady import machine
from relay import log
from relay.simulator.faults import Action, RestFault
from relay.simulator.verdict import History, Verdict, judge
from relay.simulator.world import Order

SETTLED_AFTER = 60.0
SAMPLE_EVERY = 5.0
WARM_UP = 120.0
"""Seconds left out of the quarters: SQLite's page cache fills to its 64 MiB, pools and buffers find their size."""

ORDERS_AT_A_TIME = 200
SETTINGS = {
    "heartbeat": {"interval": "5s", "timeout": "3s"},
    "backfill": {"interval": "30s", "requests_per_minute": 6000},
}


@dataclass
class Sample:
    at: float
    rss_mib: float
    descriptors: int
    threads: int
    store_mib: float


@dataclass
class Totals:
    """What was judged and forgotten so far."""

    verdict: Verdict = field(default_factory=Verdict)
    orders: int = 0
    troubles: dict[str, int] = field(default_factory=dict)

    def add(self, part: Verdict) -> None:
        for name in ("updates", "deliveries", "retries", "backfilled", "repeated"):
            setattr(self.verdict, name, getattr(self.verdict, name) + getattr(part, name))
        for name in ("lost", "doubled", "out_of_order", "altered", "wrongly_signed"):
            getattr(self.verdict, name).extend(getattr(part, name))


class Trouble:
    """One fault after the other, each for a few seconds, with a pause between."""

    def __init__(self, stage: Stage, totals: Totals, chance: Random) -> None:
        self._stage = stage
        self._totals = totals
        self._chance = chance
        self._calm = {name: getattr(stage.upstream.faults, name) for name in stage.upstream.faults.__slots__}

    async def run(self) -> None:
        kinds: dict[str, Callable[[], None]] = {
            "refused": lambda: self._switch(refuse_count=self._chance.randint(1, 6)),
            "frames dropped": lambda: self._switch(drop_every=self._chance.randint(2, 8)),
            "frames doubled": lambda: self._switch(double_pushes=True),
            "frames reordered": lambda: self._switch(reorder=True),
            "mute": lambda: self._switch(mute=True),
            "no pong": lambda: self._switch(no_pong=True),
            "REST lags": lambda: self._switch(rest_lag_seconds=self._chance.uniform(0.5, 8)),
            "REST 500": lambda: self._switch(rest_fault=RestFault.STATUS, rest_fault_count=3),
            "REST 429": lambda: self._switch(rest_fault=RestFault.THROTTLED, rest_fault_count=2, retry_after=2),
            "REST HTML": lambda: self._switch(rest_fault=RestFault.HTML, rest_fault_count=2),
            "REST empty": lambda: self._switch(rest_fault=RestFault.EMPTY, rest_fault_count=2),
            "receiver fails": lambda: self._receiver(fail_rate=0.5),
            "receiver slow": lambda: self._receiver(delay=0.3),
            "receiver down": lambda: self._receiver(fail_rate=1.0),
        }
        while True:
            await asyncio.sleep(self._chance.uniform(0.5, 3))
            kind = self._chance.choice([*kinds, *Action])
            self._totals.troubles[str(kind)] = self._totals.troubles.get(str(kind), 0) + 1
            if isinstance(kind, Action):
                await self._stage.upstream.act(kind)
                continue
            kinds[kind]()
            if kind in ("refused", "mute"):
                await self._stage.upstream.act(Action.DROP)
            await asyncio.sleep(self._chance.uniform(1, 6))
            self.heal()

    def heal(self) -> None:
        self._switch(**self._calm)
        self._receiver(fail_rate=0.0, delay=0.0)

    def _switch(self, **values: object) -> None:
        self._stage.upstream.faults.update(values)

    def _receiver(self, **values: float) -> None:
        for name, value in values.items():
            setattr(self._stage.receiver.misbehaviour, name, value)


async def run(seconds: float, rate: float, seed: int) -> str:
    chance, totals = Random(seed), Totals()
    with tempfile.TemporaryDirectory(prefix="houdini-relay-soak-") as name:
        async with Stage(Path(name), seed=seed, upstream=SETTINGS) as stage:
            await stage.start_relay()
            began = monotonic()
            trouble = Trouble(stage, totals, chance)
            playing = asyncio.create_task(_play(stage, began + seconds, rate))
            troubling = asyncio.create_task(trouble.run())
            samples = await _watch(stage, totals, began, playing)
            troubling.cancel()
            await asyncio.gather(troubling, return_exceptions=True)
            trouble.heal()
            updates = await playing
            with suppress(TimeoutError):  # what is missing then is named by the verdict
                await stage.until_all_delivered(120.0, pause=2.0)
            totals.add(stage.verdict())
            lost = [f"order {houdini_id}: its last change never arrived" for houdini_id in stage.missing_ends()]
            totals.verdict.lost += lost
            code = await stage.relay.stop()
    head = f"soak: {updates} updates in {seconds:.0f} s, seed {seed}; {machine()}; exit code {code}"
    return _report(head, samples, totals)


async def _play(stage: Stage, until: float, rate: float) -> int:
    updates = 0
    while monotonic() < until:
        player = stage.player(ORDERS_AT_A_TIME, rate)
        await player.run()
        updates += player.updates
    return updates


async def _watch(stage: Stage, totals: Totals, began: float, playing: asyncio.Task[int]) -> list[Sample]:
    samples = []
    while not playing.done():
        await asyncio.wait([playing], timeout=SAMPLE_EVERY)
        process, file = stage.process, stage.folder / "relay.db"
        with process.oneshot():
            memory, threads = process.memory_info().rss / 2**20, process.num_threads()
        size = sum(part.stat().st_size for part in (file, file.with_name("relay.db-wal"))) / 2**20
        samples.append(Sample(monotonic() - began, memory, process.num_fds(), threads, size))
        _forget_settled(stage, totals)
    return samples


def _forget_settled(stage: Stage, totals: Totals) -> None:
    """Judge the orders that ended a while ago; what is missing of them may still come, so such an order stays."""
    old = stage.clock.mono() - SETTLED_AFTER
    ended = [order for order in stage.world.orders.values() if order.changes[-1].at < old]
    if not ended:
        return
    waiting = {line.split()[2].rstrip(",") for line in _judge(stage, ended).lost} | set(stage.missing_ends())
    settled = {order.houdini_id: order for order in ended if order.houdini_id not in waiting}
    totals.add(_judge(stage, settled.values()))
    totals.orders += len(settled)
    for houdini_id in settled:
        del stage.world.orders[houdini_id]
    kept = [arrival for arrival in stage.receiver.arrivals if arrival.houdini_id not in settled]
    stage.receiver.arrivals.clear()
    stage.receiver.arrivals.extend(kept)


def _judge(stage: Stage, orders: Iterable[Order]) -> Verdict:
    chosen = {order.houdini_id: order for order in orders}
    history = History.of(stage.world)
    changes = [change for order in chosen.values() for change in order.changes]
    arrivals = [arrival for arrival in stage.receiver.arrivals if arrival.houdini_id in chosen]
    return judge(History(changes, history.epochs, history.since), arrivals, ["shop"])


def _report(head: str, samples: list[Sample], totals: Totals) -> str:
    eighth = max(1, len(samples) // 8)
    course = [
        f"{median(one.rss_mib for one in samples[at : at + eighth]):.0f}" for at in range(0, len(samples), eighth)
    ]
    samples = [sample for sample in samples if sample.at > WARM_UP] or samples
    quarter = max(1, len(samples) // 4)
    first, last = samples[:quarter], samples[-quarter:]
    lines = [head, "", "| of the relay | first quarter | last quarter |", "|---|---|---|"]
    medians = {}
    for title, name in (
        ("memory, MiB", "rss_mib"),
        ("descriptors", "descriptors"),
        ("threads", "threads"),
        ("store, MiB", "store_mib"),
    ):
        before, after = (median(getattr(sample, name) for sample in part) for part in (first, last))
        medians[name] = after - before
        lines.append(f"| {title} | {before:.0f} | {after:.0f} |")
    flat = medians["rss_mib"] < 0.1 * first[-1].rss_mib and medians["descriptors"] <= 5 and medians["threads"] <= 2
    troubles = ", ".join(f"{name} {count}" for name, count in sorted(totals.troubles.items()))
    lines += [
        "",
        f"memory by eighths of the run, MiB: {' '.join(course)}",
        f"faults: {troubles}",
        "",
        *totals.verdict.lines(),
    ]
    return "\n".join([*lines, f"memory, descriptors and threads: {'flat' if flat else 'NOT FLAT'}"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default 600)")
    parser.add_argument("--rate", type=float, default=200.0, help="updates per second (default 200)")
    parser.add_argument("--seed", type=int, default=1, help="picks orders and faults (default 1)")
    given = parser.parse_args()
    log.configure("error", "auto")
    report = asyncio.run(run(given.seconds, given.rate, given.seed))
    print(report)
    sys.exit(1 if "NOT F" in report else 0)


if __name__ == "__main__":
    main()

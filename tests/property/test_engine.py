"""The engine under any history: orders stay in order, and nothing is stuck once the target is well."""

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.clock import JumpClock
from support.engine import Answer, Steps, answer, target
from support.factories import event

from relay.config import TargetSettings

EXAMPLES = int(os.environ.get("ENGINE_EXAMPLES", "40"))
HEALING = 3600.0
"""Seconds in which a target that is well again gets everything: longer than any wait that these settings make."""

MOODS = ("fine", "500", "400", "410", "429", "503", "later", "disable", "abort", "poison", "by turns")
ORDERS = st.sampled_from(["o1", "o2", "o3"])
PLAIN = ("round", "restart", "kill", "pause", "resume", "pause_in_config", "orphan", "move")
CHORES = ("expiry", "overflow", "retention", "clock_ahead", "clock_back")
STEP = st.one_of(
    st.tuples(st.just("add"), ORDERS),
    st.tuples(st.just("add"), ORDERS),
    st.tuples(st.just("mood"), st.sampled_from(MOODS)),
    st.tuples(st.just("live"), st.sampled_from([0.5, 12.0, 70.0, 700.0])),
    st.tuples(st.sampled_from(["retry_now", "cancel", "replay"]), st.integers(0, 40)),
    st.tuples(st.sampled_from(PLAIN + CHORES)),
)


class WallClock(JumpClock):
    """A clock whose wall time can be set."""

    def step(self, seconds: float) -> None:
        self._start_ms += round(seconds * 1000)


class Play:
    """One history of one target; `beta` is only there so that the other may go."""

    def __init__(self, folder: Path, ordering: str, concurrency: int, rate: str | None, seed: int) -> None:
        self._settings: dict[str, Any] = {
            "ordering": ordering,
            "concurrency": concurrency,
            "rate_limit": rate,
            "retry": {"schedule": ["5s", "60s", "5m"], "retry_after_max": "60s"},
            "breaker": {"failures": 3, "probe": {"initial": "5s", "max": "60s"}},
            "expire_after": "10m",
            "max_pending": 8,
        }
        self.ordering, self.concurrency = ordering, concurrency
        self.clock = WallClock()
        self.steps = Steps(folder / "relay.db", self._alpha(), target("beta"), clock=self.clock)
        self.rng = Random(seed)
        self.made: Counter[str] = Counter()
        self.replayed: set[str] = set()
        self.reach = 0

    def _alpha(self, **changes: Any) -> TargetSettings:
        return target(**{**self._settings, **changes})

    @property
    def client(self) -> Any:
        return self.steps.clients["alpha"]

    async def do(self, what: str, *how: Any) -> None:
        await getattr(self, "do_" + what)(*how)
        assert await self.store.check() == []
        assert self.client.most <= self.concurrency

    @property
    def is_configured(self) -> bool:
        return "alpha" in self.steps.loops

    @property
    def store(self) -> Any:
        return self.steps.bench.store

    async def do_add(self, order: str) -> None:
        self.made[order] += 1
        one = event(order, status=self.rng.choice([0, 1, 2, 4]), sequence=self.made[order])
        await self.steps.add(one, to=["alpha"] if self.is_configured else [])

    async def do_mood(self, name: str) -> None:
        self.client.script = self.mood(name)

    async def do_live(self, seconds: float) -> None:
        if self.is_configured:
            await self.steps.live(seconds)

    async def do_round(self) -> None:
        if self.is_configured:
            await self.steps.round()

    async def do_retry_now(self, number: int) -> None:
        await self.store.retry_now(number, self.clock.wall_ms())

    async def do_cancel(self, number: int) -> None:
        await self.store.cancel(number, self.clock.wall_ms())

    async def do_replay(self, number: int) -> None:
        if self.made:
            order = sorted(self.made)[number % len(self.made)]
            webhook_id = f"evt_{order}_{number % self.made[order] + 1}"
            self.replayed.add(webhook_id)
            await self.store.replay("alpha", [webhook_id], self.clock.wall_ms())

    async def do_pause(self) -> None:
        await self.store.pause("alpha", self.clock.wall_ms())

    async def do_resume(self) -> None:
        await self.store.resume("alpha", self.clock.wall_ms())

    async def do_restart(self, **changes: Any) -> None:
        await self.steps.restart(self._alpha(**changes), target("beta"), reach={"alpha": str(self.reach)})

    async def do_kill(self) -> None:
        """Attempts are on the wire, and the process ends."""
        if self.is_configured:
            await self.steps.loops["alpha"].run_once()
            await self.steps.loops["alpha"].drain(0.0)
            await self.do_restart()

    async def do_pause_in_config(self) -> None:
        await self.do_restart(paused=True)

    async def do_orphan(self) -> None:
        await self.steps.restart(target("beta"))

    async def do_move(self) -> None:
        self.reach += 1
        await self.do_restart()

    async def do_expiry(self) -> None:
        await self.steps.janitor.expiry_once()

    async def do_overflow(self) -> None:
        await self.steps.janitor.overflow_once()

    async def do_retention(self) -> None:
        await self.steps.janitor.retention_once()

    async def do_clock_ahead(self) -> None:
        self.clock.step(3600)

    async def do_clock_back(self) -> None:
        self.clock.step(-3600)
        await self.store.shift_due("alpha", -3_600_000, self.clock.wall_ms())

    def mood(self, name: str) -> Any:
        if name == "poison":
            return lambda one: 400 if one.event.lane == "o1" else 200
        if name == "by turns":
            return lambda _one: self.rng.choice([200, 200, 500, 503, 400])
        words: dict[str, Answer] = {
            "fine": 200,
            "later": answer(429, retry_after="50"),
            "disable": answer(500, webhook_delivery="disable"),
            "abort": answer(500, webhook_delivery="abort-message"),
        }
        return lambda _one: words[name] if name in words else int(name)

    async def heal(self) -> None:
        """Whatever had been done to it, the target is well now and may be sent to."""
        await self.do_restart()
        await self.do_mood("fine")
        await self.do_resume()
        for _ in range(60):
            await self.steps.live(HEALING / 60)
            if not (await self.steps.waiting()).pending:
                return
        raise AssertionError(f"stuck: {await self.steps.waiting()}")

    async def judge(self) -> None:
        """Everything has ended, as it is written, and in order."""
        acknowledged = {one.event.webhook_id for one in self.client.taken}
        for order in self.made:
            found = [one for one in await self.store.order_deliveries([order]) if one.target == "alpha"]
            assert all(one.status.value in {"delivered", "dead", "superseded", "cancelled"} for one in found)
            assert {one.webhook_id for one in found if one.status == "delivered"} <= acknowledged
            if self.ordering != "none":
                self.judge_order(order)

    def judge_order(self, order: str) -> None:
        for arrivals in (self.client.sent, self.client.taken):
            first = dict.fromkeys(one.event.webhook_id for one in arrivals if one.event.lane == order)
            sequences = [int(one.rsplit("_", 1)[1]) for one in first if one not in self.replayed]
            assert sequences == sorted(sequences)


async def play(folder: Path, history: list[tuple[Any, ...]], **around: Any) -> None:
    one = Play(folder, **around)
    async with one.steps:
        for step in history:
            await one.do(*step)
        await one.heal()
        await one.judge()


@pytest.mark.slow
@pytest.mark.timeout(0 if "ENGINE_EXAMPLES" in os.environ else 300)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    history=st.lists(STEP, max_size=30),
    ordering=st.sampled_from(["per_order", "latest_only", "none"]),
    concurrency=st.integers(1, 4),
    rate=st.sampled_from([None, "2/s"]),
    seed=st.integers(0, 2**32),
)
def test_whatever_happened_everything_ends_in_order_once_the_target_is_well(
    history: list[tuple[Any, ...]], ordering: str, concurrency: int, rate: str | None, seed: int
):
    folder = Path(tempfile.mkdtemp(prefix="houdini-relay-engine-"))
    around = {"ordering": ordering, "concurrency": concurrency, "rate": rate, "seed": seed}
    try:
        asyncio.run(play(folder, history, **around))
    finally:
        shutil.rmtree(folder)

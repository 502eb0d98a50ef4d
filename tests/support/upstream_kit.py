"""The upstream room's parts put together for its tests: one epoch, a backfill, a whole supervisor."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
from support.clock import JumpClock
from support.upstream_fakes import MemoryStore, RecordingIntake, Watch, backfill_settings, settings
from support.upstream_script import ScriptedUpstream

from relay.board import Board, UpstreamBoard, UpstreamState
from relay.clock import SystemClock
from relay.metrics import Metrics
from relay.upstream.backfill import Backfill
from relay.upstream.dial import open_rest_session
from relay.upstream.endings import EpochEnd
from relay.upstream.gaps import GapKeeper
from relay.upstream.orders_api import OrdersApi
from relay.upstream.session import Session
from relay.upstream.supervisor import Supervisor
from relay.upstream.walk import created_ms

DEADLINE = 10.0
SERVER_MS = created_ms("2026-11-22T00:00:30.000Z") or 0


async def until(reached: Callable[[], bool]) -> None:
    """Wait for something in this process that no event tells about."""
    async with asyncio.timeout(DEADLINE):
        while not reached():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


async def until_state(watch: Watch, state: UpstreamState) -> None:
    await until(lambda: state in watch.states)


async def live(
    upstream: ScriptedUpstream,
    client: aiohttp.ClientSession,
    watch: Watch | None = None,
    clock: Any = None,
    orders: frozenset[str] | None = None,
    **over: Any,
) -> EpochEnd:
    """One whole epoch, at most ten seconds of it."""
    clock = clock or SystemClock()
    watch = watch or Watch(clock)
    session = Session(settings(upstream.websocket_url, **over), orders, client, watch.around)
    async with asyncio.timeout(DEADLINE):
        return await session.run()


class Room:
    """A backfill with everything around it."""

    def __init__(self, upstream: ScriptedUpstream, clock: Any = None, orders: Any = "all", **over: Any) -> None:
        self.upstream = upstream
        self.clock = clock or JumpClock()
        self.metrics = Metrics("0")
        self.board = UpstreamBoard()
        self.intake: Any = over.pop("intake") if "intake" in over else RecordingIntake()
        self.store: Any = over.pop("store") if "store" in over else MemoryStore()
        self.gaps = GapKeeper(self.store, lambda _kind: (), self.metrics, self.clock)
        self.config = config = settings(rest_url=upstream.rest_url, backfill=backfill_settings(**over), orders=orders)
        self.api = OrdersApi(config, lambda: open_rest_session("0"), self.clock, self.metrics, timeout=5.0)
        self.backfill = self.new_backfill(config)

    def new_backfill(self, config: Any) -> Backfill:
        return Backfill(config, self.api, self.intake, self.store, self.board, self.metrics, self.clock, self.gaps)

    def sweeps(self, result: str = "ok") -> float:
        name = "houdini_relay_backfill_sweeps_total"
        return self.metrics.registry.get_sample_value(name, {"result": result}) or 0.0

    async def first_sweep(self, server_ms: int | None = SERVER_MS) -> None:
        await self.backfill.begin(server_ms)
        await self.backfill.run_once()


class Top:
    """Always the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b


class PatientClock(JumpClock):
    """Waits of the supervisor itself cost nothing; whatever sleeps inside an epoch sleeps until that ends."""

    def __init__(self) -> None:
        super().__init__()
        self._owner = asyncio.current_task()

    async def sleep(self, seconds: float) -> None:
        if asyncio.current_task() is not self._owner:
            await asyncio.Event().wait()
        await super().sleep(seconds)


class House:
    """A supervisor with everything around it."""

    def __init__(self, upstream: ScriptedUpstream, clock: Any, **over: Any) -> None:
        self.clock = clock
        self.board = Board()
        self.metrics = Metrics("0")
        self.intake: Any = over.pop("intake") if "intake" in over else RecordingIntake()
        self.store: Any = over.pop("store") if "store" in over else MemoryStore()
        backfill = over.pop("backfill", None) or backfill_settings()
        config = settings(
            over.pop("websocket_url", upstream.websocket_url), upstream.rest_url, backfill=backfill, **over
        )
        self.config = config
        rng: Any = Top()
        around = (self.board, self.metrics, clock, rng, "0")
        self.supervisor = Supervisor(config, self.intake, self.store, *around, route=lambda _kind: ("alpha",))

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"houdini_relay_{name}", labels) or 0.0

    async def epochs(self, count: int) -> list[Any]:
        ends = []
        async with asyncio.timeout(20):
            for _ in range(count):
                ends.append(await self.supervisor.run_once())
        return ends

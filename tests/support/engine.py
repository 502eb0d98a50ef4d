"""The engine over a real store; the wire is a scripted client. `Room` runs by itself, `Steps` only when told to."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from pathlib import Path
from random import Random
from typing import Any

from support.clock import JumpClock
from support.stores import Bench
from support.until import until

from relay.board import Board, TargetBoard
from relay.clock import Clock, SystemClock
from relay.config import TargetSettings
from relay.delivery.janitor import Janitor
from relay.delivery.retry import classify
from relay.delivery.scheduler import Scheduler
from relay.delivery.settler import Context, Settler, policy_of
from relay.delivery.target_loop import TargetLoop
from relay.metrics import Metrics
from relay.model import Attempt, Delivery, Event
from relay.standing import Ordering, Standing
from relay.store.sqlite import SqliteStore
from relay.store.values import Backlog, TargetEntry

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
RETENTION = 30 * 86_400.0
Answer = int | Attempt
Script = Callable[[Delivery], Answer | Awaitable[Answer]]


def target(name: str = "alpha", **changes: Any) -> TargetSettings:
    values = {"url": f"https://{name}.example.com/", "secrets": [SECRET], **changes}
    return TargetSettings.model_validate({"name": name, **values})


def entry(one: TargetSettings, reach: str = "") -> TargetEntry:
    return TargetEntry(one.name, Ordering(one.ordering), one.paused, reach)


def answer(status: int, at_ms: int = 1_000, **headers: str) -> Attempt:
    lower = {name.replace("_", "-"): value for name, value in headers.items()}
    return Attempt(at_ms, 5.0, classify(status), status_code=status, headers=lower)


class ScriptedClient:
    """Answers as `script` says; remembers what was on the wire and how much of it at once."""

    def __init__(self, clock: Clock, name: str) -> None:
        self._clock = clock
        self._name = name
        self.script: Script = lambda _delivery: 200
        self.sent: list[Delivery] = []
        self.taken: list[Delivery] = []
        self.on_wire = 0
        self.most = 0
        self.arrived = asyncio.Condition()

    @property
    def ids(self) -> list[str]:
        return [delivery.event.webhook_id for delivery in self.sent]

    async def attempt(self, delivery: Delivery) -> Attempt:
        assert delivery.target == self._name
        at_ms = self._clock.wall_ms()
        self.sent.append(delivery)
        self.on_wire += 1
        self.most = max(self.most, self.on_wire)
        async with self.arrived:
            self.arrived.notify_all()
        try:
            await asyncio.sleep(0)
            said = self.script(delivery)
            said = await said if isawaitable(said) else said
            attempt = said if isinstance(said, Attempt) else answer(said, at_ms)
            if attempt.status_code is not None and 200 <= attempt.status_code <= 299:
                self.taken.append(delivery)
            return attempt
        finally:
            self.on_wire -= 1

    async def until_sent(self, count: int) -> None:
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: len(self.sent) >= count)


class _Stage:
    def __init__(self, path: Path, targets: tuple[TargetSettings, ...], clock: Clock) -> None:
        self.targets = targets
        self.clock = clock
        self.bench = Bench(lambda: SqliteStore(path, clock.wall_ms, lambda _seconds: None))
        self.metrics = Metrics("test")
        self.board = Board()
        self.rng = Random(1)
        self.clients = {one.name: ScriptedClient(clock, one.name) for one in targets}

    @property
    def context(self) -> Context:
        return Context(self.bench.store, self.metrics, self.clock, self.rng, self.board)

    @property
    def client(self) -> ScriptedClient:
        """The only target's, or the first one's."""
        return self.clients[self.targets[0].name]

    async def add(self, *events: Event, to: list[str] | None = None) -> None:
        names = [one.name for one in self.targets] if to is None else to
        await self.bench.add(*events, targets=names, now_ms=self.clock.wall_ms())

    async def waiting(self, name: str = "alpha") -> Backlog:
        return (await self.bench.store.backlog())[name]

    async def standing(self, name: str = "alpha") -> Standing:
        return (await self.waiting(name)).standing

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value("houdini_relay_" + name, labels) or 0.0


class Room(_Stage):
    """A scheduler at work, in real time; `async with` it."""

    def __init__(self, path: Path, *targets: TargetSettings, clock: Clock | None = None) -> None:
        super().__init__(path, targets, clock or SystemClock())

    async def __aenter__(self) -> "Room":
        await self.bench.store.open([entry(one) for one in self.targets])
        self.scheduler = Scheduler(self.targets, self.clients, self.context, self.board)
        self.task = asyncio.create_task(self.scheduler.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.scheduler.drain(0.0)
        async with asyncio.timeout(10):
            await self.task
        await self.bench.store.close()

    async def until_empty(self, name: str = "alpha") -> None:
        async def empty() -> bool:
            return not (await self.waiting(name)).pending

        await until(empty)


class Steps(_Stage):
    """Loops, settler and janitor by hand, on a clock that the test moves; `async with` it."""

    clock: JumpClock

    def __init__(self, path: Path, *targets: TargetSettings, clock: JumpClock | None = None) -> None:
        super().__init__(path, targets, clock or JumpClock())

    async def __aenter__(self) -> "Steps":
        await self._open({})
        return self

    async def __aexit__(self, *_: object) -> None:
        self._settling.cancel()
        await asyncio.gather(self._settling, return_exceptions=True)
        await self.bench.store.close()

    async def restart(self, *targets: TargetSettings, reach: Mapping[str, str] | None = None) -> None:
        """A new process on the same file, with these targets if any are given."""
        await self.__aexit__()
        self.targets = targets or self.targets
        for one in self.targets:
            self.clients.setdefault(one.name, ScriptedClient(self.clock, one.name))
        self.bench = Bench(self.bench._make)
        await self._open(reach or {})

    async def _open(self, reach: Mapping[str, str]) -> None:
        await self.bench.store.open([entry(one, reach.get(one.name, "")) for one in self.targets])
        policies = {one.name: policy_of(one) for one in self.targets}
        self.settler = Settler(self.context, policies)
        self._settling = asyncio.create_task(self.settler.run())
        self.board.targets.clear()
        self.loops = {
            one.name: TargetLoop(
                one,
                self.clients[one.name],
                policies[one.name],
                self.settler,
                self.context,
                self.board.targets.setdefault(one.name, TargetBoard()),
            )
            for one in self.targets
        }
        self.janitor = Janitor(self.targets, RETENTION, self.context, self.board)

    async def turn(self, name: str = "alpha") -> float:
        """Attempt what is due and permitted until nothing is; returns the nap after that."""
        while True:
            nap, started = await self.round(name)
            if not started:
                return nap

    async def round(self, name: str = "alpha") -> tuple[float, int]:
        """One look, and the end of every attempt that it began; returns the nap and how many these were."""
        before = len(self.clients[name].sent)
        nap = await self.loops[name].run_once()
        await until(lambda: self.board.targets[name].in_flight == 0, pause=0)
        return nap, len(self.clients[name].sent) - before

    async def live(self, seconds: float, name: str = "alpha") -> None:
        """Let time pass, turn by turn."""
        ends = self.clock.mono() + seconds
        while self.clock.mono() < ends:
            nap = await self.turn(name)
            self.clock.move(min(max(nap, 0.01), ends - self.clock.mono()))
        await self.turn(name)

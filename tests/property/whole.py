"""The whole relay in this process, on real sockets and on a clock that runs faster than the wall."""

import asyncio
from pathlib import Path
from random import Random
from time import monotonic, time
from typing import Any, Final

import yaml
from store_model import copy_files

from relay.board import Board
from relay.clock import Clock
from relay.config import Settings
from relay.config.loader import parse
from relay.delivery.janitor import Janitor
from relay.delivery.lookup import Lookup
from relay.delivery.routing import routed
from relay.delivery.scheduler import Scheduler
from relay.delivery.settler import Context
from relay.delivery.target_client import connect
from relay.metrics import Metrics
from relay.model import Event
from relay.simulator.receiver import Receiver
from relay.simulator.server import SimulatedUpstream
from relay.simulator.world import World
from relay.store.sqlite import SqliteStore
from relay.store.values import TargetEntry
from relay.upstream.ingest import Ingest
from relay.upstream.intake import Intake
from relay.upstream.supervisor import Supervisor

SPEED: Final = 20
SETTLING: Final = 8.0
"""Seconds by the fast clock; REST lags by less."""

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PARTNER: Final = "whole-partner"
UPSTREAM_SECRET: Final = "whole-upstream-secret"


class FastClock(Clock):
    """Everybody's time, upstream's and receiver's too: what is patient for a minute is so for three seconds."""

    def __init__(self) -> None:
        self._began, self._wall_ms = monotonic(), int(time() * 1000)

    def mono(self) -> float:
        return (monotonic() - self._began) * SPEED

    def wall_ms(self) -> int:
        return self._wall_ms + int(self.mono() * 1000)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / SPEED)


class WholeRelay:
    """Session, supervisor, backfill, ingest, store, scheduler and sender, as the daemon wires them."""

    def __init__(self, settings: Settings, folder: Path, clock: Clock, rng: Random) -> None:
        self._settings = settings
        self._folder = folder
        self._clock = clock
        self._rng = rng
        self._file = folder / "relay-0.db"
        self._lives = 0

    async def start(self) -> None:
        self.board, metrics = Board(), Metrics("test")
        self.store = SqliteStore(self._file, self._clock.wall_ms, lambda _seconds: None)
        targets = self._settings.targets
        await self.store.open([TargetEntry(target.name) for target in targets])
        self.intake = Intake()
        upstream, clock = self._settings.upstream, self._clock
        self._lookup = Lookup(clock)
        self._clients = {
            target.name: connect(target, self._lookup, clock, "test", partner_id=PARTNER) for target in targets
        }
        context = Context(self.store, metrics, clock, self._rng)
        scheduler = Scheduler(targets, self._clients, context, self.board)
        janitor = Janitor(targets, self._settings.store.retention, context, self.board)
        ingest = Ingest(self.intake, self.store, upstream.partner_id, self._route, metrics, clock, SETTLING)
        supervisor = Supervisor(
            upstream, self.intake, self.store, self.board, metrics, clock, self._rng, "test",
            route=self._route, settling=SETTLING,
        )  # fmt: skip
        self._rooms = [asyncio.create_task(room.run()) for room in (scheduler, janitor, ingest, supervisor)]

    def _route(self, event: Event) -> tuple[str, ...]:
        return routed(self._settings.targets, event)

    async def stop(self) -> None:
        for room in self._rooms:
            room.cancel()
        await asyncio.gather(*self._rooms, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in self._clients.values()))
        self._lookup.close()
        await self.store.close()

    async def crash(self) -> None:
        """What is on disk at this moment is all that is left; whatever is written later is not in the copy."""
        self._lives += 1
        image = self._folder / f"relay-{self._lives}.db"
        for room in self._rooms:  # first: what is not in the copy must not be delivered either
            room.cancel()
        await self.store._run(lambda _connection: copy_files(self._file, image))
        await self.stop()
        self._file = image
        await self.start()

    def assert_alive(self) -> None:
        for room in self._rooms:
            assert not room.done(), room


class Whole:
    """Upstream, relay and receiver; `async with` it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.clock = FastClock()
        self.rng = Random(seed)
        self.world = World(self.clock, self.rng)
        self.upstream = SimulatedUpstream(self.world, partner_id=PARTNER, secret=UPSTREAM_SECRET)
        self.receiver = Receiver([SECRET], clock=self.clock, rng=self.rng)
        self._folder = folder

    async def __aenter__(self) -> "Whole":
        await self.upstream.start()
        await self.receiver.start()
        settings = parse(yaml.safe_dump(self._document()).encode(), "whole.yaml", environ={})
        self.relay = WholeRelay(settings, self._folder, self.clock, self.rng)
        await self.relay.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.relay.stop()
        await self.receiver.stop()
        await self.upstream.stop()

    def _document(self) -> dict[str, Any]:
        return {
            "upstream": {
                "websocket_url": self.upstream.websocket_url,
                "rest_url": self.upstream.rest_url,
                "partner_id": PARTNER,
                "secret": UPSTREAM_SECRET,
                "heartbeat": {"interval": "10s", "timeout": "5s"},
                "reconnect": {"initial": "200ms", "max": "2s"},
                "backfill": {"interval": "10s", "requests_per_minute": 6000},
            },
            "store": {"url": "sqlite:///unused.db"},
            "targets": [
                {
                    "name": "shop",
                    "url": f"http://127.0.0.1:{self.receiver.port}/shop",
                    "secrets": [SECRET],
                    "timeout": "5s",
                    "retry": {"schedule": ["1s"] * 50},
                    "breaker": {"failures": 5, "probe": {"initial": "1s", "max": "4s"}},
                }
            ],
        }

    async def statuses_agree(self) -> bool:
        """Whether what the relay believes is what is true upstream, in every status field it has seen."""
        known = await self.relay.store.known_orders(list(self.world.orders))
        if len(known) < len(self.world.orders):
            return False
        return all(
            order.fields.get(name) == value
            for houdini_id, order in self.world.orders.items()
            for name, value in known[houdini_id].fields.items()
            if name in order.fields
        )

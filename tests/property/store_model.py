"""What surrounds the real ingest and store in the property test: an upstream with a true history, a wire, receivers."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from support.stores import entries, parks, up_to

from relay.clock import Clock
from relay.errors import StoreError
from relay.metrics import Metrics
from relay.model import Attempt, Delivery, DeliveryStatus, Event, Origin, Outcome, Snapshot
from relay.store.sqlite import SqliteStore, Written
from relay.store.values import IngestPlan, Settlement
from relay.upstream.diff import SETTLING
from relay.upstream.ingest import Ingest
from relay.upstream.intake import Intake
from relay.upstream.protocol import parse_order, snapshot

T = TypeVar("T")

PARTNER: Final = "partner"
PICKY, STEADY, GONE = "picky", "steady", "gone"
TARGETS: Final = (STEADY, PICKY, GONE)
"""`steady` gets every event, `picky` only ends, `gone` everything until it answers 410."""

PICKY_TYPES: Final = frozenset({"order.finished", "order.failed", "order.expired", "order.refunded", "order.deleted"})

NEXT: Final[Mapping[int, tuple[int, ...]]] = {
    -2: (-1, 0), -1: (0,), 0: (1, 5), 5: (1, 8), 1: (2,), 2: (3, 4, 6), 3: (4, 6), 4: (8,), 6: (7, 8), 7: (8,), 8: (),
}  # fmt: skip
"""The documented transitions, a late deposit on an expired order among them."""


METRICS: Final = Metrics("test")


def wanted_by(event_type: str) -> tuple[str, ...]:
    return TARGETS if event_type in PICKY_TYPES else (STEADY, GONE)


LONGEST_WAIT_MS: Final = 1_000


class Crashed(StoreError):
    """Thrown where a kill -9 strikes; a store's error, so that ingest lets it through."""


class CrashImage(SqliteStore):
    """The real store; on demand a plan is written and then the process "dies" before COMMIT.

    What a kill leaves behind is the bytes of the files at that moment, so these are copied from inside the
    transaction, and the test goes on with the copy.
    """

    image: Path | None = None
    file: Path

    def _write_plan(self, connection: sqlite3.Connection, plan: IngestPlan) -> Written:
        written = super()._write_plan(connection, plan)
        if self.image is not None:
            copy_files(self.file, self.image)
            raise Crashed
        return written


def copy_files(source: Path, goal: Path) -> None:
    """The database and its log as they are now; the shared-memory file is rebuilt by whoever opens them."""
    for suffix in ("", "-wal"):
        part = source.with_name(source.name + suffix)
        if part.exists():
            shutil.copyfile(part, goal.with_name(goal.name + suffix))


@dataclass
class VirtualClock(Clock):
    """Time that moves only when a rule says so; the wall clock can be stepped."""

    wall: int = 1_795_330_000_000
    now: float = 1_000.0

    def wall_ms(self) -> int:
        return self.wall

    def mono(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here may sleep")

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.wall += round(seconds * 1000)


@dataclass
class TrueOrder:
    """An order upstream: (since when, status, finer step), the present last."""

    houdini_id: str
    history: list[tuple[float, int, int]]

    def body(self, index: int = -1) -> bytes:
        _, status, step = self.history[index]
        shown = {"houdiniId": self.houdini_id, "status": status, "displayStatus": f"{status}-{step}"}
        return json.dumps(shown | {"created": "2026-11-22T07:00:00.000Z"}).encode()

    def oldest_shown(self, now: float) -> int:
        """The oldest state that some replica may still show: REST lags by a settling time at most."""
        settled = [at for at, (since, _, _) in enumerate(self.history) if since <= now - SETTLING]
        return settled[-1] if settled else 0

    @property
    def statuses(self) -> list[int]:
        return [status for _, status, _ in self.history]


@dataclass
class Receivers:
    """What the targets acknowledged, and the promises they see."""

    bodies: dict[str, bytes] = field(default_factory=dict)
    furthest: dict[tuple[str, str], int] = field(default_factory=dict)
    acknowledged: set[tuple[str, str]] = field(default_factory=set)

    def take(self, delivery: Delivery) -> None:
        event = delivery.event
        assert self.bodies.setdefault(event.webhook_id, event.body) == event.body, "two changes under one id"
        self.acknowledged.add((delivery.target, event.webhook_id))
        if not delivery.manual and event.facts is not None:
            lane = (delivery.target, event.lane)
            assert event.facts.sequence >= self.furthest.get(lane, 0), "a lane stepped back"
            self.furthest[lane] = event.facts.sequence


class Relay:
    """The real intake, ingest and store of one process after the other, on virtual time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = VirtualClock()
        self.loop = asyncio.new_event_loop()
        self.lives = 0
        self.in_flight: list[Delivery] = []
        self.written = self.used = False
        self.start(folder / "relay-0.db")

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def start(self, file: Path) -> None:
        self.in_flight.clear()
        self.written, self.used = True, False
        self.do(self._start(file))

    async def _start(self, file: Path) -> None:
        self.store = CrashImage(file, self.clock.wall_ms, lambda _seconds: None)
        self.store.file = file
        await self.store.open(entries(TARGETS))
        self.intake = Intake()
        for target in TARGETS:
            await self.store.clamp_due(target, self.clock.wall + LONGEST_WAIT_MS)
        self.ingest = Ingest(self.intake, self.store, PARTNER, self.route, METRICS, self.clock)

    @staticmethod
    def route(event: Event) -> tuple[str, ...]:
        return wanted_by(event.type)

    def stop(self) -> None:
        self.do(self.store.close())

    def restart(self) -> None:
        """A clean stop, and a start on what it left."""
        self.stop()
        self.start(self.store.file)

    def query(self, *queries: str) -> list[list[tuple[Any, ...]]]:
        """What the database itself answers."""

        def work(connection: sqlite3.Connection) -> list[list[tuple[Any, ...]]]:
            return [connection.execute(query).fetchall() for query in queries]

        return self.do(self.store._run(work))

    def crash(self) -> None:
        """kill -9 between two transactions: memory is gone, the files are what they are."""
        image = self._next_image()
        copy_files(self.store.file, image)
        self.stop()
        self.start(image)

    def crash_within_ingest(self) -> bool:
        """kill -9 after the plan is written and before it is committed; False if there was nothing to write."""
        self.store.image = self._next_image()
        try:
            self.ingest_all()
        except Crashed:
            image = self.store.image
            self.stop()
            self.start(image)
            return True
        finally:
            self.store.image = None
        return False

    def _next_image(self) -> Path:
        self.lives += 1
        return self.folder / f"relay-{self.lives}.db"

    def frame(self, body: bytes) -> None:
        self.intake.offer(self._snapshot(body, Origin.WEBSOCKET, self.clock.now))

    def rows(self, bodies: list[bytes], asked_at: float, *, first_sweep: bool = False, silent: bool = False) -> None:
        seen = [self._snapshot(body, Origin.BACKFILL, asked_at, first_sweep, silent) for body in bodies]
        self.do(self.intake.put(seen))

    def _snapshot(
        self, body: bytes, origin: Origin, asked_at: float, first_sweep: bool = False, silent: bool = False
    ) -> Snapshot:
        return snapshot(
            parse_order(body), body, origin=origin, seen_ms=self.clock.wall, asked_at=asked_at,
            first_sweep=first_sweep, silent=silent,
        )  # fmt: skip

    def ingest_all(self) -> None:
        self.written = self.used = True
        while len(self.intake):
            self.do(self.ingest.run_once())

    def advance(self, seconds: float) -> None:
        """Move time, judging hints again when their patience ends."""
        goal = self.clock.now + seconds
        while self.clock.now < goal:
            self.clock.advance(min(5.5, goal - self.clock.now))
            self.ingest.return_hints()

    def step_wall(self, seconds: int) -> None:
        """The wall clock is set, and the scheduler notices."""
        self.clock.wall += seconds * 1000
        if seconds < 0:
            for target in TARGETS:
                self.do(self.store.shift_due(target, seconds * 1000, self.clock.wall))

    def resume(self, target: str) -> bool:
        return self.do(self.store.resume(target, self.clock.wall))

    def claim(self, target: str, limit: int) -> list[Delivery]:
        claimed = list(self.do(self.store.claim(target, up_to(limit), self.clock.wall)).deliveries)
        self.in_flight += claimed
        return claimed

    def settle(self, delivery: Delivery, attempt: Attempt) -> None:
        """Again after a second, or at once where a 410 parks."""
        status = DeliveryStatus.DELIVERED if attempt.outcome is Outcome.OK else DeliveryStatus.PENDING
        waits_ms = 0 if attempt.outcome is Outcome.GONE else LONGEST_WAIT_MS
        settlement = Settlement(delivery, attempt, status, due_ms=self.clock.wall + waits_ms)
        self.in_flight.remove(delivery)
        self.written = self.used = True
        self.do(self.store.settle([settlement], parks, self.clock.wall))

    def replay(self, target: str, webhook_id: str) -> int:
        self.written = self.used = True
        return self.do(self.store.replay(target, [webhook_id], self.clock.wall))

    def attempt(self, outcome: Outcome, status_code: int) -> Attempt:
        return Attempt(self.clock.wall, 5.0, outcome, status_code=status_code)

    def close(self) -> None:
        self.stop()
        self.loop.close()

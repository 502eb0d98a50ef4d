"""The one way in: frames and REST rows, in one queue, judged and written by one transaction at a time.

`Intake` is the bounded queue that readers fill without waiting. `Ingest` empties it: read the projections,
decide with the rank rule, write orders, events, deliveries and questions, commit. Only then is anything
observable.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from relay.clock import Clock
from relay.errors import StoreError, StoreUnavailable
from relay.live import Live
from relay.log import Sampler
from relay.log_names import Log
from relay.metrics import Metrics
from relay.model import KnownOrder, Origin, Snapshot, iso_utc
from relay.store.base import Store
from relay.store.values import IngestPlan, PlannedEvent
from relay.tracing import OFF, Tracing
from relay.upstream.diff import SETTLING
from relay.upstream.planner import Entry, Judged, Router, Situation, plan_batch

BATCH: Final = 500
INTAKE_BYTES: Final = 64 * 2**20
INTAKE_SNAPSHOTS: Final = 100_000
HINT_PATIENCE: Final = 5.0
"""Seconds that a frame gets to arrive after REST has shown its order ahead of it."""
HINTS: Final = 10_000
CULPRITS: Final = 100
AWAY_PATIENCE: Final = 10.0
"""Seconds for which a store that cannot be reached is asked again; nothing is given up in between."""
AGAIN: Final = 0.5
"""Seconds between two such askings."""
QUIET_MEMORY: Final = 900.0
"""Seconds for which touches of orders are remembered; no REST answer is asked for longer ago than that."""

_log = structlog.get_logger()


class Intake:
    """A bounded FIFO between the readers and the one ingest.

    Frames are offered and never wait: what does not fit is dropped and `overflowed` is set, which asks for
    a sweep. REST rows wait for room, so they stand behind every frame read before them.

    Attributes:
        overflowed: set when a frame was dropped; whoever sweeps clears it.
        dropped: how many frames were.
        touched_at: monotonic time at which every order counts as just updated, None before the first time.
    """

    def __init__(self, max_bytes: int = INTAKE_BYTES, max_snapshots: int = INTAKE_SNAPSHOTS) -> None:
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._max_snapshots = max_snapshots
        self._added = 0
        self._done = 0
        self._arrived = asyncio.Event()
        self._moved = asyncio.Condition()
        self.overflowed = asyncio.Event()
        self.dropped = 0
        self.touched_at: float | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def offer(self, snapshot: Snapshot) -> bool:
        """Add a frame's snapshot if there is room; False when it was dropped."""
        if not self._has_room():
            self.dropped += 1
            self.overflowed.set()
            return False
        self._add(Entry(snapshot))
        return True

    async def put(self, snapshots: Sequence[Snapshot]) -> None:
        """Add REST rows, waiting for room."""
        for snapshot in snapshots:
            async with self._moved:
                await self._moved.wait_for(self._has_room)
                self._add(Entry(snapshot))

    def put_back(self, snapshot: Snapshot) -> None:
        """Add a hint whose frame did not come, to be judged again."""
        self._add(Entry(snapshot, hinted=True))

    def confirm(self, snapshot: Snapshot) -> None:
        """Add the frame of a question that REST can never answer, to be believed if it still can be."""
        self._add(Entry(snapshot, confirmed=True))

    def return_unstored(self, entries: Sequence[Entry]) -> None:
        """Take back, to the front, what was taken and could not be stored; it counts as added anew."""
        self._entries.extendleft(reversed(entries))
        self._bytes += sum(len(entry.snapshot.body) for entry in entries)
        self._added += len(entries)
        self._arrived.set()

    def unstored_frames(self) -> list[Snapshot]:
        """Frames that were read and are not stored, oldest first; what REST showed is asked for again anyway."""
        plain = (one for one in self._entries if not one.hinted and not one.confirmed)
        return [one.snapshot for one in plain if one.snapshot.origin is Origin.WEBSOCKET]

    def touch_all(self, now: float) -> None:
        """From now on every order counts as just updated: no read is quiet for one settling time."""
        self.touched_at = now

    async def join(self) -> None:
        """Wait until everything added so far is committed."""
        goal = self._added
        async with self._moved:
            await self._moved.wait_for(lambda: self._done >= goal)

    async def take(self, limit: int) -> list[Entry]:
        """Wait for entries and take up to `limit` of them; `done` must be told afterwards."""
        await self._arrived.wait()
        batch = [self._entries.popleft() for _ in range(min(limit, len(self._entries)))]
        self._bytes -= sum(len(entry.snapshot.body) for entry in batch)
        if not self._entries:
            self._arrived.clear()
        return batch

    async def done(self, count: int) -> None:
        """Say that this many taken entries are committed or given up."""
        self._done += count
        async with self._moved:
            self._moved.notify_all()

    def _has_room(self) -> bool:
        return self._bytes < self._max_bytes and len(self._entries) < self._max_snapshots

    def _add(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._bytes += len(entry.snapshot.body)
        self._added += 1
        self._arrived.set()


class Ingest:
    """Empties the intake into the store."""

    def __init__(
        self,
        intake: Intake,
        store: Store,
        partner_id: str,
        route: Router,
        metrics: Metrics,
        clock: Clock,
        settling: float = SETTLING,
        live: Live | None = None,
        tracing: Tracing = OFF,
    ) -> None:
        self._intake = intake
        self._store = store
        self._partner_id = partner_id
        self._route = route
        self._metrics = metrics
        self._clock = clock
        self._settling = settling
        self._live = live or Live()
        self._tracing = tracing
        self._started = clock.mono()
        self._defects = Sampler()
        self._waits = Sampler(1, 60.0)
        self._touched: dict[str, float] = {}
        self._hints: deque[tuple[float, Snapshot]] = deque()
        self._culprits: deque[bytes] = deque(maxlen=CULPRITS)

    async def run(self) -> None:
        """Ingest until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._return_hints(), name="ingest-hints")
            while True:
                await self.run_once()

    async def run_once(self) -> int:
        """Wait for snapshots, ingest one batch of them, return how many it was.

        Raises:
            StoreUnavailable: the store could not be reached for `AWAY_PATIENCE`.
            NotLeader: another instance leads; nothing was written.
            StoreError: the store cannot be used.
        """
        entries = await self._intake.take(BATCH)
        try:
            await self._ingest_patiently(entries)
        except (StoreUnavailable, asyncio.CancelledError):
            self._intake.return_unstored(entries)
            raise
        except StoreError:
            raise
        except Exception:
            # One bad snapshot must not take its neighbours along: judge them one by one, name the culprit.
            for entry in entries:
                await self._ingest_alone(entry)
        finally:
            await self._intake.done(len(entries))
        return len(entries)

    async def _ingest_patiently(self, entries: Sequence[Entry]) -> None:
        """Ask a store again that is away for a moment; what it may have written all the same is then no news."""
        give_up = self._clock.mono() + AWAY_PATIENCE
        while True:
            try:
                return await self._ingest(entries)
            except StoreUnavailable as error:
                if self._clock.mono() >= give_up:
                    raise
                if (suppressed := self._waits.admit(self._clock.mono())) is not None:
                    _log.warning(Log.INGEST_WAITS, error=str(error), suppressed=suppressed)
            await self._clock.sleep(AGAIN)

    async def _ingest(self, entries: Sequence[Entry]) -> None:
        now = self._clock.mono()
        quiet_since = max(self._started, self._intake.touched_at or self._started)
        situation = Situation(self._partner_id, self._clock.wall_ms(), now, self._settling, quiet_since, self._touched)
        judged = Judged()

        def plan(known: Mapping[str, KnownOrder]) -> IngestPlan:
            nonlocal judged
            planned, judged = plan_batch(entries, known, situation, self._route)
            return planned

        written = await self._store.ingest({entry.snapshot.houdini_id for entry in entries}, plan)
        self._touched.update(judged.touched)
        for hint in judged.hints:
            if len(self._hints) == HINTS:  # rather judged early than forgotten
                self._intake.put_back(self._hints.popleft()[1])
            self._hints.append((now + HINT_PATIENCE, hint))
        self._count(written, judged)
        now_ms = self._clock.wall_ms()
        for planned in written.events:
            self._live.publish("event", _told(planned))
            self._tracing.written(planned.event, now_ms)

    async def _ingest_alone(self, entry: Entry) -> None:
        try:
            await self._ingest([entry])
        except StoreError:
            raise
        except Exception:
            if entry.snapshot.body in self._culprits:  # a sweep would bring it back, and the next sweep again
                return
            self._culprits.append(entry.snapshot.body)
            self._say_defect(entry.snapshot)
            self._intake.overflowed.set()

    def _say_defect(self, snapshot: Snapshot) -> None:
        suppressed = self._defects.admit(self._clock.mono())
        if suppressed is not None:
            names = {"order": snapshot.houdini_id, "origin": snapshot.origin}
            _log.exception(Log.SNAPSHOT_NOT_INGESTED, **names, suppressed=suppressed)

    def _count(self, written: IngestPlan, judged: Judged) -> None:
        for planned in written.events:
            facts = planned.event.facts
            origin = facts.origin.value if facts else "relay"
            self._metrics.events.labels(planned.event.type, origin).inc()
            if origin == "backfill":
                self._metrics.backfill_changes.inc()
        for origin in judged.duplicates:
            self._metrics.duplicates.labels(origin.value).inc()
        for origin in judged.disbelieved:
            self._metrics.disbelieved.labels(origin.value).inc()

    async def _return_hints(self) -> None:
        while True:
            await self._clock.sleep(1.0)
            self.return_hints()

    def return_hints(self) -> int:
        """Queue the hints whose patience is over, forget touches too old to matter; returns how many hints."""
        now, returned = self._clock.mono(), 0
        while self._hints and self._hints[0][0] <= now:
            self._intake.put_back(self._hints.popleft()[1])
            returned += 1
        if len(self._touched) > HINTS:
            self._touched = {key: at for key, at in self._touched.items() if at > now - QUIET_MEMORY}
        return returned


def _told(planned: PlannedEvent) -> dict[str, Any]:
    """An event as those who listen are told of it, in the words of the API."""
    event = planned.event
    return {
        "id": event.webhook_id,
        "type": event.type,
        "order": event.lane,
        "at": iso_utc(event.at_ms),
        "targets": list(planned.targets),
    }

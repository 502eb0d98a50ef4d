"""The one way in: frames and REST rows, in one queue, judged and written by one transaction at a time.

`Ingest` empties the intake: read the projections, decide with the rank rule, write orders, events, deliveries and
questions, commit. Only then is anything observable.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, Final, NoReturn

import structlog

from relay.clock import Clock, next_beat
from relay.errors import StoreError, StoreUnavailable
from relay.live import Live
from relay.log import Sampler
from relay.log_names import Log
from relay.metrics import Metrics
from relay.model import KnownOrder, Snapshot, iso_utc
from relay.store.base import Store
from relay.store.values import IngestPlan, PlannedEvent
from relay.tracing import OFF, Tracing
from relay.upstream.diff import SETTLING
from relay.upstream.intake import Intake
from relay.upstream.planner import Entry, Judged, Router, Situation, plan_batch
from relay.upstream.together import until_first_ends

BATCH: Final = 500
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
        self._events = cache(metrics.events.labels)
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

    async def run(self) -> NoReturn:
        """Ingest until cancelled.

        Raises:
            StoreError: as `run_once` does, by itself and in no group: by its kind it is told what to do about it.
        """
        _, errors = await until_first_ends(batches=self._run_batches(), hints=self._return_hints())
        raise errors[0]

    async def _run_batches(self) -> NoReturn:
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
            self._live.publish("event", partial(_told, planned))
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
            self._events(planned.event.type, origin).inc()
            if origin == "backfill":
                self._metrics.backfill_changes.inc()
        for origin in judged.duplicates:
            self._metrics.duplicates.labels(origin.value).inc()
        for origin in judged.disbelieved:
            self._metrics.disbelieved.labels(origin.value).inc()

    async def _return_hints(self) -> NoReturn:
        while True:
            await next_beat(self._clock, 1.0)
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

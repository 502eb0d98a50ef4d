"""What ends without an attempt, and what is thrown away: expiry, overflow, retention.

Each has a turn of its own, in small batches with pauses between them, so that the store's one writer is never
held for long and ingest never waits for it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from relay.board import Board
from relay.clock import next_beat
from relay.config import TargetSettings
from relay.delivery.settler import Context
from relay.log_names import Log
from relay.model import DeliveryStatus
from relay.notice import NOTICE_LIFE
from relay.store.outage import if_reachable

OVERFLOW_EVERY: Final = 5.0
EXPIRY_EVERY: Final = 60.0
RETENTION_EVERY: Final = 3600.0
"""Seconds between the turns of each."""
BATCH: Final = 500
"""Rows that one transaction looks at or changes."""
PAUSE: Final = 0.05
"""Seconds between two batches; what deliveries and ingest want is done meanwhile."""
BURST: Final = 60.0
"""Seconds for which what overflows at a target is told in one line."""

_log = structlog.get_logger()


class Janitor:
    """All three for every configured target."""

    def __init__(self, targets: Sequence[TargetSettings], retention: float, context: Context, board: Board) -> None:
        """Prepare.

        Args:
            targets: as configured; what belongs to others is kept.
            retention: seconds for which finished deliveries are kept.
            context: what the delivery room shares.
            board: where it is said that deliveries died.
        """
        self._store = context.store
        self._metrics = context.metrics
        self._clock = context.clock
        self._board = board
        self._bursts: dict[str, _Burst] = {}
        self._prune_place = 0
        self.reconfigure(targets, retention)

    def reconfigure(self, targets: Sequence[TargetSettings], retention: float) -> None:
        """Go by these settings from the next batch on."""
        self._targets: Mapping[str, TargetSettings] = {target.name: target for target in targets}
        self._retention = retention

    async def run(self) -> None:
        """Clean up until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run_overflow(), name="overflow")
            tasks.create_task(self._run_expiry(), name="expiry")
            tasks.create_task(self._run_retention(), name="retention")

    async def overflow_once(self) -> int:
        """End the oldest deliveries beyond each target's `max_pending`; returns how many."""
        ended = 0
        for name, waiting in (await self._store.backlog()).items():
            target = self._targets.get(name)
            if target is not None:
                if waiting.pending > target.max_pending:
                    ended += await self._trim(target)
                self._say_overflow(target)
        return ended

    async def expiry_once(self) -> int:
        """End what has waited for longer than its target's `expire_after`, in vain; returns how many."""
        ended = 0
        # Not all that are configured here: another instance may lead, by a configuration that lacks some.
        for name in self._targets.keys() & (await self._store.backlog()).keys():
            place, here = 0, 0
            ended += await self._expire_notices(name)
            while (target := self._targets.get(name)) is not None:
                made_before_ms = self._clock.wall_ms() - round(target.expire_after * 1000)
                found = await self._store.expire(name, made_before_ms, place, BATCH, self._clock.wall_ms())
                here += found.ended
                self._count(name, found.ended)
                place = found.next_after
                if place == 0:
                    break
                await self._clock.sleep(PAUSE)
            if here:
                advice = "they are dead (expired); when the receiver is right again: houdini-relay replay"
                _log.error(Log.DELIVERIES_EXPIRED, target=name, count=here, advice=advice)
            ended += here
        return ended

    async def retention_once(self) -> int:
        """Remove what ended longer ago than `retention`, from where the last turn was cut off; returns how much."""
        before_ms = self._clock.wall_ms() - round(self._retention * 1000)
        removed = 0
        while True:
            done = await self._store.prune(before_ms, self._prune_place, BATCH)
            removed += done.deliveries + done.events + done.orders
            self._prune_place = done.next_place or 0
            if done.next_place is None:
                break
            await self._clock.sleep(PAUSE)
        if removed:
            _log.info(Log.PRUNED, rows=removed)
        return removed

    async def _expire_notices(self, target: str) -> int:
        """End notices by age alone: an hour is too short for tries to count, and what still holds, `status` shows."""
        ended, before_ms = 0, self._clock.wall_ms() - round(NOTICE_LIFE * 1000)
        while count := await self._store.expire_notices(target, before_ms, BATCH, self._clock.wall_ms()):
            ended += count
            self._metrics.deliveries.labels(target, DeliveryStatus.DEAD.value).inc(count)
            await self._clock.sleep(PAUSE)
        if ended:
            _log.warning(Log.NOTICES_EXPIRED, target=target, count=ended)
        return ended

    async def _trim(self, target: TargetSettings) -> int:
        ended = 0
        while self._targets.get(target.name) is target:
            count = await self._store.trim(target.name, target.max_pending, BATCH, self._clock.wall_ms())
            if count == 0:
                break
            ended += count
            self._count(target.name, count)
            self._bursts.setdefault(target.name, _Burst()).count += count
            self._say_overflow(target)
            await self._clock.sleep(PAUSE)
        return ended

    def _say_overflow(self, target: TargetSettings) -> None:
        """One line as a burst begins, and then one a minute with what has come together."""
        burst, now = self._bursts.setdefault(target.name, _Burst()), self._clock.mono()
        if burst.count == 0 or (burst.said_at is not None and now - burst.said_at < BURST):
            return
        _log.error(
            Log.DELIVERIES_OVERFLOWED,
            target=target.name,
            count=burst.count,
            max_pending=target.max_pending,
            advice="the oldest are dead (overflow); see why its receiver does not take them, then houdini-relay replay",
        )
        burst.count, burst.said_at = 0, now

    def _count(self, target: str, ended: int) -> None:
        if ended:
            self._metrics.deliveries.labels(target, DeliveryStatus.DEAD.value).inc(ended)

    async def _run_overflow(self) -> None:
        while True:
            await if_reachable(self.overflow_once())
            await next_beat(self._clock, OVERFLOW_EVERY)

    async def _run_expiry(self) -> None:
        while True:
            await if_reachable(self.expiry_once())
            await next_beat(self._clock, EXPIRY_EVERY)

    async def _run_retention(self) -> None:
        while True:
            await if_reachable(self.retention_once())
            await next_beat(self._clock, RETENTION_EVERY)


class _Burst:
    """What has overflowed at one target since that was last told."""

    def __init__(self) -> None:
        self.count = 0
        self.said_at: float | None = None

"""What is told of a target's deliveries: metrics for every attempt, log lines for changes only."""

from collections import deque
from functools import cache, partial
from typing import Any, Final

import structlog

from relay.board import TargetBoard
from relay.delivery.said import why_failed
from relay.delivery.settler import Context, Settled
from relay.log import Sampler
from relay.log_names import Log
from relay.model import Attempt, Delivery, DeliveryStatus, Outcome, iso_utc
from relay.standing import Breaker, Standing
from relay.store.outage import if_reachable
from relay.store.values import Settlement

FLAPPING: Final = 10.0
"""Seconds between two lines about a target that fails and answers by turns."""
DEATHS_A_MINUTE: Final = 5
"""Lines about dead deliveries per target; the metric counts them all."""
CHANGES_A_MINUTE: Final = 6
"""Lines about breaker and throttle per target."""

_log = structlog.get_logger()


class Reporter:
    """One target's."""

    def __init__(self, target: str, context: Context, board: TargetBoard) -> None:
        self._target = target
        self._context = context
        self._board = board
        self._standing: Standing | None = None
        # No more would be told anyway.
        self._breaker_changes: deque[tuple[Standing, Standing]] = deque(maxlen=CHANGES_A_MINUTE)
        self._error: str | None = None
        self._said_failing, self._said_at = False, -FLAPPING
        # The library takes a lock and makes texts for each look-up of a series.
        metrics = context.metrics
        self._attempts = cache(partial(metrics.attempts.labels, target))
        self._ended = cache(partial(metrics.deliveries.labels, target))
        self._duration = metrics.attempt_duration.labels(target)
        self._latency = metrics.delivery_latency.labels(target)
        self._deaths = Sampler(DEATHS_A_MINUTE, 60.0)
        self._changes = Sampler(CHANGES_A_MINUTE, 60.0)

    def settled(self, delivery: Delivery, settled: Settled) -> None:
        """Count an attempt whose outcome is committed."""
        settlement = settled.settlement
        attempt = settlement.attempt
        self._attempts(attempt.outcome.value).inc()
        self._duration.observe(attempt.duration_ms / 1000)
        self._context.tracing.attempted(delivery, attempt)
        if settlement.status is not DeliveryStatus.PENDING:
            self._ended(settlement.status.value).inc()
            now_ms = self._context.clock.wall_ms()
            self._context.tracing.ended(delivery, settlement.status, settlement.reason, now_ms)
        self._note_recent(delivery, attempt)
        if attempt.outcome is Outcome.OK:
            latency_ms = attempt.at_ms + attempt.duration_ms - delivery.event.at_ms
            self._latency.observe(max(0.0, latency_ms / 1000))
            self._error = None
        else:
            self._error = why_failed(attempt)
        self._say_failing(delivery)
        if settlement.status is DeliveryStatus.DEAD:
            reason = settlement.reason.value if settlement.reason else None
            self._say_dead(delivery, reason)
        self._context.board.live.publish("attempt", partial(_told, delivery, settlement))

    def see(self, standing: Standing) -> None:
        """Tell what has changed since this was last called; a breaker's change waits for `say_breaker`."""
        before, self._standing = self._standing, standing
        if before is None or before == standing:
            return
        if (before.state, before.breaker) != (standing.state, standing.breaker):
            told = {"name": self._target, "state": standing.state, "breaker": standing.breaker.value}
            self._context.board.live.publish("target", lambda: told)
        if before.parked_ms is None and standing.parked_ms is not None:
            self._say_parked(standing)
        if before.breaker is not standing.breaker:
            self._breaker_changes.append((before, standing))
        elif _is_slower(before, standing, self._context.clock.wall_ms()):
            self._say_slowed(standing)

    def _note_recent(self, delivery: Delivery, attempt: Attempt) -> None:
        # What a person sends again is days old by right: its latency counts from their wish.
        since_ms = delivery.created_ms if delivery.manual else delivery.event.at_ms
        latency_ms = attempt.at_ms + attempt.duration_ms - since_ms
        recent, now = self._context.board.recent, self._context.clock.mono()
        recent.note(self._target, attempt.outcome is Outcome.OK, latency_ms, now)

    async def say_breaker(self) -> None:
        """Tell of the breaker's changes, and of how much waits, which has to be asked for."""
        while self._breaker_changes:
            await self._say_breaker(*self._breaker_changes.popleft())

    async def _say_breaker(self, before: Standing, now: Standing) -> None:
        suppressed = self._changes.admit(self._context.clock.mono())
        if suppressed is None:
            return
        backlog = await if_reachable(self._context.store.backlog())
        waiting = None if backlog is None else backlog.get(self._target)
        pending = waiting.pending if waiting else 0
        if now.breaker is Breaker.OPEN:
            _log.warning(
                Log.BREAKER_OPENED,
                target=self._target,
                failures=now.failures,
                error=now.last_error,
                pending=pending,
                suppressed=suppressed,
                advice=f"`houdini-relay targets test {self._target}` shows what it answers; its deliveries wait, and "
                "probes go on until it answers 2xx",
            )
            return
        since = None if before.breaker_changed_ms is None else iso_utc(before.breaker_changed_ms)
        _log.info(
            Log.BREAKER_CLOSED,
            target=self._target,
            failures=before.failures,
            since=since,
            pending=pending,
            suppressed=suppressed,
        )

    def _say_parked(self, standing: Standing) -> None:
        _log.error(
            Log.TARGET_PARKED,
            target=self._target,
            error=standing.last_error,
            advice=f"its receiver wants nothing more (410, or webhook-delivery: disable); deliveries are kept until: "
            f"houdini-relay targets resume {self._target}",
        )

    def _say_slowed(self, standing: Standing) -> None:
        suppressed = self._changes.admit(self._context.clock.mono())
        if suppressed is None:
            return
        until = None if standing.throttled_until_ms is None else iso_utc(standing.throttled_until_ms)
        _log.warning(
            Log.TARGET_THROTTLED,
            target=self._target,
            error=standing.last_error,
            until=until,
            at_a_time=standing.allowance,
            suppressed=suppressed,
        )

    def _say_failing(self, delivery: Delivery) -> None:
        """One line a change, and of a target that flaps only what still holds a while later."""
        now, failing = self._context.clock.mono(), self._error is not None
        if failing == self._said_failing or now - self._said_at < FLAPPING:
            return
        self._said_failing, self._said_at = failing, now
        if failing:
            _log.warning(Log.TARGET_FAILING, target=self._target, error=self._error, order=delivery.event.lane)
        else:
            _log.info(Log.TARGET_ANSWERS_AGAIN, target=self._target)

    def _say_dead(self, delivery: Delivery, reason: str | None) -> None:
        suppressed = self._deaths.admit(self._context.clock.mono())
        if suppressed is not None:
            _log.error(
                Log.DELIVERY_DEAD,
                target=self._target,
                order=delivery.event.lane,
                webhook_id=delivery.event.webhook_id,
                reason=reason,
                error=self._error,
                suppressed=suppressed,
            )


def _told(delivery: Delivery, settlement: Settlement) -> dict[str, Any]:
    """An attempt as those who listen are told of it, in the words of the API."""
    event, attempt = delivery.event, settlement.attempt
    return {
        "at": iso_utc(attempt.at_ms),
        "delivery": delivery.id,
        "event_id": event.webhook_id,
        "type": event.type,
        "order": event.lane,
        "target": delivery.target,
        "number": delivery.attempts_made + 1,
        "outcome": attempt.outcome.value,
        "status_code": attempt.status_code,
        "kind": attempt.kind and attempt.kind.value,
        "duration_ms": attempt.duration_ms,
        "error": attempt.error,
        "status": settlement.status.value,
        "reason": settlement.reason and settlement.reason.value,
        "manual": delivery.manual,
        "probe": delivery.probe,
    }


def _is_slower(before: Standing, now: Standing, now_ms: int) -> bool:
    """Whether a throttle has begun: not one that is only prolonged."""
    held = before.throttled_until_ms is not None and before.throttled_until_ms > now_ms
    begins = now.throttled_until_ms is not None and now.throttled_until_ms > now_ms and not held
    # After a breaker has closed the allowance is a slow start, not a wish of the receiver's.
    slowed = before.allowance is None and now.allowance is not None and now.last_error is not None
    return begins or slowed

"""What a person may do to deliveries and targets, whether a program asks for it or a form of the dashboard."""

from typing import Final

import structlog

from relay.admin.answers import ApiError
from relay.admin.context import Context
from relay.admin.questions import ReplayQuestion, path_id, period
from relay.admin.shapes import Shape, attempt_shape, unstored
from relay.log_names import Log
from relay.model import DeliveryStatus
from relay.standing import Resume
from relay.store.reads import DeliveryRow, Filter
from relay.store.values import Change

PAGE: Final = 500
"""Deliveries that one transaction makes or ends."""
_UNFINISHED: Final = (DeliveryStatus.PENDING, DeliveryStatus.IN_FLIGHT)

_log = structlog.get_logger()


class Actions:
    """Each does one thing, logs it and says what came of it.

    All raise ApiError, which says why, when it cannot be done, and StoreError when the store cannot be used.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._replaying = False

    async def backfill(self) -> Shape:
        """Ask for a sweep now."""
        await self._context.want_sweep("asked for")
        _log.info(Log.BACKFILL_REQUESTED)
        return {"requested": True}

    async def retry(self, delivery_id: str) -> Shape:
        """Attempt a waiting delivery now; send a finished one again."""
        row = await self._delivery(delivery_id)
        if row.status in _UNFINISHED:
            change = await self._store.retry_now(row.id, self._context.clock.wall_ms())
            if change is Change.DONE:
                self._context.control.wake(row.target)
                _log.info(Log.DELIVERY_RETRIED, delivery=row.id, target=row.target)
                return {"delivery": row.id, "retried": True}
            if change is not Change.FINISHED:
                raise await self._refusal(row, change)
        return {"delivery": row.id, "replayed": await self._send_again(row)}

    async def cancel(self, delivery_id: str) -> Shape:
        """End a waiting delivery; the next of its lane follows."""
        row = await self._delivery(delivery_id)
        change = await self._store.cancel(row.id, self._context.clock.wall_ms())
        if change is not Change.DONE:
            raise await self._refusal(row, change)
        self._count_cancelled(row.target, 1)
        _log.info(Log.DELIVERY_CANCELLED, delivery=row.id, target=row.target)
        return {"delivery": row.id, "cancelled": True}

    async def replay(self, question: ReplayQuestion) -> Shape:
        """Send events again whose last delivery to a target has ended, oldest first."""
        await self._demand_configured(question.target)
        now_ms = self._context.clock.wall_ms()
        since_ms, until_ms = period(question.since, question.until, now_ms)
        only = Filter(
            target=question.target,
            status=None if question.status == "any" else DeliveryStatus(question.status),
            order=question.order,
            since_ms=since_ms,
            until_ms=until_ms,
        )
        if question.dry_run:
            return {"count": await self._replay_all(only, dry_run=True)}
        if self._replaying:
            raise ApiError(409, "replay_under_way", "another replay is under way; wait for it to end")
        self._replaying = True
        try:
            count = await self._replay_all(only, dry_run=False)
        finally:
            self._replaying = False
        _log.info(Log.REPLAYED, target=question.target, status=question.status, count=count)
        return {"count": count}

    async def pause(self, name: str) -> Shape:
        """Keep a target's deliveries without sending them."""
        await self._demand_configured(name)
        return {"target": name, "paused": await self._context.control.pause(name)}

    async def resume(self, name: str) -> Shape:
        """Send to a target again that was parked, or paused by a person, or probe its open breaker at once."""
        await self._demand_configured(name)
        found = await self._context.control.resume(name)
        if found is Resume.PAUSED_BY_CONFIG:
            sentence = "the configuration pauses this target: take `paused: true` out of it"
            raise ApiError(409, "paused_by_configuration", sentence)
        was = None if found is Resume.NOTHING else found.value
        return {"target": name, "resumed": was is not None, "was": was}

    async def test(self, name: str) -> Shape:
        """Make one attempt of a `relay.test` event now, past pause, park and breaker, changing none of them."""
        await self._demand_configured(name)
        attempt = await self._context.control.test(name)
        _log.info(Log.TARGET_TESTED, target=name, outcome=attempt.outcome.value)
        return {"target": name, "attempt": attempt_shape(unstored(attempt))}

    async def forget(self, name: str) -> Shape:
        """Cancel what is kept for a target that the configuration names no longer."""
        if self._is_configured(name):
            sentence = "this target is configured; take it out of the configuration first, or cancel deliveries singly"
            raise ApiError(409, "configured", sentence)
        if name not in await self._store.backlog():
            raise ApiError(404, "unknown_target", "nothing is kept for an orphaned target of this name")
        count = 0
        while ended := await self._store.forget(name, PAGE, self._context.clock.wall_ms()):
            self._count_cancelled(name, ended)
            count += ended
        _log.info(Log.TARGET_FORGOTTEN, target=name, cancelled=count)
        return {"target": name, "cancelled": count}

    async def _replay_all(self, only: Filter, *, dry_run: bool) -> int:
        """Page by page, so that deliveries go on in between; a replay that is broken off can be asked for again."""
        count, after, target = 0, 0, only.target or ""
        newest = next((row.id for row in (await self._store.list_events(Filter(), None, 1)).items), 0)
        while True:
            webhook_ids, following = await self._store.replayable(only, after, PAGE)
            if dry_run:
                count += len(webhook_ids)
            elif webhook_ids:
                count += await self._store.replay(target, webhook_ids, self._context.clock.wall_ms())
                self._context.control.wake(target)
            if following is None or following >= newest:  # what came meanwhile would keep it going for ever
                return count
            after = following

    async def _send_again(self, row: DeliveryRow) -> int:
        """A replay of one delivery's event; returns the id of the new delivery."""
        await self._demand_configured(row.target)
        last = await self._last_of(row)
        if last.status in _UNFINISHED:
            raise ApiError(409, "under_way", f"it is being sent again already, as delivery {last.id}")
        if not await self._store.replay(row.target, [row.webhook_id], self._context.clock.wall_ms()):
            raise ApiError(
                409,
                "not_replayed",
                "it is not sent: its event is gone, or the target is latest_only and the order has a newer event",
            )
        self._context.control.wake(row.target)
        made = await self._last_of(row)
        _log.info(Log.DELIVERY_REPLAYED, delivery=row.id, target=row.target, replay=made.id)
        return made.id

    async def _last_of(self, row: DeliveryRow) -> DeliveryRow:
        """The last delivery of the same event to the same target."""
        found = [one for one in await self._store.deliveries_of_event(row.webhook_id) if one.target == row.target]
        return max(found, key=lambda one: one.replay, default=row)

    async def _refusal(self, row: DeliveryRow, change: Change) -> ApiError:
        if change is Change.UNKNOWN:
            return _unknown_delivery()
        if change is Change.BLOCKED:
            return ApiError(409, "blocked", await self._why_blocked(row))
        sentences = {
            Change.IN_FLIGHT: ("in_flight", "an attempt of this delivery is under way; look again when it has ended"),
            Change.FINISHED: ("finished", "this delivery has ended"),
            Change.STOPPED: (
                "target_stopped",
                "nothing is sent to its target, which is paused, parked or no longer configured: resume it first",
            ),
        }
        return ApiError(409, *sentences[change])

    async def _why_blocked(self, row: DeliveryRow) -> str:
        head: DeliveryRow | None = None
        cursor: int | None = row.id
        while cursor is not None:
            page = await self._store.list_deliveries(Filter(target=row.target, order=row.order), cursor, PAGE)
            head = next((one for one in reversed(page.items) if one.head), head)
            cursor = page.next
        sentence = "the deliveries of one order are sent one after the other, and an older one waits"
        return sentence if head is None else f"{sentence}: delivery {head.id}; retry or cancel that one"

    async def _delivery(self, delivery_id: str) -> DeliveryRow:
        number = path_id(delivery_id)
        row = None if number is None else await self._store.delivery(number)
        if row is None:
            raise _unknown_delivery()
        return row

    async def _demand_configured(self, name: str) -> None:
        if self._is_configured(name):
            return
        if name in await self._store.backlog():
            sentence = "this target is orphaned: its deliveries are kept until the configuration names it again"
            raise ApiError(409, "orphaned", sentence)
        raise ApiError(404, "unknown_target", "no target of this name is configured")

    def _is_configured(self, name: str) -> bool:
        return any(target.name == name for target in self._context.targets())

    def _count_cancelled(self, target: str, number: int) -> None:
        self._context.metrics.deliveries.labels(target, DeliveryStatus.CANCELLED.value).inc(number)


def _unknown_delivery() -> ApiError:
    return ApiError(404, "unknown_delivery", "there is no delivery of this id here")

"""Store to target: every target has its own slots and its own loop, so one bad target delays nobody else.

A loop claims due lane heads for the slots that are free, sends each in a task of its own, and hands the
result to the settler, which writes whatever has gathered in one transaction. A slot is free again once its
outcome is committed. Naps are bounded and recomputed, so a wall clock that steps cannot freeze anything.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import structlog

from relay.board import Board, TargetBoard
from relay.clock import ClockWatch
from relay.config import TargetSettings
from relay.delivery import retry
from relay.delivery.sender import build_request
from relay.delivery.settler import Context, Settler
from relay.delivery.signer import Signer
from relay.errors import RelayError
from relay.log import Sampler
from relay.model import Attempt, Delivery, DeliveryStatus, Outcome
from relay.store.base import Settlement

NAP: Final = 30.0
"""Seconds after which a sleeping loop looks again, whatever it was told."""
FLAPPING: Final = 10.0
"""Seconds between two lines about a target that fails and answers by turns."""
DEATHS_A_MINUTE: Final = 5
"""Lines about dead deliveries per target; the metric counts them all."""
CLOCK_TICK: Final = 5.0
"""Seconds between looks at the clocks."""

_log = structlog.get_logger()


class TargetLoop:
    """One target: claims, sends, decides."""

    def __init__(self, target: TargetSettings, context: Context, settler: Settler, board: TargetBoard) -> None:
        self._target = target
        self._context = context
        self._settler = settler
        self._board = board
        self._signer = Signer([secret.reveal() for secret in target.secrets])
        self._policy = retry.RetryPolicy(
            tuple(target.retry.schedule), target.retry.jitter, target.retry.retry_after_max
        )
        self._attempts: dict[asyncio.Task[None], Delivery] = {}
        self._said_failing, self._said_at = False, -FLAPPING
        self._deaths = Sampler(DEATHS_A_MINUTE, 60.0)
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def longest_wait(self) -> float:
        """Seconds beyond which no retry of this target is ever due."""
        return max(*self._policy.schedule, self._policy.retry_after_max, 0.0) * (1 + self._policy.jitter)

    def wake(self) -> None:
        """Look now: something has come due or a slot is free."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver until told to stop, then until the attempts under way have ended."""
        while not self._stopping.is_set():
            self._wake.clear()
            nap = await self.run_once()
            try:
                async with asyncio.timeout(nap):
                    await self._wake.wait()
            except TimeoutError:
                continue
        if self._attempts:
            await asyncio.wait(self._attempts)

    async def run_once(self) -> float:
        """Start attempts for what is due and fits; returns seconds until it is worth looking again."""
        free = self._target.concurrency - len(self._attempts)
        if free <= 0 or self._stopping.is_set():
            return NAP
        now_ms = self._context.clock.wall_ms()
        claim = await self._context.store.claim(self._target.name, free, now_ms)
        if self._stopping.is_set():
            await self._context.store.release(claim.deliveries)
            return NAP
        for delivery in claim.deliveries:
            task = asyncio.create_task(self._attempt(delivery), name=f"attempt-{self._target.name}-{delivery.id}")
            self._attempts[task] = delivery
            task.add_done_callback(self._attempt_ended)
        self._board.in_flight = len(self._attempts)
        if claim.deliveries:
            self._board.last_started = self._context.clock.mono()
        if claim.next_due_ms is None:
            return NAP
        return min(NAP, max(0.0, (claim.next_due_ms - now_ms) / 1000))

    async def drain(self, grace: float) -> int:
        """Claim nothing new and let attempts finish for `grace` seconds; returns how many were cut off.

        A cut-off attempt has an unknown outcome: its delivery stays as it was and is attempted again.
        """
        self._stopping.set()
        self._wake.set()
        if not self._attempts:
            return 0
        _, late = await asyncio.wait(self._attempts, timeout=grace)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        return len(late)

    def _attempt_ended(self, task: asyncio.Task[None]) -> None:
        self._attempts.pop(task, None)
        self._board.in_flight = len(self._attempts)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("attempt_crashed", target=self._target.name, error=repr(error))

    async def _attempt(self, delivery: Delivery) -> None:
        try:
            attempt = await self._send(delivery)
        except asyncio.CancelledError:
            await self._context.store.release([delivery])
            raise
        settlement = self._decide(delivery, attempt)
        await self._settler.settle(settlement)
        self._report(delivery, settlement)

    async def _send(self, delivery: Delivery) -> Attempt:
        now_ms = self._context.clock.wall_ms()
        try:
            request = build_request(delivery, self._target, self._signer, now_ms)
        except RelayError as error:
            return Attempt(now_ms, 0.0, Outcome.RETRY, error=f"request: {error}")
        except Exception as error:
            # Even a bug may not leave a delivery claimed for ever: it is a failed attempt, and loud.
            _log.exception("request_not_built", target=self._target.name, webhook_id=delivery.event.webhook_id)
            return Attempt(now_ms, 0.0, Outcome.RETRY, error=f"internal: {type(error).__name__}")
        return await self._context.sender.post(request)

    def _decide(self, delivery: Delivery, attempt: Attempt) -> Settlement:
        now_ms = self._context.clock.wall_ms()
        decision = retry.decide(attempt, delivery.attempts_made + 1, self._policy, self._context.rng, now_ms)
        name = self._target.name
        match decision:
            case retry.Delivered():
                return Settlement(delivery.id, name, attempt, DeliveryStatus.DELIVERED)
            case retry.Dead(reason):
                return Settlement(delivery.id, name, attempt, DeliveryStatus.DEAD, reason=reason)
            case retry.Park():
                return Settlement(delivery.id, name, attempt, DeliveryStatus.PENDING, due_ms=now_ms, park=True)
            case retry.RetryIn(seconds):
                due_ms = now_ms + round(seconds * 1000)
                return Settlement(delivery.id, name, attempt, DeliveryStatus.PENDING, due_ms=due_ms)

    def _report(self, delivery: Delivery, settlement: Settlement) -> None:
        name, attempt, metrics = self._target.name, settlement.attempt, self._context.metrics
        metrics.attempts.labels(name, attempt.outcome.value).inc()
        metrics.attempt_duration.labels(name).observe(attempt.duration_ms / 1000)
        if settlement.status is not DeliveryStatus.PENDING:
            metrics.deliveries.labels(name, settlement.status.value).inc()
        if attempt.outcome is Outcome.OK:
            latency_ms = attempt.at_ms + attempt.duration_ms - delivery.event.at_ms
            metrics.delivery_latency.labels(name).observe(max(0.0, latency_ms / 1000))
            self._board.last_success_ms = attempt.at_ms
            self._board.last_error = None
            self._say_state(delivery)
            return
        self._board.last_error = error = attempt.error or f"status {attempt.status_code}"
        self._say_state(delivery)
        if settlement.park:
            _log.error(
                "target_parked",
                target=name,
                advice=f"it answered 410 Gone; deliveries are kept until: houdini-relay targets resume {name}",
            )
        if settlement.status is DeliveryStatus.DEAD:
            self._say_dead(delivery, error)

    def _say_state(self, delivery: Delivery) -> None:
        """One line a change, and of a target that flaps only what still holds a while later."""
        now, failing = self._context.clock.mono(), self._board.last_error is not None
        if failing == self._said_failing or now - self._said_at < FLAPPING:
            return
        self._said_failing, self._said_at = failing, now
        if failing:
            error = self._board.last_error
            _log.warning("target_failing", target=self._target.name, error=error, order=delivery.event.lane)
        else:
            _log.info("target_answers_again", target=self._target.name)

    def _say_dead(self, delivery: Delivery, error: str) -> None:
        suppressed = self._deaths.admit(self._context.clock.mono())
        if suppressed is not None:
            _log.error(
                "delivery_dead",
                target=self._target.name,
                order=delivery.event.lane,
                webhook_id=delivery.event.webhook_id,
                error=error,
                suppressed=suppressed,
            )


class Scheduler:
    """All targets' loops and the settler they share."""

    def __init__(self, targets: Sequence[TargetSettings], context: Context, board: Board) -> None:
        self._settler = Settler(context)
        self._loops: Mapping[str, TargetLoop] = {
            target.name: TargetLoop(
                target, context, self._settler, board.targets.setdefault(target.name, TargetBoard())
            )
            for target in targets
        }
        self._store = context.store
        self._clock = context.clock
        self._clock_watch = ClockWatch(context.clock.wall_ms(), context.clock.mono())
        context.store.on_due(self._on_due)

    async def run(self) -> None:
        """Deliver until cancelled or drained."""
        await self._look_back()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch_clock(), name="delivery-clock")
            settling = tasks.create_task(self._settler.run(), name="settler")
            loops = [tasks.create_task(loop.run(), name=f"target-{name}") for name, loop in self._loops.items()]
            await asyncio.wait(loops, return_when=asyncio.ALL_COMPLETED)
            settling.cancel()
            watching.cancel()

    async def resume(self, target: str) -> bool:
        """Send to a parked or paused target again; False when it was neither."""
        resumed = await self._store.resume(target, self._clock.wall_ms())
        if resumed:
            _log.info("target_resumed", target=target)
            self._on_due([target])
        return resumed

    async def look_at_clock(self) -> None:
        """When the wall clock was set back, deliveries must not wait for it to come round again."""
        jump = self._clock_watch.look(self._clock.wall_ms(), self._clock.mono())
        if jump is None:
            return
        _log.warning("wall_clock_jumped", seconds=jump.seconds)
        if jump.seconds < 0:
            for name in self._loops:
                await self._store.shift_due(name, round(jump.seconds * 1000), self._clock.wall_ms())
        self._on_due(self._loops)

    async def drain(self, grace: float) -> int:
        """Stop claiming, let attempts under way finish; returns how many were cut off after `grace` seconds."""
        return sum(await asyncio.gather(*(loop.drain(grace) for loop in self._loops.values())))

    async def _watch_clock(self) -> None:
        while True:
            await self._clock.sleep(CLOCK_TICK)
            await self.look_at_clock()

    async def _look_back(self) -> None:
        """Say what waits from earlier; undo due times that only a wrong clock can have written."""
        now_ms = self._clock.wall_ms()
        for name, loop in self._loops.items():
            await self._store.clamp_due(name, now_ms + round(loop.longest_wait * 1000))
        for name, backlog in (await self._store.backlog()).items():
            if backlog.stopped:
                advice = f"it answered 410 or was paused; houdini-relay targets resume {name}"
                _log.error("target_stopped", target=name, pending=backlog.pending, advice=advice)
            elif backlog.pending:
                _log.info("target_backlog", target=name, pending=backlog.pending)
        for name, held in (await self._store.orphans()).items():
            _log.warning("target_orphaned", target=name, pending=held, advice="kept; configure it again to deliver")

    def _on_due(self, targets: Collection[str]) -> None:
        for name in targets:
            if (loop := self._loops.get(name)) is not None:
                loop.wake()

"""Store to target: every target has its own slots and its own loop, so one bad target delays nobody else.

A loop claims due lane heads for the slots that are free, sends each in a task of its own, and hands the
result to the settler, which writes whatever has gathered in one transaction. A slot is free again once its
outcome is committed. Naps are bounded and recomputed, so a wall clock that steps cannot freeze anything.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from relay.board import Board, TargetBoard
from relay.clock import Clock, Rng
from relay.config import TargetSettings
from relay.delivery import retry
from relay.delivery.sender import PostRequest, build_request
from relay.delivery.signer import Signer
from relay.errors import RelayError
from relay.metrics import Metrics
from relay.model import Attempt, Delivery, DeliveryStatus, Outcome
from relay.store.base import Settlement, Store

NAP: Final = 30.0
"""Seconds after which a sleeping loop looks again, whatever it was told."""
SETTLE_BATCH: Final = 500

_log = structlog.get_logger()


class Sends(Protocol):
    """The seam to the wire."""

    async def post(self, request: PostRequest) -> Attempt:
        """One attempt; never raises but when cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What all loops share."""

    store: Store
    sender: Sends
    metrics: Metrics
    clock: Clock
    rng: Rng


class Settler:
    """Writes outcomes in groups: while one commit is under way the next group gathers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting: list[tuple[Settlement, asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()

    async def settle(self, settlement: Settlement) -> None:
        """Return once the outcome is committed."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((settlement, done))
        self._arrived.set()
        await done

    async def run(self) -> None:
        """Settle until cancelled; what has gathered by then is still written."""
        try:
            while True:
                await self._arrived.wait()
                await self.run_once()
        finally:
            while self._waiting:
                await asyncio.shield(self.run_once())

    async def run_once(self) -> int:
        """Write what has gathered, return how many outcomes it was."""
        group = self._waiting[:SETTLE_BATCH]
        del self._waiting[: len(group)]
        if not self._waiting:
            self._arrived.clear()
        if group:
            await self._context.store.settle([settlement for settlement, _ in group], self._context.clock.wall_ms())
        for _, done in group:
            if not done.done():
                done.set_result(None)
        return len(group)


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
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()

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
            _log.exception("request_not_built", target=self._target.name, event=delivery.event.webhook_id)
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
            if self._board.last_error is not None:
                _log.info("target_answers_again", target=name)
            self._board.last_success_ms = attempt.at_ms
            self._board.last_error = None
            return
        error = attempt.error or f"status {attempt.status_code}"
        if self._board.last_error is None:
            _log.warning("target_failing", target=name, error=error, order=delivery.event.lane)
        self._board.last_error = error
        if settlement.park:
            _log.error("target_parked", target=name, advice="it answered 410 Gone; deliveries are kept")
        if settlement.status is DeliveryStatus.DEAD:
            _log.error(
                "delivery_dead", target=name, order=delivery.event.lane, event=delivery.event.webhook_id, error=error
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
        context.store.on_due(self._on_due)

    async def run(self) -> None:
        """Deliver until cancelled or drained."""
        async with asyncio.TaskGroup() as tasks:
            settling = tasks.create_task(self._settler.run(), name="settler")
            loops = [tasks.create_task(loop.run(), name=f"target-{name}") for name, loop in self._loops.items()]
            await asyncio.wait(loops, return_when=asyncio.ALL_COMPLETED)
            settling.cancel()

    async def drain(self, grace: float) -> int:
        """Stop claiming, let attempts under way finish; returns how many were cut off after `grace` seconds."""
        return sum(await asyncio.gather(*(loop.drain(grace) for loop in self._loops.values())))

    def _on_due(self, targets: Collection[str]) -> None:
        for name in targets:
            if (loop := self._loops.get(name)) is not None:
                loop.wake()

"""Outcomes of attempts: what each means is decided in turn, and written in groups.

While one commit is under way the next group gathers. A decision is made just before it is written, with its
target's standing as everything before it in the queue leaves it, so attempts that end together are judged one
after another.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from relay.board import Board
from relay.clock import Clock, Rng
from relay.config import TargetSettings
from relay.delivery import breaker, retry
from relay.errors import StoreError, StoreUnavailable
from relay.metrics import Metrics
from relay.model import Attempt, Delivery, DeliveryStatus, Outcome
from relay.standing import Standing
from relay.store.base import Store
from relay.store.values import Settlement
from relay.tracing import OFF, Tracing

SETTLE_BATCH: Final = 500
AWAY: Final = 1.0
"""Seconds until what could not be written because the store is away is written again."""


@dataclass(frozen=True, slots=True)
class Context:
    """What all targets share."""

    store: Store
    metrics: Metrics
    clock: Clock
    rng: Rng
    board: Board = field(default_factory=Board)
    tracing: Tracing = OFF


class Policy(msgspec.Struct, frozen=True):
    """How one target's attempts are judged: the deliveries, and the target as a whole."""

    retry: retry.RetryPolicy
    breaker: breaker.BreakerPolicy


def policy_of(target: TargetSettings) -> Policy:
    """A target's settings in the words of the decisions."""
    most = target.retry.retry_after_max
    return Policy(
        retry.RetryPolicy(tuple(target.retry.schedule), target.retry.jitter, most),
        breaker.BreakerPolicy(
            target.concurrency, target.breaker.failures, target.breaker.probe.initial, target.breaker.probe.max, most
        ),
    )


class Settled(msgspec.Struct, frozen=True):
    """What was committed, and the target's standing after its whole group."""

    settlement: Settlement
    standing: Standing


@dataclass(slots=True)
class _Ended:
    delivery: Delivery
    attempt: Attempt
    outdated: bool
    done: asyncio.Future[Settled]


class Settler:
    """Decides and writes what has gathered.

    Attributes:
        policies: how each target's attempts are judged; loops change it, and it has every target of theirs.
        standings: every target's standing as it was last read or written; loops add what their claims show.
    """

    def __init__(self, context: Context, policies: Mapping[str, Policy]) -> None:
        self.policies = dict(policies)
        self._context = context
        self._waiting: list[_Ended] = []
        self._arrived = asyncio.Event()
        self.standings: dict[str, Standing] = {}

    def settle(self, delivery: Delivery, attempt: Attempt, *, outdated: bool = False) -> asyncio.Future[Settled]:
        """What became of it, once that is committed; cancelled when the store cannot be used any more.

        Args:
            delivery: what was attempted.
            attempt: what came of it.
            outdated: whether it went by settings that have been replaced since; its failure then says nothing about
                the present ones, so it is held against neither delivery nor target.
        """
        done: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Ended(delivery, attempt, outdated, done))
        self._arrived.set()
        return done

    async def run(self) -> None:
        """Settle until cancelled; what has gathered by then is still written, if the store can be reached."""
        try:
            while True:
                await self._arrived.wait()
                try:
                    await self.run_once()
                except StoreUnavailable:
                    await self._context.clock.sleep(AWAY)
        finally:
            while self._waiting:
                try:
                    await asyncio.shield(self.run_once())
                except StoreUnavailable:
                    break  # their claims end by themselves, and they are attempted again

    async def run_once(self) -> int:
        """Write what has gathered, return how many outcomes it was.

        Raises:
            StoreUnavailable: the store cannot be reached; they still wait. What it may have written all the same
                changes nothing the second time.
            StoreError: the store cannot be used.
        """
        group = self._waiting[:SETTLE_BATCH]
        del self._waiting[: len(group)]
        if not self._waiting:
            self._arrived.clear()
        if not group:
            return 0
        now_ms = self._context.clock.wall_ms()
        settlements = self._decide_in_turn(group, now_ms)
        void = {id(made) for ended, made in zip(group, settlements, strict=True) if _is_void(ended)}

        def judge(standing: Standing, settlement: Settlement) -> Standing:
            return standing if id(settlement) in void else self._judge(standing, settlement, now_ms)

        try:
            self.standings.update(await self._context.store.settle(settlements, judge, now_ms))
        except StoreUnavailable:
            self._waiting[:0] = group
            self._arrived.set()
            raise
        except StoreError:
            for ended in group:
                ended.done.cancel()
            raise
        for ended, settlement in zip(group, settlements, strict=True):
            if not ended.done.done():
                ended.done.set_result(Settled(settlement, self._standing(settlement.delivery)))
        return len(group)

    def _decide_in_turn(self, group: list[_Ended], now_ms: int) -> list[Settlement]:
        standings: dict[str, Standing] = {}
        settlements = []
        for ended in group:
            name = ended.delivery.target
            standing = standings.get(name) or self._standing(ended.delivery)
            settlement = self._decide(ended, standing, now_ms)
            standings[name] = standing if _is_void(ended) else self._judge(standing, settlement, now_ms)
            settlements.append(settlement)
        return settlements

    def _decide(self, ended: _Ended, standing: Standing, now_ms: int) -> Settlement:
        delivery, attempt = ended.delivery, ended.attempt
        if _is_void(ended):
            return Settlement(delivery, attempt, DeliveryStatus.PENDING, due_ms=now_ms, uses_step=False)
        policy = self.policies[delivery.target].retry
        match retry.decide(attempt, delivery, standing, policy, self._context.rng, now_ms):
            case retry.Delivered():
                return Settlement(delivery, attempt, DeliveryStatus.DELIVERED)
            case retry.Dead(reason):
                return Settlement(delivery, attempt, DeliveryStatus.DEAD, reason=reason)
            case retry.Again(due_ms, uses_step):
                return Settlement(delivery, attempt, DeliveryStatus.PENDING, due_ms=due_ms, uses_step=uses_step)

    def _judge(self, standing: Standing, settlement: Settlement, now_ms: int) -> Standing:
        delivery = settlement.delivery
        policy = self.policies[delivery.target].breaker
        return breaker.after(standing, settlement.attempt, delivery, policy, now_ms)

    def _standing(self, delivery: Delivery) -> Standing:
        return self.standings.get(delivery.target) or Standing()


def _is_void(ended: _Ended) -> bool:
    return ended.outdated and ended.attempt.outcome is not Outcome.OK

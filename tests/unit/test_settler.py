"""Attempts that end together: judged one after another, written in one transaction."""

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pytest
from support.clock import JumpClock
from support.factories import event
from support.until import until

from relay.delivery.breaker import BreakerPolicy
from relay.delivery.retry import RetryPolicy, classify
from relay.delivery.settler import AWAY, Context, Policy, Settler
from relay.errors import StoreError, StoreUnavailable
from relay.metrics import Metrics
from relay.model import Attempt, Delivery, DeliveryStatus
from relay.standing import Breaker, Standing
from relay.store.values import Judge, Settlement

POLICY = Policy(RetryPolicy((5.0,), 0.0, 60.0), BreakerPolicy(16, 3, 10.0, 60.0, 60.0))


class Written:
    """A store that only remembers what was settled."""

    def __init__(self) -> None:
        self.groups: list[list[Settlement]] = []
        self.standings: dict[str, Standing] = {}
        self.error: StoreError | None = None

    async def settle(self, settlements: Sequence[Settlement], judge: Judge, _now_ms: int) -> Mapping[str, Standing]:
        if self.error is not None:
            raise self.error
        self.groups.append(list(settlements))
        for one in settlements:
            name = one.delivery.target
            self.standings[name] = judge(self.standings.get(name, Standing()), one)
        return self.standings


@pytest.fixture
def store() -> Written:
    return Written()


@pytest.fixture
def settler(store: Written) -> Settler:
    made: Any = store
    policies = {"alpha": POLICY, "beta": POLICY}
    return Settler(Context(made, Metrics("test"), JumpClock(), Random(1)), policies)


def last_step(number: int, target: str = "alpha") -> Delivery:
    return Delivery(number, target, event(f"o{number}"), attempts_made=1, steps_used=1, created_ms=0)


def answered(status: int) -> Attempt:
    return Attempt(0, 1.0, classify(status), status_code=status)


async def settle_together(settler: Settler, *ended: tuple[Delivery, int]) -> list[DeliveryStatus]:
    tasks = [settler.settle(delivery, answered(status)) for delivery, status in ended]
    await asyncio.sleep(0)
    assert await settler.run_once() == len(ended)
    return [(await task).settlement.status for task in tasks]


async def test_what_ends_together_is_judged_in_turn(store: Written, settler: Settler):
    """The third failure opens the breaker, so the fourth is not the end of its delivery."""
    statuses = await settle_together(settler, *((last_step(number), 500) for number in range(5)))
    assert statuses == [DeliveryStatus.DEAD] * 3 + [DeliveryStatus.PENDING] * 2
    assert len(store.groups) == 1
    assert settler.standings["alpha"].breaker is Breaker.OPEN


async def test_each_target_by_its_own_standing(settler: Settler):
    ended = [(last_step(number, name), 500) for number in range(3) for name in ("alpha", "beta")]
    statuses = await settle_together(settler, *ended, (last_step(9), 500), (last_step(9, "beta"), 200))
    assert statuses[-2:] == [DeliveryStatus.PENDING, DeliveryStatus.DELIVERED]
    assert settler.standings["beta"].breaker is Breaker.CLOSED


async def test_a_store_that_fails_lets_nobody_wait(store: Written, settler: Settler):
    store.error = StoreError("the disk is gone")
    waiting = settler.settle(last_step(1), answered(200))
    await asyncio.sleep(0)
    with pytest.raises(StoreError):
        await settler.run_once()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_has_gathered_is_written_when_it_ends(store: Written, settler: Settler):
    running = asyncio.create_task(settler.run())
    await asyncio.sleep(0)
    waiting = settler.settle(last_step(1), answered(200))
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await waiting).settlement.status is DeliveryStatus.DELIVERED
    assert len(store.groups) == 1


async def test_a_failure_by_replaced_settings_ends_nothing_and_opens_no_breaker(settler: Settler):
    """Beside ordinary ones in the same group, which are judged as ever."""
    tasks = [
        settler.settle(last_step(number), answered(status), outdated=number < 4)
        for number, status in enumerate((500, 410, 400, 503, 500, 500))
    ]
    await asyncio.sleep(0)
    assert await settler.run_once() == len(tasks)
    made = [(await task).settlement for task in tasks]
    assert [one.status for one in made] == [DeliveryStatus.PENDING] * 4 + [DeliveryStatus.DEAD] * 2
    assert not any(one.uses_step for one in made[:4])
    standing = settler.standings["alpha"]
    assert (standing.breaker, standing.failures, standing.parked_ms) == (Breaker.CLOSED, 2, None)


async def test_what_cannot_be_written_while_the_store_is_away_is_written_when_it_is_back(
    store: Written, settler: Settler
):
    store.error = StoreUnavailable("away")
    waiting = [settler.settle(last_step(one), answered(200)) for one in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await settler.run_once()
    late = settler.settle(last_step(3), answered(200))
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    store.error = None
    assert await settler.run_once() == 3
    assert [one.delivery.id for one in store.groups[0]] == [1, 2, 3]
    assert {(await one).settlement.status for one in (*waiting, late)} == {DeliveryStatus.DELIVERED}


async def test_it_goes_on_by_itself_after_an_outage(store: Written, settler: Settler):
    store.error = StoreUnavailable("away")
    running = asyncio.create_task(settler.run())
    settling = settler.settle(last_step(1), answered(200))
    clock: Any = settler._context.clock
    await until(lambda: len(clock.slept) >= 2)
    assert set(clock.slept) == {AWAY}
    store.error = None
    assert (await settling).settlement.status is DeliveryStatus.DELIVERED
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_outage_does_not_keep_it_from_ending(store: Written, settler: Settler):
    store.error = StoreUnavailable("away")
    running = asyncio.create_task(settler.run())
    settling = settler.settle(last_step(1), answered(200))
    await until(lambda: settler._context.clock.slept)  # type: ignore[attr-defined]  # a fake clock
    running.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(running, return_exceptions=True)
    assert store.groups == []
    settling.cancel()

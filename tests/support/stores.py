"""A store under test and short ways to put things into it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from support.factories import event, failed_attempt, known, ok_attempt

from relay.model import DeadReason, Delivery, DeliveryStatus, Event, KnownOrder
from relay.store.base import IngestPlan, PlannedEvent, Question, Settlement, Store

TARGETS = ("alpha", "beta")


class Bench:
    """Wraps a store; `make` gives a fresh one on the same data, as a restart does; `open_copy` one on a back-up."""

    def __init__(self, make: Callable[[], Store], open_copy: Callable[[Path], Store] | None = None) -> None:
        self._make = make
        self._open_copy = open_copy
        self.store = make()
        self.woken: list[set[str]] = []

    async def open(self, targets: Sequence[str] = TARGETS) -> None:
        await self.store.open(targets)
        self.store.on_due(lambda names: self.woken.append(set(names)))

    async def restart(self, targets: Sequence[str] = TARGETS) -> None:
        await self.store.close()
        self.store = self._make()
        await self.open(targets)

    def over(self, copy: Path) -> "Bench":
        assert self._open_copy is not None
        open_copy = self._open_copy
        return Bench(lambda: open_copy(copy), open_copy)

    async def add(self, *events: Event, targets: Sequence[str] = TARGETS, now_ms: int = 1_000) -> None:
        def plan(_known: object) -> IngestPlan:
            planned = IngestPlan(now_ms=now_ms)
            for one in events:
                status = one.facts.status if one.facts else 0
                sequence = one.facts.sequence if one.facts else 0
                planned.orders[one.lane] = known(one.lane, status, sequence=sequence, last_frame=one.body)
                planned.events.append(PlannedEvent(one, tuple(targets)))
            return planned

        await self.store.ingest({one.lane for one in events}, plan)

    async def add_life(self, houdini_id: str, length: int, targets: Sequence[str] = TARGETS) -> None:
        for number in range(1, length + 1):
            await self.add(event(houdini_id, status=number % 5, sequence=number), targets=targets)

    async def known(self, *houdini_ids: str) -> dict[str, KnownOrder]:
        seen: dict[str, KnownOrder] = {}

        def plan(found: object) -> IngestPlan:
            seen.update(found)  # type: ignore[call-overload] # a mapping, by the Planner protocol
            return IngestPlan(now_ms=0)

        await self.store.ingest(houdini_ids, plan)
        return seen

    async def claim(self, target: str = "alpha", limit: int = 100, now_ms: int = 10_000) -> list[Delivery]:
        return list((await self.store.claim(target, limit, now_ms)).deliveries)

    async def settle(self, *settlements: Settlement, now_ms: int = 2_000) -> None:
        await self.store.settle(settlements, now_ms)


def delivered(delivery: Delivery) -> Settlement:
    return Settlement(delivery.id, delivery.target, ok_attempt(), DeliveryStatus.DELIVERED)


def again(delivery: Delivery, due_ms: int, *, park: bool = False) -> Settlement:
    attempt = failed_attempt()
    return Settlement(delivery.id, delivery.target, attempt, DeliveryStatus.PENDING, due_ms=due_ms, park=park)


def dead(delivery: Delivery) -> Settlement:
    return Settlement(delivery.id, delivery.target, failed_attempt(), DeliveryStatus.DEAD, reason=DeadReason.EXHAUSTED)


def question(houdini_id: str, status: int = 1, ask_at_ms: int = 61_000) -> Question:
    return Question(houdini_id, status, b"{}", sideways=False, seen_ms=1_000, ask_at_ms=ask_at_ms)

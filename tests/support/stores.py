"""A store under test and short ways to put things into it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msgspec.structs import replace
from support.factories import event, failed_attempt, known, ok_attempt

from relay.model import Attempt, DeadReason, Delivery, DeliveryStatus, Event, KnownOrder, Outcome
from relay.standing import Breaker, Permit, Permits, Standing
from relay.store.base import Store
from relay.store.values import IngestPlan, Instance, Judge, PlannedEvent, Question, Settlement, TargetEntry

TARGETS = ("alpha", "beta")


def entries(targets: Iterable[str | TargetEntry]) -> list[TargetEntry]:
    return [TargetEntry(one) if isinstance(one, str) else one for one in targets]


def up_to(limit: int) -> Permits:
    """What the engine permits a target that is well."""
    return lambda standing: Permit(0 if standing.stopped else limit)


def probing(look_again_ms: int | None = None) -> Permits:
    return lambda _standing: Permit(1, probe=True, look_again_ms=look_again_ms)


def as_it_was(standing: Standing, _settlement: Settlement) -> Standing:
    return standing


def parks(standing: Standing, settlement: Settlement) -> Standing:
    """A 410 parks; nothing else matters."""
    gone = settlement.attempt.outcome is Outcome.GONE
    return replace(standing, parked_ms=standing.parked_ms or settlement.attempt.at_ms) if gone else standing


def trips(standing: Standing, settlement: Settlement) -> Standing:
    """Every failure opens the breaker, every success closes it."""
    if settlement.attempt.outcome is Outcome.OK:
        return replace(standing, breaker=Breaker.CLOSED, probe_due_ms=None, probes_failed=0, vain_probes=())
    at_ms = settlement.attempt.at_ms
    vain = (*standing.vain_probes, at_ms)[-5:] if settlement.delivery.probe else standing.vain_probes
    return replace(standing, breaker=Breaker.OPEN, probe_due_ms=at_ms + 10_000, vain_probes=vain)


class Bench:
    """Wraps a store; `make` gives a fresh one on the same data, as a restart does; `open_copy` one on a back-up."""

    def __init__(self, make: Callable[[], Store], open_copy: Callable[[Path], Store] | None = None) -> None:
        self._make = make
        self._open_copy = open_copy
        self.store = make()
        self.woken: list[set[str]] = []
        self.superseded: list[dict[str, int]] = []
        self.now_ms = 1_000

    async def open(self, targets: Sequence[str | TargetEntry] = TARGETS) -> None:
        await self.store.open(entries(targets))
        await self.store.lead(Instance("bench", "here", 0))
        self.store.on_due(lambda names: self.woken.append(set(names)))
        self.store.on_superseded(lambda counts: self.superseded.append(dict(counts)))

    async def configure(self, *targets: str | TargetEntry) -> None:
        await self.store.configure(entries(targets))

    async def restart(self, targets: Sequence[str | TargetEntry] = TARGETS) -> None:
        await self.store.close()
        self.store = self._make()
        await self.open(targets)

    @property
    def copies(self) -> bool:
        """Whether the store can write a copy of itself that is a store."""
        return self._open_copy is not None

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
        return list((await self.store.claim(target, up_to(limit), now_ms)).deliveries)

    async def probe(self, target: str = "alpha", now_ms: int = 10_000) -> list[Delivery]:
        return list((await self.store.claim(target, probing(), now_ms)).deliveries)

    async def settle(self, *settlements: Settlement, now_ms: int = 2_000, judge: Judge = parks) -> dict[str, Standing]:
        return dict(await self.store.settle(settlements, judge, now_ms))

    async def standing(self, target: str = "alpha") -> Standing:
        return (await self.store.backlog())[target].standing

    async def statuses(self, houdini_id: str, target: str = "alpha") -> list[str]:
        """How the deliveries of an order stand, in the order of its events."""
        found = await self.store.order_deliveries([houdini_id])
        return [one.reason or one.status for one in found if one.target == target]


def delivered(delivery: Delivery, at_ms: int = 1_000) -> Settlement:
    return Settlement(delivery, ok_attempt(at_ms), DeliveryStatus.DELIVERED)


def again(delivery: Delivery, due_ms: int, *, gone: bool = False, at_ms: int = 1_000) -> Settlement:
    """Try it again; `gone`: the answer was a 410, which parks the target."""
    attempt = Attempt(at_ms, 12.5, Outcome.GONE, status_code=410) if gone else failed_attempt(at_ms)
    return Settlement(
        delivery, attempt, DeliveryStatus.PENDING, due_ms=due_ms, uses_step=not gone and not delivery.probe
    )


def dead(delivery: Delivery) -> Settlement:
    return Settlement(delivery, failed_attempt(), DeliveryStatus.DEAD, reason=DeadReason.EXHAUSTED)


def question(houdini_id: str, status: int = 1, ask_at_ms: int = 61_000) -> Question:
    return Question(houdini_id, status, b"{}", sideways=False, seen_ms=1_000, ask_at_ms=ask_at_ms)

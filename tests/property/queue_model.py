"""A store under a hand that does anything to its queue, and what was asked of it; time is a number."""

import asyncio
import shutil
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec.structs import replace
from support.factories import event, failed_attempt, known, ok_attempt

from relay.model import TERMINAL, Attempt, DeadReason, Delivery, DeliveryStatus, Outcome
from relay.standing import Breaker, Ordering, Permit, Standing
from relay.store.sqlite import SqliteStore
from relay.store.values import IngestPlan, PlannedEvent, Settlement, TargetEntry

T = TypeVar("T")
Row = tuple[Any, ...]

STRICT, LATEST, LOOSE = "strict", "latest", "loose"
ORDERINGS: Final = {STRICT: Ordering.PER_ORDER, LATEST: Ordering.LATEST_ONLY, LOOSE: Ordering.NONE}
TARGETS: Final = tuple(ORDERINGS)
FAILURES: Final = 2
OPEN: Final = "SELECT d.id, d.state, t.name FROM deliveries d JOIN targets t ON t.id = d.target_id WHERE d.state < 2"
WAITING: Final = """
SELECT d.id FROM deliveries d JOIN targets t ON t.id = d.target_id WHERE t.name = ? AND d.state = 0 AND d.due_ms > ?
"""
EVERY: Final = """
SELECT e.webhook_id, t.name, d.replay, d.state, d.id, e.id, e.lane, e.status
FROM deliveries d JOIN events e ON e.id = d.event_id JOIN targets t ON t.id = d.target_id
"""


def judge(standing: Standing, settlement: Settlement) -> Standing:
    """Two failures open it, a success closes it, a 410 parks it."""
    attempt, at_ms = settlement.attempt, settlement.attempt.at_ms
    if attempt.outcome is Outcome.OK:
        return replace(standing, breaker=Breaker.CLOSED, failures=0, probe_due_ms=None, vain_probes=(), ok_ms=at_ms)
    if attempt.outcome is Outcome.GONE:
        return replace(standing, parked_ms=standing.parked_ms or at_ms)
    standing = replace(standing, failures=standing.failures + 1, last_error="status 500")
    if standing.breaker is Breaker.OPEN and settlement.delivery.probe:
        return replace(standing, vain_probes=(*standing.vain_probes, at_ms)[-5:], probe_due_ms=at_ms + 20_000)
    if standing.breaker is Breaker.CLOSED and standing.failures >= FAILURES:
        return replace(standing, breaker=Breaker.OPEN, probe_due_ms=at_ms + 10_000)
    return standing


class QueueBench:
    """One process after the other on the same store; `in_flight` is what the present one has claimed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = asyncio.new_event_loop()
        self.now = 1_795_330_000_000
        self.lives = 0
        self.configured: dict[str, TargetEntry] = {}
        self.sequences: dict[str, int] = {}
        self.expected: set[tuple[str, str, int]] = set()
        self.pruned: set[tuple[str, str, int]] = set()
        self.in_flight: list[Delivery] = []
        self.stale: list[Delivery] = []
        self.told: dict[str, int] = {}
        self.entry = {name: TargetEntry(name, ordering) for name, ordering in ORDERINGS.items()}
        self.start(folder / "queue-0.db", TARGETS)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def start(self, file: Path, names: Iterable[str]) -> None:
        self.in_flight.clear()
        self.file = file
        self.configured = {name: self.entry[name] for name in names}
        self.do(self._start())

    async def _start(self) -> None:
        self.store = SqliteStore(self.file, lambda: self.now, lambda _seconds: None)
        await self.store.open(self.configured.values())
        self.store.on_superseded(self._add_told)

    def _add_told(self, counts: Any) -> None:
        for name, count in counts.items():
            self.told[name] = self.told.get(name, 0) + count

    def rows(self, query: str, *bound: Any) -> list[Row]:
        return self.do(self.store._run(lambda connection: connection.execute(query, bound).fetchall()))

    def crash(self) -> None:
        """kill -9 between two transactions."""
        self.lives += 1
        image = self.folder / f"queue-{self.lives}.db"
        for suffix in ("", "-wal"):
            part = self.file.with_name(self.file.name + suffix)
            if part.exists():
                shutil.copyfile(part, image.with_name(image.name + suffix))
        self.do(self.store.close())
        self.start(image, self.configured)

    def restart(self) -> None:
        self.do(self.store.close())
        self.start(self.file, self.configured)

    def configure(self, names: Iterable[str]) -> None:
        self.configured = {name: self.entry[name] for name in names}
        self.do(self.store.configure(self.configured.values()))

    def add(self, houdini_id: str, status: int, targets: Iterable[str]) -> None:
        sequence = self.sequences[houdini_id] = self.sequences.get(houdini_id, 0) + 1
        made, names = event(houdini_id, status, sequence, at_ms=self.now), tuple(targets)
        plan = IngestPlan(self.now, {houdini_id: known(houdini_id, status, sequence=sequence)})
        plan.events.append(PlannedEvent(made, names))
        self.do(self.store.ingest([houdini_id], lambda _known: plan))
        self.expected |= {(made.webhook_id, name, 0) for name in names}

    def claim(self, target: str, limit: int) -> list[Delivery]:
        probing = any(one.probe for one in self.in_flight if one.target == target)

        def permits(standing: Standing) -> Permit:
            if standing.stopped or (probing and standing.breaker is Breaker.OPEN):
                return Permit(0)
            return Permit(1, probe=True) if standing.breaker is Breaker.OPEN else Permit(limit)

        claimed = list(self.do(self.store.claim(target, permits, self.now)).deliveries)
        self.in_flight += claimed
        self.stale = [one for one in self.stale if one.id not in {each.id for each in claimed}]
        return claimed

    def settlement(self, delivery: Delivery, how: str) -> Settlement:
        if how == "ok":
            return Settlement(delivery, ok_attempt(self.now), DeliveryStatus.DELIVERED)
        if how == "dead":
            return Settlement(delivery, failed_attempt(self.now), DeliveryStatus.DEAD, reason=DeadReason.EXHAUSTED)
        if how == "gone":
            gone = Attempt(self.now, 5.0, Outcome.GONE, status_code=410)
            return Settlement(delivery, gone, DeliveryStatus.PENDING, due_ms=self.now, uses_step=False)
        due_ms = self.now + 5_000 * (1 + delivery.attempts_made)
        attempt = failed_attempt(self.now)
        return Settlement(delivery, attempt, DeliveryStatus.PENDING, due_ms=due_ms, uses_step=not delivery.probe)

    def settle(self, group: list[tuple[Delivery, str]]) -> None:
        self.in_flight = [one for one in self.in_flight if one not in [delivery for delivery, _ in group]]
        settlements = [self.settlement(delivery, how) for delivery, how in group]
        self.do(self.store.settle(settlements, judge, self.now))

    def release(self, delivery: Delivery) -> None:
        self.in_flight.remove(delivery)
        self.stale.append(delivery)
        self.do(self.store.release([delivery]))

    def replay(self, target: str, webhook_id: str) -> None:
        numbers = [number for webhook, name, number, *_ in self.rows(EVERY) if (webhook, name) == (webhook_id, target)]
        self.do(self.store.replay(target, [webhook_id], self.now))
        made = (webhook_id, target, max(numbers, default=0) + 1)
        if made in {row[:3] for row in self.rows(EVERY)}:  # unless its event has gone
            self.expected.add(made)
            self.pruned.discard(made)

    def prune(self, age_ms: int, limit: int) -> None:
        ended = {(webhook, target, number) for webhook, target, number, state, *_ in self.rows(EVERY) if state > 1}
        place: int | None = 0
        while place is not None:
            place = self.do(self.store.prune(self.now - age_ms, place, limit)).next_place
        left = {row[:3] for row in self.rows(EVERY)}
        self.pruned |= {one for one in ended if one not in left}

    def state_of(self, delivery_id: int) -> int | None:
        rows = self.rows("SELECT state FROM deliveries WHERE id = ?", delivery_id)
        return int(rows[0][0]) if rows else None

    def close(self) -> None:
        self.do(self.store.close())
        self.loop.close()


def wrongly_superseded(rows: list[Row]) -> list[Row]:
    """Deliveries made by their event that were given up for nothing newer, or an end for something that is none."""
    found = []
    for row in rows:
        _, target, replay, state, _, event_id, lane, status = row
        if state != 4 or replay:
            continue
        newer = [other for other in rows if other[1] == target and other[6] == lane and other[5] > event_id]
        worthy = [other for other in newer if status not in TERMINAL or other[7] in TERMINAL]
        if not worthy:
            found.append(row)
    return found

"""Looking after a PostgreSQL store: the proof that its invariants hold, and how much room it takes."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from relay.errors import StoreError
from relay.standing import Breaker, Ordering
from relay.store.postgres_link import Session
from relay.store.postgres_verbs import Verbs, target_from_row

TABLES: Final = (
    "meta",
    "targets",
    "open_counts",
    "orders",
    "events",
    "deliveries",
    "attempts",
    "questions",
    "gaps",
    "leader",
    "instances",
)
_SHOWN: Final = 5
"""Examples that a sentence names; the rest is counted."""
_CHECK_PATIENCE: Final = 3600.0
_FAULTS: Final = {
    "fault_lane_heads": "lane {1} of target {0} has {2} ready deliveries; one is right",
    "fault_lane_order": "lane {1} of target {0} has delivery {2} ready although {3} is older",
    "fault_doubled": "event {0} has {2} deliveries for target {1} with replay number {3}",
    "fault_no_event": "delivery {0} has no event {1}",
    "fault_no_target": "delivery {0} has no target {1}",
    "fault_wrong_lane": "delivery {0} stands in lane {1}, its event in {2}",
    "fault_state": "delivery {0} has the unknown state {1}",
    "fault_steps": "delivery {0} has used {1} steps of its schedule in {2} attempts, or is asked for although it ended",
    "fault_finished": "delivery {0} is in state {1}, but the time of its end is {2}",
    "fault_lease": "delivery {0} is claimed although it is in state {1}",
    "fault_order_event": "order {0} names {1} as its last event, but that is {2}",
    "fault_order_sequence": "order {0} counts {1} events, but its newest has number {2}",
    "fault_orphan_event": "event {0} is of order {1}, which is not known",
    "fault_attempt": "attempt {0} has no delivery {1}",
    "fault_count": "target {0} counts {1} open deliveries, there are {2}",
}
"""Query of everything that violates an invariant -> what to say of each row."""


class Upkeep(Verbs):
    """The verbs about the store itself."""

    async def check(self) -> Sequence[str]:
        """Every invariant that does not hold; reads everything, in one snapshot, and nothing waits meanwhile."""
        return await self._run(find_faults, patience=_CHECK_PATIENCE, isolation="REPEATABLE READ")

    async def size_bytes(self) -> int:
        """How much room its tables and their indexes take."""
        return int(await self._run(lambda session: session.value("size", {"tables": list(TABLES)})))

    async def backup(self, path: Path) -> None:
        """Refuse: the database's own tools do that.

        Raises:
            StoreError: always.
        """
        raise StoreError(f"back-up to {path}: a PostgreSQL store is backed up by its own tools, as with pg_dump")


async def find_faults(session: Session) -> list[str]:
    """Every invariant that does not hold, a sentence each."""
    faults: list[str] = []
    for name, sentence in _FAULTS.items():
        faults += _shortened(sentence.format(*row) for row in await session.rows(name))
    orderings = {row[1]: row[2] for row in await session.rows("targets")}
    faults += _shortened(_standing_faults(await session.rows("backlog"), orderings))
    return faults


def _standing_faults(rows: Sequence[Sequence[object]], orderings: dict[str, str]) -> Iterator[str]:
    """What cannot be understood about a target as a whole, or contradicts itself."""
    for *row, _pending, _oldest, _waiting, _oldest_order in rows:
        try:
            target = target_from_row(row)
        except StoreError as error:
            yield str(error)
            continue
        standing = target.standing
        if orderings[target.name] not in set(Ordering):
            yield f"target {target.name}: ordering is {orderings[target.name]!r}"
        if (standing.breaker is Breaker.OPEN) != (standing.probe_due_ms is not None):
            yield (
                f"target {target.name}: its breaker is {standing.breaker}, but its next probe is "
                f"{standing.probe_due_ms}"
            )


def _shortened(sentences: Iterable[str]) -> list[str]:
    every = list(sentences)
    more = len(every) - _SHOWN
    return [*every[:_SHOWN], f"... and {more} more like the last"] if more > 0 else every

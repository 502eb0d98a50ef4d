"""What the verbs of the SQLite store stand on: the writer thread's transactions and what is counted beside them."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from relay.errors import StoreError
from relay.standing import Ordering, Standing, suspends_schedule
from relay.store.migrate import load_queries
from relay.store.rows import standing_from_row, standing_to_row
from relay.store.values import Death

T = TypeVar("T")
SQL: Final = load_queries("sqlite")


@dataclass(slots=True)
class KnownTarget:
    """A target that the file knows, and what is kept of it in memory.

    The writer thread alone counts and claims, as the last thing a request does; the event loop gives claims back.

    Attributes:
        open_count: its deliveries that have not ended.
        claimed: ids of those under way.
        last_read: the row of its standing as it was last read, and what it means: mostly it is the same again.
    """

    id: int
    name: str
    ordering: Ordering
    configured: bool
    open_count: int
    claimed: set[int] = field(default_factory=set)
    last_read: tuple[tuple[Any, ...], Standing] | None = None


class Verbs(ABC):
    """Base of the classes that make up the SQLite store."""

    _targets: Mapping[str, KnownTarget]
    """By name; replaced as a whole when the configuration changes."""
    _wake: Callable[[Collection[str]], None]
    _tell_superseded: Callable[[Mapping[str, int]], None]
    _tell_dead: Callable[[Sequence[Death]], None]
    _now_ms: Callable[[], int]

    @abstractmethod
    async def _run(
        self, work: Callable[[sqlite3.Connection], T], after: Callable[[T], None] | None = None, *, reads: bool = False
    ) -> T:
        """Run `work` in a transaction on the one connection; `after` on the event loop once it is committed.

        Work that only `reads` is run before the transaction of those that wait along with it.
        """

    def in_flight(self) -> frozenset[int]:
        """Ids of the deliveries that are under way."""
        return frozenset(one for target in self._targets.values() for one in tuple(target.claimed))

    def _note_superseded(self, counts: Mapping[str, int]) -> None:
        ended = {name: count for name, count in counts.items() if count}
        if ended:
            self._tell_superseded(ended)

    def _note_dead(self, deaths: Sequence[Death]) -> None:
        if deaths:
            self._tell_dead(deaths)

    def _target(self, name: str) -> KnownTarget:
        """A target the file knows.

        Raises:
            StoreError: it does not.
        """
        found = self._targets.get(name)
        if found is None:
            raise StoreError(f"the store knows no target {name}")
        return found


def read_standing(connection: sqlite3.Connection, target: KnownTarget) -> Standing:
    """A target's standing.

    Raises:
        StoreError: what is written there cannot be understood.
    """
    row = connection.execute(SQL["standing"], (target.id,)).fetchone()
    if row is None:
        raise StoreError(f"target {target.name} has gone from the store while it was open")
    if target.last_read is not None and target.last_read[0] == row:
        return target.last_read[1]
    try:
        standing = standing_from_row(row)
    except ValueError as error:
        raise StoreError(f"what the store holds about target {target.name} cannot be understood: {error}") from error
    target.last_read = row, standing
    return standing


def change_standing(
    connection: sqlite3.Connection, target: KnownTarget, before: Standing, after: Standing, now_ms: int
) -> None:
    """Write a standing that has changed, and end the waits that the change ends."""
    if after != before:
        connection.execute(SQL["write_standing"], standing_to_row(after) | {"id": target.id})
    if suspends_schedule(before, after):
        bring_forward(connection, target, now_ms)


def bring_forward(connection: sqlite3.Connection, target: KnownTarget, now_ms: int) -> None:
    """Make every lane head due; each gets back the step of the schedule whose wait is cut short."""
    connection.execute(SQL["bring_forward"], {"target": target.id, "now": now_ms})

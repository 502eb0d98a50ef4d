"""What the verbs of the PostgreSQL store stand on: transactions, standings, lanes, and what is remembered in memory."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from relay.errors import StoreError
from relay.model import Delivery
from relay.standing import Ordering, Standing, suspends_schedule
from relay.store.postgres_link import PATIENCE, Row, Session
from relay.store.rows import standing_from_row, standing_to_row
from relay.store.values import Death, Instance

T = TypeVar("T")

LEASE_GRACE: Final = timedelta(seconds=15)
"""How much longer than an attempt may take a claim is held."""
_NOTICE_LANES: Final = "relay:"
_NOTICES_KEY: Final = 0x686F7564696E6901
"""Of the advisory lock of all notices' lanes, which have no order whose row could be the lock."""


class Counter(IntEnum):
    """Who counts open deliveries, in a row of its own: `open_counts.writer`."""

    MAKING = 0
    ENDING = 1


@dataclass(frozen=True, slots=True)
class KnownTarget:
    """A target as a transaction found it."""

    id: int
    name: str
    standing: Standing


class Verbs(ABC):
    """Base of the classes that make up the PostgreSQL store."""

    _id: str
    """Of this process, among those that share the database."""
    _held: dict[int, Delivery]
    """What this process has claimed and neither settled nor released."""
    _returning: "set[asyncio.Task[None]]"
    """What gives cancelled claims back."""
    _timeouts: dict[str, timedelta]
    """Target -> the longest its attempts may take, as configured here."""
    _instance: Instance | None
    """What this process leads as; None before it was said."""
    _tell_superseded: Callable[[Mapping[str, int]], None]
    _tell_dead: Callable[[Sequence[Death]], None]
    _now_ms: Callable[[], int]

    @abstractmethod
    async def _run(
        self,
        work: Callable[[Session], Awaitable[T]],
        after: Callable[[T], None] | None = None,
        *,
        patience: float = PATIENCE,
        isolation: str = "READ COMMITTED",
    ) -> T:
        """Run `work` in a transaction; `after` once it is committed."""

    @abstractmethod
    def _wake(self, targets: Collection[str], *, everywhere: bool = False) -> None:
        """Say that deliveries of these targets are due: here, and to the other instances if they may be idle."""

    @abstractmethod
    def _background(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Do it even if nobody waits for it; closing does, a little."""

    def in_flight(self) -> frozenset[int]:
        """Ids of the deliveries that this process has under way."""
        return frozenset(self._held)

    def _holder(self) -> str:
        """What a lead of this process goes by; empty, as nobody's is, before it was said."""
        return "" if self._instance is None else self._instance.id

    def _note_superseded(self, counts: Mapping[str, int]) -> None:
        ended = {name: count for name, count in counts.items() if count}
        if ended:
            self._tell_superseded(ended)

    def _note_dead(self, deaths: Sequence[Death]) -> None:
        if deaths:
            self._tell_dead(deaths)

    def _lease(self, target: str) -> timedelta:
        return self._timeouts.get(target, timedelta(seconds=60)) + LEASE_GRACE


async def find_target(session: Session, name: str) -> KnownTarget | None:
    """A target, not locked; None when there is none of that name.

    Raises:
        StoreError: it cannot be understood.
    """
    row = await session.row("standing", {"name": name})
    return None if row is None else target_from_row(row)


async def known_target(session: Session, name: str) -> KnownTarget:
    """A target, not locked.

    Raises:
        StoreError: there is none of that name, or it cannot be understood.
    """
    return _insisted(await find_target(session, name), name)


async def lock_target(session: Session, name: str) -> KnownTarget:
    """A target that nobody else may judge, or end deliveries of, until the transaction ends.

    Raises:
        StoreError: there is none of that name, or it cannot be understood.
    """
    return _insisted(await session.row("lock_targets", {"names": [name]}), name)


async def lock_targets(session: Session, names: Iterable[str]) -> dict[str, KnownTarget]:
    """The same for several, in the order in which everybody locks them.

    Raises:
        StoreError: there is none of one of the names, or it cannot be understood.
    """
    wanted = sorted(set(names))
    found = {row[0]: _insisted(row, row[0]) for row in await session.rows("lock_targets", {"names": wanted})}
    for name in wanted:
        _insisted(found.get(name), name)
    return found


async def lock_lanes(session: Session, lanes: Iterable[str]) -> None:
    """Let nobody else put anything into these lanes, or take it out, until the transaction ends."""
    wanted = sorted(set(lanes))
    orders = [one for one in wanted if not one.startswith(_NOTICE_LANES)]
    if orders:
        await session.rows("lock_orders", {"ids": orders})
    if len(orders) < len(wanted):
        await session.row("lock_notices", {"key": _NOTICES_KEY})


async def change_standing(
    session: Session, target: KnownTarget, before: Standing, after: Standing, now_ms: int
) -> None:
    """Write a standing that has changed, and end the waits that the change ends; the target is locked."""
    if after != before:
        bound = standing_to_row(after) | {"id": target.id}
        bound["last_error"] = None if after.last_error is None else msgspec.json.encode(after.last_error).decode()
        await session.run("write_standing", bound)
    if suspends_schedule(before, after):
        await bring_forward(session, target, now_ms)


async def bring_forward(session: Session, target: KnownTarget, now_ms: int) -> None:
    """Make every lane head due; each gets back the step of the schedule whose wait is cut short."""
    await session.run("bring_forward", {"target": target.id, "now": now_ms})


async def promote(session: Session, lanes: Collection[tuple[int, str]], now_ms: int) -> None:
    """Make the oldest unfinished delivery of each lane (target's id, lane) its head; the lanes are locked.

    A statement of its own, so that it sees everything that was committed before the lock was had.
    """
    if lanes:
        targets, names = zip(*lanes, strict=True)
        await session.run("promote", {"target": list(targets), "lane": list(names), "now": now_ms})


async def count_open(session: Session, counter: Counter, changes: Mapping[int, int]) -> None:
    """Note by how much the open deliveries of targets (by id) have changed; the last thing a transaction does."""
    changed = sorted((target, change) for target, change in changes.items() if change)
    if changed:
        targets, counts = zip(*changed, strict=True)
        await session.run("count_open_by", {"writer": int(counter), "target": list(targets), "change": list(counts)})


def target_from_row(row: Row) -> KnownTarget:
    """A row of the queries that begin with a target's name, id and standing.

    Raises:
        StoreError: what is written there cannot be understood.
    """
    name, target_id, *values = row
    try:
        standing = standing_from_row(values)
        if standing.last_error is not None:
            standing = replace(standing, last_error=msgspec.json.decode(standing.last_error, type=str))
    except (ValueError, msgspec.DecodeError) as error:
        raise StoreError(f"what the store holds about target {name} cannot be understood: {error}") from error
    return KnownTarget(target_id, name, standing)


def ordering_of(name: str, ordering: str) -> Ordering:
    """How a target's deliveries wait for one another.

    Raises:
        StoreError: what is written there cannot be understood.
    """
    if ordering not in set(Ordering):
        raise StoreError(f"what the store holds about target {name} cannot be understood: ordering is {ordering!r}")
    return Ordering(ordering)


def _insisted(found: Row | KnownTarget | None, name: str) -> KnownTarget:
    if found is None:
        raise StoreError(f"the store knows no target {name}")
    return found if isinstance(found, KnownTarget) else target_from_row(found)

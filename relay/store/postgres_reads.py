"""The part of the PostgreSQL store that people look at: lists, page by page, and what stands behind one id.

A look may not take long, for others wait for the same connections: a list walks ids along an index, a bounded
number at a time, newest first, gives up after `MOST_ROWS` and says where to go on.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from relay.model import DeliveryStatus
from relay.store.postgres_link import Session
from relay.store.postgres_sql import SQL
from relay.store.postgres_verbs import Verbs
from relay.store.read_rows import ENDED, attempt_row, delivery_row, order_row, states_of, status_word
from relay.store.reads import AttemptRow, DeadLetters, DeliveryRow, EventRow, Filter, OrderRow, Page
from relay.store.rows import event_from_row

MOST_ROWS: Final = 10_000
"""Rows that one look examines."""
CLOCK_SLACK_MS: Final = 24 * 3600 * 1000
"""Ids follow time but for clocks that were set, and for transactions that took a while."""
_CHUNK: Final = 500
_END: Final = 2**63 - 1


class Reader(Verbs):
    """`relay.store.reads.Reads`, a transaction a look."""

    async def list_events(self, only: Filter, cursor: int | None, limit: int) -> Page[EventRow]:
        """Events, newest first; with a target or a status, those whose last delivery there stands so."""
        statuses = None if only.status is None else (only.status,)

        async def work(session: Session) -> Page[EventRow]:
            walk = await _walk(session, _walk_of_events(only), "event", only, cursor)
            cost = 1 + len(await session.rows("targets"))
            return await _page(walk, lambda ids: _look_at_events(session, ids, only, statuses), limit, cost)

        return await self._run(work)

    async def event(self, webhook_id: str) -> EventRow | None:
        """One event with its body."""

        async def work(session: Session) -> EventRow | None:
            row = await session.row("event", {"webhook_id": webhook_id})
            if row is None:
                return None
            standings = await _standings(session, [row[0]])
            return EventRow(row[0], event_from_row(row[1:]), Counter(standings.get(row[0], {}).values()))

        return await self._run(work)

    async def list_deliveries(self, only: Filter, cursor: int | None, limit: int) -> Page[DeliveryRow]:
        """Deliveries, newest first."""

        async def work(session: Session) -> Page[DeliveryRow]:
            walk = await _walk(session, _walk_of_deliveries(only), "delivery", only, cursor)
            return await _page(walk, lambda ids: _look_at_deliveries(session, ids, only), limit)

        return await self._run(work)

    async def deliveries_of_event(self, webhook_id: str) -> Sequence[DeliveryRow]:
        """Every delivery of one event, by target and replay."""

        async def work(session: Session) -> Sequence[DeliveryRow]:
            ids = [row[0] for row in await session.rows("deliveries_of_event", {"webhook_id": webhook_id})]
            found = {row.id: row for row in await _look_at_deliveries(session, ids, Filter())}
            return [found[one] for one in ids if one in found]

        return await self._run(work)

    async def delivery(self, delivery_id: int) -> DeliveryRow | None:
        """One delivery."""

        async def work(session: Session) -> DeliveryRow | None:
            return next(iter(await _look_at_deliveries(session, [delivery_id], Filter())), None)

        return await self._run(work)

    async def attempts(self, delivery_id: int, limit: int) -> Sequence[AttemptRow]:
        """The last attempts of a delivery, oldest first."""
        rows = await self._run(lambda session: session.rows("attempts", {"id": delivery_id, "limit": limit}))
        return [attempt_row(row) for row in reversed(rows)]

    async def order(self, houdini_id: str) -> OrderRow | None:
        """What is known of one order."""
        row = await self._run(lambda session: session.row("order", {"houdini_id": houdini_id}))
        return None if row is None else order_row(row)

    async def dead_letters(self, most: int) -> Mapping[str, DeadLetters]:
        """What is dead at every configured target, among its last `most` dead deliveries; notices aside."""
        rows = await self._run(lambda session: session.rows("dead_letters", {"most": most}))
        return {name: DeadLetters(count, last_ms) for name, count, last_ms in rows}

    async def replayable(self, only: Filter, after: int, limit: int) -> tuple[Sequence[str], int | None]:
        """Webhook ids, oldest first, of events whose last delivery to `only.target` has ended as `only` says."""
        name = "climb_routed_events" if only.order is None else "climb_events_of_order"
        statuses = ENDED if only.status is None else (only.status,)

        async def work(session: Session) -> Page[EventRow]:
            walk = await _walk(session, name, "event", only, None, after=after)
            cost = 1 + len(await session.rows("targets"))

            async def look(ids: Sequence[int]) -> list[EventRow]:
                return (await _look_at_events(session, ids, only, statuses))[::-1]

            return await _page(walk, look, limit, cost)

        page = await self._run(work)
        return [row.event.webhook_id for row in page.items], page.next


Walk = Callable[[int], Awaitable[list[int]]]
"""The next ids, so many at most; fewer only at the end."""


async def _walk(session: Session, name: str, kind: str, only: Filter, cursor: int | None, *, after: int = 0) -> Walk:
    """Ids along one index, or several merged, between those that `only` may mean."""
    below, above = await _bounds(session, kind, only, cursor)
    bound: dict[str, Any] = {"below": below, "above": max(above, after), "order": only.order}
    if "target_ids" in SQL[name].names:
        targets = await session.rows("targets")
        bound["target_ids"] = [row[0] for row in targets if only.target in (None, row[1])]

    async def step(count: int) -> list[int]:
        ids = [row[0] for row in await session.rows(name, bound | {"limit": count})]
        if ids:
            bound["above" if name.startswith("climb_") else "below"] = ids[-1]
        return ids

    return step


class _Row(Protocol):
    @property
    def id(self) -> int: ...


R = TypeVar("R", bound=_Row)


async def _page(
    walk: Walk, look: Callable[[Sequence[int]], Awaitable[Sequence[R]]], limit: int, cost: int = 1
) -> Page[R]:
    """Look at what stands behind these ids, `cost` rows each, until there is enough or it has taken long enough."""
    items: list[R] = []
    largest = max(1, min(_CHUNK, MOST_ROWS // cost))
    asked, left = min(limit + 1, largest), MOST_ROWS
    while True:
        chunk = await walk(asked)
        items += await look(chunk)
        if len(items) > limit:
            return Page(tuple(items[:limit]), items[limit - 1].id)
        if len(chunk) < asked:
            return Page(tuple(items), None)
        left -= cost * len(chunk)
        if len(items) == limit or left <= 0:
            return Page(tuple(items), chunk[-1])
        asked = largest


def _walk_of_events(only: Filter) -> str:
    if only.order is not None:
        return "walk_events_of_order"
    return "walk_events" if only.target is None and only.status is None else "walk_routed_events"


def _walk_of_deliveries(only: Filter) -> str:
    if only.order is not None:
        return "walk_deliveries_of_order"
    if only.status in (DeliveryStatus.PENDING, DeliveryStatus.IN_FLIGHT):
        return "walk_open"
    return "walk_dead" if only.status is DeliveryStatus.DEAD else "walk_deliveries"


async def _bounds(session: Session, kind: str, only: Filter, cursor: int | None) -> tuple[int, int]:
    """Below and above which ids everything that `only` may mean lies."""
    below, above = _END if cursor is None else cursor, 0
    if only.until_ms is not None:
        below = min(below, (await _divide(session, kind, only.until_ms + CLOCK_SLACK_MS))[1])
    if only.since_ms is not None:
        above = (await _divide(session, kind, only.since_ms - CLOCK_SLACK_MS))[0]
    return below, above


async def _divide(session: Session, kind: str, moment_ms: int) -> tuple[int, int]:
    """Two neighbouring ids, written before this moment and not before it (or the ends), by halving."""
    newest = await session.value(f"newest_{kind}") or 0
    before, after = 0, int(newest) + 1
    while after - before > 1:
        upto = (before + after) // 2
        row = await session.row(f"{kind}_moment", {"above": before, "upto": upto})
        if row is None or row[1] < moment_ms:
            before = upto
        else:
            after = row[0]
    return before, after if after <= newest else _END


async def _look_at_deliveries(session: Session, ids: Sequence[int], only: Filter) -> list[DeliveryRow]:
    lowest, highest = states_of(only.status)
    bound = _wanted(ids, only) | {"target": only.target, "lowest": lowest, "highest": highest}
    rows = []
    for leased, *row in await session.rows("look_at_deliveries", bound) if ids else ():
        rows.append(delivery_row(row, (row[0],) if leased else ()))
    return [row for row in rows if only.status in (None, row.status)]


async def _look_at_events(
    session: Session, ids: Sequence[int], only: Filter, statuses: Collection[DeliveryStatus] | None
) -> list[EventRow]:
    """Those of these events that are wanted, newest first, without their bodies."""
    rows = await session.rows("look_at_events", _wanted(ids, only)) if ids else []
    standings = await _standings(session, [row[0] for row in rows])
    found = []
    for row in rows:
        there = standings.get(row[0], {})
        chosen = {status for name, status in there.items() if only.target in (None, name)}
        if (statuses is None and (only.target is None or chosen)) or (statuses is not None and chosen & set(statuses)):
            found.append(EventRow(row[0], event_from_row(row[1:]), Counter(there.values())))
    return found


def _wanted(ids: Sequence[int], only: Filter) -> dict[str, Any]:
    bound = {"type": only.type, "order": only.order, "since": only.since_ms, "until": only.until_ms}
    return bound | {"ids": list(ids)}


async def _standings(session: Session, event_ids: Sequence[int]) -> dict[int, dict[str, DeliveryStatus]]:
    """Event -> target -> how the last delivery of that event to that target stands."""
    found: dict[int, dict[str, DeliveryStatus]] = {}
    rows = await session.rows("standings", {"ids": list(event_ids)}) if event_ids else ()
    for event_id, target, delivery_id, state, leased in rows:
        found.setdefault(event_id, {})[target] = status_word(state, delivery_id, (delivery_id,) if leased else ())
    return found

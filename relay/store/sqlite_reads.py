"""The part of the SQLite store that people look at: lists, page by page, and what stands behind one id.

It shares the one connection with the queue, so that a look may never take long: a list walks ids along an
index, newest first, gives up after `MOST_ROWS` and says where to go on.
"""

import heapq
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

from relay.model import DeliveryStatus
from relay.store.read_rows import ENDED, attempt_row, delivery_row, order_row, states_of, status_word
from relay.store.reads import AttemptRow, DeadLetters, DeliveryRow, EventRow, Filter, OrderRow, Page
from relay.store.rows import event_from_row
from relay.store.sqlite_verbs import SQL, Verbs

MOST_ROWS: Final = 10_000
"""Rows that one look examines: some tens of milliseconds, in which nothing else is read or written."""
CLOCK_SLACK_MS: Final = 24 * 3600 * 1000
"""Ids follow time but for clocks that were set. Rows that were written under a clock that was wrong by less than
this are found by `since` and `until` all the same."""
_CHUNK: Final = 500
_END: Final = 2**63 - 1

_Bound = Mapping[str, Any]


class Reader(Verbs):
    """`relay.store.reads.Reads` on the store's one connection."""

    async def list_events(self, only: Filter, cursor: int | None, limit: int) -> Page[EventRow]:
        """Events, newest first; with a target or a status, those whose last delivery there stands so."""
        statuses = None if only.status is None else (only.status,)

        def work(connection: sqlite3.Connection) -> Page[EventRow]:
            claimed, bound = self.in_flight(), _bound(connection, "event", only, cursor)
            cost = 1 + len(_target_ids(connection, None))

            def look(ids: Sequence[int]) -> list[EventRow]:
                return _look_at_events(connection, ids, only, statuses, claimed)

            with closing(_Walk(connection, _walk_of_events(only), bound)) as walk:
                return _page(walk.ids, look, limit, cost)

        return await self._run(work)

    async def event(self, webhook_id: str) -> EventRow | None:
        """One event with its body."""

        def work(connection: sqlite3.Connection) -> EventRow | None:
            row = connection.execute(SQL["event"], (webhook_id,)).fetchone()
            if row is None:
                return None
            standings = _standings(connection, [row[0]], self.in_flight())
            return EventRow(row[0], event_from_row(row[1:]), Counter(standings.get(row[0], {}).values()))

        return await self._run(work)

    async def list_deliveries(self, only: Filter, cursor: int | None, limit: int) -> Page[DeliveryRow]:
        """Deliveries, newest first."""

        def work(connection: sqlite3.Connection) -> Page[DeliveryRow]:
            claimed, bound = self.in_flight(), _bound(connection, "delivery", only, cursor)

            def look(ids: Sequence[int]) -> list[DeliveryRow]:
                return _look_at_deliveries(connection, ids, only, claimed)

            if only.status is DeliveryStatus.IN_FLIGHT:
                under_way = sorted((one for one in claimed if bound["above"] < one < bound["below"]), reverse=True)
                return _page(iter(under_way), look, limit)
            with closing(_Walk(connection, _walk_of_deliveries(only), bound)) as walk:
                return _page(walk.ids, look, limit)

        return await self._run(work)

    async def deliveries_of_event(self, webhook_id: str) -> Sequence[DeliveryRow]:
        """Every delivery of one event, by target and replay."""

        def work(connection: sqlite3.Connection) -> Sequence[DeliveryRow]:
            ids = [row[0] for row in connection.execute(SQL["deliveries_of_event"], (webhook_id,))]
            found = {row.id: row for row in _look_at_deliveries(connection, ids, Filter(), self.in_flight())}
            return [found[one] for one in ids]

        return await self._run(work)

    async def delivery(self, delivery_id: int) -> DeliveryRow | None:
        """One delivery."""

        def work(connection: sqlite3.Connection) -> DeliveryRow | None:
            return next(iter(_look_at_deliveries(connection, [delivery_id], Filter(), self.in_flight())), None)

        return await self._run(work)

    async def attempts(self, delivery_id: int, limit: int) -> Sequence[AttemptRow]:
        """The last attempts of a delivery, oldest first."""

        def work(connection: sqlite3.Connection) -> Sequence[AttemptRow]:
            rows = connection.execute(SQL["attempts"], (delivery_id, limit)).fetchall()
            return [attempt_row(row) for row in reversed(rows)]

        return await self._run(work)

    async def order(self, houdini_id: str) -> OrderRow | None:
        """What is known of one order."""

        def work(connection: sqlite3.Connection) -> OrderRow | None:
            row = connection.execute(SQL["order"], (houdini_id,)).fetchone()
            return None if row is None else order_row(row)

        return await self._run(work)

    async def dead_letters(self, most: int) -> Mapping[str, DeadLetters]:
        """What is dead at every configured target, among its last `most` dead deliveries; notices aside."""
        ids = {name: known.id for name, known in self._targets.items() if known.configured}

        def work(connection: sqlite3.Connection) -> Mapping[str, DeadLetters]:
            bounds = {name: {"target": target_id, "most": most} for name, target_id in ids.items()}
            return {
                name: DeadLetters(*connection.execute(SQL["dead_letters"], bound).fetchone())
                for name, bound in bounds.items()
            }

        return await self._run(work)

    async def replayable(self, only: Filter, after: int, limit: int) -> tuple[Sequence[str], int | None]:
        """Webhook ids, oldest first, of events whose last delivery to `only.target` has ended as `only` says."""
        name = "climb_routed_events" if only.order is None else "climb_events_of_order"
        statuses = ENDED if only.status is None else (only.status,)

        def work(connection: sqlite3.Connection) -> tuple[Sequence[str], int | None]:
            claimed, bound = self.in_flight(), _bound(connection, "event", only, None)
            bound["above"] = max(bound["above"], after)
            cost = 1 + len(_target_ids(connection, None))

            def look(ids: Sequence[int]) -> list[EventRow]:
                return _look_at_events(connection, ids, only, statuses, claimed)[::-1]

            with closing(_Walk(connection, name, bound, descending=False)) as walk:
                page = _page(walk.ids, look, limit, cost)
            return [row.event.webhook_id for row in page.items], page.next

        return await self._run(work)


class _Walk:
    """Ids along one or several indexes, merged, and read only as far as somebody looks."""

    def __init__(self, connection: sqlite3.Connection, name: str, bound: _Bound, *, descending: bool = True) -> None:
        self._open = ExitStack()
        targets = _target_ids(connection, bound["target"]) if ":target_id" in SQL[name] else [None]
        cursors = [
            self._open.enter_context(closing(connection.execute(SQL[name], {**bound, "target_id": target})))
            for target in targets
        ]
        self.ids: Iterator[int] = (row[0] for row in heapq.merge(*cursors, reverse=descending))

    def close(self) -> None:
        self._open.close()


class _Row(Protocol):
    @property
    def id(self) -> int: ...


R = TypeVar("R", bound=_Row)


def _page(ids: Iterator[int], look: Callable[[Sequence[int]], Sequence[R]], limit: int, cost: int = 1) -> Page[R]:
    """Look at what stands behind these ids, `cost` rows each, until there is enough or it has taken long enough."""
    items: list[R] = []
    largest = max(1, min(_CHUNK, MOST_ROWS // cost))
    asked, left = min(limit + 1, largest), MOST_ROWS
    while True:
        chunk = list(islice(ids, asked))
        items += look(chunk)
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
    if only.status is DeliveryStatus.PENDING:
        return "walk_open"
    return "walk_dead" if only.status is DeliveryStatus.DEAD else "walk_deliveries"


def _bound(connection: sqlite3.Connection, kind: str, only: Filter, cursor: int | None) -> dict[str, Any]:
    """Parameters of the walks: between which ids everything that `only` may mean lies."""
    below, above = _END if cursor is None else cursor, 0
    if only.until_ms is not None:
        below = min(below, _divide(connection, kind, only.until_ms + CLOCK_SLACK_MS)[1])
    if only.since_ms is not None:
        above = _divide(connection, kind, only.since_ms - CLOCK_SLACK_MS)[0]
    return {"below": below, "above": above, "order": only.order, "target": only.target}


def _divide(connection: sqlite3.Connection, kind: str, moment_ms: int) -> tuple[int, int]:
    """Two neighbouring ids, written before this moment and not before it (or the ends), by halving."""
    newest = connection.execute(SQL[f"newest_{kind}"]).fetchone()[0] or 0
    before, after = 0, int(newest) + 1
    while after - before > 1:
        upto = (before + after) // 2
        row = connection.execute(SQL[f"{kind}_moment"], {"above": before, "upto": upto}).fetchone()
        if row is None or row[1] < moment_ms:
            before = upto
        else:
            after = row[0]
    return before, after if after <= newest else _END


def _target_ids(connection: sqlite3.Connection, name: str | None) -> list[int]:
    return [target_id for target_id, known in connection.execute(SQL["target_names"]) if name in (None, known)]


def _look_at_deliveries(
    connection: sqlite3.Connection, ids: Sequence[int], only: Filter, claimed: Collection[int]
) -> list[DeliveryRow]:
    lowest, highest = states_of(only.status)
    bound = _wanted(ids, only) | {"target": only.target, "lowest": lowest, "highest": highest}
    rows = [delivery_row(row, claimed) for row in connection.execute(SQL["look_at_deliveries"], bound)]
    return [row for row in rows if only.status in (None, row.status)]


def _look_at_events(
    connection: sqlite3.Connection,
    ids: Sequence[int],
    only: Filter,
    statuses: Collection[DeliveryStatus] | None,
    claimed: Collection[int],
) -> list[EventRow]:
    """Those of these events that are wanted, newest first, without their bodies."""
    rows = connection.execute(SQL["look_at_events"], _wanted(ids, only)).fetchall()
    standings = _standings(connection, [row[0] for row in rows], claimed)
    found = []
    for row in rows:
        there = standings.get(row[0], {})
        chosen = {status for name, status in there.items() if only.target in (None, name)}
        if (statuses is None and (only.target is None or chosen)) or (statuses is not None and chosen & set(statuses)):
            found.append(EventRow(row[0], event_from_row(row[1:]), Counter(there.values())))
    return found


def _wanted(ids: Sequence[int], only: Filter) -> dict[str, Any]:
    bound = {"type": only.type, "order": only.order, "since": only.since_ms, "until": only.until_ms}
    return bound | {"ids": json.dumps(ids)}


def _standings(
    connection: sqlite3.Connection, event_ids: Sequence[int], claimed: Collection[int]
) -> dict[int, dict[str, DeliveryStatus]]:
    """Event -> target -> how the last delivery of that event to that target stands."""
    found: dict[int, dict[str, DeliveryStatus]] = {}
    for event_id, target, delivery_id, state in connection.execute(SQL["standings"], (json.dumps(event_ids),)):
        found.setdefault(event_id, {})[target] = status_word(state, delivery_id, claimed)
    return found

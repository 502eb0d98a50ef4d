"""Retention in the SQLite store: what ended long ago is removed, a bounded number of rows at a time."""

import json
import sqlite3
from collections.abc import Callable
from typing import Final

from relay.store.sqlite_verbs import SQL, Verbs
from relay.store.values import Pruned

ORDER_KEPT_MS: Final = 7 * 24 * 3600 * 1000
"""An order is remembered at least so long after it was last believed: one forgotten earlier would look new."""
PAGES_A_STEP: Final = 256
"""A megabyte given back to the disk at a time."""


class Pruning(Verbs):
    """The verb that removes."""

    async def prune(self, before_ms: int, place: int, limit: int) -> Pruned:
        """Remove what ended before that moment, `limit` rows looked at from `place` on (0: from the start).

        Never the last event of an order that is known, nor an order before `ORDER_KEPT_MS`. A place is opaque.
        """
        now_ms = self._now_ms()
        return await self._run(lambda connection: prune_step(connection, before_ms, place, limit, now_ms))


def prune_step(connection: sqlite3.Connection, before_ms: int, place: int, limit: int, now_ms: int) -> Pruned:
    """One batch of pruning, inside a transaction.

    Deliveries go first, for an event is kept while one refers to it, then events, then orders, gaps, and room.
    """
    after, number = divmod(place, len(_PHASES))
    orders_before_ms = min(before_ms, now_ms - ORDER_KEPT_MS)
    bound = {"after": after, "before": orders_before_ms if _PHASES[number] is _prune_orders else before_ms}
    pruned = _PHASES[number](connection, bound | {"limit": limit, "now": now_ms})
    if pruned.next_place is not None:
        return _resumed(pruned, pruned.next_place * len(_PHASES) + number)
    return _resumed(pruned, number + 1 if number + 1 < len(_PHASES) else None)


def _resumed(pruned: Pruned, place: int | None) -> Pruned:
    return Pruned(pruned.deliveries, pruned.events, pruned.orders, place)


def _prune_deliveries(connection: sqlite3.Connection, bound: dict[str, int]) -> Pruned:
    rows = connection.execute(SQL["old_deliveries"], bound).fetchall()
    gone, attempts = [], 0
    for at, (delivery_id, old, _, attempts_made) in enumerate(rows):
        gone += [delivery_id] if old else []
        attempts += attempts_made if old else 0
        if attempts > bound["limit"]:  # one that was probed for weeks has thousands
            rows = rows[: at + 1]
            break
    _delete(connection, "delete_attempts", gone)
    _delete(connection, "delete_deliveries", gone)
    cut_short = attempts > bound["limit"]
    return Pruned(len(gone), 0, 0, rows[-1][0] if cut_short else _last(rows, bound))


def _prune_events(connection: sqlite3.Connection, bound: dict[str, int]) -> Pruned:
    rows = connection.execute(SQL["old_events"], bound).fetchall()
    gone = [event_id for event_id, old, _ in rows if old]
    _delete(connection, "delete_events", gone)
    return Pruned(0, len(gone), 0, _last(rows, bound))


def _prune_orders(connection: sqlite3.Connection, bound: dict[str, int]) -> Pruned:
    rows = connection.execute(SQL["old_orders"], bound).fetchall()
    gone = [order_id for order_id, old, _, _ in rows if old]
    events = [event_id for _, old, _, event_id in rows if old and event_id is not None]
    _delete(connection, "delete_orders", gone)
    _delete(connection, "delete_events", events)
    return Pruned(0, len(events), len(gone), _last(rows, bound))


def _prune_gaps(connection: sqlite3.Connection, bound: dict[str, int]) -> Pruned:
    rows = connection.execute(SQL["old_gaps"], bound).fetchall()
    _delete(connection, "delete_gaps", [gap_id for gap_id, old, _ in rows if old])
    return Pruned(0, 0, 0, _last(rows, bound))


def _give_back_room(connection: sqlite3.Connection, bound: dict[str, int]) -> Pruned:
    """Shorten the file; the place is how many free pages were left, so that it ends even if more come meanwhile."""
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    for _ in range(min(free, PAGES_A_STEP)):
        # One page each: the driver steps a statement without columns only once, whatever number stands in it.
        connection.execute("PRAGMA incremental_vacuum(1)")
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    shrinking = free > 0 and (not bound["after"] or free < bound["after"])
    return Pruned(0, 0, 0, free if shrinking else None)


def _delete(connection: sqlite3.Connection, statement: str, ids: list[int]) -> None:
    if ids:
        connection.execute(SQL[statement], (json.dumps(ids),))


def _last(rows: list[tuple[int, ...]], bound: dict[str, int]) -> int | None:
    """The place to go on from; None at the end, and where all is too young, for ids follow time.

    What a wrong clock dated into the future says nothing about age.
    """
    return rows[-1][0] if len(rows) == bound["limit"] and not all(young for _, _, young, *_ in rows) else None


_PHASES: Final[tuple[Callable[[sqlite3.Connection, dict[str, int]], Pruned], ...]] = (
    _prune_deliveries,
    _prune_events,
    _prune_orders,
    _prune_gaps,
    _give_back_room,
)

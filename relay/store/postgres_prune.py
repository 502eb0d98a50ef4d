"""Retention in the PostgreSQL store: what ended long ago is removed, a bounded number of rows at a time."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from relay.store.postgres_link import Row, Session
from relay.store.postgres_verbs import Verbs
from relay.store.values import Pruned

ORDER_KEPT_MS: Final = 7 * 24 * 3600 * 1000
"""An order is remembered at least so long after it was last believed: one forgotten earlier would look new."""
_PATIENCE: Final = 60.0

_Bound = Mapping[str, Any]


class Pruning(Verbs):
    """The verb that removes. What it frees is used again; only VACUUM FULL gives it back to the disk."""

    async def prune(self, before_ms: int, place: int, limit: int) -> Pruned:
        """Remove what ended before that moment, `limit` rows looked at from `place` on (0: from the start).

        Never the last event of an order that is known, nor an order before `ORDER_KEPT_MS`. A place is opaque.
        Deliveries go first, for an event is kept while one refers to it, then events, then orders and gaps. Ids do
        not follow commits, so that a row that came late is found by the next look from the start.
        """
        now_ms = self._now_ms()
        after, number = divmod(place, len(_PHASES))
        phase = _PHASES[number]
        oldest_ms = min(before_ms, now_ms - ORDER_KEPT_MS) if phase is _prune_orders else before_ms
        bound = {"after": after, "before": oldest_ms, "limit": limit, "now": now_ms}

        async def work(session: Session) -> Pruned:
            return await phase(session, bound)

        pruned = await self._run(work, patience=_PATIENCE)
        if pruned.next_place is not None:
            return _resumed(pruned, pruned.next_place * len(_PHASES) + number)
        return _resumed(pruned, number + 1 if number + 1 < len(_PHASES) else None)


def _resumed(pruned: Pruned, place: int | None) -> Pruned:
    return Pruned(pruned.deliveries, pruned.events, pruned.orders, place)


async def _prune_deliveries(session: Session, bound: _Bound) -> Pruned:
    rows = await session.rows("old_deliveries", bound)
    gone, deleted, attempts, cut_short = list[int](), list[int](), 0, False
    for at, (delivery_id, old, _, attempts_made) in enumerate(rows):
        gone += [delivery_id] if old else []
        attempts += attempts_made if old else 0
        if attempts > bound["limit"]:  # one that was probed for weeks has thousands
            rows, cut_short = rows[: at + 1], True
            break
    if gone:
        deleted = [row[0] for row in await session.rows("delete_deliveries", {**bound, "ids": gone})]
        await session.run("delete_attempts", {"ids": deleted})
    return Pruned(len(deleted), 0, 0, rows[-1][0] if cut_short else _last(rows, bound))


async def _prune_events(session: Session, bound: _Bound) -> Pruned:
    rows = await session.rows("old_events", bound)
    gone = [row[0] for row in rows if row[1]]
    return Pruned(0, await _delete_events(session, gone), 0, _last(rows, bound))


async def _prune_orders(session: Session, bound: _Bound) -> Pruned:
    rows = await session.rows("old_orders", bound)
    gone = [row[0] for row in rows if row[1]]
    orders: list[int | None] = []
    if gone:
        locked = [row[0] for row in await session.rows("lock_old_orders", {"ids": gone})]
        orders = [row[0] for row in await session.rows("delete_orders", {**bound, "ids": locked})]
    events = await _delete_events(session, [one for one in orders if one is not None])
    return Pruned(0, events, len(orders), _last(rows, bound))


async def _prune_gaps(session: Session, bound: _Bound) -> Pruned:
    rows = await session.rows("old_gaps", bound)
    await session.run("delete_gaps", {"ids": [row[0] for row in rows if row[1]]})
    return Pruned(0, 0, 0, _last(rows, bound))


async def _delete_events(session: Session, ids: Sequence[int]) -> int:
    """Remove events to which nothing refers; a replay of one of them waits, and then finds it gone."""
    if not ids:
        return 0
    locked = [row[0] for row in await session.rows("lock_events", {"ids": list(ids)})]
    return await session.run("delete_events", {"ids": locked})


def _last(rows: Sequence[Row], bound: _Bound) -> int | None:
    """The place to go on from; None at the end, and where all is too young, for ids follow time by and large.

    What a wrong clock dated into the future says nothing about age.
    """
    return int(rows[-1][0]) if len(rows) == bound["limit"] and not all(row[2] for row in rows) else None


_PHASES: Final[tuple[Callable[[Session, _Bound], Awaitable[Pruned]], ...]] = (
    _prune_deliveries,
    _prune_events,
    _prune_orders,
    _prune_gaps,
)

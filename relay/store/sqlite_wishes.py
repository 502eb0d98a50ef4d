"""What a person may ask of single deliveries in the SQLite store, and how deliveries end without an attempt."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from relay.model import DeadReason, DeliveryStatus
from relay.standing import has_expired
from relay.store.rows import END_STATES
from relay.store.sqlite_ingest import insert_replay
from relay.store.sqlite_queue import promote
from relay.store.sqlite_verbs import SQL, KnownTarget, Verbs, change_standing, read_standing
from relay.store.values import Change, Death, Expiry

_BLOCKED: Final = 1


class Wishes(Verbs):
    """Verbs that change deliveries without an attempt; none touches one that is in flight."""

    async def replay(self, target: str, webhook_ids: Sequence[str], now_ms: int) -> int:
        """Make a new delivery of these events at the tail of their lanes; returns how many will be sent.

        With `latest_only`, one of an event that is not its lane's newest ends `superseded` at once.
        """
        known = self._target(target)

        def work(connection: sqlite3.Connection) -> tuple[int, int]:
            made = [insert_replay(connection, known, one, now_ms) for one in webhook_ids]
            pending = made.count(DeliveryStatus.PENDING)
            known.open_count += pending
            return pending, made.count(DeliveryStatus.SUPERSEDED)

        def after(made: tuple[int, int]) -> None:
            self._note_superseded({target: made[1]})
            self._wake({target})

        return (await self._run(work, after))[0]

    async def retry_now(self, delivery_id: int, now_ms: int) -> Change:
        """Make a waiting delivery due now, ahead of all others, past the breaker; a `Retry-After` is kept to."""

        def ask(connection: sqlite3.Connection, target: KnownTarget, _lane: str, state: int) -> Change:
            standing = read_standing(connection, target)
            if standing.stopped:
                return Change.STOPPED
            if state == _BLOCKED:
                return Change.BLOCKED
            connection.execute(SQL["ask"], (delivery_id,))
            change_standing(connection, target, standing, standing.asked(now_ms), now_ms)
            return Change.DONE

        return await self._change_waiting(delivery_id, ask)

    async def cancel(self, delivery_id: int, now_ms: int) -> Change:
        """End a waiting delivery because a person says so, and promote the next of its lane."""

        def end(connection: sqlite3.Connection, target: KnownTarget, lane: str, _state: int) -> Change:
            _end_unsent(connection, target, [(delivery_id, lane)], DeliveryStatus.CANCELLED, None, now_ms)
            return Change.DONE

        return await self._change_waiting(delivery_id, end)

    async def forget(self, target: str, limit: int, now_ms: int) -> int:
        """Cancel up to `limit` deliveries of an orphaned target; returns how many (0: nothing is left)."""
        known = self._target(target)

        def work(connection: sqlite3.Connection) -> int:
            if known.configured:
                return 0
            rows = _oldest(connection, known, 0, limit + len(known.claimed))
            ends = [(row[0], row[1]) for row in rows if row[0] not in known.claimed][:limit]
            return _end_unsent(connection, known, ends, DeliveryStatus.CANCELLED, None, now_ms)

        return await self._run(work)

    async def expire(self, target: str, made_before_ms: int, after: int, limit: int, now_ms: int) -> Expiry:
        """End deliveries among the `limit` oldest open ones after id `after` that `has_expired` says have expired."""
        known = self._target(target)

        def work(connection: sqlite3.Connection) -> tuple[Expiry, list[Death]]:
            standing = read_standing(connection, known)
            if standing.stopped or standing.resumed_ms >= made_before_ms:
                return Expiry(0, 0), []
            rows = _oldest(connection, known, after, limit)
            ends = [
                (delivery_id, lane)
                for delivery_id, lane, created_ms, attempts_made in rows
                if delivery_id not in known.claimed and has_expired(created_ms, attempts_made, standing, made_before_ms)
            ]
            deaths = _end_dead(connection, known, ends, DeadReason.EXPIRED, now_ms)
            return Expiry(len(deaths), rows[-1][0] if len(rows) == limit else 0), deaths

        def tell(done: tuple[Expiry, list[Death]]) -> None:
            self._tell_ended(target, done[1])

        return (await self._run(work, tell))[0]

    async def expire_notices(self, target: str, made_before_ms: int, limit: int, now_ms: int) -> int:
        """End up to `limit` of a target's notices made before that moment, tried or not; returns how many."""
        known = self._target(target)

        def work(connection: sqlite3.Connection) -> list[Death]:
            if not known.configured:
                return []
            bound = {"target": known.id, "made_before": made_before_ms, "limit": limit + len(known.claimed)}
            rows = connection.execute(SQL["old_notices"], bound).fetchall()
            ends = [row for row in rows if row[0] not in known.claimed][:limit]
            return _end_dead(connection, known, ends, DeadReason.EXPIRED, now_ms)

        return len(await self._run_ending(target, work))

    async def trim(self, target: str, keep: int, limit: int, now_ms: int) -> int:
        """End up to `limit` of the oldest deliveries beyond the newest `keep` (`overflow`), none that is in flight."""
        known = self._target(target)

        def work(connection: sqlite3.Connection) -> list[Death]:
            excess = known.open_count - keep
            if excess <= 0:
                return []
            rows = _oldest(connection, known, 0, min(excess, limit + len(known.claimed)))
            ends = [(row[0], row[1]) for row in rows if row[0] not in known.claimed][:limit]
            return _end_dead(connection, known, ends, DeadReason.OVERFLOW, now_ms)

        return len(await self._run_ending(target, work))

    async def _run_ending(self, target: str, work: Callable[[sqlite3.Connection], list[Death]]) -> list[Death]:
        return await self._run(work, lambda deaths: self._tell_ended(target, deaths))

    def _tell_ended(self, target: str, deaths: Sequence[Death]) -> None:
        self._note_dead(deaths)
        if deaths:
            self._wake({target})

    async def _change_waiting(
        self, delivery_id: int, change: Callable[[sqlite3.Connection, KnownTarget, str, int], Change]
    ) -> Change:
        """Apply a change to a delivery that waits; says so if it does not. Wakes its target."""

        def work(connection: sqlite3.Connection) -> tuple[Change, str]:
            row = connection.execute(SQL["delivery_state"], (delivery_id,)).fetchone()
            if row is None:
                return Change.UNKNOWN, ""
            name, lane, state = row
            target = self._target(name)
            if state > _BLOCKED:
                return Change.FINISHED, name
            if delivery_id in target.claimed:
                return Change.IN_FLIGHT, name
            return change(connection, target, lane, state), name

        def wake(done: tuple[Change, str]) -> None:
            if done[0] is Change.DONE:
                self._wake({done[1]})

        return (await self._run(work, wake))[0]


def _oldest(
    connection: sqlite3.Connection, target: KnownTarget, after: int, limit: int
) -> list[tuple[int, str, int, int]]:
    """Open deliveries in the order of their making: id, lane, made when, attempts."""
    bound = {"target": target.id, "after": after, "limit": limit}
    return connection.execute(SQL["oldest_deliveries"], bound).fetchall()


def _end_dead(
    connection: sqlite3.Connection,
    target: KnownTarget,
    ends: Sequence[tuple[int, str]],
    reason: DeadReason,
    now_ms: int,
) -> list[Death]:
    """End open deliveries (id, lane) of one target as dead; says which they were."""
    if not ends:
        return []
    _end_unsent(connection, target, ends, DeliveryStatus.DEAD, reason, now_ms)
    ids = json.dumps([delivery_id for delivery_id, _ in ends])
    return [
        Death(target.name, webhook_id, kind, reason) for webhook_id, kind in connection.execute(SQL["said_of"], (ids,))
    ]


def _end_unsent(
    connection: sqlite3.Connection,
    target: KnownTarget,
    ends: Sequence[tuple[int, str]],
    status: DeliveryStatus,
    reason: DeadReason | None,
    now_ms: int,
) -> int:
    """End open deliveries (id, lane) of one target; promotes in their lanes and returns how many they were."""
    if not ends:
        return 0
    ids = json.dumps([delivery_id for delivery_id, _ in ends])
    bound = {"ids": ids, "state": END_STATES[status], "reason": reason and reason.value, "now": now_ms}
    ended = connection.execute(SQL["end_unsent"], bound).rowcount
    promote(connection, {(target.id, lane) for _, lane in ends}, now_ms)
    target.open_count -= ended
    return ended

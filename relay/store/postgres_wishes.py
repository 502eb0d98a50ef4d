"""What a person may ask of single deliveries in the PostgreSQL store, and how deliveries end without an attempt."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

from relay.model import DeadReason, DeliveryStatus
from relay.standing import has_expired
from relay.store.postgres_ingest import insert_replays
from relay.store.postgres_link import Session
from relay.store.postgres_verbs import (
    Counter,
    KnownTarget,
    Verbs,
    change_standing,
    count_open,
    known_target,
    lock_lanes,
    lock_target,
    promote,
)
from relay.store.rows import END_STATES
from relay.store.values import Change, Death, Expiry

_BLOCKED: Final = 1
_SLACK: Final = 1_000
"""More than other instances hold of one target at a time."""


class Wishes(Verbs):
    """Verbs that change deliveries without an attempt; none touches one that is in flight anywhere."""

    async def replay(self, target: str, webhook_ids: Sequence[str], now_ms: int) -> int:
        """Make a new delivery of these events at the tail of their lanes; returns how many will be sent.

        With `latest_only`, one of an event that is not its lane's newest ends `superseded` at once.
        """

        async def work(session: Session) -> list[DeliveryStatus]:
            return await insert_replays(session, await known_target(session, target), webhook_ids, now_ms)

        def after(made: list[DeliveryStatus]) -> None:
            self._note_superseded({target: made.count(DeliveryStatus.SUPERSEDED)})
            self._wake({target}, everywhere=True)

        made = await self._run(work, after)
        return made.count(DeliveryStatus.PENDING)

    async def retry_now(self, delivery_id: int, now_ms: int) -> Change:
        """Make a waiting delivery due now, ahead of all others, past the breaker; a `Retry-After` is kept to."""

        async def ask(session: Session, target: KnownTarget, _lane: str, state: int) -> Change:
            if target.standing.stopped:
                return Change.STOPPED
            if state == _BLOCKED:
                return Change.BLOCKED
            await session.run("ask", {"id": delivery_id})
            await change_standing(session, target, target.standing, target.standing.asked(now_ms), now_ms)
            return Change.DONE

        return await self._change_waiting(delivery_id, ask)

    async def cancel(self, delivery_id: int, now_ms: int) -> Change:
        """End a waiting delivery because a person says so, and promote the next of its lane."""

        async def end(session: Session, target: KnownTarget, lane: str, _state: int) -> Change:
            await _end_unsent(session, target, [(delivery_id, lane)], DeliveryStatus.CANCELLED, None, now_ms)
            return Change.DONE

        return await self._change_waiting(delivery_id, end)

    async def forget(self, target: str, limit: int, now_ms: int) -> int:
        """Cancel up to `limit` deliveries of an orphaned target; returns how many (0: nothing is left)."""

        async def work(session: Session) -> int:
            known = await lock_target(session, target)
            if known.standing.configured:
                return 0
            bound = {"target": known.id, "most": limit + len(self._held) + _SLACK, "limit": limit}
            ends = [(row[0], row[1]) for row in await session.rows("oldest_unclaimed", bound)]
            return len(await _end_unsent(session, known, ends, DeliveryStatus.CANCELLED, None, now_ms))

        return await self._run(work)

    async def expire(self, target: str, made_before_ms: int, after: int, limit: int, now_ms: int) -> Expiry:
        """End deliveries among the `limit` oldest open ones after id `after` that `has_expired` says have expired."""

        async def work(session: Session) -> tuple[Expiry, list[Death]]:
            known = await lock_target(session, target)
            standing = known.standing
            if standing.stopped or standing.resumed_ms >= made_before_ms:
                return Expiry(0, 0), []
            bound = {"target": known.id, "after": after, "limit": limit}
            rows = await session.rows("oldest_deliveries", bound)
            ends = [
                (delivery_id, lane)
                for delivery_id, lane, created_ms, attempts_made, leased in rows
                if not leased and has_expired(created_ms, attempts_made, standing, made_before_ms)
            ]
            deaths = await _end_dead(session, known, ends, DeadReason.EXPIRED, now_ms)
            return Expiry(len(deaths), rows[-1][0] if len(rows) == limit else 0), deaths

        return (await self._run(work, lambda done: self._tell_ended(target, done[1])))[0]

    async def expire_notices(self, target: str, made_before_ms: int, limit: int, now_ms: int) -> int:
        """End up to `limit` of a target's notices made before that moment, tried or not; returns how many."""

        async def work(session: Session) -> list[Death]:
            known = await lock_target(session, target)
            if not known.standing.configured:
                return []
            bound = {"target": known.id, "made_before": made_before_ms, "limit": limit}
            ends = [(row[0], row[1]) for row in await session.rows("old_notices", bound)]
            return await _end_dead(session, known, ends, DeadReason.EXPIRED, now_ms)

        deaths = await self._run(work, lambda deaths: self._tell_ended(target, deaths))
        return len(deaths)

    async def trim(self, target: str, keep: int, limit: int, now_ms: int) -> int:
        """End up to `limit` of the oldest deliveries beyond the newest `keep` (`overflow`), none that is in flight."""

        async def work(session: Session) -> list[Death]:
            known = await lock_target(session, target)
            excess = int(await session.value("count_open", {"target": known.id})) - keep
            if excess <= 0:
                return []
            bound = {"target": known.id, "most": excess, "limit": limit}
            ends = [(row[0], row[1]) for row in await session.rows("oldest_unclaimed", bound)]
            return await _end_dead(session, known, ends, DeadReason.OVERFLOW, now_ms)

        deaths = await self._run(work, lambda deaths: self._tell_ended(target, deaths))
        return len(deaths)

    def _tell_ended(self, target: str, deaths: Sequence[Death]) -> None:
        self._note_dead(deaths)
        if deaths:
            self._wake({target})

    async def _change_waiting(
        self, delivery_id: int, change: Callable[[Session, KnownTarget, str, int], Awaitable[Change]]
    ) -> Change:
        """Apply a change to a delivery that waits; says so if it does not. Wakes its target."""

        async def work(session: Session) -> tuple[Change, str]:
            found = await session.row("delivery_target", {"id": delivery_id})
            if found is None:
                return Change.UNKNOWN, ""
            target = await lock_target(session, found[0])
            await lock_lanes(session, [found[1]])
            row = await session.row("delivery_state", {"id": delivery_id})
            if row is None:
                return Change.UNKNOWN, ""
            lane, state, leased = row
            if state > _BLOCKED:
                return Change.FINISHED, target.name
            if leased:
                return Change.IN_FLIGHT, target.name
            return await change(session, target, lane, state), target.name

        def wake(done: tuple[Change, str]) -> None:
            if done[0] is Change.DONE:
                self._wake({done[1]}, everywhere=True)

        return (await self._run(work, wake))[0]


async def _end_dead(
    session: Session, target: KnownTarget, ends: Collection[tuple[int, str]], reason: DeadReason, now_ms: int
) -> list[Death]:
    """End open deliveries (id, lane) of one target as dead; says which they were."""
    ended = await _end_unsent(session, target, ends, DeliveryStatus.DEAD, reason, now_ms)
    if not ended:
        return []
    rows = await session.rows("said_of", {"ids": ended})
    return [Death(target.name, webhook_id, kind, reason) for webhook_id, kind in rows]


async def _end_unsent(
    session: Session,
    target: KnownTarget,
    ends: Collection[tuple[int, str]],
    status: DeliveryStatus,
    reason: DeadReason | None,
    now_ms: int,
) -> list[int]:
    """End open deliveries (id, lane) of a locked target, unless claimed just now; promotes and returns which."""
    if not ends:
        return []
    await lock_lanes(session, (lane for _, lane in ends))
    bound = {"ids": [delivery_id for delivery_id, _ in ends], "state": END_STATES[status], "now": now_ms}
    rows = await session.rows("end_unsent", bound | {"reason": reason and reason.value})
    await promote(session, {(target.id, row[1]) for row in rows}, now_ms)
    await count_open(session, Counter.ENDING, {target.id: -len(rows)})
    return [row[0] for row in rows]

"""The queue of the SQLite store: claims, which live in memory, and outcomes."""

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from relay.model import DeadReason, Delivery, DeliveryStatus
from relay.standing import Breaker, Permit, Permits, Standing, suspends_schedule
from relay.store.rows import END_STATES, attempt_to_row, delivery_from_row
from relay.store.sqlite_verbs import SQL, KnownTarget, Verbs, bring_forward, change_standing, promote, read_standing
from relay.store.values import Claim, Death, Judge, Settlement


@dataclass(slots=True)
class _Group:
    """What one target's outcomes came to; `standing` is None when none was judged."""

    ended: int = 0
    standing: Standing | None = None
    deaths: list[Death] = field(default_factory=list)


class Queue(Verbs):
    """The verbs that every delivery passes through."""

    async def claim(self, target: str, permits: Permits, now_ms: int) -> Claim:
        """Take due lane heads of a target for an attempt each, as many as its standing permits.

        They stay claimed until settled or released; a caller that is cancelled meanwhile holds none.
        """
        known = self._target(target)
        taken: list[Delivery] = []
        abandoned = False

        def work(connection: sqlite3.Connection) -> Claim:
            standing = read_standing(connection, known)
            claim = _take(connection, known, standing, permits(standing), now_ms)
            known.claimed.update(one.id for one in claim.deliveries)
            return claim

        def after(claim: Claim) -> None:
            taken.extend(claim.deliveries)
            if abandoned:
                self._give_back(taken)

        try:
            # A slot stands still meanwhile, so this waits for nobody's commit. It changes nothing in the file.
            return await self._run(work, after, reads=True)
        except asyncio.CancelledError:
            # Cancelled before the commit or after it: nobody will ever settle what was taken.
            abandoned = True
            self._give_back(taken)
            raise

    async def settle(self, settlements: Sequence[Settlement], judge: Judge, now_ms: int) -> Mapping[str, Standing]:
        """Write outcomes and what they mean for their targets, promote lanes' next deliveries, give claims back.

        A failure is ignored if its delivery has ended meanwhile. A success is not: the receiver has the event,
        so the delivery becomes `delivered` even if it was cancelled or given up. What fails at a target whose
        breaker was open before is due at once: the probes alone decide when it is tried.
        """
        by_target: dict[str, list[Settlement]] = {}
        for one in settlements:
            by_target.setdefault(one.delivery.target, []).append(one)

        def work(connection: sqlite3.Connection) -> dict[str, _Group]:
            written = {
                name: _settle_target(connection, self._target(name), group, judge, now_ms)
                for name, group in by_target.items()
            }
            for name, group in written.items():
                self._targets[name].open_count -= group.ended
            return written

        def after(written: Mapping[str, _Group]) -> None:
            self._give_back([one.delivery for one in settlements])
            self._note_dead([one for group in written.values() for one in group.deaths])
            self._wake(by_target.keys())

        written = await self._run(work, after)
        return {name: group.standing for name, group in written.items() if group.standing is not None}

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give claims back without an outcome."""
        self._give_back(deliveries)

    async def shift_due(self, target: str, by_ms: int, after_ms: int) -> None:
        """The wall clock was set back: move what waits for a time after `after_ms` along with it.

        That is lane heads, the target's next probe and the end of its throttling.
        """
        bound = {"target": self._target(target).id, "by_ms": by_ms, "after_ms": after_ms}

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["shift_due"], bound)
            connection.execute(SQL["shift_standing"], bound)

        await self._run(work)

    async def clamp_due(self, target: str, latest_ms: int) -> None:
        """Nothing may be due, probed or throttled later than this."""
        bound = {"target": self._target(target).id, "latest_ms": latest_ms}

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["clamp_due"], bound)
            connection.execute(SQL["clamp_standing"], bound)

        await self._run(work)

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            known = self._targets.get(delivery.target)
            if known is not None:
                known.claimed.discard(delivery.id)


def _take(
    connection: sqlite3.Connection, target: KnownTarget, standing: Standing, permit: Permit, now_ms: int
) -> Claim:
    """What may be claimed now; ids first, so that no body is read of what is under way already."""
    if permit.limit < 1:
        return Claim((), permit.look_again_ms, standing)
    claimed = frozenset(target.claimed)
    bound = {"target": target.id, "now": now_ms, "limit": permit.limit + len(claimed)}
    heads = connection.execute(SQL["any_heads" if permit.probe else "due_heads"], bound)
    ids = [row[0] for row in heads if row[0] not in claimed][: permit.limit]
    rows = connection.execute(SQL["claimed"], {"ids": json.dumps(ids)}) if ids else ()
    deliveries = tuple(delivery_from_row(row, target.name, probe=permit.probe) for row in rows)
    if permit.probe:
        # With nothing to probe with, only a new delivery, which wakes, can change that.
        return Claim(deliveries, permit.look_again_ms if deliveries else None, standing)
    moments = (permit.look_again_ms, connection.execute(SQL["next_due"], bound).fetchone()[0])
    return Claim(deliveries, min((one for one in moments if one is not None), default=None), standing)


def _settle_target(
    connection: sqlite3.Connection, target: KnownTarget, settlements: Sequence[Settlement], judge: Judge, now_ms: int
) -> _Group:
    """Write one target's outcomes."""
    before: Standing | None = None
    standing: Standing | None = None
    written, suspended, at_once = _Group(), False, []
    attempts: list[Mapping[str, Any]] = []
    lanes: set[str] = set()
    for one in settlements:
        open_before = _write_outcome(connection, one, now_ms, attempts, lanes)
        if open_before is None:
            continue
        if standing is None:
            before = standing = read_standing(connection, target)
        judged = judge(standing, one)
        suspended = suspended or suspends_schedule(standing, judged)
        if one.status is not DeliveryStatus.PENDING:
            written.ended += open_before
            written.deaths += _death(one)
        elif standing.breaker is Breaker.OPEN and judged.breaker is Breaker.OPEN:
            at_once.append(one.delivery.id)
        standing = judged
    connection.executemany(SQL["insert_attempt"], attempts)
    if lanes:
        promote(connection, target, lanes, now_ms)
    if before is None or standing is None:
        return written
    for delivery_id in at_once:
        connection.execute(SQL["due_at_once"], {"id": delivery_id, "now": now_ms})
    change_standing(connection, target, before, standing, now_ms)
    if suspended:
        # Even if the group as a whole left the breaker as it found it.
        bring_forward(connection, target, now_ms)
    written.standing = standing
    return written


def _death(one: Settlement) -> tuple[Death, ...]:
    """The delivery's death, if it died of this."""
    if one.status is not DeliveryStatus.DEAD:
        return ()
    event = one.delivery.event
    return (Death(one.delivery.target, event.webhook_id, event.type, one.reason or DeadReason.EXHAUSTED),)


def _write_outcome(
    connection: sqlite3.Connection, one: Settlement, now_ms: int, attempts: list[Mapping[str, Any]], lanes: set[str]
) -> bool | None:
    """Write one outcome; None if it is ignored, else whether the delivery was open until now.

    Its attempt's row, and the lane whose head has ended, are added to those that the group writes at its end.
    """
    attempt = one.attempt
    bound = {
        "id": one.delivery.id,
        "now": now_ms,
        "at_ms": attempt.at_ms,
        "outcome": attempt.outcome.value,
        "status_code": attempt.status_code,
        "step": int(one.uses_step),
    }
    was_open = True
    if one.status is DeliveryStatus.PENDING:
        bound["due_ms"] = now_ms if one.due_ms is None else one.due_ms
        rows = connection.execute(SQL["postpone"], bound).fetchall()
    else:
        bound |= {"state": END_STATES[one.status], "reason": one.reason and one.reason.value}
        rows = connection.execute(SQL["finish"], bound).fetchall()
        if not rows and one.status is DeliveryStatus.DELIVERED:
            was_open = False
            rows = connection.execute(SQL["acknowledge_late"], bound).fetchall()
    if not rows:
        return None
    lane, number = rows[0]
    attempts.append(attempt_to_row(one, number))
    if one.status is not DeliveryStatus.PENDING:
        lanes.add(lane)
    return was_open

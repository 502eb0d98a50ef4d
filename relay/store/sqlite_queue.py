"""The queue of the SQLite store: claims, which live in memory, and outcomes."""

import asyncio
import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence

from relay.model import Delivery
from relay.standing import Permit, Permits, Standing
from relay.store.outcomes import Accepted, Group, judge_in_turn, rounds
from relay.store.rows import delivery_from_row
from relay.store.sqlite_rows import write_rows
from relay.store.sqlite_verbs import SQL, KnownTarget, Verbs, bring_forward, change_standing, read_standing
from relay.store.values import Claim, Judge, Settlement


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
        targets = {one.delivery.target: self._target(one.delivery.target) for one in settlements}

        def work(connection: sqlite3.Connection) -> dict[str, Group]:
            accepted = _write_outcomes(connection, targets, settlements, now_ms)
            names = {settlements[place].delivery.target for place in accepted.places}
            standings = {name: read_standing(connection, targets[name]) for name in names}
            groups = judge_in_turn(standings, settlements, accepted, judge)
            for name, group in groups.items():
                _write_group(connection, targets[name], group, now_ms)
            for name, group in groups.items():
                targets[name].open_count -= group.ended
            return groups

        def after(groups: Mapping[str, Group]) -> None:
            self._give_back([one.delivery for one in settlements])
            self._note_dead([one for group in groups.values() for one in group.deaths])
            self._wake(targets.keys())

        groups = await self._run(work, after)
        return {name: group.standing for name, group in groups.items()}

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
    claimed = json.dumps(list(target.claimed))
    bound = {"target": target.id, "now": now_ms, "limit": permit.limit, "claimed": claimed}
    ids = [row[0] for row in connection.execute(SQL["any_heads" if permit.probe else "due_heads"], bound)]
    rows = connection.execute(SQL["claimed"], {"ids": json.dumps(ids)}) if ids else ()
    deliveries = tuple(delivery_from_row(row, target.name, probe=permit.probe) for row in rows)
    if permit.probe:
        # With nothing to probe with, only a new delivery, which wakes, can change that.
        return Claim(deliveries, permit.look_again_ms if deliveries else None, standing)
    moments = (permit.look_again_ms, connection.execute(SQL["next_due"], bound).fetchone()[0])
    return Claim(deliveries, min((one for one in moments if one is not None), default=None), standing)


def _write_outcomes(
    connection: sqlite3.Connection, targets: Mapping[str, KnownTarget], settlements: Sequence[Settlement], now_ms: int
) -> Accepted:
    """Write what is not to be ignored; nothing of it is judged yet."""
    accepted = Accepted()
    for group in rounds(settlements, now_ms):
        postponed = write_rows(connection, "postpone", group.waiting)
        finished = write_rows(connection, "finish", group.ended, now=now_ms)
        acknowledged = write_rows(connection, "acknowledge_late", group.late(finished), now=now_ms)
        write_rows(connection, "insert_attempts", group.accept(accepted, postponed, finished, acknowledged))
    promote(connection, {(targets[name].id, lane) for name, lane in accepted.lanes}, now_ms)
    return accepted


def _write_group(connection: sqlite3.Connection, target: KnownTarget, group: Group, now_ms: int) -> None:
    if group.at_once:
        connection.execute(SQL["due_at_once"], {"ids": json.dumps(group.at_once), "now": now_ms})
    change_standing(connection, target, group.before, group.standing, now_ms)
    if group.suspended:
        bring_forward(connection, target, now_ms)


def promote(connection: sqlite3.Connection, lanes: Collection[tuple[int, str]], now_ms: int) -> None:
    """Make the oldest unfinished delivery of each lane (target's id, lane) its head."""
    rows = [{"target": target, "lane": lane} for target, lane in lanes]
    write_rows(connection, "promote", rows, now=now_ms)

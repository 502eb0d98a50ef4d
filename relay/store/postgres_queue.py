"""The queue of the PostgreSQL store: claims, which are leases, and outcomes.

A claim takes no lock but of the heads it gets, and skips those that somebody has; whatever else writes to heads
holds their target's row. A lease ends by the database's clock. What comes of a claim that was lost meanwhile is
ignored, but for success: the receiver has the event.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec.structs import replace

from relay.model import DeadReason, Delivery, DeliveryStatus
from relay.standing import Breaker, Permit, Permits, Standing, suspends_schedule
from relay.store.postgres_link import Row, Session
from relay.store.postgres_sql import columns
from relay.store.postgres_verbs import (
    Counter,
    KnownTarget,
    Verbs,
    bring_forward,
    change_standing,
    count_open,
    find_target,
    lock_lanes,
    lock_target,
    lock_targets,
    promote,
)
from relay.store.rows import END_STATES, attempt_to_row, delivery_from_row
from relay.store.values import Claim, Death, Judge, Settlement

_DELIVERED: Final = END_STATES[DeliveryStatus.DELIVERED]


@dataclass(slots=True)
class _Written:
    """What became of a group of settlements.

    Attributes:
        accepted: places in the group of those that were not ignored.
        late: places of those whose delivery had ended before.
        lanes: (target's id, lane) of those that ended.
    """

    accepted: set[int] = field(default_factory=set)
    late: set[int] = field(default_factory=set)
    lanes: set[tuple[int, str]] = field(default_factory=set)


@dataclass(slots=True)
class _Group:
    """What one target's outcomes came to."""

    standing: Standing
    suspended: bool = False
    ended: int = 0
    at_once: list[int] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)


class Queue(Verbs):
    """The verbs that every delivery passes through."""

    async def claim(self, target: str, permits: Permits, now_ms: int) -> Claim:
        """Take due lane heads of a target for an attempt each, as many as its standing permits.

        They stay claimed until settled, released, or their lease ends; a caller that is cancelled holds none. While
        one instance probes, others get no permit to. A target that the leader's configuration does not have yet is
        as one that it has no longer.
        """
        if self._returning:  # whoever asks after a cancelled claim finds what that took
            await asyncio.wait(self._returning)

        async def work(session: Session) -> Claim:
            known = await find_target(session, target)
            standing = Standing(configured=False) if known is None else known.standing
            permit = permits(standing)
            if known is None or permit.limit < 1:
                return Claim((), permit.look_again_ms, standing)
            if permit.probe:
                return await self._take_probe(session, target, permits, now_ms)
            return await self._take(session, known, permit, now_ms)

        def after(claim: Claim) -> None:
            self._held.update((one.id, one) for one in claim.deliveries)

        claiming = self._background(self._run(work, after))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # Cancelled before the commit or after it: nobody will ever settle what was taken.
            returning = self._background(self._give_back(claiming))
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
            raise

    async def settle(self, settlements: Sequence[Settlement], judge: Judge, now_ms: int) -> Mapping[str, Standing]:
        """Write outcomes and what they mean for their targets, promote lanes' next deliveries, give claims back."""
        names = {one.delivery.target for one in settlements}

        async def work(session: Session) -> tuple[dict[str, Standing], list[Death]]:
            targets = await lock_targets(session, names)
            await lock_lanes(session, (one.delivery.event.lane for one in settlements))
            written = await _write_outcomes(session, targets, settlements, now_ms)
            groups = _judge(targets, settlements, written, judge)
            for name, group in groups.items():
                await _write_group(session, targets[name], group, now_ms)
            probed = {one.delivery.target for one in settlements if one.delivery.probe}
            for name in sorted(probed):
                await session.run("give_probe_back", {"target": targets[name].id, "holder": self._id})
            await count_open(
                session, Counter.ENDING, {targets[name].id: -group.ended for name, group in groups.items()}
            )
            return (
                {name: group.standing for name, group in groups.items()},
                [one for group in groups.values() for one in group.deaths],
            )

        def after(done: tuple[dict[str, Standing], list[Death]]) -> None:
            self._drop([one.delivery for one in settlements])
            self._note_dead(done[1])
            self._wake(names)

        return (await self._run(work, after))[0]

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give claims back without an outcome."""
        if not deliveries:
            return

        async def work(session: Session) -> None:
            targets = await lock_targets(session, {one.target for one in deliveries})
            claims = [{"id": one.id, "claim": one.claim} for one in deliveries]
            await session.run("release", columns(claims))
            for name in sorted({one.target for one in deliveries if one.probe}):
                await session.run("give_probe_back", {"target": targets[name].id, "holder": self._id})

        await self._run(work, lambda _none: self._drop(deliveries))

    async def shift_due(self, target: str, by_ms: int, after_ms: int) -> None:
        """The shared clock was set back: move what waits for a time after `after_ms` along with it."""

        async def work(session: Session) -> None:
            bound = {"target": (await lock_target(session, target)).id, "by_ms": by_ms, "after_ms": after_ms}
            await session.run("shift_due", bound)
            await session.run("shift_standing", bound)

        await self._run(work)

    async def clamp_due(self, target: str, latest_ms: int) -> None:
        """Nothing may be due, probed or throttled later than this."""

        async def work(session: Session) -> None:
            bound = {"target": (await lock_target(session, target)).id, "latest_ms": latest_ms}
            await session.run("clamp_due", bound)
            await session.run("clamp_standing", bound)

        await self._run(work)

    async def _take(self, session: Session, target: KnownTarget, permit: Permit, now_ms: int) -> Claim:
        bound = {"target": target.id, "now": now_ms, "limit": permit.limit, "lease": self._lease(target.name)}
        rows = await session.rows("claim_due", bound)
        moments = [permit.look_again_ms, await session.value("next_due", bound)]
        if len(rows) < permit.limit:  # whatever else is due is leased, and may come back
            left_ms = await session.value("next_lease_end", bound | {"held": list(self._held)})
            moments.append(None if left_ms is None else now_ms + max(left_ms, 0))
        deliveries = _deliveries(rows, target.name, probe=False)
        return Claim(deliveries, min((one for one in moments if one is not None), default=None), target.standing)

    async def _take_probe(self, session: Session, name: str, permits: Permits, now_ms: int) -> Claim:
        """Probe, unless another instance does; asked anew once the target is locked, for it may just have done so."""
        target = await lock_target(session, name)
        permit = permits(target.standing)
        if permit.limit < 1:
            return Claim((), permit.look_again_ms, target.standing)
        if not permit.probe:
            return await self._take(session, target, permit, now_ms)
        lease = self._lease(name)
        bound = {"target": target.id, "limit": permit.limit, "lease": lease, "holder": self._id}
        if not await session.run("take_probe", bound):
            left_ms = await session.value("probe_ends", bound)
            return Claim((), now_ms + max(left_ms or 0, 0), target.standing)
        deliveries = _deliveries(await session.rows("claim_any", bound), name, probe=True)
        if not deliveries:
            await session.run("give_probe_back", bound)
        # With nothing to probe with, only a new delivery, which wakes, can change that.
        return Claim(deliveries, permit.look_again_ms if deliveries else None, target.standing)

    async def _give_back(self, claiming: "asyncio.Task[Claim]") -> None:
        (claim,) = await asyncio.gather(claiming, return_exceptions=True)
        if isinstance(claim, Claim):
            await self.release(claim.deliveries)

    def _drop(self, deliveries: Sequence[Delivery]) -> None:
        for one in deliveries:
            if one.id in self._held and self._held[one.id].claim == one.claim:
                del self._held[one.id]


def _deliveries(rows: Sequence[Row], target: str, *, probe: bool) -> tuple[Delivery, ...]:
    return tuple(replace(delivery_from_row(row[1:], target, probe=probe), claim=row[0]) for row in rows)


async def _write_outcomes(
    session: Session, targets: Mapping[str, KnownTarget], settlements: Sequence[Settlement], now_ms: int
) -> _Written:
    """Write what is not to be ignored; nothing of it is judged yet."""
    written = _Written()
    for group in _rounds(settlements):
        waiting = [_outcome(one, now_ms) for _, one in group.values() if one.status is DeliveryStatus.PENDING]
        ended = [_outcome(one, now_ms) for _, one in group.values() if one.status is not DeliveryStatus.PENDING]
        postponed = await session.rows("postpone", columns(waiting)) if waiting else []
        finished = await session.rows("finish", columns(ended) | {"now": now_ms}) if ended else []
        open_before = {row[0] for row in finished}
        late = [one for one in ended if one["id"] not in open_before and one["state"] == _DELIVERED]
        acknowledged = await session.rows("acknowledge_late", columns(late) | {"now": now_ms}) if late else []
        accepted = [*postponed, *finished, *acknowledged]
        written.accepted |= {group[row[0]][0] for row in accepted}
        written.late |= {group[row[0]][0] for row in acknowledged}
        written.lanes |= {(targets[group[row[0]][1].delivery.target].id, row[1]) for row in [*finished, *acknowledged]}
        if accepted:
            attempts = [attempt_to_row(group[delivery_id][1], number) for delivery_id, _, number in accepted]
            await session.run("insert_attempts", columns(attempts))
    await promote(session, written.lanes, now_ms)
    return written


def _rounds(settlements: Iterable[Settlement]) -> list[dict[int, tuple[int, Settlement]]]:
    """Delivery -> place and settlement, no delivery twice in one of them: a statement writes a row once."""
    rounds: list[dict[int, tuple[int, Settlement]]] = []
    for place, one in enumerate(settlements):
        free = next((group for group in rounds if one.delivery.id not in group), None)
        if free is None:
            rounds.append(free := {})
        free[one.delivery.id] = place, one
    return rounds


def _outcome(one: Settlement, now_ms: int) -> dict[str, Any]:
    ends = one.status is not DeliveryStatus.PENDING
    return {
        "id": one.delivery.id,
        "claim": one.delivery.claim,
        "due_ms": now_ms if one.due_ms is None else one.due_ms,
        "state": END_STATES[one.status] if ends else 0,
        "reason": one.reason and one.reason.value,
        "step": int(one.uses_step),
        "at_ms": one.attempt.at_ms,
        "outcome": one.attempt.outcome.value,
        "status_code": one.attempt.status_code,
    }


def _judge(
    targets: Mapping[str, KnownTarget], settlements: Sequence[Settlement], written: _Written, judge: Judge
) -> dict[str, _Group]:
    """What the outcomes mean for their targets, each judged by what the one before it left."""
    groups: dict[str, _Group] = {}
    for place in sorted(written.accepted):
        one = settlements[place]
        name = one.delivery.target
        group = groups.setdefault(name, _Group(targets[name].standing))
        before, group.standing = group.standing, judge(group.standing, one)
        group.suspended = group.suspended or suspends_schedule(before, group.standing)
        if one.status is not DeliveryStatus.PENDING:
            group.ended += place not in written.late
            group.deaths += _death(one)
        elif before.breaker is Breaker.OPEN and group.standing.breaker is Breaker.OPEN:
            group.at_once.append(one.delivery.id)
    return groups


def _death(one: Settlement) -> tuple[Death, ...]:
    """The delivery's death, if it died of this."""
    if one.status is not DeliveryStatus.DEAD:
        return ()
    event = one.delivery.event
    return (Death(one.delivery.target, event.webhook_id, event.type, one.reason or DeadReason.EXHAUSTED),)


async def _write_group(session: Session, target: KnownTarget, group: _Group, now_ms: int) -> None:
    if group.at_once:
        await session.run("due_at_once", {"ids": group.at_once, "now": now_ms})
    await change_standing(session, target, target.standing, group.standing, now_ms)
    if group.suspended:
        # Even if the group as a whole left the breaker as it found it.
        await bring_forward(session, target, now_ms)

"""The queue of the PostgreSQL store: claims, which are leases, and outcomes.

A claim takes no lock but of the heads it gets, and skips those that somebody has; whatever else writes to heads
holds their target's row. A lease ends by the database's clock. What comes of a claim that was lost meanwhile is
ignored, but for success: the receiver has the event.
"""

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from relay.model import Delivery
from relay.standing import Permit, Permits, Standing
from relay.store.outcomes import Accepted, Group, judge_in_turn, rounds
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
from relay.store.rows import delivery_from_row
from relay.store.values import Claim, Death, Judge, Settlement


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
            accepted = await _write_outcomes(session, targets, settlements, now_ms)
            standings = {name: target.standing for name, target in targets.items()}
            groups = judge_in_turn(standings, settlements, accepted, judge)
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
) -> Accepted:
    """Write what is not to be ignored; nothing of it is judged yet."""
    accepted = Accepted()
    for group in rounds(settlements, now_ms):
        postponed = await session.rows("postpone", columns(group.waiting)) if group.waiting else []
        finished = await session.rows("finish", columns(group.ended) | {"now": now_ms}) if group.ended else []
        late = group.late(finished)
        acknowledged = await session.rows("acknowledge_late", columns(late) | {"now": now_ms}) if late else []
        if attempts := group.accept(accepted, postponed, finished, acknowledged):
            await session.run("insert_attempts", columns(attempts))
    await promote(session, {(targets[name].id, lane) for name, lane in accepted.lanes}, now_ms)
    return accepted


async def _write_group(session: Session, target: KnownTarget, group: Group, now_ms: int) -> None:
    if group.at_once:
        await session.run("due_at_once", {"ids": group.at_once, "now": now_ms})
    await change_standing(session, target, group.before, group.standing, now_ms)
    if group.suspended:
        await bring_forward(session, target, now_ms)

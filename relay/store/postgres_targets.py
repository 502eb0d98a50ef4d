"""Targets as a whole in the PostgreSQL store: which are configured, which may be sent to, what they wait for."""

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta

from msgspec.structs import replace

from relay.standing import Resume, Standing
from relay.store.postgres_link import Session
from relay.store.postgres_verbs import (
    KnownTarget,
    Verbs,
    bring_forward,
    change_standing,
    lock_target,
    ordering_of,
    target_from_row,
)
from relay.store.values import Backlog, TargetEntry


class TargetVerbs(Verbs):
    """The verbs about targets."""

    async def configure(self, targets: Collection[TargetEntry]) -> None:
        """Make these the configured targets, for every instance; the others' deliveries are kept as orphans.

        A target whose `reach` has changed, that is paused no longer, or that came back has all its lane heads due
        at once and, if its breaker is open, a probe. Another `ordering` holds for what is made from now on.
        While another instance leads, its configuration holds: then nothing is written.
        """
        now_ms = self._now_ms()

        async def work(session: Session) -> set[str]:
            if await session.row("leads_elsewhere", {"holder": self._holder()}) is not None:
                return set()
            for row in await session.rows("targets"):
                ordering_of(row[1], row[2])
            known = {row[0]: target_from_row(row) for row in await session.rows("lock_every_target")}
            entries = sorted(targets, key=lambda one: one.name)
            due = {one.name for one in entries if await _configure_one(session, known, one, now_ms)}
            for name in sorted(known.keys() - {one.name for one in entries}):
                left = known[name].standing
                await change_standing(session, known[name], left, replace(left, configured=False), now_ms)
            return due

        def after(due: set[str]) -> None:
            self._timeouts = {one.name: timedelta(milliseconds=one.timeout_ms) for one in targets}
            if due:
                self._wake(due, everywhere=True)

        await self._run(work, after)

    async def pause(self, target: str, now_ms: int) -> bool:
        """Keep deliveries without sending them, because a person says so; False when it is paused so already."""

        def paused(standing: Standing) -> Standing:
            return standing if standing.paused_ms is not None else replace(standing, paused_ms=now_ms)

        return (await self._change(target, paused, now_ms)).paused_ms is None

    async def resume(self, target: str, now_ms: int) -> Resume:
        """Let a target be sent to again that was parked, or paused by a person; probe an open breaker at once."""
        return (await self._change(target, lambda standing: standing.resumed(now_ms), now_ms)).resumable

    async def backlog(self) -> Mapping[str, Backlog]:
        """What every configured target, and every orphan that holds deliveries, still has to get.

        From counters and a few index look-ups each.
        """

        async def work(session: Session) -> dict[str, Backlog]:
            found = {}
            for *row, pending, oldest_ms, waiting_ms, oldest_order_ms in await session.rows("backlog"):
                target = target_from_row(row)
                if target.standing.configured or pending:
                    found[target.name] = Backlog(pending, oldest_ms, waiting_ms, target.standing, oldest_order_ms)
            return found

        return await self._run(work)

    async def _change(self, target: str, change: Callable[[Standing], Standing], now_ms: int) -> Standing:
        """Change a standing, wake its target if it is another one now, and return what it was before."""

        async def work(session: Session) -> tuple[Standing, Standing]:
            known = await lock_target(session, target)
            after = change(known.standing)
            await change_standing(session, known, known.standing, after, now_ms)
            return known.standing, after

        def wake(changed: tuple[Standing, Standing]) -> None:
            before, after = changed
            if after != before:
                self._wake({target}, everywhere=True)

        return (await self._run(work, wake))[0]


async def _configure_one(session: Session, known: Mapping[str, KnownTarget], entry: TargetEntry, now_ms: int) -> bool:
    """Write one entry; True if that made its lane heads due."""
    bound = {"name": entry.name, "ordering": entry.ordering.value, "reach": entry.reach}
    target = known.get(entry.name)
    if target is None:
        await session.run("add_target", bound | {"paused": int(entry.paused), "now": now_ms})
        return False
    before = target.standing
    moved = await session.run("move_target", bound | {"id": target.id}) > 0
    await session.run("order_target", bound | {"id": target.id})
    begins_anew = not before.configured or (before.paused_by_config and not entry.paused)
    after = replace(before, configured=True, paused_by_config=entry.paused)
    if begins_anew:
        after = replace(after, resumed_ms=now_ms)
    if moved or begins_anew:
        after = after.urged(now_ms)
        await bring_forward(session, target, now_ms)
    await change_standing(session, target, before, after, now_ms)
    return moved or begins_anew

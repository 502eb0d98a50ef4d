"""Targets as a whole in the SQLite store: which are configured, which may be sent to, what they wait for."""

import sqlite3
from collections.abc import Callable, Collection, Mapping

from msgspec.structs import replace

from relay.errors import StoreError
from relay.standing import Ordering, Resume, Standing
from relay.store.sqlite_verbs import SQL, KnownTarget, Verbs, bring_forward, change_standing, read_standing
from relay.store.values import Backlog, TargetEntry


class TargetVerbs(Verbs):
    """The verbs about targets."""

    async def configure(self, targets: Collection[TargetEntry]) -> None:
        """Make these the configured targets; the others' deliveries are kept and they become orphans.

        A target whose `reach` has changed, that is paused no longer, or that came back has all its lane heads due
        at once and, if its breaker is open, a probe. Another `ordering` holds for what is made from now on.
        """
        now_ms = self._now_ms()

        def work(connection: sqlite3.Connection) -> set[str]:
            known = _read_targets(connection, self._targets)
            due = {one.name for one in targets if _configure_one(connection, known, one, now_ms)}
            names = {one.name for one in targets}
            for left in [one for name, one in known.items() if name not in names]:
                standing = read_standing(connection, left)
                change_standing(connection, left, standing, replace(standing, configured=False), now_ms)
            self._targets = _read_targets(connection, known)
            return due

        def after(due: set[str]) -> None:
            if due:
                self._wake(due)

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

        def work(connection: sqlite3.Connection) -> Mapping[str, Backlog]:
            return {
                name: _backlog_of(connection, known)
                for name, known in self._targets.items()
                if known.configured or known.open_count
            }

        return await self._run(work)

    async def _change(self, target: str, change: Callable[[Standing], Standing], now_ms: int) -> Standing:
        """Change a standing, wake its target if it is another one now, and return what it was before."""
        known = self._target(target)

        def work(connection: sqlite3.Connection) -> tuple[Standing, Standing]:
            before = read_standing(connection, known)
            after = change(before)
            change_standing(connection, known, before, after, now_ms)
            return before, after

        def wake(changed: tuple[Standing, Standing]) -> None:
            before, after = changed
            if after != before:
                self._wake({target})

        return (await self._run(work, wake))[0]


def _read_targets(connection: sqlite3.Connection, before: Mapping[str, KnownTarget]) -> dict[str, KnownTarget]:
    """Every target of the file, those known before as the same object, for requests that wait hold it."""
    rows = connection.execute(SQL["targets"]).fetchall()
    for _, name, ordering, _ in rows:
        if ordering not in set(Ordering):
            raise StoreError(f"what the store holds about target {name} cannot be understood: ordering is {ordering!r}")
    found = {}
    for target_id, name, ordering, configured in rows:
        known = before.get(name)
        if known is None:
            open_count = connection.execute(SQL["count_open"], (target_id,)).fetchone()[0]
            known = KnownTarget(target_id, name, Ordering(ordering), bool(configured), open_count)
        known.ordering, known.configured = Ordering(ordering), bool(configured)
        found[name] = known
    return found


def _configure_one(
    connection: sqlite3.Connection, known: Mapping[str, KnownTarget], entry: TargetEntry, now_ms: int
) -> bool:
    """Write one entry; True if that made its lane heads due."""
    bound = {"name": entry.name, "ordering": entry.ordering.value, "reach": entry.reach}
    target = known.get(entry.name)
    if target is None:
        connection.execute(SQL["add_target"], bound | {"paused": int(entry.paused), "now": now_ms})
        return False
    before = read_standing(connection, target)
    moved = connection.execute(SQL["move_target"], bound | {"id": target.id}).rowcount > 0
    connection.execute(SQL["order_target"], bound | {"id": target.id})
    begins_anew = not before.configured or (before.paused_by_config and not entry.paused)
    after = replace(before, configured=True, paused_by_config=entry.paused)
    if begins_anew:
        after = replace(after, resumed_ms=now_ms)
    if moved or begins_anew:
        after = after.urged(now_ms)
        bring_forward(connection, target, now_ms)
    change_standing(connection, target, before, after, now_ms)
    return moved or begins_anew


def _backlog_of(connection: sqlite3.Connection, target: KnownTarget) -> Backlog:
    claimed = frozenset(target.claimed)
    oldest = connection.execute(SQL["oldest_open"], (target.id,)).fetchone()
    # One that a person asked for is due since 0; how long it has really waited is not known.
    heads = connection.execute(SQL["first_heads"], (target.id, len(claimed) + 1)).fetchall()
    waiting = next((due_ms for delivery_id, due_ms in heads if delivery_id not in claimed), None)
    order = connection.execute(SQL["oldest_open_order"], (target.id,)).fetchone()
    standing = read_standing(connection, target)
    return Backlog(target.open_count, oldest and oldest[0], waiting, standing, order and order[0])

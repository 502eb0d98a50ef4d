"""The store of one machine: SQLite with one writer thread, and claims that live in memory."""

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from relay.errors import StoreError
from relay.model import Delivery, DeliveryStatus
from relay.store.base import Backlog, Claim, IngestPlan, Planner, Settlement
from relay.store.lock import take_lock
from relay.store.rows import (
    attempt_to_row,
    delivery_from_row,
    event_to_row,
    order_to_row,
    question_to_row,
)
from relay.store.sqlite_ledger import SQL, Ledger, read_known_orders
from relay.store.upkeep import back_up, count_open, find_faults
from relay.store.writer import Writer

T = TypeVar("T")

_STATES: Final = {
    DeliveryStatus.DELIVERED: 2,
    DeliveryStatus.DEAD: 3,
    DeliveryStatus.SUPERSEDED: 4,
    DeliveryStatus.CANCELLED: 5,
}
_OLDEST_SQLITE: Final = (3, 37, 0)


class SqliteStore(Ledger):
    """`relay.store.base.Store` on one SQLite file; `path` is the database file."""

    def __init__(self, path: Path, now_ms: Callable[[], int], on_commit: Callable[[float], None]) -> None:
        self._path = path
        self._now_ms = now_ms
        self._on_commit = on_commit
        self._lock: int | None = None
        self._writer: Writer | None = None
        self._copying = asyncio.Lock()
        self._wake: Callable[[Collection[str]], None] = lambda _targets: None
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._open_count: dict[int, int] = {}
        self._claimed: dict[str, set[int]] = {}

    async def open(self, targets: Collection[str]) -> None:
        """Lock, open and migrate the file; make these the configured targets.

        Raises:
            StoreLocked: another process holds it.
            StoreTooNew: a newer version wrote it.
            StoreError: it cannot be used.
        """
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old; 3.37 or newer is needed")
        self._lock = take_lock(self._path)
        try:
            writer = Writer(self._path, self._on_commit)
            await writer.start()
            self._writer = writer
            now, names = self._now_ms(), json.dumps(sorted(targets))
            await writer.run(lambda connection: self._sync_targets(connection, targets, names, now))
        except BaseException:
            await self.close()
            raise
        self._claimed = {name: set() for name in self._ids}

    async def close(self) -> None:
        """Finish what was asked, close the file and give the lock back."""
        if self._writer is not None:
            await self._writer.close()
            self._writer = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def check_alive(self) -> None:
        """Return once the writer thread has answered."""
        await self._run(lambda connection: connection.execute("SELECT 1").fetchone())

    async def failed(self) -> str:
        """Return the reason once a commit has failed; wait for ever otherwise."""
        return await asyncio.shield(self._require_writer().broken)

    def on_due(self, wake: Callable[[Collection[str]], None]) -> None:
        """Call `wake` with target names after a commit that made deliveries due."""
        self._wake = wake

    async def ingest(self, houdini_ids: Collection[str], plan: Planner) -> IngestPlan:
        """Read these orders, plan, write the plan: one transaction."""
        ids = json.dumps(list(houdini_ids))

        def work(connection: sqlite3.Connection) -> tuple[IngestPlan, list[str]]:
            planned = plan(read_known_orders(connection, {"ids": ids}))
            return planned, self._write_plan(connection, planned)

        def after(written: tuple[IngestPlan, list[str]]) -> None:
            due = written[1]
            for target in due:
                self._open_count[self._ids[target]] += 1
            if due:
                self._wake(set(due))

        planned, _ = await self._run(work, after)
        return planned

    async def claim(self, target: str, limit: int, now_ms: int) -> Claim:
        """Take up to `limit` due lane heads of a target; they stay claimed until settled or released."""
        claimed = self._claimed[target]

        def work(connection: sqlite3.Connection) -> Claim:
            bound = {"target": self._ids[target], "now": now_ms, "limit": limit + len(claimed)}
            paused, parked = connection.execute(SQL["target_state"], (bound["target"],)).fetchone()
            if paused is not None or parked is not None:
                return Claim((), None)
            rows = [row for row in connection.execute(SQL["claim"], bound) if row[0] not in claimed][:limit]
            claimed.update(row[0] for row in rows)
            next_due = connection.execute(SQL["next_due"], bound).fetchone()[0]
            return Claim(tuple(delivery_from_row(row, target) for row in rows), next_due)

        return await self._run(work)

    async def settle(self, settlements: Sequence[Settlement], now_ms: int) -> None:
        """Write outcomes, promote the next of each finished lane, give the claims back."""

        def work(connection: sqlite3.Connection) -> list[int]:
            return [self._ids[one.target] for one in settlements if self._settle_one(connection, one, now_ms)]

        def after(ended: list[int]) -> None:
            for target_id in ended:
                self._open_count[target_id] -= 1
            for one in settlements:
                self._claimed[one.target].discard(one.delivery_id)
            self._wake({one.target for one in settlements})

        await self._run(work, after)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give claims back without an outcome."""
        for delivery in deliveries:
            self._claimed[delivery.target].discard(delivery.id)

    async def replay(self, target: str, webhook_ids: Sequence[str], now_ms: int) -> int:
        """Make a new delivery of these events at the tail of their lanes; returns how many were made."""

        def work(connection: sqlite3.Connection) -> int:
            bound = {"target": self._ids[target], "now": now_ms}
            return sum(connection.execute(SQL["replay"], bound | {"webhook_id": one}).rowcount for one in webhook_ids)

        def after(made: int) -> None:
            self._open_count[self._ids[target]] += made
            self._wake({target})

        return await self._run(work, after)

    async def backlog(self) -> Mapping[str, Backlog]:
        """What every configured target still has to get, from counters and one index look-up each."""

        def work(connection: sqlite3.Connection) -> Mapping[str, Backlog]:
            return {name: self._backlog_of(connection, name) for name in self._ids}

        return await self._run(work)

    async def backup(self, path: Path) -> None:
        """Write a consistent copy to a new file while running.

        Raises:
            StoreError: the file exists, or cannot be written; nothing is left of it then.
        """
        async with self._copying:
            await back_up(self._require_writer().run_aside, path)

    async def check(self) -> Sequence[str]:
        """Every invariant that does not hold; reads the whole file, and deliveries wait meanwhile."""
        faults: list[str] = []

        def work(connection: sqlite3.Connection) -> tuple[list[str], Mapping[int, int]]:
            return find_faults(connection), count_open(connection)

        def after(found: tuple[list[str], Mapping[int, int]]) -> None:
            # Compared here because counters move on the event loop, in the order of the commits.
            faults.extend(found[0])
            faults.extend(
                f"target {name} counts {self._open_count[target_id]} open deliveries, the file has {there}"
                for target_id, name in self._names.items()
                if (there := found[1].get(target_id, 0)) != self._open_count[target_id]
            )

        await self._run(work, after)
        return faults

    async def size_bytes(self) -> int:
        """The size of the database and its write-ahead log."""
        parts = (self._path, self._path.with_name(self._path.name + "-wal"))
        return await asyncio.to_thread(lambda: sum(part.stat().st_size for part in parts if part.exists()))

    def _require_writer(self) -> Writer:
        if self._writer is None:
            raise StoreError("the store is not open")
        return self._writer

    async def _run(self, work: Callable[[sqlite3.Connection], T], after: Callable[[T], None] | None = None) -> T:
        return await self._require_writer().run(work, after)

    def _sync_targets(self, connection: sqlite3.Connection, targets: Collection[str], names: str, now_ms: int) -> None:
        for name in targets:
            connection.execute(SQL["add_target"], {"name": name, "now": now_ms})
        connection.execute(SQL["orphan_targets"], {"names": names})
        rows = connection.execute(SQL["targets"]).fetchall()
        self._ids = {name: target_id for target_id, name in rows if name in targets}
        self._names = {target_id: name for name, target_id in self._ids.items()}
        self._open_count = {
            target_id: connection.execute(SQL["count_open"], (target_id,)).fetchone()[0] for target_id in self._names
        }

    def _backlog_of(self, connection: sqlite3.Connection, name: str) -> Backlog:
        target_id, claimed = self._ids[name], self._claimed[name]
        oldest = connection.execute(SQL["oldest_open"], (target_id,)).fetchone()
        heads = connection.execute(SQL["first_heads"], (target_id, len(claimed) + 1)).fetchall()
        waiting = next((due_ms for delivery_id, due_ms in heads if delivery_id not in claimed), None)
        stopped = any(moment is not None for moment in connection.execute(SQL["target_state"], (target_id,)).fetchone())
        return Backlog(self._open_count[target_id], oldest and oldest[0], waiting, stopped)

    def _write_plan(self, connection: sqlite3.Connection, plan: IngestPlan) -> list[str]:
        """Write everything; returns the target of each delivery made."""
        last_event: dict[str, int] = {}
        due: list[str] = []
        for planned in plan.events:
            statement = SQL["insert_event" if planned.event.facts else "insert_notice"]
            inserted = connection.execute(statement, event_to_row(planned))
            if not inserted.rowcount:
                continue  # a notice that was raised before
            event_id = last_event[planned.event.lane] = int(inserted.lastrowid or 0)
            for target in planned.targets:
                bound = {"target": self._ids[target], "lane": planned.event.lane, "event": event_id, "now": plan.now_ms}
                connection.execute(SQL["insert_delivery"], bound)
                due.append(target)
        for order in plan.orders.values():
            connection.execute(SQL["upsert_order"], order_to_row(order, last_event.get(order.houdini_id), plan.now_ms))
        for question in plan.questions:
            connection.execute(SQL["upsert_question"], question_to_row(question))
        for houdini_id in plan.answered:
            connection.execute(SQL["delete_question"], (houdini_id,))
        return due

    def _settle_one(self, connection: sqlite3.Connection, one: Settlement, now_ms: int) -> bool:
        """Write one outcome; True when the delivery has ended by it."""
        attempt = one.attempt
        bound = {
            "id": one.delivery_id,
            "now": now_ms,
            "at_ms": attempt.at_ms,
            "outcome": attempt.outcome.value,
            "status_code": attempt.status_code,
        }
        ends = one.status is not DeliveryStatus.PENDING
        if ends:
            bound |= {"state": _STATES[one.status], "reason": one.reason and one.reason.value}
            row = connection.execute(SQL["finish"], bound).fetchall()
        else:
            row = connection.execute(SQL["postpone"], bound | {"due_ms": one.due_ms or now_ms}).fetchall()
        if not row:
            return False
        target_id, lane, number = row[0]
        connection.execute(SQL["insert_attempt"], attempt_to_row(one, number))
        if one.park:
            connection.execute(SQL["park"], {"target": target_id, "now": now_ms})
        if ends:
            connection.execute(SQL["promote"], {"target": target_id, "lane": lane, "now": now_ms})
        return ends


def sqlite_path(url: str) -> Path:
    """The file that a `sqlite:///relative` or `sqlite:////absolute` URL names."""
    return Path(url.removeprefix("sqlite:///"))

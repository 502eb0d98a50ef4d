"""The store of one machine: SQLite with one writer thread, and claims that live in memory."""

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from relay.errors import StoreError
from relay.store.lanes import Written
from relay.store.lock import take_lock
from relay.store.sqlite_ingest import write_plan
from relay.store.sqlite_lead import Alone
from relay.store.sqlite_ledger import Ledger, read_known_orders
from relay.store.sqlite_prune import Pruning
from relay.store.sqlite_queue import Queue
from relay.store.sqlite_reads import Reader
from relay.store.sqlite_targets import TargetVerbs
from relay.store.sqlite_wishes import Wishes
from relay.store.upkeep import back_up, count_open, find_faults
from relay.store.values import Death, IngestPlan, Planner, TargetEntry
from relay.store.writer import Writer

T = TypeVar("T")

_OLDEST_SQLITE: Final = (3, 37, 0)


class SqliteStore(Queue, Wishes, TargetVerbs, Pruning, Ledger, Reader, Alone):
    """`relay.store.base.Store` on one SQLite file; `path` is the database file."""

    def __init__(self, path: Path, now_ms: Callable[[], int], on_commit: Callable[[float], None]) -> None:
        self._path = path
        self._now_ms = now_ms
        self._on_commit = on_commit
        self._lock: int | None = None
        self._writer: Writer | None = None
        self._copying = asyncio.Lock()
        self._wake = lambda _targets: None
        self._tell_superseded = lambda _counts: None
        self._tell_dead = lambda _deaths: None
        self._targets = {}

    async def open(self, targets: Collection[TargetEntry]) -> None:
        """Lock, open and migrate the file; `configure` these targets.

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
            self._targets = {}
            await self.configure(targets)
        except BaseException:
            await self.close()
            raise

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

    def on_superseded(self, tell: Callable[[Mapping[str, int]], None]) -> None:
        """Call `tell` with target -> how many, after a commit that ended deliveries `superseded`."""
        self._tell_superseded = tell

    def on_dead(self, tell: Callable[[Sequence[Death]], None]) -> None:
        """Call `tell` after a commit that ended deliveries `dead`."""
        self._tell_dead = tell

    async def ingest(self, houdini_ids: Collection[str], plan: Planner) -> IngestPlan:
        """Read these orders, plan, write the plan: one transaction."""
        ids = json.dumps(list(houdini_ids))

        def work(connection: sqlite3.Connection) -> tuple[IngestPlan, Written]:
            planned = plan(read_known_orders(connection, {"ids": ids}))
            written = write_plan(connection, self._targets, planned)
            for name, made in written.made.items():
                self._targets[name].open_count += made - written.superseded[name]
            return planned, written

        def after(done: tuple[IngestPlan, Written]) -> None:
            self._note_superseded(done[1].superseded)
            if done[1].made:
                self._wake(done[1].made.keys())

        planned, _ = await self._run(work, after)
        return planned

    async def backup(self, path: Path) -> None:
        """Write a consistent copy to a new file while running.

        Raises:
            StoreError: the file exists, or cannot be written; nothing is left of it then.
        """
        async with self._copying:
            await back_up(self._require_writer().run_aside, path)

    async def check(self) -> Sequence[str]:
        """Every invariant that does not hold; reads the whole file, and deliveries wait meanwhile."""

        def work(connection: sqlite3.Connection) -> list[str]:
            faults, counted = find_faults(connection), count_open(connection)
            return faults + [
                f"target {name} counts {known.open_count} open deliveries, the file has {counted.get(known.id, 0)}"
                for name, known in self._targets.items()
                if counted.get(known.id, 0) != known.open_count
            ]

        return await self._run(work)

    async def size_bytes(self) -> int:
        """The size of the database and its write-ahead log."""
        parts = (self._path, self._path.with_name(self._path.name + "-wal"))
        return await asyncio.to_thread(lambda: sum(part.stat().st_size for part in parts if part.exists()))

    def _require_writer(self) -> Writer:
        if self._writer is None:
            raise StoreError("the store is not open")
        return self._writer

    async def _run(
        self, work: Callable[[sqlite3.Connection], T], after: Callable[[T], None] | None = None, *, reads: bool = False
    ) -> T:
        return await self._require_writer().run(work, after, reads=reads)


def sqlite_path(url: str) -> Path:
    """The file that a `sqlite:///relative` or `sqlite:////absolute` URL names."""
    return Path(url.removeprefix("sqlite:///"))

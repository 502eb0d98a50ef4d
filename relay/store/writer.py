"""One thread, one SQLite connection, group commit.

All reads, writes and checkpoints go through it: some SQLite releases can corrupt a WAL when two connections
write and checkpoint at once. The thread takes everything that waits, runs it in one transaction and answers
after COMMIT; while one commit syncs, the next batch gathers. What only reads can be answered before that: it then
sees what has been committed, and nothing of its own batch, which may yet be lost. A failed COMMIT means that what is
on disk is unknown, so the writer refuses all further work and the process has to start anew. Long work (a back-up)
runs beside the transactions: it hands the thread back between its steps.
"""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TypeVar

from relay.errors import StoreBroken, StoreError
from relay.store.lock import make_private
from relay.store.migrate import migrate_sqlite
from relay.store.sqlite_errors import OWN_FAULT, explain

T = TypeVar("T")

QUEUE_LIMIT: Final = 4096
CHECKPOINT_PAGES: Final = 4000
"""16 MiB of log: a quarter of that, SQLite's own measure, has pages that every commit changes copied too often."""
_PRAGMAS: Final = (
    "auto_vacuum=INCREMENTAL",  # only takes effect before the first table exists
    "journal_mode=WAL",
    "synchronous=FULL",
    "busy_timeout=5000",
    f"wal_autocheckpoint={CHECKPOINT_PAGES}",
    "journal_size_limit=67108864",
    "cache_size=-65536",
    "temp_store=MEMORY",
    "foreign_keys=OFF",  # every reference is made by the same transaction that makes its row
)


Aside = Callable[[sqlite3.Connection, Callable[[], None]], T]
"""Long work outside any transaction; it has to call its second argument often, which runs what waits."""


@dataclass(slots=True)
class _Request:
    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    after: Callable[[Any], None] | None
    reads: bool
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class _AsideRequest:
    work: Callable[[sqlite3.Connection, Callable[[], None]], Any]
    future: asyncio.Future[Any]


class Writer:
    """Runs closures on the one connection, grouped into transactions."""

    def __init__(self, path: Path, on_commit: Callable[[float], None]) -> None:
        self._path = path
        self._on_commit = on_commit
        self._requests: deque[_Request] = deque()
        self._asides: deque[_AsideRequest] = deque()
        self._ready = threading.Condition()
        self._closing = False
        self._broken: str | None = None
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(QUEUE_LIMIT)
        self._started: asyncio.Future[None] = self._loop.create_future()
        self.migrated: list[str] = []
        self.broken: asyncio.Future[str] = self._loop.create_future()
        self._thread = threading.Thread(target=self._main, name="store-writer", daemon=True)

    async def start(self) -> None:
        """Open the database and migrate it.

        Raises:
            StoreError: it cannot be opened, is damaged, or was written by a newer version.
        """
        self._thread.start()
        await self._started

    async def run(
        self, work: Callable[[sqlite3.Connection], T], after: Callable[[T], None] | None = None, *, reads: bool = False
    ) -> T:
        """Run `work` in a transaction and return its result once that is committed.

        Work that `reads` must write nothing; it is run before the transaction, on what was committed earlier, and
        waits for no sync but one that is under way.

        If the caller is cancelled the work is still done and committed. `after` runs on the event loop
        with the result, whether or not the caller still waits.

        Raises:
            StoreBroken: a commit has failed, now or earlier.
            StoreError: the writer is closed.
        """
        async with self._room:
            future: asyncio.Future[T] = self._loop.create_future()
            with self._ready:
                self._refuse_if_ended()
                self._requests.append(_Request(work, future, after, reads))
                self._ready.notify()
            return await future

    async def run_aside(self, work: Aside[T]) -> T:
        """Run long work between transactions, one such work at a time, and return its result.

        Closing the writer ends it early. If the caller is cancelled the work is still done.

        Raises:
            StoreBroken: a commit has failed, now or earlier.
            StoreError: the writer is closed, or closes meanwhile.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        with self._ready:
            self._refuse_if_ended()
            self._asides.append(_AsideRequest(work, future))
            self._ready.notify()
        return await future

    async def close(self) -> None:
        """Finish what was asked, checkpoint and close the connection."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        await self._loop.run_in_executor(None, self._thread.join)

    def _main(self) -> None:
        try:
            connection = self._connect()
        except BaseException as error:
            self._tell(self._started.set_exception, explain(error, self._path))
            return
        self._tell(self._started.set_result, None)
        try:
            while self._wait_for_work():
                self._run_waiting(connection)
                self._run_next_aside(connection)
            if self._broken is None:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except Exception as error:
            # Nobody else would notice that this thread has died; every caller would wait for ever.
            self._break(str(explain(error, self._path)))
        finally:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        make_private(self._path)
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=512, timeout=5
        )
        try:
            for pragma in _PRAGMAS:
                # To its end: switching to WAL shows its row first and commits, or fails to, on the way out.
                connection.execute(f"PRAGMA {pragma}").fetchall()
            self._insist_on_wal(connection)
            self.migrated = migrate_sqlite(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _insist_on_wal(self, connection: sqlite3.Connection) -> None:
        # SQLite says nothing when it cannot switch, and goes on with a journal that is a hundred times slower.
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            raise StoreBroken(
                f"store {self._path}: no write-ahead log could be set up (the journal mode stayed {mode}); "
                "start again, and use a local disk if it comes back"
            )

    def _wait_for_work(self) -> bool:
        """True once something waits; False once the writer closes and nothing waits any more."""
        with self._ready:
            while not (self._requests or self._asides or self._closing):
                self._ready.wait()
            return bool(self._requests or self._asides)

    def _refuse_if_broken(self) -> None:
        if self._broken is not None:
            raise StoreBroken(self._broken)

    def _refuse_if_ended(self) -> None:
        self._refuse_if_broken()
        if self._closing:
            raise StoreError("the store is closed")

    def _run_waiting(self, connection: sqlite3.Connection) -> None:
        with self._ready:
            batch = list(self._requests)
            self._requests.clear()
        if reads := [request for request in batch if request.reads]:
            self._run_reads(connection, reads)
        if writes := [request for request in batch if not request.reads]:
            self._run_batch(connection, writes)

    def _run_next_aside(self, connection: sqlite3.Connection) -> None:
        with self._ready:
            aside = self._asides.popleft() if self._asides else None
        if aside is None:
            return

        def hand_back() -> None:
            self._run_waiting(connection)
            self._refuse_if_ended()

        try:
            self._refuse_if_ended()
            result = aside.work(connection, hand_back)
        except Exception as error:
            self._tell(_settle, aside.future, None, error)
        else:
            self._tell(_settle, aside.future, result, None)

    def _run_reads(self, connection: sqlite3.Connection, batch: list[_Request]) -> None:
        for request in batch:
            try:
                self._refuse_if_broken()
                request.result = request.work(connection)
            except Exception as error:
                request.error = error
                if isinstance(error, sqlite3.Error) and not isinstance(error, OWN_FAULT):
                    request.error = explain(error, self._path)
                    self._break(str(request.error))
        self._tell(self._resolve, batch)

    def _run_batch(self, connection: sqlite3.Connection, batch: list[_Request]) -> None:
        try:
            self._refuse_if_broken()
            connection.execute("BEGIN IMMEDIATE")
            for request in batch:
                self._run_one(connection, request)
            began = perf_counter()
            connection.execute("COMMIT")
        except Exception as error:
            broken = explain(error, self._path)
            self._break(str(broken))
            for request in batch:
                request.error = broken
        else:
            self._tell(self._on_commit, perf_counter() - began)
        self._tell(self._resolve, batch)

    def _run_one(self, connection: sqlite3.Connection, request: _Request) -> None:
        connection.execute("SAVEPOINT request")
        try:
            request.result = request.work(connection)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not isinstance(error, OWN_FAULT):
                raise
            connection.execute("ROLLBACK TO request")
            request.error = error
        connection.execute("RELEASE request")

    def _resolve(self, batch: list[_Request]) -> None:
        for request in batch:
            if request.error is None and request.after is not None:
                request.after(request.result)
            _settle(request.future, request.result, request.error)

    def _break(self, reason: str) -> None:
        with self._ready:
            self._broken = reason
            self._closing = True
            stranded, asides = list(self._requests), list(self._asides)
            self._requests.clear()
            self._asides.clear()
        for request in stranded:
            request.error = StoreBroken(reason)
        self._tell(self._resolve, stranded)
        for aside in asides:
            self._tell(_settle, aside.future, None, StoreBroken(reason))
        self._tell(lambda: None if self.broken.done() else self.broken.set_result(reason))

    def _tell(self, call: Callable[..., object], *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *args)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # its caller was cancelled
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)

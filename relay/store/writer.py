"""One thread, one SQLite connection, group commit.

All reads, writes and checkpoints go through it: some SQLite releases can corrupt a WAL when two connections
write and checkpoint at once. The thread takes everything that waits, runs it in one transaction and answers
after COMMIT; while one commit syncs, the next batch gathers. A failed COMMIT means that what is on disk is
unknown, so the writer refuses all further work and the process has to start anew.
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
from relay.store.migrate import migrate_sqlite

T = TypeVar("T")

QUEUE_LIMIT: Final = 4096
_PRAGMAS: Final = (
    "auto_vacuum=INCREMENTAL",  # only takes effect before the first table exists
    "journal_mode=WAL",
    "synchronous=FULL",
    "busy_timeout=5000",
    "wal_autocheckpoint=1000",
    "journal_size_limit=67108864",
    "cache_size=-65536",
    "temp_store=MEMORY",
    "foreign_keys=OFF",  # every reference is made by the same transaction that makes its row
)


@dataclass(slots=True)
class _Request:
    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    after: Callable[[Any], None] | None
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Runs closures on the one connection, grouped into transactions."""

    def __init__(self, path: Path, on_commit: Callable[[float], None]) -> None:
        self._path = path
        self._on_commit = on_commit
        self._requests: deque[_Request] = deque()
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

    async def run(self, work: Callable[[sqlite3.Connection], T], after: Callable[[T], None] | None = None) -> T:
        """Run `work` in a transaction and return its result once that is committed.

        If the caller is cancelled the work is still done and committed. `after` runs on the event loop
        with the result, whether or not the caller still waits.

        Raises:
            StoreBroken: a commit has failed, now or earlier.
            StoreError: the writer is closed.
        """
        async with self._room:
            future: asyncio.Future[T] = self._loop.create_future()
            with self._ready:
                if self._broken is not None:
                    raise StoreBroken(self._broken)
                if self._closing:
                    raise StoreError("the store is closed")
                self._requests.append(_Request(work, future, after))
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
            self._tell(self._started.set_exception, _translate(error, self._path))
            return
        self._tell(self._started.set_result, None)
        try:
            while batch := self._next_batch():
                self._run_batch(connection, batch)
            if self._broken is None:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            self._break(str(_translate(error, self._path)))
        finally:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=256, timeout=5
        )
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            self.migrated = migrate_sqlite(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _next_batch(self) -> list[_Request]:
        with self._ready:
            while not self._requests and not self._closing:
                self._ready.wait()
            batch = list(self._requests)
            self._requests.clear()
            return batch

    def _run_batch(self, connection: sqlite3.Connection, batch: list[_Request]) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            for request in batch:
                self._run_one(connection, request)
            began = perf_counter()
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            broken = _translate(error, self._path)
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
        except sqlite3.OperationalError:
            raise
        except Exception as error:
            connection.execute("ROLLBACK TO request")
            request.error = error
        connection.execute("RELEASE request")

    def _resolve(self, batch: list[_Request]) -> None:
        for request in batch:
            if request.error is not None:
                if not request.future.done():
                    request.future.set_exception(request.error)
                continue
            if request.after is not None:
                request.after(request.result)
            if not request.future.done():
                request.future.set_result(request.result)

    def _break(self, reason: str) -> None:
        with self._ready:
            self._broken = reason
            self._closing = True
            stranded = list(self._requests)
            self._requests.clear()
        for request in stranded:
            request.error = StoreBroken(reason)
        self._tell(self._resolve, stranded)
        self._tell(lambda: None if self.broken.done() else self.broken.set_result(reason))

    def _tell(self, call: Callable[..., object], *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *args)


def _translate(error: BaseException, path: Path) -> BaseException:
    """A driver's error as a sentence that says what to do; others pass."""
    if not isinstance(error, sqlite3.Error):
        return error
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        advice = "the file is damaged or no SQLite database; restore a back-up, see docs/operations.md"
    elif name.startswith("SQLITE_FULL"):
        advice = "the disk is full; free some room and start again"
    elif name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
        advice = "it cannot be opened for writing; check the path, its folder and who owns them"
    else:
        advice = "what was written is unknown until it is opened again; start again"
    return StoreBroken(f"store {path}: {error} ({name or type(error).__name__}): {advice}")

"""Connections to a PostgreSQL database: a pool, transactions with a deadline, and outages as one kind of error.

Nothing outlives a transaction but the connection itself: no prepared statement, no setting, no lock. So a pooler in
transaction mode may stand between. Every limit is set inside the transaction it is for.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, TypeAlias, TypeVar, cast

import asyncpg

from relay.config.store_url import StoreUrl, shown_store_url
from relay.errors import SecretUnreadable, StoreError, StoreUnavailable
from relay.store.postgres_errors import explain, is_own_fault
from relay.store.postgres_sql import SQL

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Row: TypeAlias = Sequence[Any]

POOL_SIZE: Final = 6
PATIENCE: Final = 10.0
"""Seconds that anything may take, waiting for a connection included."""
CONNECT_PATIENCE: Final = 5.0
_CLOSE_PATIENCE: Final = 5.0
_ROLLBACK_PATIENCE: Final = 2.0
IDLE_PATIENCE: Final = 5.0
"""How long the server waits for the next statement of a transaction: a frozen instance must not hold locks for
longer than a lead lasts."""
LOCK_PATIENCE: Final = 5.0
APPLICATION: Final = "houdini-relay"


@dataclass(frozen=True, slots=True)
class _Limits:
    """How a transaction runs, in seconds."""

    patience: float
    lock_patience: float
    isolation: str

    def begin(self) -> str:
        """The statement it begins with."""
        return (
            f"BEGIN ISOLATION LEVEL {self.isolation}; SET LOCAL statement_timeout = {round(self.patience * 1000)}; "
            f"SET LOCAL lock_timeout = {round(self.lock_patience * 1000)}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {round(IDLE_PATIENCE * 1000)}"
        )


class Session:
    """The statements of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def rows(self, name: str, bound: Mapping[str, Any] | None = None) -> list[Row]:
        """All rows of a named statement."""
        statement = SQL[name]
        return cast(list[Row], await self.connection.fetch(statement.text, *statement.arguments(bound or {})))

    async def row(self, name: str, bound: Mapping[str, Any] | None = None) -> Row | None:
        """Its first row."""
        return next(iter(await self.rows(name, bound)), None)

    async def value(self, name: str, bound: Mapping[str, Any] | None = None) -> Any:
        """The first column of its first row; None when there is none."""
        row = await self.row(name, bound)
        return None if row is None else row[0]

    async def run(self, name: str, bound: Mapping[str, Any] | None = None) -> int:
        """How many rows it changed."""
        statement = SQL[name]
        tag = await self.connection.execute(statement.text, *statement.arguments(bound or {}))
        return int(tag.rpartition(" ")[2])


Work = Callable[[Session], Awaitable[T]]


class Link:
    """The pool.

    Attributes:
        where: the database as it may be shown.
    """

    def __init__(self, url: StoreUrl | str, on_commit: Callable[[float], None] = lambda _seconds: None) -> None:
        """Prepare; `url` is read anew for every connection, so that another password is picked up."""
        self._url = StoreUrl.of(url) if isinstance(url, str) else url
        self.where = str(self._url)
        self._on_commit = on_commit
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._closed = False
        self._running: set[asyncio.Task[Any]] = set()

    async def open(self) -> "asyncpg.Pool[asyncpg.Record]":
        """Prepare the pool; connections are made as they are needed. Asking opens it, too, until it is closed."""
        self._closed = False
        if self._pool is None:
            try:
                self._pool = await asyncpg.create_pool(
                    min_size=0,
                    max_size=POOL_SIZE,
                    reset=_keep,
                    max_inactive_connection_lifetime=300.0,
                    connect=self._dial,
                    **self._options(),
                )
            except (ValueError, asyncpg.InterfaceError) as error:
                raise explain(error, self.where) from None  # its text may quote the URL
        return self._pool

    async def close(self) -> None:
        """Wait a little for what is under way, then close every connection."""
        pool, self._pool = self._pool, None
        self._closed = True
        if pool is None:
            return
        if self._running:
            await asyncio.wait(self._running, timeout=_CLOSE_PATIENCE)
        try:
            async with asyncio.timeout(_CLOSE_PATIENCE):
                await pool.close()
        except (TimeoutError, OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
            pool.terminate()

    async def connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection beside the pool.

        Raises:
            StoreUnavailable: it cannot be made.
        """
        try:
            async with asyncio.timeout(CONNECT_PATIENCE):
                return await self._dial(**self._options())
        except Exception as error:
            raise explain(error, self.where) from None

    async def run(
        self,
        work: Work[T],
        after: Callable[[T], None] | None = None,
        *,
        patience: float = PATIENCE,
        lock_patience: float = LOCK_PATIENCE,
        isolation: str = "READ COMMITTED",
    ) -> T:
        """Run `work` in a transaction and return its result once that is committed.

        If the caller is cancelled the work is still done. `after` runs with the result, whether or not the caller
        still waits.

        Raises:
            StoreUnavailable: the database could not be asked in time; the work may have been done.
            StoreError: the store is not open, or the database refuses.
        """
        return await asyncio.shield(self.start(self._run(work, after, _Limits(patience, lock_patience, isolation))))

    def start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Begin something that goes on even if nobody waits for it; closing waits for it a little."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def _run(self, work: Work[T], after: Callable[[T], None] | None, limits: "_Limits") -> T:
        if self._closed:
            raise StoreError("the store is not open")
        pool = self._pool or await self.open()
        try:
            async with asyncio.timeout(limits.patience):
                connection = await self._acquire(pool)
                try:
                    result = await self._transact(connection, work, limits)
                finally:
                    await pool.release(connection)
        except Exception as error:
            explained = explain(error, self.where)
            if explained is error:
                raise
            raise explained from None
        if after is not None:
            after(result)
        return result

    async def _acquire(self, pool: "asyncpg.Pool[asyncpg.Record]") -> Connection:
        try:
            return await pool.acquire()
        except ssl.SSLError:
            raise  # some of these are ValueErrors, too
        except (ValueError, OverflowError):  # it may quote the URL
            raise StoreError(f"store {self.where}: its URL cannot be understood; see docs/configuration.md") from None

    async def _transact(self, connection: Connection, work: Work[T], limits: "_Limits") -> T:
        try:
            await connection.execute(limits.begin())
            result = await work(Session(connection))
            began = perf_counter()
            if await connection.execute("COMMIT") != "COMMIT":
                raise StoreError(f"store {self.where}: a transaction was rolled back instead of committed")
            self._on_commit(perf_counter() - began)
        except BaseException as error:
            await _abandon(connection, error)
            raise
        return result

    async def _dial(self, *_: Any, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection to what the URL says now."""
        try:
            url = await asyncio.to_thread(self._url.reveal)
        except SecretUnreadable as error:
            raise StoreUnavailable(f"store {self.where}: its URL cannot be read: {error}") from None
        if shown_store_url(url) != self.where:
            raise StoreUnavailable(f"store {self.where}: {self._url.where} names another one now; a restart takes that")
        return await asyncpg.connect(url, **options)

    def _options(self) -> dict[str, Any]:
        return {
            "timeout": CONNECT_PATIENCE,
            "statement_cache_size": 0,
            "server_settings": {"application_name": APPLICATION},
        }

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # it was given to the caller, unless that has gone


async def _abandon(connection: Connection, error: BaseException) -> None:
    """Roll back where that is sure to work; otherwise drop the connection, and the server does."""
    ours = not isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, asyncio.CancelledError))
    if connection.is_closed():
        return
    if ours or is_own_fault(error):
        try:
            async with asyncio.timeout(_ROLLBACK_PATIENCE):
                await connection.execute("ROLLBACK")
                return
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pass
    connection.terminate()


async def _keep(_connection: object) -> None:
    """Nothing to undo when a connection goes back: a transaction leaves nothing behind."""

"""Looking into a store whose relay does not run: the same reads, by the same queries. Its lock is held meanwhile."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from relay.standing import Ordering
from relay.store.offline import insist_on_schema, opened
from relay.store.sqlite_errors import explain
from relay.store.sqlite_reads import Reader
from relay.store.sqlite_targets import TargetVerbs
from relay.store.sqlite_verbs import SQL, KnownTarget
from relay.store.values import LiveInstance

T = TypeVar("T")


class StoppedStore(Reader, TargetVerbs):
    """`Reads` and `backlog` of a store that nobody uses, so that nothing is in flight. It cannot be written."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._targets = {}
        for target_id, name, ordering, configured in connection.execute(SQL["targets"]).fetchall():
            (open_count,) = connection.execute(SQL["count_open"], (target_id,)).fetchone()
            self._targets[name] = KnownTarget(target_id, name, Ordering(ordering), bool(configured), open_count)

    async def instances(self) -> Sequence[LiveInstance]:
        """None: nobody uses it."""
        return ()

    async def shared_ms(self) -> int | None:
        """Nobody to agree with about the time."""
        return None

    async def _run(
        self, work: Callable[[sqlite3.Connection], T], after: Callable[[T], None] | None = None, *, reads: bool = False
    ) -> T:
        try:
            return await asyncio.to_thread(work, self._connection)
        except sqlite3.Error as error:
            raise explain(error, self._path) from error


@contextmanager
def stopped_store(path: Path) -> Iterator[StoppedStore]:
    """Open it to be looked at.

    Raises:
        StoreError: there is no such store, it is in use, it cannot be opened, or it has another schema.
    """
    with opened(path) as connection:
        try:
            insist_on_schema(connection, path)
            connection.execute("PRAGMA query_only=ON").fetchall()
            store = StoppedStore(connection, path)
        except (sqlite3.Error, ValueError) as error:
            raise explain(error, path) from error
        yield store

"""What is done to a store whose relay does not run: migrate, check, prune, copy. Its lock is held meanwhile."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from relay.errors import StoreError
from relay.store.lock import take_lock
from relay.store.migrate import insist_on_version, load_migrations, schema_version
from relay.store.sqlite_errors import explain
from relay.store.sqlite_prune import prune_step
from relay.store.upkeep import copy_failed, copy_to, find_faults, prepare_copy, publish_copy
from relay.store.values import Pruned
from relay.store.writer import Writer

PRUNE_BATCH: Final = 5_000
"""Rows a transaction: nobody waits for it, and the log stays small."""


async def migrate_file(path: Path) -> Sequence[str]:
    """Create or migrate a store that nobody uses; returns the names of the migrations applied.

    Raises:
        StoreError: it is in use, damaged, or written by a newer version.
    """
    with _locked(path):
        writer = Writer(path, lambda _seconds: None)
        await writer.start()
        await writer.close()
        return writer.migrated


def check_file(path: Path) -> list[str]:
    """Every invariant that does not hold, a sentence each; changes nothing.

    Raises:
        StoreError: there is no such store, it is in use, or it cannot be opened.
    """
    with opened(path) as connection:
        try:
            return find_faults(connection)
        except sqlite3.DatabaseError as error:
            return [f"damaged: {error}"]


def backup_file(path: Path, copy: Path) -> None:
    """Copy a store that nobody uses to a new file.

    Raises:
        StoreError: there is no such store, it is in use, or the copy cannot be written.
    """
    with opened(path) as connection:
        growing = prepare_copy(copy)
        try:
            copy_to(connection, growing, lambda: None)
        except (OSError, sqlite3.Error) as error:
            raise copy_failed(copy, error) from error
        publish_copy(growing, copy)


def prune_file(path: Path, before_ms: int, now_ms: int, tell: Callable[[Pruned], None]) -> Pruned:
    """Remove what ended before that moment from a store that nobody uses, and shorten its file.

    `tell` gets the sum so far after every batch; each is committed by itself, so that what was told is done.

    Raises:
        StoreError: there is no such store, it is in use, of another schema, or it cannot be written.
    """
    with opened(path) as connection:
        try:
            insist_on_schema(connection, path)
            total = Pruned(0, 0, 0, 0)
            while total.next_place is not None:
                connection.execute("BEGIN IMMEDIATE")
                step = prune_step(connection, before_ms, total.next_place, PRUNE_BATCH, now_ms)
                connection.execute("COMMIT")
                total = Pruned(
                    total.deliveries + step.deliveries,
                    total.events + step.events,
                    total.orders + step.orders,
                    step.next_place,
                )
                tell(total)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            raise explain(error, path) from error
    return total


def insist_on_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Let through the schema of this version.

    Raises:
        StoreError: it is another.
    """
    insist_on_version(path, schema_version(connection), len(load_migrations("sqlite")))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = take_lock(path)
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a store that nobody uses, for one thread at a time; its lock is held meanwhile.

    Raises:
        StoreError: there is no such store, it is in use, or it cannot be opened.
    """
    if not os.path.exists(path):  # unlike Path.exists it answers for a forbidden folder, too
        raise StoreError(f"store {path}: there is no such file")
    with _locked(path):
        try:
            # Writable, because what a crash left in the -wal has to be taken in before anything can be read.
            where = f"file:{quote(str(path))}?mode=rw"
            connection = sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise explain(error, path) from error
        try:
            yield connection
        finally:
            connection.close()

"""What is done to a store whose relay does not run: migrate, check, copy. Its lock is held meanwhile."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from relay.errors import StoreError
from relay.store.lock import take_lock
from relay.store.upkeep import copy_failed, copy_to, find_faults, prepare_copy, publish_copy
from relay.store.writer import Writer, explain


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
    with _opened(path) as connection:
        try:
            return find_faults(connection)
        except sqlite3.DatabaseError as error:
            return [f"damaged: {error}"]


def backup_file(path: Path, copy: Path) -> None:
    """Copy a store that nobody uses to a new file.

    Raises:
        StoreError: there is no such store, it is in use, or the copy cannot be written.
    """
    with _opened(path) as connection:
        growing = prepare_copy(copy)
        try:
            copy_to(connection, growing, lambda: None)
        except (OSError, sqlite3.Error) as error:
            raise copy_failed(copy, error) from error
        publish_copy(growing, copy)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = take_lock(path)
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    if not os.path.exists(path):  # unlike Path.exists it answers for a forbidden folder, too
        raise StoreError(f"store {path}: there is no such file")
    with _locked(path):
        try:
            # Writable, because what a crash left in the -wal has to be taken in before anything can be read.
            connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None)
        except sqlite3.Error as error:
            raise explain(error, path) from error
        try:
            yield connection
        finally:
            connection.close()

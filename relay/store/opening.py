"""Which store a URL means: the one place that knows, for the daemon and for commands."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from relay.errors import StoreError, UsageError
from relay.store.base import Store
from relay.store.offline import check_file, migrate_file, prune_file
from relay.store.postgres_url import shown
from relay.store.sqlite import SqliteStore, sqlite_path
from relay.store.values import Pruned

_SHARED: Final = "postgresql://"


def is_shared(url: str) -> bool:
    """Whether several instances may use the store at once."""
    return url.startswith(_SHARED)


def file_of(url: str) -> Path:
    """The file of a SQLite store.

    Raises:
        UsageError: the URL means no file.
    """
    if is_shared(url):
        raise UsageError("store.url is a PostgreSQL database, and this works on a SQLite file only")
    return sqlite_path(url)


def shown_url(url: str) -> str:
    """The URL without a password."""
    if not is_shared(url):
        return url
    return shown(url)


def make_store(
    url: str,
    now_ms: Callable[[], int],
    on_commit: Callable[[float], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Store:
    """The store, not opened yet; loads its driver, so call it before the event loop matters.

    Args:
        url: as configured.
        now_ms: wall time; for a store that is shared, the shared one.
        on_commit: is told how many seconds each commit took.
        sleep: waits.

    Raises:
        StoreError: its driver is not installed.
    """
    if is_shared(url):
        with _driver_needed():
            from relay.store.postgres import PostgresStore
        return PostgresStore(url, now_ms, on_commit, sleep)
    return SqliteStore(sqlite_path(url), now_ms, on_commit)


async def migrate_store(url: str) -> Sequence[str]:
    """Create it or bring its schema up to date; returns the names of the migrations applied.

    Raises:
        StoreError: it cannot be used, or was written by a newer version.
    """
    if is_shared(url):
        with _driver_needed():
            from relay.store.postgres_offline import migrate_database
        return await migrate_database(url)
    return await migrate_file(sqlite_path(url))


async def check_store(url: str) -> Sequence[str]:
    """Every invariant that does not hold, a sentence each; changes nothing.

    Raises:
        StoreError: it cannot be used; a file also while a relay runs on it.
    """
    if is_shared(url):
        with _driver_needed():
            from relay.store.postgres_offline import check_database
        return await check_database(url)
    return await asyncio.to_thread(check_file, sqlite_path(url))


async def prune_store(url: str, before_ms: int, now_ms: int, tell: Callable[[Pruned], None]) -> Pruned:
    """Remove what ended before that moment; `tell` gets the sum so far after every batch.

    Raises:
        StoreError: it cannot be used; a file also while a relay runs on it.
    """
    if is_shared(url):
        with _driver_needed():
            from relay.store.postgres_offline import prune_database
        return await prune_database(url, before_ms, now_ms, tell)
    return await asyncio.to_thread(prune_file, sqlite_path(url), before_ms, now_ms, tell)


async def copy_store(source: Path, url: str, tell: Callable[[str, int], None]) -> "dict[str, int]":
    """Copy a SQLite store that nobody uses to an empty PostgreSQL database; returns table -> rows.

    Raises:
        UsageError: the URL means no PostgreSQL database.
        StoreError: either cannot be used, the database is not empty, or the copy is not like the original.
    """
    if not is_shared(url):
        raise UsageError("a store is copied to a PostgreSQL database: write --to postgresql://user@host/name")
    with _driver_needed():
        from relay.store.copying import copy_file
    return await copy_file(source, url, tell)


@contextmanager
def _driver_needed() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        advice = "install it with `pip install 'houdini-relay[postgres]'`"
        raise StoreError(
            f"store.url is a PostgreSQL database, but its driver {error.name} is missing: {advice}"
        ) from None

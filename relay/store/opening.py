"""Which store a URL means: the one place that knows, for the daemon and for commands."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from relay.config import store_url
from relay.config.store_url import StoreUrl
from relay.errors import SecretUnreadable, StoreError, UsageError
from relay.store.base import Store
from relay.store.offline import check_file, migrate_file, prune_file
from relay.store.reads import Reads
from relay.store.sqlite import SqliteStore, sqlite_path
from relay.store.stopped import stopped_store
from relay.store.values import Backlog, LiveInstance, Pruned

if TYPE_CHECKING:  # its driver is optional
    from relay.store.copying import Progress


def is_shared(url: StoreUrl) -> bool:
    """Whether several instances may use the store at once.

    Raises:
        StoreError: the URL cannot be read.
    """
    return store_url.is_shared(read_url(url))


def file_of(url: StoreUrl) -> Path:
    """The file of a SQLite store.

    Raises:
        UsageError: the URL means no file.
        StoreError: the URL cannot be read.
    """
    if is_shared(url):
        raise UsageError("store.url is a PostgreSQL database, and this works on a SQLite file only")
    return sqlite_path(read_url(url))


def shown_url(url: StoreUrl) -> str:
    """The URL without a password.

    Raises:
        StoreError: the URL cannot be read.
    """
    return store_url.shown_store_url(read_url(url))


def place(url: StoreUrl) -> str:
    """The store as people know it: its file, or the database without the password.

    Raises:
        StoreError: the URL cannot be read.
    """
    return shown_url(url) if is_shared(url) else str(file_of(url))


def read_url(url: StoreUrl) -> str:
    """The URL itself.

    Raises:
        StoreError: it lies in a file, a credential or a variable, and is not there.
    """
    try:
        return url.known
    except SecretUnreadable as error:
        raise StoreError(f"store.url cannot be read: {error}") from None


def make_store(
    url: StoreUrl,
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
    return SqliteStore(file_of(url), now_ms, on_commit)


async def migrate_store(url: StoreUrl) -> Sequence[str]:
    """Create it or bring its schema up to date; returns the names of the migrations applied.

    Raises:
        StoreError: it cannot be used, or was written by a newer version.
    """
    if is_shared(url):
        with _driver_needed():
            from relay.store.postgres_offline import migrate_database
        return await migrate_database(url)
    return await migrate_file(file_of(url))


async def check_store(url: StoreUrl) -> Sequence[str]:
    """Every invariant that does not hold, a sentence each; changes nothing.

    Raises:
        StoreError: it cannot be used; a file also while a relay runs on it.
    """
    if is_shared(url):
        with _driver_needed():
            from relay.store.postgres_offline import check_database
        return await check_database(url)
    return await asyncio.to_thread(check_file, file_of(url))


async def prune_store(url: StoreUrl, before_ms: int, now_ms: int, tell: Callable[[Pruned], None]) -> Pruned:
    """Remove what ended before that moment; `tell` gets the sum so far after every batch.

    Raises:
        StoreError: it cannot be used; a file also while a relay runs on it.
    """
    if is_shared(url):
        with _driver_needed():
            from relay.store.postgres_offline import prune_database
        return await prune_database(url, before_ms, now_ms, tell)
    return await asyncio.to_thread(prune_file, file_of(url), before_ms, now_ms, tell)


async def copy_store(source: Path, url: StoreUrl, tell: Callable[["Progress"], None]) -> dict[str, int]:
    """Copy a SQLite store that nobody uses to an empty PostgreSQL database; returns table -> rows.

    `tell` hears of every batch.

    Raises:
        UsageError: the URL means no PostgreSQL database.
        StoreError: either cannot be used, the database is not empty, or the copy is not like the original.
    """
    if not is_shared(url):
        raise UsageError("a store is copied to a PostgreSQL database: write --to postgresql://user@host/name")
    if (fault := store_url.store_url_fault(read_url(url))) is not None:
        raise UsageError(f"--to: {fault}")
    with _driver_needed():
        from relay.store.copying import copy_file
    return await copy_file(source, url, tell)


async def trouble_of(url: StoreUrl) -> str | None:
    """Why a database cannot be reached, a sentence; None when it can, and for a file, which is there or can be made."""
    try:
        if is_shared(url):
            with _driver_needed():
                from relay.store.postgres_offline import reach_database
            await reach_database(url)
    except StoreError as error:
        return str(error)
    return None


class Looked(Reads, Protocol):
    """A store that is only looked at."""

    async def backlog(self) -> Mapping[str, Backlog]:
        """What every target still has to get."""
        ...

    async def instances(self) -> Sequence[LiveInstance]:
        """Who runs on it."""
        ...

    async def shared_ms(self) -> int | None:
        """The time that these go by; None for this machine's."""
        ...


@asynccontextmanager
async def looked_at(url: StoreUrl) -> AsyncIterator[Looked]:
    """A store as it is: a file that no relay has open, or a database, whoever runs on that. Nothing is changed.

    Raises:
        StoreError: it cannot be used, is not there, or has another schema; a file also while a relay runs on it.
    """
    if is_shared(url):
        with _driver_needed():
            from relay.store.postgres_offline import attached
        async with attached(url) as database:
            yield database
        return
    held = ExitStack()
    try:
        yield await asyncio.to_thread(held.enter_context, stopped_store(file_of(url)))
    finally:
        await asyncio.to_thread(held.close)


@contextmanager
def _driver_needed() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        advice = "install it with `pip install 'houdini-relay[postgres]'`"
        raise StoreError(
            f"store.url is a PostgreSQL database, but its driver {error.name} is missing: {advice}"
        ) from None

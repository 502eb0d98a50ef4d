"""Moving house: a SQLite store that nobody uses, with everything, to an empty PostgreSQL database.

One transaction: a copy is whole, and like the original by count and digest, or not there at all. Ids stay, and go on
where they were.
"""

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from relay.config.store_url import StoreUrl
from relay.errors import StoreError
from relay.store.migrate import migrate_postgres
from relay.store.offline import insist_on_schema, opened
from relay.store.postgres_link import Link, Session
from relay.store.postgres_sql import storable
from relay.store.sqlite_errors import explain

BATCH: Final = 5_000
_PATIENCE: Final = 12 * 3600.0
_KEYS: Final = {"meta": "key", "questions": "houdini_id"}
"""What a table is walked by, where it is not `id`."""
_COPIED: Final = ("meta", "targets", "orders", "events", "deliveries", "attempts", "questions", "gaps")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a table is: so many rows of `total` are copied, and so many of them have been compared since."""

    table: str
    total: int
    copied: int
    compared: int = 0

    def __str__(self) -> str:
        step = f"{self.compared} compared" if self.compared else f"{self.copied} copied"
        return f"{self.table}: {step} of {self.total} rows"


Tell = Callable[[Progress], None]


@dataclass(slots=True)
class _Sum:
    """What passed by: rows, and a digest of them in their order."""

    rows: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        for row in rows:
            self.rows += 1
            self.digest.update(repr(tuple(row)).encode())


async def copy_file(source: Path, url: StoreUrl, tell: Tell) -> dict[str, int]:
    """Copy; returns table -> rows. `tell` hears of every batch.

    Raises:
        StoreError: either cannot be used, the file is in use, the database is not empty, or the copy is not like the
            original.
    """
    link = Link(url)
    await link.open()
    try:
        held = ExitStack()
        try:
            connection = await asyncio.to_thread(held.enter_context, opened(source))
            await asyncio.to_thread(insist_on_schema, connection, source)
            await migrate_postgres(link)
            return await link.run(lambda session: _copy(session, connection, link.where, tell), patience=_PATIENCE)
        except sqlite3.Error as error:
            raise explain(error, source) from error
        finally:
            await asyncio.to_thread(held.close)
    finally:
        await link.close()


async def _copy(session: Session, connection: sqlite3.Connection, where: str, tell: Tell) -> dict[str, int]:
    await _insist_on_empty(session, where)
    copied = {}
    for table in _COPIED:
        copied[table] = await _copy_table(session, connection, table, where, tell)
    await session.connection.execute(
        "INSERT INTO open_counts(target_id, writer, deliveries) "
        "SELECT target_id, 1, count(*) FROM deliveries WHERE state < 2 GROUP BY target_id"
    )
    await session.connection.execute(f"ANALYZE {', '.join(_COPIED)}", timeout=_PATIENCE)  # the first claim needs it
    return copied


async def _copy_table(session: Session, connection: sqlite3.Connection, table: str, where: str, tell: Tell) -> int:
    columns = [row[1] for row in await asyncio.to_thread(_all, connection, f"PRAGMA table_info({table})")]
    ((total,),) = await asyncio.to_thread(_all, connection, f"SELECT count(*) FROM {table}")  # noqa: S608 # ours
    passed = _Sum()
    copying = _records(connection, table, columns, passed, lambda rows: tell(Progress(table, total, rows)))
    await session.connection.copy_records_to_table(table, records=copying, columns=columns, timeout=_PATIENCE)
    found = await _sum(session, table, columns, lambda rows: tell(Progress(table, total, passed.rows, rows)))
    if (found.rows, found.digest.digest()) != (passed.rows, passed.digest.digest()):
        raise StoreError(f"store {where}: {table} is not like the original; nothing was copied")
    if "id" in columns:
        await _go_on(session, connection, table)
    return found.rows


async def _insist_on_empty(session: Session, where: str) -> None:
    await session.connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")  # the file may be slow
    # Nothing may come in between looking and copying; nobody else has any business here.
    await session.connection.execute(f"LOCK TABLE {', '.join(_COPIED)} IN EXCLUSIVE MODE")
    for table in _COPIED:
        if await session.connection.fetchval(f"SELECT EXISTS (SELECT 1 FROM {table})"):  # noqa: S608 # ours
            raise StoreError(f"store {where}: it is not empty ({table} has rows); copy to a database of its own")


async def _records(
    connection: sqlite3.Connection, table: str, columns: Sequence[str], passed: _Sum, tell: Callable[[int], None]
) -> AsyncIterator[tuple[Any, ...]]:
    key = _KEYS.get(table, "id")
    statement = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {key}"  # noqa: S608 # ours
    cursor = await asyncio.to_thread(connection.execute, statement)
    while rows := await asyncio.to_thread(cursor.fetchmany, BATCH):
        converted = [_converted(table, columns, row) for row in rows]
        passed.add(converted)
        for row in converted:
            yield row
        tell(passed.rows)


def _converted(table: str, columns: Sequence[str], row: Sequence[Any]) -> tuple[Any, ...]:
    values = [storable(value) for value in row]
    if table == "targets":
        at = columns.index("last_error")
        values[at] = None if row[at] is None else msgspec.json.encode(row[at]).decode()
    return tuple(values)


async def _sum(session: Session, table: str, columns: Sequence[str], tell: Callable[[int], None]) -> _Sum:
    """What the database has of it."""
    key, found = _KEYS.get(table, "id"), _Sum()
    last: Any = "" if table in _KEYS else 0
    statement = f"SELECT {', '.join(columns)} FROM {table} WHERE {key} > $1 ORDER BY {key} LIMIT {BATCH}"  # noqa: S608 # ours
    while rows := await session.connection.fetch(statement, last):
        found.add(tuple(row) for row in rows)
        last = rows[-1][key]
        tell(found.rows)
    return found


async def _go_on(session: Session, connection: sqlite3.Connection, table: str) -> None:
    """The next id is one that the original never gave."""
    rows = await asyncio.to_thread(_all, connection, "SELECT seq FROM sqlite_sequence WHERE name = ?", (table,))
    given = int(rows[0][0]) if rows else 0
    await session.connection.execute(
        f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {max(given, 1)}, {'true' if given else 'false'})"
    )


def _all(connection: sqlite3.Connection, statement: str, bound: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    return connection.execute(statement, bound).fetchall()

"""Numbered migrations and named queries, both kept as `.sql` files beside this module."""

import asyncio
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from relay.errors import StoreError, StoreTooNew

if TYPE_CHECKING:  # its driver is optional
    from relay.store.postgres_link import Link, Session

_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_FILE: Final = re.compile(r"^(\d{4})_\w+\.sql$")
_MIGRATING: Final = 0x686F7564696E6900
"""The advisory lock of whoever migrates a PostgreSQL store."""
_MIGRATION_PATIENCE: Final = 600.0


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema: its number, from 1 without holes, and its script."""

    number: int
    name: str
    script: str


def load_migrations(dialect: str) -> tuple[Migration, ...]:
    """All migrations of a dialect in order."""
    folder = files("relay.store") / "sql" / dialect
    found = [
        Migration(int(match[1]), entry.name, entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if (match := _FILE.match(entry.name))
    ]
    return tuple(sorted(found, key=lambda step: step.number))


def load_queries(dialect: str) -> Mapping[str, str]:
    """The named queries of a dialect, from all its files that are no migrations: name -> statement."""
    found: dict[str, str] = {}
    for entry in (files("relay.store") / "sql" / dialect).iterdir():
        if _FILE.match(entry.name):
            continue
        parts = _NAME.split(entry.read_text(encoding="utf-8"))
        for name, body in zip(parts[1::2], parts[2::2], strict=True):
            if name in found:
                raise ValueError(f"two queries are named {name}")
            found[name] = body.strip().rstrip(";")
    return found


def schema_version(connection: sqlite3.Connection) -> int:
    """The number of the last migration that was applied; 0 for an empty database."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate_sqlite(connection: sqlite3.Connection) -> list[str]:
    """Apply what is missing, each step in its own transaction; returns the names of the steps applied.

    Raises:
        StoreTooNew: the database has migrations that this version does not know.
    """
    steps = load_migrations("sqlite")
    present = schema_version(connection)
    _refuse_newer(present, len(steps))
    applied = []
    for step in steps[present:]:
        connection.executescript(f"BEGIN IMMEDIATE;\n{step.script}\nPRAGMA user_version = {step.number};\nCOMMIT;")
        applied.append(step.name)
    return applied


async def migrate_postgres(link: "Link") -> list[str]:
    """Apply what is missing in one transaction, one instance at a time; returns the names of the steps applied.

    Raises:
        StoreTooNew: the database has migrations that this version does not know.
        StoreError: it cannot hold what the relay writes.
    """
    steps = await asyncio.to_thread(load_migrations, "postgres")

    async def work(session: "Session") -> list[str]:
        connection = session.connection
        encoding = await connection.fetchval("SELECT current_setting('server_encoding')")
        if encoding != "UTF8":
            raise StoreError(f"store {link.where}: its encoding is {encoding}; create the database with UTF8")
        present = await postgres_version(session)
        _refuse_newer(present, len(steps))
        if present == len(steps):
            return []
        await connection.execute(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
        await connection.execute("CREATE TABLE IF NOT EXISTS relay_schema(version bigint NOT NULL)")
        present = await postgres_version(session)  # somebody else may have done it meanwhile
        _refuse_newer(present, len(steps))
        for step in steps[present:]:
            await connection.execute(step.script)
        await connection.execute("DELETE FROM relay_schema")
        await connection.execute(f"INSERT INTO relay_schema(version) VALUES({len(steps)})")
        return [step.name for step in steps[present:]]

    return await link.run(work, patience=_MIGRATION_PATIENCE, lock_patience=_MIGRATION_PATIENCE)


async def insist_on_postgres(link: "Link") -> None:
    """Let through the schema of this version.

    Raises:
        StoreError: it is another.
    """
    wanted, found = len(await asyncio.to_thread(load_migrations, "postgres")), await link.run(postgres_version)
    insist_on_version(link.where, found, wanted)


def insist_on_version(where: object, found: int, wanted: int) -> None:
    """Let through the schema of this version.

    Raises:
        StoreError: it is another.
    """
    _refuse_newer(found, wanted)
    if found == 0:
        raise StoreError(f"store {where}: nothing of a relay is in it; `houdini-relay store migrate` prepares it")
    if found != wanted:
        raise StoreError(
            f"store {where}: it has schema {found}, this version works with {wanted}; run `houdini-relay store migrate`"
        )


async def postgres_version(session: "Session") -> int:
    """The number of the last migration that was applied; 0 for an empty database."""
    connection = session.connection
    if await connection.fetchval("SELECT to_regclass('relay_schema')::text") is None:
        return 0
    return int(await connection.fetchval("SELECT coalesce(max(version), 0) FROM relay_schema"))


def _refuse_newer(present: int, known: int) -> None:
    if present > known:
        raise StoreTooNew(
            f"the store has schema {present}, but this version knows only {known}; "
            "run the newer version again, or restore a back-up made before the upgrade"
        )

"""Numbered migrations and named queries, both kept as `.sql` files beside this module."""

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from relay.errors import StoreTooNew

_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_FILE: Final = re.compile(r"^(\d{4})_\w+\.sql$")


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
    if present > len(steps):
        raise StoreTooNew(
            f"the store has schema {present}, but this version knows only {len(steps)}; "
            "run the newer version again, or restore a back-up made before the upgrade"
        )
    applied = []
    for step in steps[present:]:
        connection.executescript(f"BEGIN IMMEDIATE;\n{step.script}\nPRAGMA user_version = {step.number};\nCOMMIT;")
        applied.append(step.name)
    return applied

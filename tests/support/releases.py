"""What a release's store looked like, for all releases after it: `PYTHONPATH=tests python -m support.releases VERSION`.

Run it once, with the code of that release, and never change what it wrote.
"""

import asyncio
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from support.furnished import furnish, furnish_store
from support.postgres import Server, shared_server

from relay.store.postgres import PostgresStore

FOLDER: Final = Path(__file__).parents[1] / "integration" / "data" / "releases"


def restore_sqlite(dump: Path, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(dump.read_text(encoding="utf-8"))
    connection.close()


def restore_postgres(server: Server, dump: Path, database: str) -> None:
    command = server.command("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", server.url(database))
    subprocess.run(command, input=dump.read_bytes(), check=True, timeout=60, cwd="/", stdout=subprocess.DEVNULL)


async def _dump_sqlite(folder: Path) -> str:
    path = folder / "store.db"
    bench = await furnish(path)
    await bench.store.close()
    with sqlite3.connect(path) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        lines = [line for line in connection.iterdump() if "sqlite_sequence" not in line or "INSERT" in line]
    connection.close()
    return "\n".join([*lines, f"PRAGMA user_version = {version};", ""])


async def _dump_postgres() -> bytes:
    server = shared_server()
    database = await server.create_database()
    bench = await furnish_store(lambda: PostgresStore(server.url(database), lambda: 5_000, lambda _seconds: None))
    await bench.store.close()
    command = server.command("pg_dump", "--inserts", "--no-owner", "--no-privileges", server.url(database))
    done = subprocess.run(command, check=True, capture_output=True, timeout=60, cwd="/")
    # A newer pg_dump writes what an older psql does not know.
    kept = [line for line in done.stdout.splitlines() if not line.startswith((b"\\", b"--", b"SET ")) and line]
    return b"\n".join(kept) + b"\n"


async def main(version: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        (FOLDER / f"{version}.sqlite.sql").write_text(await _dump_sqlite(Path(name)), encoding="utf-8")
    (FOLDER / f"{version}.postgres.sql").write_bytes(await _dump_postgres())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

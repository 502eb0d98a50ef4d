"""A PostgreSQL server of a measurement's own, with the durability that it has by default."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import asyncpg
import psutil

from relay.simulator.child import free_port

OPTIONS = ("max_connections=200", "shared_buffers=256MB", "max_wal_size=4GB")
_USER = "postgres"
"""Who runs the server when root asks for it: it refuses root."""


@dataclass(frozen=True)
class Database:
    """A server with one empty database."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/postgres?sslmode=disable"

    async def connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(self.url)

    async def version(self) -> str:
        connection = await self.connect()
        try:
            return str(await connection.fetchval("SELECT current_setting('server_version')")).split()[0]
        finally:
            await connection.close()

    async def empty(self) -> None:
        """Nothing of a relay is in it."""
        connection = await self.connect()
        try:
            await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        finally:
            await connection.close()

    async def room_of(self, table: str) -> int:
        """Bytes of a table and its indexes."""
        connection = await self.connect()
        try:
            return int(await connection.fetchval("SELECT pg_total_relation_size($1::text::regclass)", table))
        finally:
            await connection.close()

    def cpu_seconds(self) -> float:
        """What all its processes have used so far, those that have ended included as far as it has waited for them."""
        server = psutil.Process(self.pid)
        times = [server.cpu_times(), *(one.cpu_times() for one in server.children(recursive=True))]
        own = sum(one.user + one.system for one in times)
        return own + times[0].children_user + times[0].children_system


@contextmanager
def database(*options: str) -> Iterator[Database]:
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="relay-bench-postgres-"))
    if os.geteuid() == 0:
        owner = pwd.getpwnam(_USER)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    data, port = folder / "data", free_port()
    given = [f"port={port}", f"unix_socket_directories={folder}", "listen_addresses=127.0.0.1", *OPTIONS, *options]
    try:
        _run(programs / "initdb", "-D", data, "-A", "trust", "-U", _USER, "-E", "UTF8")
        started = " ".join(f"-c {one}" for one in given)
        _run(programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", started, "start")
        try:
            yield Database(port, int((data / "postmaster.pid").read_text().split()[0]))
        finally:
            _run(programs / "pg_ctl", "-D", data, "-w", "-m", "fast", "stop")
    finally:
        shutil.rmtree(folder)


def _programs() -> Path:
    on_path = shutil.which("initdb")
    found = [str(Path(on_path).resolve().parent)] if on_path else sorted(glob("/usr/lib/postgresql/*/bin"))
    if not found:
        raise RuntimeError("PostgreSQL is not installed")
    return Path(found[-1])


def _run(program: Path, *arguments: object) -> None:
    as_user = ["runuser", "-u", _USER, "--"] if os.geteuid() == 0 else []
    command = [*as_user, str(program), *map(str, arguments)]
    # Its server keeps what it inherits open: a pipe would never end.
    subprocess.run(command, check=True, timeout=120, cwd="/", stdout=subprocess.DEVNULL)

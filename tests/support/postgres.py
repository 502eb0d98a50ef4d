"""A real PostgreSQL server for tests: one a process, in a folder of its own, on loopback; a database a test."""

import asyncio
import atexit
import itertools
import os
import pwd
import random
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from glob import glob
from pathlib import Path
from typing import Any

from support.needs import missing

FAST = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200")
IN_MEMORY, ROOM = "/dev/shm", 4 << 30  # noqa: S108  # mkdtemp makes the folder in it
_databases = itertools.count()


class Server:
    """`stop` and `start` may be called at will; the data stay."""

    def __init__(self, folder: Path, programs: Path, options: tuple[str, ...] = FAST) -> None:
        self.folder = folder
        self.port = _free_port()
        self._programs = programs
        self.options = options

    def make(self) -> None:
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        where = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        options = f"{where} {' '.join(self.options)}"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-m", mode, "stop")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}?sslmode=disable"

    async def ask(self, sql: str, *args: Any, database: str = "postgres") -> list[Any]:
        import asyncpg

        connection = await asyncpg.connect(self.url(database), timeout=10)
        try:
            return list(await connection.fetch(sql, *args))
        finally:
            await connection.close()

    async def create_database(self) -> str:
        name = f"relay_{os.getpid()}_{next(_databases)}"
        await self.ask(f"CREATE DATABASE {name}")
        return name

    async def drop_database(self, name: str) -> None:
        await self.ask(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """The URL of an empty database that goes afterwards."""
        name = await self.create_database()
        try:
            yield self.url(name)
        finally:
            await self.drop_database(name)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def command(self, program: str, *arguments: str) -> list[str]:
        """One of its programs, run by somebody whom it accepts: it refuses root."""
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        return [*as_user, str(self._programs / program), *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        command = self.command(program, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def new_server(options: tuple[str, ...] = FAST) -> Server:
    """A server of one's own, started; it is stopped when the process ends."""
    programs = find_programs()
    folder = Path(tempfile.mkdtemp(prefix="relay-postgres-", dir=_place(options)))
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
    made = Server(folder, programs, options)
    _guard(made)
    made.make()
    made.start()
    atexit.register(_remove, made, os.getpid())
    return made


def _place(options: tuple[str, ...]) -> str | None:
    """In memory if nothing has to be on disk: a database is hundreds of files, and most tests want one of their own."""
    with suppress(OSError):
        if "fsync=off" in options and shutil.disk_usage(IN_MEMORY).free > ROOM:
            return IN_MEMORY
    return None


def _guard(server: Server) -> None:
    """A test run that is killed cannot clean up: somebody else does."""
    stop = shlex.join(server.command("pg_ctl", "-D", f"{server.folder}/data", "-m", "immediate", "stop"))
    folder = shlex.quote(str(server.folder))
    watch = f"while kill -0 {os.getpid()} 2>/dev/null; do sleep 1; done; {stop}; rm -rf {folder}"
    aside = f"cd /; ({watch}) >/dev/null 2>&1 </dev/null &"
    subprocess.run(["sh", "-c", aside], check=True, timeout=10, start_new_session=True)


@cache
def shared_server() -> Server:
    """The one that tests share which do not stop it."""
    return new_server()


def find_programs() -> Path:
    """Where PostgreSQL's programs are; skips the test, or fails it in CI, if they or the driver are missing."""
    try:
        import asyncpg  # noqa: F401  # it is optional
    except ImportError:
        missing("asyncpg is not installed")
    on_path = shutil.which("initdb")
    found = [str(Path(on_path).resolve().parent)] if on_path else sorted(glob("/usr/lib/postgresql/*/bin"))
    if not found:
        missing("PostgreSQL is not installed")
    return Path(found[-1])


def expire_leases(url: str) -> None:
    """As time does: whatever was claimed may be claimed again. For a caller without a running loop."""
    asyncio.run(lapse(url))


async def lapse(url: str) -> None:
    """The leases of claims and probes have ended."""
    import asyncpg

    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(
            "UPDATE deliveries SET leased_until = now() - interval '1 s' WHERE leased_until > now()"
        )
        await connection.execute("UPDATE targets SET probe_until = now() - interval '1 s' WHERE probe_until > now()")
    finally:
        await connection.close()


def _free_port() -> int:
    """Below the ephemeral range, so that no outgoing connection takes it meanwhile."""
    chance = random.Random(os.getpid() * 7919 + next(_databases))
    while True:
        port = chance.randrange(20_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


def _remove(server: Server, owner: int) -> None:
    if os.getpid() != owner:
        return  # a child that was forked off
    with suppress(RuntimeError):  # a test has stopped it
        server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)

"""Behind a pooler in transaction mode, where no two transactions need meet the same server connection."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator

import pytest
from support.factories import event
from support.instances import add, instance, instances, life, wall_ms
from support.needs import require_tool
from support.postgres import _free_port, shared_server
from support.stores import as_it_was, delivered, up_to
from support.until import until

from relay.store.postgres import PostgresStore

PROGRAM = "/usr/sbin/pgbouncer"


@pytest.fixture
async def pooled() -> AsyncIterator[str]:
    """A database's URL through a pooler that has two server connections for everybody."""
    program = PROGRAM if os.access(PROGRAM, os.X_OK) else shutil.which("pgbouncer")
    if program is None:
        require_tool("pgbouncer")
    async with shared_server().database() as url:
        name, port = url.rpartition("/")[2].partition("?")[0], _free_port()
        folder = shared_server().folder
        config = folder / f"pgbouncer-{port}.ini"
        config.write_text(
            f"[databases]\n{name} = host=127.0.0.1 port={shared_server().port} dbname={name} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n"
            "pool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 100\n"
            "server_reset_query = DISCARD ALL\nserver_reset_query_always = 1\n"
        )
        command = [str(program), str(config)]
        if os.geteuid() == 0:  # it refuses root, too
            command = ["runuser", "-u", "postgres", "--", *command]
        pooler = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            await until(lambda: listens(port), 10)
            yield f"postgresql://postgres@127.0.0.1:{port}/{name}?sslmode=disable"
        finally:
            pooler.terminate()
            await asyncio.to_thread(pooler.wait, 10)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_everything_works_behind_it(pooled: str):
    async with instances(pooled, 3) as stores:
        assert await stores[0].lead(instance("one")) == 1
        seen: dict[str, list[int]] = {}
        for turn in range(8):
            await add(stores[0], *(one for n in range(20) for one in life(f"o{turn}-{n}", 3)), targets=["alpha"])

        async def deliver(store: PostgresStore) -> None:
            for _ in range(200):
                claimed = (await store.claim("alpha", up_to(20), wall_ms())).deliveries
                for one in claimed:
                    seen.setdefault(one.event.lane, []).append(one.event.facts.sequence)
                await store.settle([delivered(one) for one in claimed], as_it_was, wall_ms())
                if not (await store.backlog())["alpha"].pending:
                    return

        await asyncio.gather(*(deliver(store) for store in stores), *(deliver(store) for store in stores))
        assert len(seen) == 160
        assert all(order == [1, 2, 3] for order in seen.values())
        assert await stores[1].renew() is False
        assert await stores[2].check() == []
        await add(stores[0], event("last"))
        await stores[0].close()
        assert await stores[1].lead(instance("two")) == 2

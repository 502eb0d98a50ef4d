"""A process that stands still in the middle of a statement: what its transaction holds, the others get back."""

import asyncio
import struct
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest
from support.instances import instance, instances
from support.postgres import Server, shared_server
from support.until import until

from relay.errors import StoreUnavailable
from relay.store import postgres_lead


class Frozen:
    """Speaks the protocol by hand: a transaction that holds the leader's row, then half a statement, then nothing."""

    def __init__(self, server: Server, database: str, application: str) -> None:
        self._server, self._database, self._application = server, database, application

    async def begin(self, statement: str) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        names = ("user", "postgres", "database", self._database, "application_name", self._application)
        body = struct.pack("!i", 196_608) + b"".join(one.encode() + b"\0" for one in names) + b"\0"
        self._writer.write(struct.pack("!i", len(body) + 4) + body)
        await self._until(b"Z")
        self._send(b"Q", b"BEGIN; SELECT 1 FROM leader FOR SHARE\0")
        await self._until(b"Z")
        self._send(b"P", b"\0" + statement.encode() + b"\0" + struct.pack("!h", 0))
        self._send(b"H", b"")  # flush, not sync
        await self._until(b"1")

    async def ended(self) -> bool:
        """Whether the server has hung up."""
        async with asyncio.timeout(10):
            while await self._reader.read(1000):
                pass
        return True

    async def close(self) -> None:
        self._writer.close()

    def _send(self, kind: bytes, body: bytes) -> None:
        self._writer.write(kind + struct.pack("!i", len(body) + 4) + body)

    async def _until(self, kind: bytes) -> None:
        while True:
            found, length = struct.unpack("!ci", await self._reader.readexactly(5))
            await self._reader.readexactly(length - 4)
            if found == kind:
                return


@pytest.fixture
async def url(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    monkeypatch.setattr(postgres_lead, "IDLE_PATIENCE", 0.5)
    async with shared_server().database() as made:
        yield made


@asynccontextmanager
async def frozen(url: str, application: str = "houdini-relay", statement: str = "SELECT 1") -> AsyncIterator[Frozen]:
    one = Frozen(shared_server(), url.rpartition("/")[2].partition("?")[0], application)
    await one.begin(statement)
    try:
        yield one
    finally:
        await one.close()


async def states(url: str, applications: Collection[str]) -> list[tuple[str, str]]:
    name = url.rpartition("/")[2].partition("?")[0]
    asked = "SELECT state, wait_event FROM pg_stat_activity WHERE datname = $1 AND application_name = ANY($2)"
    return [(row["state"], row["wait_event"]) for row in await shared_server().ask(asked, name, list(applications))]


async def lapse(url: str) -> None:
    name = url.rpartition("/")[2].partition("?")[0]
    await shared_server().ask("UPDATE leader SET expires_at = now() - interval '1 s'", database=name)


async def test_a_leader_that_is_frozen_in_a_statement_does_not_keep_its_row(url: str):
    async with instances(url, 1) as (store,):
        await store.lead(instance("one"))
        await lapse(url)
        async with frozen(url) as one:
            assert ("active", "ClientRead") in await states(url, ["houdini-relay"])
            epochs: list[int] = []

            async def taken() -> bool:
                try:
                    epochs.append(await store.lead(instance("two")) or 0)
                except StoreUnavailable:
                    return False
                return bool(epochs[-1])

            await until(taken, 15)
            assert epochs[-1] == 2
            assert await one.ended()


async def test_it_is_the_leaders_to_free_what_a_frozen_follower_holds(url: str):
    async with instances(url, 1) as (store,):
        await store.lead(instance("one"))
        async with frozen(url) as one:
            await asyncio.sleep(0.6)  # past the patience: the database's clock cannot be moved
            assert await store.renew()
            assert await one.ended()


@pytest.mark.parametrize(
    ("application", "statement"), [("somebody-else", "SELECT 1"), ("houdini-relay", "COPY orders FROM STDIN")]
)
async def test_nobody_elses_transaction_and_no_copy_is_ended(url: str, application: str, statement: str):
    async with instances(url, 1) as (store,):
        await store.lead(instance("one"))
        async with frozen(url, application, statement):
            await asyncio.sleep(0.6)
            found = await store._run(lambda session: session.rows("end_frozen", postgres_lead._frozen_after()))
            assert found == []
            assert ("active", "ClientRead") in await states(url, [application])

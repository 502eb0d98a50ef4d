"""What the database's user needs: to run, to look, and to have a schema of its own. As docs/scaling.md says."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.factories import event
from support.instances import instance, wall_ms
from support.postgres import shared_server
from support.stores import Bench, delivered, entries

from relay.config.store_url import StoreUrl
from relay.errors import StoreError
from relay.store.opening import looked_at, migrate_store
from relay.store.postgres import PostgresStore
from relay.store.reads import Filter

DOCUMENT = Path(__file__).parents[2] / "docs" / "scaling.md"
ROLES = ("relay_app", "relay_looks")


def grants() -> list[str]:
    """The statements of the document that give rights on tables, each by itself."""
    blocks = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    return [one.strip() for block in blocks for one in block.split(";") if one.strip().startswith("GRANT")]


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """A database that was migrated by its owner; both roles have what the document gives them."""
    server = shared_server()
    made = await server.create_database()
    await migrate_store(StoreUrl.of(server.url(made)))
    for role in ROLES:
        await server.ask(f"CREATE ROLE {role} LOGIN", database=made)
    for grant in grants():
        await server.ask(grant, database=made)
    yield made
    for role in ROLES:
        await server.ask(f"DROP OWNED BY {role}", database=made)
        await server.ask(f"DROP ROLE {role}", database=made)
    await server.drop_database(made)


def url_as(role: str, name: str) -> str:
    return shared_server().url(name).replace("postgres@", f"{role}@")


async def live(store: PostgresStore) -> None:
    """Everything that a relay does in its life."""
    await store.open(entries(["alpha", "beta"]))
    try:
        assert await store.lead(instance("one")) is not None
        bench = Bench(lambda: store)
        await bench.add(event("order-1", 4, webhook_id="evt_1"), now_ms=wall_ms())
        (head,) = await bench.claim("alpha", now_ms=wall_ms())
        await bench.settle(delivered(head))
        assert await store.renew()
        await store.begin_gap(1, "why")
        await store.meta_set("k", "v")
        await store.pause("beta", 1)
        assert await store.size_bytes() > 0
        await store.prune(wall_ms() + 1, 0, 100)
        assert await store.check() == []
        await store.resign()
    finally:
        await store.close()


async def test_a_user_that_does_not_own_the_tables_can_run_on_them(name: str):
    await live(PostgresStore(url_as("relay_app", name), wall_ms, lambda _seconds: None))


async def test_a_user_that_may_only_read_can_look_but_not_run(name: str):
    url = url_as("relay_looks", name)
    async with looked_at(StoreUrl.of(url)) as store:
        assert (await store.list_deliveries(Filter(), None, 5)).items == ()
        assert await store.instances() == []
    store = PostgresStore(url, wall_ms, lambda _seconds: None)
    with pytest.raises(StoreError, match="this user may not do that"):
        await store.open(entries(["alpha"]))


async def test_schemas_of_one_database_are_stores_of_their_own(name: str):
    await shared_server().ask("CREATE SCHEMA eu", database=name)
    await live(PostgresStore(f"{shared_server().url(name)}&search_path=eu", wall_ms, lambda _seconds: None))
    async with looked_at(StoreUrl.of(shared_server().url(name))) as other:
        assert (await other.list_events(Filter(), None, 5)).items == ()

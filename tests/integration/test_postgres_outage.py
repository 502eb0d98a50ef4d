"""The database goes away and comes back: every verb says so in time, nothing else breaks."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from support.factories import event
from support.instances import add, instance, instances, wall_ms
from support.postgres import Server, new_server, shared_server
from support.stores import again, as_it_was, delivered, entries, up_to
from support.until import until

from relay.config.store_url import StoreUrl, shown_store_url
from relay.errors import StoreError, StoreUnavailable
from relay.store import postgres_link
from relay.store.opening import make_store
from relay.store.postgres import PostgresStore
from relay.store.values import IngestPlan, Question


@pytest.fixture(scope="module")
def server() -> Server:
    """One that these tests may stop."""
    return new_server()


@pytest.fixture
async def url(server: Server) -> AsyncIterator[str]:
    async with server.database() as made:
        yield made


async def answers(store: PostgresStore) -> bool:
    try:
        await store.check_alive()
    except StoreUnavailable:
        return False
    return True


async def test_every_verb_says_that_the_database_is_away_and_goes_on_when_it_is_back(server: Server, url: str):
    async with instances(url, 1) as (store,):
        await store.lead(instance("one"))
        await add(store, event("o1"), event("o2"))
        first, second = (await store.claim("alpha", up_to(2), wall_ms())).deliveries
        await asyncio.to_thread(server.stop, "immediate")
        verbs = [
            lambda: store.check_alive(),
            lambda: add(store, event("o3")),
            lambda: store.claim("beta", up_to(1), wall_ms()),
            lambda: store.settle([delivered(first)], as_it_was, wall_ms()),
            lambda: store.release([second]),
            lambda: store.backlog(),
            lambda: store.renew(),
            lambda: store.instances(),
            lambda: store.due_questions(1, 1),
            lambda: store.meta_get("k"),
            lambda: store.check(),
        ]
        for verb in verbs:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable) as caught:
                await verb()
            assert time.monotonic() - began < postgres_link.PATIENCE + 5
            assert str(caught.value).startswith(f"store {shown_store_url(url)}: ")
        assert not store._broken.done(), "an outage is no damage"
        await asyncio.to_thread(server.start)
        await until(lambda: answers(store), 20)
        assert set(await store.known_orders(["o1", "o2", "o3"])) == {"o1", "o2"}
        assert await store.settle([delivered(first), again(second, 1)], as_it_was, wall_ms())
        assert await store.check() == []
        assert await store.renew() or await store.lead(instance("one")) == 2


async def test_a_connection_that_is_cut_costs_one_answer(url: str, server: Server):
    async with instances(url, 1) as (store,):
        await store.check_alive()
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'houdini-relay'"
        await server.ask(cut)
        failures = 0
        for _ in range(20):
            failures += not await answers(store)
        assert failures <= postgres_link.POOL_SIZE
        assert await answers(store)


async def test_a_lock_that_somebody_keeps_is_given_up_in_time(url: str):
    async with instances(url, 1) as (store,):
        holder = await store._link.connect()
        try:
            await holder.execute("BEGIN; LOCK TABLE questions")
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match=r"lock|in time"):
                await store.end_question("o1")
            assert time.monotonic() - began < postgres_link.PATIENCE + 5
        finally:
            await holder.close()
        await store.end_question("o1")


async def test_an_instance_that_freezes_inside_a_transaction_does_not_keep_the_lead(url: str, monkeypatch):
    monkeypatch.setattr(postgres_link, "IDLE_PATIENCE", 0.3)
    async with instances(url, 2) as (one, other):
        await one.lead(instance("one"))

        def frozen(_known: object) -> IngestPlan:
            until_then = time.monotonic() + 1.0
            while time.monotonic() < until_then:
                """The whole process stands still, the lead's row locked."""
            return IngestPlan(now_ms=1, remembered={"written": "too late"})

        with pytest.raises(StoreUnavailable):
            await one.ingest(["o1"], frozen)
        assert await other.meta_get("written") is None
        await one.resign()
        assert await other.lead(instance("other")) == 2


async def test_a_database_that_is_not_there_is_a_sentence_without_the_password():
    store = PostgresStore("postgresql://relay:hunter2@127.0.0.1:1/x?sslmode=disable", wall_ms, lambda _seconds: None)
    with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
        await store.open([])
    assert "relay@127.0.0.1:1/x" in str(caught.value)
    assert "hunter2" not in f"{caught.value!r} {store!r} {vars(store)} {vars(store._link)}"


@pytest.mark.parametrize(
    ("query", "sentence"),
    [("/nowhere?sslmode=disable", "no such database"), ("?sslmode=require", "as its URL says|cannot be reached")],
)
async def test_a_url_that_leads_nowhere_is_a_sentence(query: str, sentence: str):
    base = shared_server().url().partition("/postgres?")[0]
    store = PostgresStore(f"{base}{query}", wall_ms, lambda _seconds: None)
    with pytest.raises(StoreUnavailable, match=sentence):
        await store.open([])


@pytest.mark.parametrize(
    "url", ["postgresql://a:pw@[::1/x", "postgresql://a:pw@h:99999999/x", "postgresql://u:pw@h:x/"]
)
async def test_a_url_that_cannot_be_read_shows_no_password(url: str):
    store = PostgresStore(url, wall_ms, lambda _seconds: None)
    with pytest.raises(StoreError) as caught:
        await store.open([])
    assert "pw" not in str(caught.value)


async def test_what_the_url_leaves_out_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    async with shared_server().database() as url:
        monkeypatch.setenv("PGHOST", "127.0.0.1")
        monkeypatch.setenv("PGPORT", str(shared_server().port))
        monkeypatch.setenv("PGUSER", "postgres")
        monkeypatch.setenv("PGDATABASE", url.rpartition("/")[2].partition("?")[0])
        monkeypatch.setenv("PGSSLMODE", "disable")
        store = make_store(StoreUrl.of("postgresql://"), wall_ms, lambda _seconds: None)
        await store.open(entries(["alpha"]))
        await store.check_alive()
        await store.close()


async def test_a_question_survives_an_outage(server: Server, url: str):
    async with instances(url, 1) as (store,):
        await store.lead(instance("one"))
        asked = Question("o1", 1, b"{}", sideways=False, seen_ms=1, ask_at_ms=1)
        await store.ingest(["o1"], lambda _known: IngestPlan(now_ms=1, questions=[asked]))
        await asyncio.to_thread(server.stop, "immediate")
        await asyncio.to_thread(server.start)
        await until(lambda: answers(store), 20)
        assert await store.due_questions(2, 5) == [asked]

"""Several instances on one PostgreSQL database: who leads, who lives, and how they start together."""

import asyncio

import pytest
from support.factories import event
from support.instances import add, instance, instances, wall_ms
from support.postgres import shared_server
from support.stores import up_to
from support.until import until

from relay.errors import NotLeader, StoreError, StoreTooNew
from relay.store.postgres import PostgresStore
from relay.store.postgres_link import Session


async def ask(url: str, sql: str) -> list[object]:
    return await shared_server().ask(sql, database=url.rpartition("/")[2].partition("?")[0])


async def end_lead(url: str) -> None:
    """As its time does."""
    await ask(url, "UPDATE leader SET expires_at = now() - interval '1 ms'")


async def test_one_leads_and_its_epoch_is_its_own():
    async with shared_server().database() as url, instances(url, 2) as (one, other):
        assert await one.lead(instance("one")) == 1
        assert await one.lead(instance("one")) == 1
        assert await other.lead(instance("other")) is None
        assert await one.renew()
        assert not await other.renew()
        await end_lead(url)
        assert await other.lead(instance("other")) == 2
        assert not await one.renew()
        assert await one.lead(instance("one")) is None


async def test_who_lost_the_lead_cannot_ingest_and_nothing_of_it_is_written():
    async with shared_server().database() as url, instances(url, 2) as (one, other):
        with pytest.raises(NotLeader):
            await add(one, event("o1"))
        await one.lead(instance("one"))
        await add(one, event("o1"))
        await end_lead(url)
        await other.lead(instance("other"))
        with pytest.raises(NotLeader):
            await add(one, event("o2"))
        await add(one, event("relay:alpha", facts=None, webhook_id="evt_n", type="relay.x"))  # anybody's
        await add(other, event("o3"))
        assert set(await other.known_orders(["o1", "o2", "o3"])) == {"o1", "o3"}
        assert [one.event.lane for one in (await other.claim("alpha", up_to(9), wall_ms())).deliveries] == [
            "o1",
            "relay:alpha",
            "o3",
        ]


async def test_epochs_never_interleave(monkeypatch: pytest.MonkeyPatch):
    """Two that both think they lead: every event carries the epoch it was written under."""
    async with shared_server().database() as url, instances(url, 2) as stores:
        over = False

        async def write(store: PostgresStore, name: str) -> None:
            number = 0
            while not over:
                epoch = await store.lead(instance(name))
                for _ in range(5):
                    number += 1
                    try:
                        await add(store, event(f"{name}{number}", body=str(epoch).encode()), targets=["alpha"])
                    except NotLeader:
                        break

        async def depose() -> None:
            while not over:
                await asyncio.sleep(0.05)
                await end_lead(url)

        tasks = [asyncio.create_task(write(store, name)) for store, name in zip(stores, "ab", strict=True)]
        tasks.append(asyncio.create_task(depose()))
        await asyncio.sleep(2)
        over = True
        await asyncio.gather(*tasks)
        epochs = [int(row[0]) for row in await ask(url, "SELECT convert_from(body, 'UTF8') FROM events ORDER BY id")]
        assert epochs == sorted(epochs)
        assert len(set(epochs)) > 3


async def test_the_lead_does_not_change_hands_while_the_leader_writes():
    async with shared_server().database() as url, instances(url, 1) as (one,):
        await one.lead(instance("one"))
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def write(session: Session) -> None:
            await one._insist_on_lead(session)
            inside.set()
            await go_on.wait()

        writing = asyncio.create_task(one._run(write))
        await inside.wait()
        deposing = asyncio.create_task(end_lead(url))

        async def waits() -> bool:
            rows = await ask(url, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            return bool(rows) or deposing.done()

        await until(waits, 4)
        assert not deposing.done()
        go_on.set()
        await asyncio.gather(writing, deposing)
        assert not await one.renew()


async def test_a_clean_stop_hands_over_at_once_and_says_so():
    async with shared_server().database() as url, instances(url, 2) as (one, other):
        await one.lead(instance("one"))
        told = asyncio.Event()
        other.on_vacant(told.set)
        listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"

        async def both_listen() -> bool:
            return (await ask(url, listening))[0][0] == 2

        await until(both_listen, 10, pause=0.02)
        await one.close()
        async with asyncio.timeout(5):
            await told.wait()
        assert await other.lead(instance("other")) == 2
        assert [live.instance.id for live in await other.instances()] == ["other"]


async def test_instances_show_who_lives_who_leads_and_what_they_attempt():
    async with shared_server().database() as url, instances(url, 2) as (one, other):
        await one.lead(instance("one"))
        await add(one, *(event(f"o{n}") for n in range(3)))
        await other.claim("alpha", up_to(2), wall_ms())
        await other.lead(instance("other"))
        first, second = await one.instances()
        assert (first.instance.id, first.epoch, dict(first.in_flight)) == ("one", 1, {})
        assert (second.instance.id, second.epoch, dict(second.in_flight)) == ("other", None, {"alpha": 2})
        assert second.instance.host == "host-of-other"
        await ask(url, "UPDATE instances SET seen_at = now() - interval '16 s' WHERE id = 'other'")
        assert [live.instance.id for live in await one.instances()] == ["one"]


async def test_a_hint_wakes_the_others():
    async with shared_server().database() as url, instances(url, 2) as (one, other):
        await one.lead(instance("one"))
        woken: list[set[str]] = []
        other.on_due(lambda names: woken.append(set(names)))
        number = 0
        async with asyncio.timeout(10):
            while not woken:  # it may not listen yet
                number += 1
                await add(one, event(f"o{number}"), targets=["beta"])
                await asyncio.sleep(0.02)
        assert woken[0] == {"beta"}


async def test_eight_open_an_empty_database_at_once():
    async with shared_server().database() as url, instances(url, 0):
        stores = [PostgresStore(url, wall_ms, lambda _seconds: None) for _ in range(8)]
        try:
            await asyncio.gather(*(store.open([]) for store in stores))
            assert await stores[3].check() == []
            assert [row[0] for row in await ask(url, "SELECT version FROM relay_schema")] == [1]
        finally:
            await asyncio.gather(*(store.close() for store in stores))


async def test_a_newer_schema_is_refused():
    async with shared_server().database() as url:
        async with instances(url, 1):
            await ask(url, "UPDATE relay_schema SET version = 99")
        store = PostgresStore(url, wall_ms, lambda _seconds: None)
        with pytest.raises(StoreTooNew, match="schema 99"):
            await store.open([])
        with pytest.raises(StoreError, match="not open"):
            await store.check_alive()


async def test_what_is_committed_while_nobody_waits_any_more_is_still_done():
    async with shared_server().database() as url, instances(url, 1) as (one,):
        await one.lead(instance("one"))
        for number in range(20):
            task = asyncio.create_task(add(one, event(f"o{number}"), targets=["alpha"]))
            await asyncio.sleep(0.001 * (number % 5))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await until(lambda: not one._link._running, 5)
        assert await one.check() == []

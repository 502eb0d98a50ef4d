"""Moving from a SQLite file to a PostgreSQL database: everything, once, with the same ids."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.factories import event
from support.furnished import furnish
from support.instances import instance
from support.postgres import shared_server
from support.stores import Bench, again, dead, delivered, entries, trips

from relay.cli import main
from relay.config.store_url import StoreUrl
from relay.errors import StoreError, StoreLocked, UsageError
from relay.model import DeliveryStatus
from relay.standing import Ordering
from relay.store.copying import Progress
from relay.store.opening import copy_store, make_store
from relay.store.postgres import PostgresStore
from relay.store.reads import Filter
from relay.store.sqlite import SqliteStore
from relay.store.values import TargetEntry


def quiet(_progress: Progress) -> None:
    """Nobody looks."""


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with shared_server().database() as made:
        yield made


async def picture(store: SqliteStore | PostgresStore) -> list[object]:
    """All that can be seen of a store."""
    deliveries = (await store.list_deliveries(Filter(), None, 1_000)).items
    names = [f"o{number:02}" for number in range(30)] + ["odd"]
    return [
        deliveries,
        (await store.list_events(Filter(), None, 1_000)).items,
        [await store.event(one) for one in ("evt_odd_1", "evt_n", "evt_o07_3")],
        [await store.attempts(one.id, 10) for one in deliveries],
        [await store.order(one) for one in names],
        await store.backlog(),
        await store.due_questions(10**9, 10),
        await store.gaps(10),
        await store.meta_get("k"),
    ]


async def test_everything_is_there_and_ids_go_on(tmp_path: Path, url: str):
    bench = await furnish(tmp_path / "relay.db")
    newest = (await bench.store.list_deliveries(Filter(), None, 1)).items[0].id
    await bench.restart()
    before = await picture(bench.store)
    await bench.store.close()
    told: list[Progress] = []
    copied = await copy_store(tmp_path / "relay.db", StoreUrl.of(url), told.append)
    assert (copied["orders"], copied["events"], copied["targets"]) == (32, 92, 2)
    done = copied["deliveries"]
    assert Progress("deliveries", done, done, done) in told
    assert str(told[-1]) == "gaps: 1 compared of 1 rows"
    store = PostgresStore(url, lambda: 5_000, lambda _seconds: None)
    await store.open(entries(["alpha", "beta"]))
    try:
        assert await picture(store) == before
        assert await store.check() == []
        await store.lead(instance("one"))
        moved = Bench(lambda: store)
        await moved.add(event("new"), targets=["alpha"])
        assert (await store.list_deliveries(Filter(), None, 1)).items[0].id == newest + 1
    finally:
        await store.close()


EVERY_STATE = ("alpha", "beta", TargetEntry("latest", Ordering.LATEST_ONLY), "gone", "left")


async def in_every_state(path: Path) -> Bench:
    """One delivery at least in every state there is, targets stopped in every way, gaps at every stage."""
    bench = Bench(lambda: SqliteStore(path, lambda: 5_000, lambda _seconds: None))
    await bench.open(EVERY_STATE)
    for number in range(4):
        for step in range(1, 5):
            one = event(f"o{number}", status=step, sequence=step)
            await bench.add(one, targets=["alpha", "beta", "latest", "gone", "left"])
    heads = await bench.claim("alpha")
    await bench.settle(delivered(heads[0]), dead(heads[1]), again(heads[2], 99_000), judge=trips)
    await bench.store.retry_now(heads[2].id, 3_000)
    (parked,) = await bench.claim("gone", limit=1)
    await bench.settle(again(parked, 4_000, gone=True))
    await bench.store.cancel((await bench.claim("left", limit=1))[0].id + 5, 3_000)
    await bench.store.trim("left", 8, 100, 3_000)
    await bench.configure(*EVERY_STATE[:-1])
    await bench.store.pause("beta", 7)
    for moment in (10, 20, 30):
        await bench.store.note_hidden("o3", moment * 1_000_000, 1, 3)
    await bench.store.begin_gap(1, "the first")
    await bench.store.end_gap(5)
    await bench.store.close_gaps(9, "a sweep")
    await bench.store.begin_gap(11, "the second")
    return bench


async def test_every_state_arrives_as_it_was(tmp_path: Path, url: str):
    bench = await in_every_state(tmp_path / "relay.db")
    await bench.restart(EVERY_STATE[:-1])  # what was in flight comes back
    before = await picture(bench.store)
    gone = await bench.store.aged_out_orders(["o3"])
    states = {(one.status, one.reason) for one in (await bench.store.list_deliveries(Filter(), None, 1_000)).items}
    assert states >= {(status, None) for status in DeliveryStatus if status not in ("in_flight", "dead")}
    assert states >= {("dead", "exhausted"), ("dead", "overflow")}
    assert {one.standing.state for one in (await bench.store.backlog()).values()} == {
        "active",
        "paused",
        "parked",
        "orphaned",
    }
    await bench.store.close()
    await copy_store(tmp_path / "relay.db", StoreUrl.of(url), quiet)
    store = PostgresStore(url, lambda: 5_000, lambda _seconds: None)
    await store.attach()
    try:
        assert await picture(store) == before
        assert await store.aged_out_orders(["o3"]) == gone == {"o3"}
        assert await store.check() == []
    finally:
        await store.close()


async def test_a_database_with_anything_in_it_is_refused(tmp_path: Path, url: str):
    await (await furnish(tmp_path / "relay.db")).store.close()
    await copy_store(tmp_path / "relay.db", StoreUrl.of(url), quiet)
    with pytest.raises(StoreError, match="not empty"):
        await copy_store(tmp_path / "relay.db", StoreUrl.of(url), quiet)


async def test_a_store_in_use_or_missing_is_refused_and_nothing_is_left(tmp_path: Path, url: str):
    bench = await furnish(tmp_path / "relay.db")
    with pytest.raises(StoreLocked):
        await copy_store(tmp_path / "relay.db", StoreUrl.of(url), quiet)
    await bench.store.close()
    with pytest.raises(StoreError, match="no such file"):
        await copy_store(tmp_path / "nowhere.db", StoreUrl.of(url), quiet)
    with pytest.raises(UsageError, match="PostgreSQL"):
        await copy_store(tmp_path / "relay.db", StoreUrl.of("sqlite:///other.db"), quiet)


async def test_a_copy_that_is_not_like_the_original_is_not_made(tmp_path: Path, url: str):
    """A server that changes what it is given is found out before anything is committed."""
    await (await furnish(tmp_path / "relay.db")).store.close()
    store = make_store(StoreUrl.of(url), lambda: 0, lambda _seconds: None)
    await store.open([])
    await store.close()
    name = url.rpartition("/")[2].partition("?")[0]
    await shared_server().ask(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.cause = NEW.cause || '!'; RETURN NEW; END $$",
        database=name,
    )
    await shared_server().ask(
        "CREATE TRIGGER spoil BEFORE INSERT ON gaps FOR EACH ROW EXECUTE FUNCTION spoil()", database=name
    )
    with pytest.raises(StoreError, match="gaps is not like the original"):
        await copy_store(tmp_path / "relay.db", StoreUrl.of(url), quiet)
    assert await shared_server().ask("SELECT 1 FROM orders LIMIT 1", database=name) == []


def test_the_command(tmp_path: Path):
    async def prepare() -> str:
        await (await furnish(tmp_path / "relay.db")).store.close()
        return await shared_server().create_database()

    name = asyncio.run(prepare())
    config = tmp_path / "config.yaml"
    config.write_text(
        "upstream:\n  websocket_url: wss://127.0.0.1:1/x\n  rest_url: https://127.0.0.1:1/x\n  partner_id: p\n"
        f"  secret: a-secret-value\nstore: {{url: 'sqlite:///{tmp_path}/relay.db'}}\n"
        "targets:\n  - name: alpha\n    url: https://example.com/x\n"
        "    secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAAAAAAAA]\n"
    )
    to = shared_server().url(name).replace("postgres@", "postgres:hunter2@")
    done = CliRunner().invoke(main, ["store", "copy", "--config", str(config), "--to", to, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["rows"]["events"] == 92
    assert "hunter2" not in done.output
    with sqlite3.connect(tmp_path / "relay.db") as still:
        assert still.execute("SELECT count(*) FROM events").fetchone() == (92,)
    asyncio.run(shared_server().drop_database(name))

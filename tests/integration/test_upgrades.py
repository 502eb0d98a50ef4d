"""A store of every release is opened by this one: everything is there, and deliveries go on."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.factories import event
from support.furnished import furnish, furnish_store
from support.postgres import find_programs, shared_server
from support.releases import FOLDER, restore_postgres, restore_sqlite
from support.stores import Bench, delivered, entries

from relay import __version__
from relay.config.store_url import StoreUrl
from relay.errors import StoreTooNew
from relay.model import DeliveryStatus
from relay.store.opening import check_store
from relay.store.postgres import PostgresStore
from relay.store.reads import Filter
from relay.store.sqlite import SqliteStore

RELEASES = sorted(file.name.removesuffix(".sqlite.sql") for file in FOLDER.glob("*.sqlite.sql"))
MANY = 1_000


def at_five_seconds() -> int:
    return 5_000


@pytest.fixture(params=[(kind, release) for kind in ("sqlite", "postgres") for release in RELEASES], ids="-".join)
async def upgraded(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Bench, StoreUrl]]:
    kind, release = request.param
    if kind == "sqlite":
        path = tmp_path / "relay.db"
        restore_sqlite(FOLDER / f"{release}.sqlite.sql", path)
        made = Bench(lambda: SqliteStore(path, at_five_seconds, lambda _seconds: None))
        await made.open()
        yield made, StoreUrl.of(f"sqlite:///{path}")
        await made.store.close()
        return
    find_programs()
    server = shared_server()
    database = await server.create_database()
    restore_postgres(server, FOLDER / f"{release}.postgres.sql", database)
    url = server.url(database)
    made = Bench(lambda: PostgresStore(url, at_five_seconds, lambda _seconds: None))
    await made.open()
    yield made, StoreUrl.of(url)
    await made.store.close()
    await server.drop_database(database)


@pytest.fixture
async def made_today(upgraded: tuple[Bench, StoreUrl], tmp_path: Path) -> AsyncIterator[Bench]:
    """One of the same kind."""
    if not upgraded[1].reveal().startswith("postgresql"):
        made = await furnish(tmp_path / "today.db")
        yield made
        await made.store.close()
        return
    async with shared_server().database() as url:
        made = await furnish_store(lambda: PostgresStore(url, at_five_seconds, lambda _seconds: None))
        yield made
        await made.store.close()


async def picture(bench: Bench) -> list[object]:
    """All that can be seen of a store but what a restart changes: claims that nobody holds any more."""
    store = bench.store
    deliveries = (await store.list_deliveries(Filter(), None, MANY)).items
    orders = [f"o{number:02}" for number in range(30)] + ["odd"]
    return [
        sorted(
            (one.webhook_id, one.target, one.replay, _at_rest(one.status), str(one.reason), one.head, one.attempts_made)
            for one in deliveries
        ),
        await bench.known(*orders),
        {name: waiting.standing for name, waiting in (await store.backlog()).items()},
        await store.meta_get("k"),
    ]


def _at_rest(status: DeliveryStatus) -> DeliveryStatus:
    return DeliveryStatus.PENDING if status is DeliveryStatus.IN_FLIGHT else status


async def test_everything_is_there(upgraded: tuple[Bench, StoreUrl], made_today: Bench):
    """Both hold what `furnish` puts in, whatever the schema was when it did."""
    bench, _url = upgraded
    found, expected = await picture(bench), await picture(made_today)
    assert len(found[0]) > 150  # type: ignore[arg-type] # the first is a list
    assert found == expected


async def test_deliveries_go_on(upgraded: tuple[Bench, StoreUrl]):
    bench, _url = upgraded
    before = (await bench.store.backlog())["alpha"].pending
    while heads := await bench.claim(now_ms=200_000):
        await bench.settle(*map(delivered, heads))
    assert before > 20
    assert (await bench.store.backlog())["alpha"].pending == 0
    await bench.add(event("o00", status=4, sequence=4))
    assert [one.event.webhook_id for one in await bench.claim(now_ms=200_000)] == ["evt_o00_4"]


async def test_a_check_finds_nothing(upgraded: tuple[Bench, StoreUrl]):
    bench, url = upgraded
    await bench.store.close()
    assert list(await check_store(url)) == []
    await bench.store.open(entries(["alpha", "beta"]))


async def test_a_newer_one_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / "relay.db"
    restore_sqlite(FOLDER / f"{RELEASES[-1]}.sqlite.sql", path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 4000")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreTooNew, match="schema 4000"):
        await SqliteStore(path, at_five_seconds, lambda _seconds: None).open([])
    assert path.read_bytes() == before


def test_this_release_has_left_its_store():
    """A release adds its own: PYTHONPATH=tests python -m support.releases VERSION."""
    assert __version__ in RELEASES

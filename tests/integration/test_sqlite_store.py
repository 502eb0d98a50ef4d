"""What is special about the SQLite store: its file, its lock, its thread, its plans."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.factories import event
from support.stores import Bench, delivered, up_to

from relay.errors import StoreBroken, StoreError, StoreLocked, StoreTooNew
from relay.store.migrate import load_migrations
from relay.store.sqlite import SqliteStore, sqlite_path
from relay.store.values import TargetEntry
from relay.store.writer import Writer


def make_store(path: Path) -> SqliteStore:
    return SqliteStore(path, lambda: 1_000, lambda _seconds: None)


@pytest.fixture
async def bench(tmp_path: Path):
    made = Bench(lambda: make_store(tmp_path / "relay.db"))
    await made.open()
    yield made
    await made.store.close()


def test_urls_name_relative_and_absolute_files():
    assert sqlite_path("sqlite:///relay.db") == Path("relay.db")
    assert sqlite_path("sqlite:////var/lib/relay.db") == Path("/var/lib/relay.db")


async def test_a_second_process_is_refused(bench: Bench, tmp_path: Path):
    """Failure mode 78: one writer, ever."""
    with pytest.raises(StoreLocked, match="in use by another process"):
        await make_store(tmp_path / "relay.db").open([])


async def test_the_lock_is_given_back_on_close_and_by_a_dead_process(tmp_path: Path):
    script = (
        "import asyncio, os, sys; from pathlib import Path; from relay.store.sqlite import SqliteStore\n"
        "from relay.store.values import TargetEntry\n"
        "async def main():\n"
        "    store = SqliteStore(Path(sys.argv[1]), lambda: 1, lambda s: None)\n"
        "    await store.open([TargetEntry('alpha')])\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "relay.db")], timeout=30, check=False)
    assert done.returncode == -9
    for _ in range(2):
        store = make_store(tmp_path / "relay.db")
        await store.open([TargetEntry("alpha")])
        await store.close()


async def test_a_newer_schema_is_refused_and_left_alone(bench: Bench, tmp_path: Path):
    await bench.store.close()
    with sqlite3.connect(tmp_path / "relay.db") as connection:
        connection.execute("PRAGMA user_version = 9999")
    connection.close()
    with pytest.raises(StoreTooNew, match="schema 9999"):
        await make_store(tmp_path / "relay.db").open([])


async def test_a_file_that_is_no_database_is_refused_with_advice(tmp_path: Path):
    (tmp_path / "relay.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StoreBroken, match="restore a back-up"):
        await make_store(tmp_path / "relay.db").open([])


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(StoreError, match="no-such-folder"):
        await make_store(tmp_path / "no-such-folder" / "relay.db").open([])


async def test_it_is_durable_and_incremental_and_in_wal_mode(bench: Bench, tmp_path: Path):
    """Failure mode 75: FULL (2) syncs at every commit; NORMAL would lose the last ones in a power cut."""
    assert isinstance(bench.store, SqliteStore)
    assert await bench.store._run(lambda connection: connection.execute("PRAGMA synchronous").fetchone()) == (2,)
    await bench.store.close()
    connection = sqlite3.connect(tmp_path / "relay.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


async def test_requests_that_wait_share_one_commit(tmp_path: Path):
    commits: list[float] = []
    store = SqliteStore(tmp_path / "relay.db", lambda: 1_000, commits.append)
    await store.open([TargetEntry("alpha")])
    before = len(commits)
    await asyncio.gather(*(store.meta_set(f"k{n}", "v") for n in range(200)))
    assert len(commits) - before < 20
    assert await store.meta_get("k199") == "v"
    await store.close()


async def test_work_goes_on_when_its_caller_is_cancelled(bench: Bench):
    """Failure mode 82: a cancelled caller leaves no transaction open."""
    for _ in range(50):
        task = asyncio.create_task(bench.store.meta_set("k", "written"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await bench.store.meta_get("k") == "written"


async def test_a_claim_whose_caller_is_cancelled_between_commit_and_answer_is_given_back(bench: Bench):
    await bench.add(event("o1"))
    assert isinstance(bench.store, SqliteStore)
    gate = threading.Event()
    holding = asyncio.create_task(bench.store._run(lambda _connection: gate.wait(10)))
    await asyncio.sleep(0)
    claiming = asyncio.create_task(bench.store.claim("alpha", up_to(1), 10_000))
    await asyncio.sleep(0)
    # In the same group, so that this runs after the claim's answer is there and before its caller goes on.
    cancelling = asyncio.create_task(
        bench.store._run(lambda _connection: None, lambda _none: claiming.cancel(), reads=True)
    )
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(holding, cancelling)
    with pytest.raises(asyncio.CancelledError):
        await claiming
    assert len(await bench.claim()) == 1


async def test_a_failed_commit_stops_everything(tmp_path: Path):
    """Failure mode 76: what a failed COMMIT wrote is unknown, so nothing may go on."""
    writer = Writer(tmp_path / "relay.db", lambda _seconds: None)
    await writer.start()

    def forbid_commits(connection: sqlite3.Connection) -> None:
        connection.set_authorizer(
            lambda action, what, *_: (
                sqlite3.SQLITE_DENY if (action, what) == (sqlite3.SQLITE_TRANSACTION, "COMMIT") else sqlite3.SQLITE_OK
            )
        )

    with pytest.raises(StoreBroken, match="start again"):
        await writer.run(forbid_commits)
    async with asyncio.timeout(5):
        assert "start again" in await writer.broken
    with pytest.raises(StoreBroken):
        await writer.run(lambda connection: connection.execute("SELECT 1").fetchone())
    await writer.close()


def test_row_ids_are_never_used_again():
    """Failure mode 91: AUTOINCREMENT everywhere an id is handed out."""
    for step in load_migrations("sqlite"):
        for line in step.script.splitlines():
            assert "INTEGER PRIMARY KEY" not in line or "AUTOINCREMENT" in line, line


def test_migrations_are_numbered_without_holes():
    assert [step.number for step in load_migrations("sqlite")] == list(range(1, len(load_migrations("sqlite")) + 1))


async def test_every_lane_has_one_ready_head_and_it_is_the_oldest(bench: Bench, tmp_path: Path):
    await bench.add(*(event(f"o{n % 50}", status=n % 5, sequence=n) for n in range(500)))
    for _ in range(3):
        await bench.settle(*(delivered(one) for one in await bench.claim("beta")))
    await bench.store.close()
    connection = sqlite3.connect(tmp_path / "relay.db")
    broken = connection.execute(
        "SELECT count(*) FROM (SELECT min(id) AS oldest, sum(state = 0) AS heads,"
        " min(CASE WHEN state = 0 THEN id END) AS head FROM deliveries WHERE state < 2"
        " GROUP BY target_id, lane) WHERE heads <> 1 OR head <> oldest"
    ).fetchone()
    connection.close()
    assert broken == (0,)


async def test_nobody_else_may_read_the_files(bench: Bench, tmp_path: Path):
    """Orders hold addresses."""
    await bench.add(event("o1"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes
    assert set(modes.values()) == {0o600}, modes


async def test_what_only_reads_waits_for_no_commit_of_those_that_wait_along_with_it(tmp_path: Path):
    """And sees nothing of theirs: a claim of an event that is lost by a crash would send what never happened."""
    writer = Writer(tmp_path / "relay.db", lambda _seconds: None)
    await writer.start()
    go = threading.Event()
    told: list[str] = []
    write = "INSERT INTO meta(key, value) VALUES('a', 'b')"
    count = "SELECT count(*) FROM meta"
    async with asyncio.timeout(10):
        busy = asyncio.ensure_future(writer.run(lambda _connection: go.wait(10)))
        await asyncio.sleep(0)
        written = asyncio.ensure_future(writer.run(lambda one: one.execute(write), lambda _: told.append("written")))
        await asyncio.sleep(0)
        read = asyncio.ensure_future(
            writer.run(lambda one: one.execute(count).fetchone(), lambda _: told.append("read"), reads=True)
        )
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(busy, written)
        assert await read == (0,)
    assert told == ["read", "written"]
    await writer.close()


async def test_a_read_that_is_wrong_harms_nobody_and_one_that_the_disk_refuses_stops_everything(tmp_path: Path):
    writer = Writer(tmp_path / "relay.db", lambda _seconds: None)
    await writer.start()
    with pytest.raises(sqlite3.ProgrammingError):
        await writer.run(lambda one: one.execute("SELECT ?").fetchone(), reads=True)
    assert await writer.run(lambda one: one.execute("SELECT 1").fetchone(), reads=True) == (1,)

    def broken(_connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(StoreBroken, match="disk I/O error"):
        await writer.run(broken, reads=True)
    with pytest.raises(StoreBroken):
        await writer.run(lambda one: one.execute("SELECT 1").fetchone())
    await writer.close()

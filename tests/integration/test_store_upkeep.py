"""Proving a store sound, copying it, and what becomes of half a copy."""

import asyncio
import importlib
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.factories import event
from support.stores import Bench, delivered

from relay.cli import main
from relay.errors import StoreBroken, StoreError, StoreLocked
from relay.store import upkeep
from relay.store.migrate import load_queries
from relay.store.offline import backup_file, check_file
from relay.store.sqlite import SqliteStore

QUERIES = load_queries("sqlite")
# By its full name: in `relay.cli`, `store` names the group of commands, too.
COMMANDS = importlib.import_module("relay.cli.store")


def make_store(path: Path) -> SqliteStore:
    return SqliteStore(path, lambda: 1_000, lambda _seconds: None)


@pytest.fixture
async def bench(tmp_path: Path):
    made = Bench(lambda: make_store(tmp_path / "relay.db"), make_store)
    await made.open()
    yield made
    await made.store.close()


@pytest.fixture
async def path(bench: Bench, tmp_path: Path) -> Path:
    """A closed store with two lanes, one of them partly delivered."""
    await bench.add_life("o1", 3)
    await bench.add_life("o2", 2)
    await bench.settle(*(delivered(one) for one in await bench.claim()))
    await bench.store.close()
    return tmp_path / "relay.db"


def harm(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


HARM = {
    "no ready head": (["UPDATE deliveries SET state = 1"], "has 0 ready deliveries; one is right"),
    "two ready heads": (
        ["UPDATE deliveries SET state = 0 WHERE target_id = 1 AND lane = 'o1' AND state < 2"],
        "lane o1 of target 1 has 2 ready",
    ),
    "a head that is not the oldest": (
        ["UPDATE deliveries SET state = 1 - state WHERE target_id = 1 AND lane = 'o1' AND state < 2"],
        "lane o1 of target 1 has delivery 5 ready although 3 is older",
    ),
    "an event gone": (["DELETE FROM events WHERE lane = 'o2' AND sequence = 1"], "has no event 4"),
    "a target gone": (["DELETE FROM targets WHERE name = 'beta'"], "has no target 2"),
    "a delivery in a foreign lane": (["UPDATE deliveries SET lane = 'o9' WHERE id = 1"], "lane o9, its event in o1"),
    "an unknown state": (["UPDATE deliveries SET state = 9 WHERE id = 1"], "delivery 1 has the unknown state 9"),
    "more steps than attempts": (
        ["UPDATE deliveries SET steps_used = 1 WHERE id = 5"],
        "delivery 5 has used 1 steps of its schedule in 0 attempts",
    ),
    "an end without its time": (
        ["UPDATE deliveries SET finished_ms = NULL WHERE id = 1"],
        "delivery 1 is in state 2, but the time of its end is None",
    ),
    "an unknown breaker": (["UPDATE targets SET breaker = 'half_open' WHERE id = 1"], "alpha: breaker is 'half_open'"),
    "an open breaker that is never tried": (
        ["UPDATE targets SET breaker = 'open' WHERE id = 1"],
        "target alpha: its breaker is open, but its next probe is None",
    ),
    "an unknown ordering": (["UPDATE targets SET ordering = 'fifo' WHERE id = 2"], "target beta: ordering is 'fifo'"),
    "probes that are no list": (
        ["UPDATE targets SET vain_probes = '{1:' WHERE id = 1"],
        "target alpha: vain_probes is no list of moments",
    ),
    "an allowance of nothing": (["UPDATE targets SET allowance = 0 WHERE id = 1"], "target alpha: allowance is 0"),
    "failures below none": (["UPDATE targets SET failures = -1 WHERE id = 1"], "target alpha: failures is -1"),
    "a last event that is not the newest": (
        ["UPDATE orders SET last_event_id = 1, sequence = 1 WHERE houdini_id = 'o1'"],
        "order o1 names 1 as its last event, but that is not its newest",
    ),
    "a last event of another order": (
        ["UPDATE orders SET last_event_id = 5 WHERE houdini_id = 'o1'"],
        "order o1 names 5 as its last event, but that is of o2",
    ),
    "a last event that is missing": (
        ["UPDATE orders SET last_event_id = 77 WHERE houdini_id = 'o1'"],
        "order o1 names 77 as its last event, but that is missing",
    ),
    "a wrong count": (["UPDATE orders SET sequence = 9 WHERE houdini_id = 'o1'"], "order o1 counts 9 events"),
    "an event of nobody": (["DELETE FROM orders WHERE houdini_id = 'o2'"], "event 4 is of order o2, which is not"),
    "an attempt of nothing": (["UPDATE attempts SET delivery_id = 99 WHERE id = 1"], "attempt 1 has no delivery 99"),
    "doubled deliveries": (
        [
            "DROP INDEX deliveries_once",
            "UPDATE deliveries SET event_id = 1 WHERE id = 3",
            "CREATE UNIQUE INDEX deliveries_once ON deliveries(event_id, target_id, replay) WHERE id <> 3",
        ],
        "schema: index deliveries_once is not as its migration makes it",
    ),
    "an index gone": (["DROP INDEX deliveries_due"], "schema: index deliveries_due is missing"),
    "a foreign table": (["CREATE TABLE notes(t)"], "schema: table notes is unknown to migration"),
    "an older schema": (["PRAGMA user_version = 0"], "unknown to migration 0"),
    "a newer schema": (["PRAGMA user_version = 99"], "schema 99 is newer than this version"),
}


@pytest.mark.parametrize("kind", HARM)
async def test_check_names_what_is_wrong(path: Path, kind: str):
    assert await asyncio.to_thread(check_file, path) == []
    statements, sentence = HARM[kind]
    harm(path, *statements)
    assert any(sentence in fault for fault in await asyncio.to_thread(check_file, path)), await asyncio.to_thread(
        check_file, path
    )


async def test_check_finds_doubled_deliveries_even_without_their_index(path: Path):
    connection = sqlite3.connect(path)
    connection.execute("DROP INDEX deliveries_once")
    connection.execute("UPDATE deliveries SET event_id = 1 WHERE id = 3")
    rows = connection.execute(QUERIES["fault_doubled"]).fetchall()
    connection.close()
    assert rows == [(1, 1, 2, 0)]


async def test_check_finds_a_damaged_page_and_names_few_of_many(path: Path):
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = os.urandom(64)
    path.write_bytes(content)
    faults = await asyncio.to_thread(check_file, path)
    assert faults
    assert all(fault.startswith("damaged: ") for fault in faults[:5])
    assert len(faults) <= 6


async def test_check_says_more_when_there_is_more(bench: Bench, tmp_path: Path):
    await bench.add(*(event(f"o{n}") for n in range(20)))
    await bench.store.close()
    harm(tmp_path / "relay.db", "UPDATE deliveries SET state = 1")
    assert (await asyncio.to_thread(check_file, tmp_path / "relay.db"))[5] == "... and 35 more like the last"


async def test_check_compares_the_counters_of_a_running_store(bench: Bench):
    await bench.add_life("o1", 2)
    assert isinstance(bench.store, SqliteStore)
    bench.store._targets["alpha"].open_count += 3
    assert await bench.store.check() == ["target alpha counts 5 open deliveries, the file has 2"]


async def test_counters_are_exact_in_the_middle_of_traffic(bench: Bench):
    async def traffic() -> None:
        for number in range(40):
            await bench.add_life(f"o{number}", 1)
            await bench.settle(*(delivered(one) for one in await bench.claim()))

    running = asyncio.create_task(traffic())
    while not running.done():
        assert await bench.store.check() == []
    await running


async def test_check_of_what_a_crash_left_reads_the_log_too(bench: Bench, tmp_path: Path):
    """Failure mode 83: without its -wal a copy is old."""
    await bench.add_life("o1", 3)
    for suffix in ("", "-wal"):
        (tmp_path / f"crashed.db{suffix}").write_bytes((tmp_path / f"relay.db{suffix}").read_bytes())
    assert (tmp_path / "crashed.db-wal").stat().st_size > 0
    assert await asyncio.to_thread(check_file, tmp_path / "crashed.db") == []
    restored = bench.over(tmp_path / "crashed.db")
    await restored.open()
    assert (await restored.store.backlog())["alpha"].pending == 3
    await restored.store.close()


async def test_check_creates_nothing_and_waits_for_nobody(bench: Bench, tmp_path: Path):
    with pytest.raises(StoreError, match="no such file"):
        await asyncio.to_thread(check_file, tmp_path / "other.db")
    assert not list(tmp_path.glob("other*"))
    with pytest.raises(StoreLocked):
        await asyncio.to_thread(check_file, tmp_path / "relay.db")


async def test_a_copy_that_fails_leaves_nothing_and_the_store_well(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = upkeep._sync

    def broken(path: Path) -> None:
        if path.name.endswith(".part"):
            raise OSError(5, "Input/output error")
        real(path)

    monkeypatch.setattr(upkeep, "_sync", broken)
    with pytest.raises(StoreError, match=r"back-up to .*copy.db: Input/output error; nothing was left there"):
        await bench.store.backup(tmp_path / "copy.db")
    assert not list(tmp_path.glob("copy*"))
    await bench.add_life("o1", 1)


async def test_a_file_that_came_meanwhile_is_not_replaced(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(upkeep, "_sync", lambda _path: (tmp_path / "copy.db").write_text("precious"))
    with pytest.raises(StoreError, match="exists already"):
        await bench.store.backup(tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"
    assert not (tmp_path / "copy.db.part").exists()


async def test_the_rest_of_a_crashed_copy_is_replaced(bench: Bench, tmp_path: Path):
    (tmp_path / "copy.db.part").write_text("half a copy")
    await bench.store.backup(tmp_path / "copy.db")
    assert not (tmp_path / "copy.db.part").exists()
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600


def slow_steps(monkeypatch: pytest.MonkeyPatch, step: Callable[[], object]) -> None:
    real = upkeep.copy_to

    def stepped(connection: sqlite3.Connection, path: Path, between: Callable[[], None]) -> None:
        real(connection, path, lambda: (between(), step(), None)[-1])

    monkeypatch.setattr("relay.store.upkeep.copy_to", stepped)


async def test_commits_go_on_between_the_steps_of_a_copy_and_are_in_it(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Failure mode 80: nobody waits for the copy, and the log does not grow behind it."""
    # Checkpoints every 4 MiB: by the 16 of the store the copy would have to be four times as large.
    await bench.store._run(lambda connection: connection.execute("PRAGMA wal_autocheckpoint=1000").fetchall())
    for chunk in range(30):
        await bench.add(*(event(f"o{chunk}-{n}", body=b"x" * 3_000) for n in range(100)))
    loop, order, numbers = asyncio.get_running_loop(), [], iter(range(1, 10_000))
    commits: list[asyncio.Task[None]] = []

    async def ask_for_a_commit() -> None:
        number = next(numbers)
        task = asyncio.create_task(bench.add(event("during", sequence=number, body=b"x" * 100_000)))
        task.add_done_callback(lambda _task: order.append(number))
        commits.append(task)
        await asyncio.sleep(0)  # so that it waits in the queue before the next step begins

    def step() -> None:
        asyncio.run_coroutine_threadsafe(ask_for_a_commit(), loop).result(20)

    monkeypatch.setattr(upkeep, "PAGES_A_STEP", 50)
    slow_steps(monkeypatch, step)
    copying = asyncio.create_task(bench.store.backup(tmp_path / "copy.db"))
    copying.add_done_callback(lambda _task: order.append("copy"))
    await copying
    await asyncio.gather(*commits)
    before = order[: order.index("copy")]
    assert len(before) * 100_000 > 6_000_000
    assert (tmp_path / "relay.db-wal").stat().st_size < 6_000_000, "the copy kept the log from being taken in"
    assert await bench.store.check() == []
    copy = bench.over(tmp_path / "copy.db")
    await copy.open()
    assert (await copy.known("during"))["during"].sequence >= len(before) - 2  # those asked for in the last steps
    assert await copy.store.check() == []
    await copy.store.close()


async def test_closing_ends_a_copy_early(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    await bench.add(*(event(f"o{n}", body=b"x" * 3_000) for n in range(500)))
    begun, loop = asyncio.Event(), asyncio.get_running_loop()
    gate = loop.create_future()

    async def hold() -> None:
        begun.set()
        await gate

    slow_steps(monkeypatch, lambda: asyncio.run_coroutine_threadsafe(hold(), loop).result(20))
    copying = asyncio.create_task(bench.store.backup(tmp_path / "copy.db"))
    await begun.wait()
    closing = asyncio.create_task(bench.store.close())
    await asyncio.sleep(0)
    gate.set_result(None)
    await closing
    with pytest.raises(StoreError, match="closed"):
        await copying
    assert not list(tmp_path.glob("copy*"))


async def test_a_copy_nobody_waits_for_is_given_up(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    await bench.add(*(event(f"o{n}", body=b"x" * 3_000) for n in range(500)))
    begun, loop = asyncio.Event(), asyncio.get_running_loop()
    gate = loop.create_future()

    async def hold() -> None:
        begun.set()
        await gate

    slow_steps(monkeypatch, lambda: asyncio.run_coroutine_threadsafe(hold(), loop).result(20))
    copying = asyncio.create_task(bench.store.backup(tmp_path / "copy.db"))
    await begun.wait()
    copying.cancel()
    await asyncio.gather(copying, return_exceptions=True)
    gate.set_result(None)
    await bench.store.backup(tmp_path / "second.db")  # one copy at a time, so the first has ended
    assert not list(tmp_path.glob("copy*"))


async def test_a_commit_that_fails_during_a_copy_breaks_the_store_and_the_copy(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await bench.add(*(event(f"o{n}", body=b"x" * 3_000) for n in range(500)))
    assert isinstance(bench.store, SqliteStore)
    writer = bench.store._require_writer()
    asked: list[asyncio.Future[None]] = []
    loop = asyncio.get_running_loop()

    def ask() -> None:
        def corrupt(_connection: sqlite3.Connection) -> None:
            raise sqlite3.DatabaseError("database disk image is malformed")

        asked.append(asyncio.ensure_future(writer.run(corrupt)))

    async def on_loop() -> None:
        ask()
        await asyncio.sleep(0)

    slow_steps(monkeypatch, lambda: asked or asyncio.run_coroutine_threadsafe(on_loop(), loop).result(20))
    with pytest.raises(StoreBroken, match="malformed"):
        await bench.store.backup(tmp_path / "copy.db")
    with pytest.raises(StoreBroken, match="malformed"):
        await asked[0]
    assert "malformed" in await bench.store.failed()
    assert not list(tmp_path.glob("copy*"))


async def test_a_stopped_store_can_be_copied_and_the_copy_restored(path: Path, tmp_path: Path):
    await asyncio.to_thread(backup_file, path, tmp_path / "copy.db")
    assert await asyncio.to_thread(check_file, tmp_path / "copy.db") == []
    with pytest.raises(StoreError, match="exists already"):
        await asyncio.to_thread(backup_file, path, tmp_path / "copy.db")
    with pytest.raises(StoreError, match="no such file"):
        await asyncio.to_thread(backup_file, tmp_path / "none.db", tmp_path / "other.db")
    path.write_bytes((tmp_path / "copy.db").read_bytes())
    bench = Bench(lambda: make_store(path))
    await bench.open()
    assert [one.event.webhook_id for one in await bench.claim()] == ["evt_o1_2", "evt_o2_2"]
    await bench.store.close()


CONFIG = """\
upstream: {{websocket_url: "ws://127.0.0.1:1/", rest_url: "http://127.0.0.1:1/", partner_id: p, secret: s-e-c-r-e-t}}
store: {{url: "sqlite:///{path}"}}
targets: [{{name: shop, url: "https://shop.example.com/", secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw]}}]
"""


@pytest.fixture
def config(path: Path) -> Path:
    written = path.with_name("config.yaml")
    written.write_text(CONFIG.format(path=path))
    return written


async def invoke(config: Path, *arguments: str) -> tuple[int, str, str]:
    result = await asyncio.to_thread(CliRunner().invoke, main, ["store", *arguments, "-c", str(config)])
    return result.exit_code, result.stdout, result.stderr


async def test_store_check_as_a_command(path: Path, config: Path):
    assert await invoke(config, "check") == (0, f"{path}: fine\n", "")
    harm(path, "UPDATE deliveries SET state = 9 WHERE id = 1")
    sentence = "delivery 1 has the unknown state 9"
    assert await invoke(config, "check") == (1, f"{path}: {sentence}\n", "")
    code, out, _ = await invoke(config, "check", "--json")
    assert (code, json.loads(out)) == (1, {"store": str(path), "ok": False, "faults": [sentence]})
    path.unlink()
    code, out, err = await invoke(config, "check")
    assert (code, out, "no such file" in err) == (3, "", True)


async def test_store_backup_as_a_command(path: Path, config: Path, tmp_path: Path):
    code, out, err = await invoke(config, "backup", str(tmp_path / "copy.db"), "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"file": str(tmp_path / "copy.db"), "bytes": (tmp_path / "copy.db").stat().st_size}
    code, out, err = await invoke(config, "backup", str(tmp_path / "copy.db"))
    assert (code, out, "exists already" in err) == (3, "", True)


async def test_store_backup_asks_the_running_relay(
    bench: Bench, path: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await bench.restart()
    asked: list[Path] = []
    monkeypatch.setattr(COMMANDS, "backup_running", lambda _settings, _config, file: asked.append(file))
    (tmp_path / "copy.db").write_text("written by the relay")
    monkeypatch.chdir(tmp_path)
    assert (await invoke(config, "backup", "copy.db"))[0] == 0
    assert asked == [tmp_path / "copy.db"]


async def test_two_copies_to_one_file_do_not_meet(bench: Bench, tmp_path: Path):
    """The growing file has one name, so the second waits, and then finds the first one's whole copy."""
    await bench.add(*(event(f"o{number}", body=b"x" * 20_000) for number in range(100)))
    target = tmp_path / "copy.db"
    results = await asyncio.gather(bench.store.backup(target), bench.store.backup(target), return_exceptions=True)
    assert results[0] is None
    assert "exists" in str(results[1])
    with closing(sqlite3.connect(target)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("SELECT count(*) FROM events").fetchone() == (100,)

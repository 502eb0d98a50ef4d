"""A store on a disk that fails: what was said to be committed is there, and what is broken says so and stops.

A child process prints what it did only once that is committed; after each fault its word is held against the file.
"""

import asyncio
import errno
import fcntl
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import pytest
from support.disks import build_shim, cannot, failing, remount, small_disk
from support.factories import event
from support.stores import Bench, delivered

from relay.errors import StoreBroken, StoreError
from relay.store import migrate
from relay.store.offline import check_file
from relay.store.sqlite import SqliteStore
from relay.store.values import TargetEntry

CHILD = Path(__file__).parents[1] / "support" / "store_child.py"
SENTENCES = "disk I/O error|what was read is damaged; run `houdini-relay store check`"
FOR_EVER = "1000000"


def make_store(path: Path) -> SqliteStore:
    return SqliteStore(path, lambda: 1_000, lambda _seconds: None)


def run_child(path: Path, rounds: str = "30", env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHILD, path, rounds],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, **(env or {})},
    )


def assert_word_was_kept(path: Path, said: str) -> None:
    """Everything committed is there, once, and every invariant holds."""
    connection = sqlite3.connect(path)
    events = {row[0] for row in connection.execute("SELECT webhook_id FROM events")}
    settled = {row[0] for row in connection.execute("SELECT id FROM deliveries WHERE state = 2")}
    connection.close()
    for line in said.splitlines(keepends=True):
        kind, *names = line.split()
        if not line.endswith("\n"):
            break  # killed while it wrote
        if kind == "I":
            assert set(names) <= events
        elif kind == "A":
            assert {int(name) for name in names} <= settled
    assert check_file(path) == []


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.mark.parametrize("at", range(1, 21))
def test_a_failed_fsync_ends_the_process_and_nothing_is_lost_or_doubled(tmp_path: Path, shim: Path, at: int):
    """Failure mode 76: a commit whose fsync failed is unknown, whatever the connection says."""
    path = tmp_path / "relay.db"
    first = run_child(path, env=failing(shim, "sync", at))
    assert first.returncode == 3, first.stderr
    assert "disk I/O error" in first.stderr
    assert "start again" in first.stderr
    assert len(first.stdout.splitlines()) < 30 * 3
    second = run_child(path)
    assert second.returncode == 0, second.stderr
    assert_word_was_kept(path, first.stdout + second.stdout)


@pytest.mark.parametrize("at", [1, 7, 20, 60])
@pytest.mark.parametrize("call", ["write", "read"])
def test_a_failed_write_or_read_ends_the_process_too(tmp_path: Path, shim: Path, call: str, at: int):
    path = tmp_path / "relay.db"
    said = ""
    if call == "read":  # there has to be something to read
        said = run_child(path).stdout
    faulty = run_child(path, "60", env=failing(shim, call, at))
    # A fault that hits a checkpoint changes nothing that was promised: the log still has it all.
    assert faulty.returncode in (0, 3), faulty.stderr
    assert faulty.returncode == 0 or re.search(SENTENCES, faulty.stderr), faulty.stderr
    after = run_child(path)
    assert after.returncode == 0, after.stderr
    assert_word_was_kept(path, said + faulty.stdout + after.stdout)


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path: Path):
    """Failure modes 73 and 74: what was said to be committed outlives SIGKILL."""
    path, chance, said = tmp_path / "relay.db", Random(7), ""
    for _ in range(20):
        child = subprocess.Popen([sys.executable, CHILD, path, FOR_EVER], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(chance.randint(2, 60))]
        child.kill()
        said += "".join(lines) + child.stdout.read()
        said = said if said.endswith("\n") else said[: said.rfind("\n") + 1]
        child.stdout.close()
        child.wait()
        assert (tmp_path / "relay.db-wal").stat().st_size > 0
        assert_word_was_kept(path, said)
    assert said.count("I ") > 100


def test_a_full_disk_stops_it_and_room_heals_it(tmp_path: Path):
    """Failure mode 77, with the real kernel."""
    with small_disk(tmp_path / "disk", "1500k") as disk:
        path = disk / "relay.db"
        first = run_child(path, FOR_EVER)
        assert first.returncode == 3, first.stderr
        assert "the disk is full; free some room and start again" in first.stderr
        second = run_child(path, FOR_EVER)
        assert second.returncode == 3, second.stderr
        assert "the disk is full" in second.stderr
        remount(disk, "size=64M")
        third = run_child(path)
        assert third.returncode == 0, third.stderr
        assert_word_was_kept(path, first.stdout + second.stdout + third.stdout)


def test_a_copy_to_a_full_disk_leaves_nothing_and_the_store_well(tmp_path: Path):
    with small_disk(tmp_path / "disk", "200k") as disk:

        async def copy() -> None:
            bench = Bench(lambda: make_store(tmp_path / "relay.db"))
            await bench.open()
            await bench.add(*(event(f"o{n}", body=b"x" * 3_000) for n in range(200)))
            with pytest.raises(StoreError, match="full; nothing was left there") as caught:
                await bench.store.backup(disk / "copy.db")
            assert not isinstance(caught.value, StoreBroken)
            await bench.add(event("after"))
            await bench.store.close()

        asyncio.run(copy())
        assert os.listdir(disk) == []


def test_a_disk_that_can_only_be_read(tmp_path: Path):
    with small_disk(tmp_path / "disk", "8M") as disk:
        path = disk / "relay.db"
        assert run_child(path, "3").returncode == 0
        remount(disk, "ro")
        done = run_child(path)
        assert done.returncode == 3
        assert "Read-only file system; check the folder and who owns it" in done.stderr


@pytest.fixture
def nobodys_folder() -> Iterator[Path]:
    if os.geteuid() != 0:
        cannot("only root can act as somebody else")
    folder = Path(tempfile.mkdtemp(prefix="relay-nobody-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def open_as_nobody(path: Path) -> str:
    """What the store says to a user who owns nothing; in a fork, since the program need not be readable to him."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # What is imported or read on first use, while it may still be read.
            asyncio.run(open_and_explain(Path(tempfile.mkdtemp(dir=path.parent)) / "relay.db"))
            steps = migrate.load_migrations("sqlite")
            migrate.load_migrations = lambda _dialect: steps
            os.setgid(65534)
            os.setuid(65534)
            answer = asyncio.run(open_and_explain(path))
        except BaseException as error:
            answer = f"unexpected: {error!r}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


async def open_and_explain(path: Path) -> str:
    store = make_store(path)
    try:
        await store.open([TargetEntry("alpha")])
    except StoreError as error:
        return str(error)
    await store.close()
    return "opened"


def test_a_file_that_may_only_be_read(nobodys_folder: Path):
    path = nobodys_folder / "relay.db"
    assert open_as_nobody(path) == "opened"
    os.chown(path, 0, 0)
    path.chmod(0o644)
    answer = open_as_nobody(path)
    assert "SQLITE_READONLY" in answer
    assert "it cannot be opened for writing; check the path, its folder and who owns them" in answer


def test_a_folder_that_may_only_be_read(nobodys_folder: Path):
    nobodys_folder.chmod(0o755)
    assert "Permission denied; check the folder and who owns it" in open_as_nobody(nobodys_folder / "relay.db")


async def test_a_database_that_is_a_folder(tmp_path: Path):
    (tmp_path / "relay.db").mkdir()
    with pytest.raises(StoreBroken, match="it cannot be opened for writing; check the path"):
        await make_store(tmp_path / "relay.db").open([])


async def test_a_filesystem_without_a_write_ahead_log_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """SQLite says nothing when it cannot switch: a network filesystem, or an fsync that failed just then."""
    monkeypatch.setattr("relay.store.writer._PRAGMAS", ("journal_mode=DELETE",))
    with pytest.raises(StoreBroken, match=r"no write-ahead log could be set up \(the journal mode stayed delete\)"):
        await make_store(tmp_path / "relay.db").open([])


async def test_a_filesystem_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Failure mode 83: without a lock two relays could write one file."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StoreError, match=r"gives no lock on .*No locks available; use a local disk"):
        await make_store(tmp_path / "relay.db").open([])
    assert len(os.listdir("/proc/self/fd")) == before


async def test_another_program_in_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Failure mode 79: it holds the file without having asked for our lock."""
    monkeypatch.setattr("relay.store.writer._PRAGMAS", ("journal_mode=WAL", "busy_timeout=0"))
    await (store := make_store(tmp_path / "relay.db")).open([TargetEntry("alpha")])
    intruder = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBroken, match="another program has it open without asking"):
        await store.meta_set("k", "v")
    intruder.close()
    await store.close()


async def test_a_page_that_rots_while_it_runs_breaks_the_store(tmp_path: Path):
    """A damaged file is found by whoever reads it, and then nothing may go on."""
    path = tmp_path / "relay.db"
    bench = Bench(lambda: make_store(path))
    await bench.open()
    await bench.add(*(event(f"o{n}", body=b"x" * 900) for n in range(400)))
    await bench.restart()
    content = bytearray(path.read_bytes())
    for page in range(4, len(content) // 4096):
        content[page * 4096 : page * 4096 + 100] = os.urandom(100)
    path.write_bytes(content)

    async def deliver_everything() -> None:
        while claimed := await bench.claim(limit=20):
            await bench.settle(*(delivered(one) for one in claimed))

    with pytest.raises(StoreBroken, match=r"malformed.*otherwise restore a back-up, see docs/operations\.md"):
        await deliver_everything()
    assert "malformed" in await bench.store.failed()
    with pytest.raises(StoreBroken):
        await bench.store.check_alive()
    await bench.store.close()


async def test_a_commit_forced_to_fail_in_the_thread_resolves_every_caller(tmp_path: Path):
    """A writer that dies without a word would leave its callers waiting for ever."""
    store = make_store(tmp_path / "relay.db")
    await store.open([TargetEntry("alpha")])

    def fall_over(_connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    writer = store._require_writer()
    async with asyncio.timeout(10):
        answers = await asyncio.gather(
            writer.run(lambda connection: connection.execute("SELECT 1").fetchone()),
            writer.run(fall_over),
            store.meta_set("k", "v"),
            store.backup(tmp_path / "copy.db"),
            return_exceptions=True,
        )
    assert [type(answer) for answer in answers] == [StoreBroken] * 4
    await store.close()

"""`store prune`, and a database file that somebody else has written into."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.factories import event
from support.stores import Bench, delivered, up_to

from relay.cli import main
from relay.clock import SystemClock
from relay.errors import StoreBroken, StoreError
from relay.store import offline
from relay.store.offline import check_file, prune_file
from relay.store.sqlite import SqliteStore
from relay.store.values import Pruned

DAY = 24 * 3600 * 1000
CONFIG = """\
upstream: {{websocket_url: "ws://127.0.0.1:1/", rest_url: "http://127.0.0.1:1/", partner_id: p, secret: s-e-c-r-e-t}}
store: {{url: "sqlite:///{path}", retention: 20d}}
targets: [{{name: shop, url: "https://shop.example.com/", secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw]}}]
"""


def make_store(path: Path) -> SqliteStore:
    return SqliteStore(path, lambda: 1_000, lambda _seconds: None)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Fifty orders that were delivered thirty days ago, one ten days ago, and one that waits."""
    bench = Bench(lambda: make_store(tmp_path / "relay.db"))
    await bench.open()
    now_ms = SystemClock().wall_ms()
    for ended_ms, orders in ((now_ms - 30 * DAY, 50), (now_ms - 10 * DAY, 1)):
        names = [f"{ended_ms}-{number}" for number in range(orders)]
        await bench.add(*(event(name, 4, body=b"x" * 3_000, at_ms=ended_ms) for name in names), now_ms=ended_ms)
        for target in ("alpha", "beta"):
            await bench.settle(*(delivered(one) for one in await bench.claim(target, now_ms=now_ms)), now_ms=ended_ms)
    await bench.add(event("waits"), now_ms=now_ms)
    await bench.store.close()
    return tmp_path / "relay.db"


@pytest.fixture
def config(path: Path) -> Path:
    written = path.with_name("config.yaml")
    written.write_text(CONFIG.format(path=path))
    return written


async def invoke(config: Path, *arguments: str) -> tuple[int, str, str]:
    result = await asyncio.to_thread(CliRunner().invoke, main, ["store", "prune", *arguments, "-c", str(config)])
    return result.exit_code, result.stdout, result.stderr


async def test_a_stopped_store_is_pruned_by_its_retention(path: Path, config: Path):
    before = path.stat().st_size
    code, out, err = await invoke(config)
    assert (code, err.strip(".\n")) == (0, "")
    assert out.splitlines() == [
        f"{path}: removed 100 deliveries, 50 events, 50 orders",
        f"{path}: {before} bytes before, {path.stat().st_size} now",
    ]
    assert path.stat().st_size < before // 2
    assert await asyncio.to_thread(check_file, path) == []


async def test_how_long_ago_can_be_said_and_machines_get_numbers(path: Path, config: Path):
    before = path.stat().st_size
    code, out, err = await invoke(config, "--older-than", "240h", "--json")
    assert (code, err) == (0, "")
    counts = {"deliveries": 102, "events": 51, "orders": 51}
    assert json.loads(out) == {"store": str(path), **counts, "bytes_before": before, "bytes": path.stat().st_size}
    code, out, _ = await invoke(config, "--older-than", "240h", "--json")
    assert json.loads(out)["deliveries"] == 0


@pytest.mark.parametrize("age", ["soon", "1m", "-3d", "9999999d"])
async def test_an_age_that_is_none_is_refused(path: Path, config: Path, age: str):
    code, out, err = await invoke(config, "--older-than", age)
    assert (code, out) == (2, "")
    assert "--older-than" in err
    assert "expected a duration from 1h to 3650d" in err


async def test_a_store_that_cannot_be_used_is_exit_code_3(path: Path, config: Path):
    store = make_store(path)
    await store.open([])
    assert (await invoke(config))[0] == 3
    await store.close()
    harm(path, "PRAGMA user_version = 0")
    code, _, err = await invoke(config)
    assert (code, "store migrate" in err) == (3, True)
    path.unlink()
    code, _, err = await invoke(config)
    assert (code, "no such file" in err) == (3, True)
    assert not path.exists()


def test_half_a_pruning_is_kept_and_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(offline, "PRUNE_BATCH", 7)
    now_ms = SystemClock().wall_ms()

    def interrupt(total: Pruned) -> None:
        if total.deliveries >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune_file(path, now_ms - 20 * DAY, now_ms, interrupt)
    assert check_file(path) == []
    total = prune_file(path, now_ms - 20 * DAY, now_ms, lambda _total: None)
    assert 0 < total.deliveries <= 80
    assert total.events == 50
    assert check_file(path) == []


def harm(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("UPDATE targets SET breaker = 'ajar'", "breaker is 'ajar'"),
        ("UPDATE targets SET breaker = 'half_open'", "breaker is 'half_open'"),
        ("UPDATE targets SET vain_probes = 'never'", "vain_probes is no list of moments"),
        ("UPDATE targets SET vain_probes = '[1, null]'", "vain_probes is no list of moments"),
        ("UPDATE targets SET allowance = 0", "allowance is 0"),
        ("UPDATE targets SET probes_failed = -3", "probes_failed is -3"),
        ("UPDATE targets SET ordering = 'random'", "ordering is 'random'"),
    ],
)
async def test_a_standing_that_cannot_be_understood_is_named(path: Path, statement: str, sentence: str):
    harm(path, statement)
    store = make_store(path)
    with pytest.raises(StoreError, match=sentence) as caught:
        await Bench(lambda: store).open()
    assert "target alpha" in str(caught.value)
    assert not isinstance(caught.value, StoreBroken)


async def test_a_standing_that_is_spoilt_while_it_runs_ends_one_request_and_no_more(path: Path):
    bench = Bench(lambda: make_store(path))
    await bench.open()
    assert isinstance(bench.store, SqliteStore)
    await bench.store._run(
        lambda one: one.execute("UPDATE targets SET vain_probes = '[' WHERE name = 'alpha'").rowcount
    )
    with pytest.raises(StoreError, match="target alpha"):
        await bench.store.claim("alpha", up_to(1), 2**50)
    with pytest.raises(StoreError, match="knows no target nobody"):
        await bench.store.claim("nobody", up_to(1), 2**50)
    (one,) = await bench.claim("beta", now_ms=2**50)
    await bench.settle(delivered(one))
    assert bench.store.in_flight() == frozenset()
    await bench.store.close()

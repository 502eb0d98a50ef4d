"""What the SQLite store's verbs cost: plans and steps of its virtual machine are counted, never time."""

import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.stores import Bench, again, delivered, probing, trips, up_to

from relay.store.migrate import load_queries, migrate_sqlite
from relay.store.sqlite import SqliteStore
from relay.store.sqlite_rows import repeated

QUERIES = load_queries("sqlite")
EVERYTHING = {"gaps", "targets", "target_names", "count_questions", "count_open_all"}
"""Small tables, and what is asked once: at the start, or by a person who wants the whole file read."""
PARTIAL = {"open_orders", "begin_gap", "end_gap", "close_gaps"}
"""They read the whole of a small partial index, or its beginning."""
WINDOWED = {"any_heads", "dead_letters"}
"""They sort or filter what one bounded look along an index has found."""
MANY = 200_000


@pytest.mark.parametrize("name", [name for name in QUERIES if not name.startswith("fault_")])
def test_no_statement_reads_a_whole_table(name: str):
    """Failure mode 88: a claim's cost must not grow with the backlog."""
    query = QUERIES[name]
    check_plan(name, query)
    if re.search(r"VALUES ?\(:", query):
        check_plan(name, repeated(name).text(3))


def check_plan(name: str, query: str) -> None:
    named = {one: "[]" if "json_each(:" + one in query else 1 for one in re.findall(r":(\w+)", query)}
    bound: Any = named or ("[]" if "json_each(?)" in query else 1,) * query.count("?")
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate_sqlite(connection)
        plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + query, bound)]
    allowed = r"SCAN (json_each|j) VIRTUAL|SCAN (\d+ )?CONSTANT ROW|SCAN \d+-ROW VALUES CLAUSE|SCAN r$"
    allowed += "|SCAN .* USING INDEX" if name in PARTIAL else ""
    scans = [line for line in plan if line.startswith("SCAN") and not re.match(allowed, line)]
    if name in WINDOWED:
        bounded = r"FROM \(SELECT(?:[^()]|\((?:[^()]|\([^()]*\))*\))*LIMIT"
        assert re.search(bounded, query), "the look must be bounded before it is sorted"
        assert any("USING INDEX" in line for line in plan), plan
        return
    assert not scans or name in EVERYTHING, plan
    assert not any("AUTOMATIC" in line for line in plan), plan
    if "json_each" not in query and not name.startswith("walk_deliveries_of_order"):
        assert not any("TEMP B-TREE" in line for line in plan), plan


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(lambda: SqliteStore(tmp_path / "relay.db", lambda: 1_000, lambda _seconds: None))
    await made.open()
    yield made
    await made.store.close()


async def fill(bench: Bench, count: int, lanes: int) -> None:
    """A target that is dead: `count` deliveries in `lanes` lanes, half of the heads waiting for a retry."""
    store = bench.store
    assert isinstance(store, SqliteStore)

    def work(connection: sqlite3.Connection) -> None:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO events(id, webhook_id, lane, type, at_ms, body)"
            " SELECT i, 'evt_' || i, 'o' || (i % ?), 'order.new', 1000, zeroblob(600) FROM n",
            (count, lanes),
        )
        connection.execute(
            "INSERT INTO deliveries(target_id, lane, event_id, state, due_ms, created_ms)"
            " SELECT 1, lane, id, id > ?, 1000 + (id % 2) * 1000000, 1000 FROM events",
            (lanes,),
        )
        store._targets["alpha"].open_count = count

    await store._run(work)


async def steps(bench: Bench, verb: Callable[[], Awaitable[object]]) -> int:
    """How many steps of SQLite's virtual machine a verb takes."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    store = bench.store
    assert isinstance(store, SqliteStore)
    await store._run(lambda connection: connection.set_progress_handler(count, 1))
    await verb()
    await store._run(lambda connection: connection.set_progress_handler(None, 0))
    return counted


async def costs(bench: Bench) -> dict[str, int]:
    """Of everything that is done to a target again and again."""
    found: dict[str, int] = {}
    claimed = await bench.claim(limit=16)
    found["nothing permitted"] = await steps(bench, lambda: bench.store.claim("alpha", up_to(0), 10_000))
    found["claim beside 16"] = await steps(bench, lambda: bench.store.claim("alpha", up_to(4), 10_000))
    found["probe beside 20"] = await steps(bench, lambda: bench.store.claim("alpha", probing(), 10_000))
    found["success"] = await steps(bench, lambda: bench.settle(delivered(claimed[0])))
    found["vain probe"] = await steps(bench, lambda: bench.settle(again(claimed[1], 2_000)))
    found["backlog"] = await steps(bench, bench.store.backlog)
    found["retry now"] = await steps(bench, lambda: bench.store.retry_now(40, 10_000))
    found["cancel"] = await steps(bench, lambda: bench.store.cancel(42, 10_000))
    found["expire"] = await steps(bench, lambda: bench.store.expire("alpha", 5_000, 500, 50, 10_000))
    found["trim"] = await steps(bench, lambda: bench.store.trim("alpha", 500, 20, 10_000))
    found["replay"] = await steps(bench, lambda: bench.store.replay("alpha", ["evt_5"], 10_000))
    found["pause"] = await steps(bench, lambda: bench.store.pause("alpha", 10_000))
    found["prune"] = await steps(bench, lambda: bench.store.prune(5_000, 0, 50))
    return found


async def test_a_dead_target_costs_the_same_with_4_000_and_with_200_000_deliveries(tmp_path: Path, bench: Bench):
    other = Bench(lambda: SqliteStore(tmp_path / "other.db", lambda: 1_000, lambda _seconds: None))
    await other.open()
    await fill(bench, 4_000, 2_000)
    await fill(other, MANY, 100_000)
    few, many = await costs(bench), await costs(other)
    await other.store.close()
    assert few["nothing permitted"] < 60, "a permit of nothing must not look for heads"
    for verb, cost in few.items():
        # Not to the step: a deeper tree, a longer comparison.
        assert abs(many[verb] - cost) <= 10 + cost // 20, (verb, cost, many[verb])


async def test_opening_a_breaker_touches_only_heads_that_wait(bench: Bench):
    await fill(bench, 2_000, 1_000)
    (head,) = await bench.claim(limit=1)
    opening = await steps(bench, lambda: bench.settle(again(head, 9_000_000), judge=trips))
    (head,) = await bench.probe()
    assert await steps(bench, lambda: bench.settle(again(head, 9_000_000), judge=trips)) < opening // 20
    store = bench.store
    assert isinstance(store, SqliteStore)
    due = await store._run(
        lambda connection: connection.execute(
            "SELECT count(*) FROM deliveries WHERE state = 0 AND target_id = 1 AND due_ms > 2000"
        ).fetchone()
    )
    assert due == (0,)


async def test_pruning_shortens_the_file_a_bit_at_a_time(bench: Bench, tmp_path: Path):
    """Failure mode 84."""
    await fill(bench, 20_000, 20_000)
    store = bench.store
    assert isinstance(store, SqliteStore)

    def finish(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE deliveries SET state = 2, finished_ms = 2000")
        store._targets["alpha"].open_count = 0

    await store._run(finish)
    before, place, batches = await pages(store), 0, 0
    while place is not None and batches < 1_000:
        pruned = await store.prune(5_000, place, 500)
        assert pruned.deliveries + pruned.events <= 500
        place, batches = pruned.next_place, batches + 1
    assert place is None
    assert batches > 80
    assert await pages(store) < before // 20
    assert await store.check() == []
    assert (tmp_path / "relay.db-wal").stat().st_size < 64 << 20


async def pages(store: SqliteStore) -> int:
    return int(await store._run(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0]))


async def test_one_delivery_with_thousands_of_attempts_is_a_batch_of_its_own(bench: Bench):
    await fill(bench, 3, 3)
    store = bench.store
    assert isinstance(store, SqliteStore)

    def finish(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE deliveries SET state = 2, finished_ms = 2000, attempts_made = 2000")
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)"
            " INSERT INTO attempts(delivery_id, number, at_ms, duration_ms, outcome, response_body)"
            " SELECT d.id, i, 1000, 1.0, 'retry', x'' FROM n, deliveries d"
        )

    await store._run(finish)
    place, counts = 0, []
    for _ in range(3):
        pruned = await store.prune(5_000, place, 1_000)
        counts.append(pruned.deliveries)
        place = pruned.next_place or 0
    assert counts == [1, 1, 1]
    left = await store._run(lambda connection: connection.execute("SELECT count(*) FROM attempts").fetchone())
    assert left == (0,)

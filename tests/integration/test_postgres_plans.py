"""With 100,000 deliveries, what every delivery passes through reads no table from end to end."""

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta

import asyncpg
import pytest
from support.instances import instances
from support.postgres import shared_server

from relay.store.postgres_sql import SQL
from relay.store.values import TargetEntry

ROWS = 100_000
FILL = """
INSERT INTO orders(houdini_id, status, fields, terminal, silent, sequence, status_counts, last_event_id, learned_ms,
                   believed_ms)
  SELECT 'o' || lpad(g::text, 6, '0'), 1, '{}', 0, 0, 5, '{}', g * 5, 1000, 1000
  FROM generate_series(1, 20000) g;
INSERT INTO events(id, webhook_id, lane, type, at_ms, sequence, status, changed, origin, body)
  SELECT g, 'evt_' || g, 'o' || lpad(((g - 1) / 5 + 1)::text, 6, '0'), 'order.new', 1000 + g, (g - 1) % 5 + 1, 1,
         '["status"]', 'websocket', convert_to(repeat('x', 200), 'UTF8') FROM generate_series(1, 100000) g;
INSERT INTO deliveries(target_id, lane, event_id, state, due_ms, created_ms, attempts_made)
  SELECT 1, e.lane, e.id, CASE WHEN e.sequence = 1 THEN 0 ELSE 1 END, 1000 + e.id, 1000 + e.id, 1
  FROM events e ORDER BY e.id;
INSERT INTO deliveries(target_id, lane, event_id, state, due_ms, created_ms, finished_ms)
  SELECT 2, e.lane, e.id, CASE WHEN e.id > 99500 AND e.sequence = 1 THEN 0
                               WHEN e.id > 99500 THEN 1 ELSE 2 END, 1000, 1000,
         CASE WHEN e.id > 99500 THEN NULL ELSE 2000 END
  FROM events e ORDER BY e.id;
INSERT INTO attempts(delivery_id, number, at_ms, duration_ms, outcome, response_body)
  SELECT id, 1, 1000, 1, 'ok', '' FROM deliveries;
SELECT setval('events_id_seq', 100000);
"""
EMPTY = "UPDATE deliveries SET state = 2, finished_ms = 1 WHERE target_id = 2"
"""Everything there has ended: what looks for the first open one must not look past all that."""
NOW = 10**12
SOME = list(range(ROWS - 90, ROWS))
LANES = [f"o{number:06}" for number in range(ROWS // 5 - 60, ROWS // 5)]
OUTCOME = {
    "id": SOME,
    "claim": [1] * 90,
    "state": [2] * 90,
    "reason": [None] * 90,
    "step": [1] * 90,
    "at_ms": [1] * 90,
    "due_ms": [1] * 90,
    "outcome": ["ok"] * 90,
    "status_code": [200] * 90,
    "now": NOW,
}
HOT: dict[str, dict[str, object]] = {
    "claim_due": {"target": 1, "now": NOW, "limit": 32, "lease": timedelta(seconds=30)},
    "claim_any": {"target": 1, "limit": 1, "lease": timedelta(seconds=30)},
    "next_due": {"target": 1, "now": 60_000},
    "oldest_deliveries_none": {"target": 2, "after": 0, "limit": 500},
    "oldest_unclaimed_none": {"target": 2, "most": 500, "limit": 500},
    "claim_due_none": {"target": 2, "now": NOW, "limit": 32, "lease": timedelta(seconds=30)},
    "walk_open_none": {"target_ids": [2], "below": ROWS, "above": 0, "limit": 100},
    "promote_none": {"target": [2] * 60, "lane": LANES, "now": NOW},
    "next_lease_end": {"target": 2, "now": NOW, "held": [1, 2]},
    "finish": OUTCOME,
    "postpone": OUTCOME,
    "acknowledge_late": OUTCOME,
    "promote": {"target": [1] * 60, "lane": LANES, "now": NOW},
    "lock_orders": {"ids": LANES},
    "known_orders": {"ids": LANES},
    "insert_deliveries": {"target": [1] * 60, "lane": LANES, "event": [2 * ROWS + n for n in range(60)],
                          "replay": [0] * 60, "now": NOW},
    "supersede": {"target": [1] * 60, "lane": LANES, "terminal": [0] * 60, "now": NOW, "terminal_statuses": [4, 5]},
    "oldest_deliveries": {"target": 1, "after": 50, "limit": 500},
    "oldest_unclaimed": {"target": 1, "most": 500, "limit": 500},
    "old_notices": {"target": 1, "made_before": NOW, "limit": 100},
    "end_unsent": {"ids": SOME, "state": 3, "reason": "expired", "now": NOW},
    "release": {"id": SOME, "claim": [1] * 90},
    "backlog": {},
    "order_deliveries": {"ids": LANES},
    "standings": {"ids": SOME},
    "look_at_deliveries": {"ids": SOME, "lowest": 0, "highest": 5, "target": None, "type": None, "order": None,
                           "since": None, "until": None},
    "walk_deliveries": {"below": ROWS, "above": 0, "limit": 100},
    "walk_open": {"target_ids": [1, 2], "below": ROWS, "above": 0, "limit": 100},
    "walk_dead": {"target_ids": [1, 2], "below": ROWS, "above": 0, "limit": 100},
    "walk_events_of_order": {"order": LANES[0], "below": ROWS, "above": 0, "limit": 100},
    "walk_routed_events": {"below": ROWS, "above": 0, "limit": 100},
    "walk_deliveries_of_order": {"order": LANES[0], "below": 10**9, "above": 0, "limit": 100},
    "old_deliveries": {"after": 500, "before": 1, "now": NOW, "limit": 500},
    "old_events": {"after": 500, "before": 1, "now": NOW, "limit": 500},
    "old_orders": {"after": 500, "before": 1, "now": NOW, "limit": 500},
    "delete_events": {"ids": SOME},
    "delete_orders": {"ids": SOME, "before": NOW},
    "insert_superseded": {"target": 1, "lane": "x", "event": 7, "replay": 7, "now": 1},
    "look_at_events": {"ids": SOME, "type": None, "order": None, "since": None, "until": None},
    "bring_forward": {"target": 2, "now": 1},
    "dead_letters": {"most": 100},
    "replay_source": {"target": 1, "webhook_id": "evt_77"},
    "attempts": {"id": 77, "limit": 10},
}  # fmt: skip


async def fill() -> str:
    name = await shared_server().create_database()
    async with instances(shared_server().url(name), 1, [TargetEntry("dead"), TargetEntry("well")]):
        pass
    connection = await asyncpg.connect(shared_server().url(name))
    await connection.execute(FILL)
    await connection.execute(EMPTY)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    return name


@pytest.fixture(scope="module")
def full() -> Iterator[str]:
    name = asyncio.run(fill())
    yield shared_server().url(name)
    asyncio.run(shared_server().drop_database(name))


@pytest.mark.parametrize("name", HOT)
async def test_no_table_is_read_from_end_to_end(full: str, name: str):
    connection = await asyncpg.connect(full, statement_cache_size=0)
    try:
        async with connection.transaction():
            statement = SQL[name.removesuffix("_none")]
            plan = await connection.fetch(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.text}", *statement.arguments(HOT[name])
            )
            raise asyncpg.exceptions.RaiseError
    except asyncpg.exceptions.RaiseError:
        pass  # rolled back
    finally:
        await connection.close()
    text = plan[0][0]
    scanned = {one.get("Relation Name") for one in nodes(json.loads(text)[0]["Plan"]) if one["Node Type"] == "Seq Scan"}
    visited = max(one.get("Rows Removed by Filter", 0) for one in nodes(json.loads(text)[0]["Plan"]))
    assert visited < 1_000, text
    assert scanned & {"orders", "events", "deliveries", "attempts"} == set(), text


def nodes(plan: dict) -> list[dict]:
    return [plan, *(one for child in plan.get("Plans", ()) for one in nodes(child))]

-- Retention. Rows are found without a lock, locked, and judged again by a new statement, for whoever held the lock
-- before may have given them something to refer to.

-- name: old_deliveries
SELECT id, state > 1 AND finished_ms < :before, created_ms BETWEEN :before AND :now, attempts_made FROM deliveries
WHERE id > :after ORDER BY id LIMIT :limit;

-- name: delete_attempts
DELETE FROM attempts WHERE delivery_id = ANY(:ids::bigint[]);

-- name: delete_deliveries
DELETE FROM deliveries WHERE id = ANY(:ids::bigint[]) AND state > 1 AND finished_ms < :before RETURNING id;

-- name: old_events
SELECT e.id, e.at_ms < :before
         AND (SELECT 1 FROM deliveries WHERE event_id = e.id LIMIT 1) IS NULL
         AND (SELECT 1 FROM orders WHERE houdini_id = e.lane AND last_event_id = e.id LIMIT 1) IS NULL,
       e.at_ms BETWEEN :before AND :now
FROM events e WHERE e.id > :after ORDER BY e.id LIMIT :limit;

-- name: lock_events
SELECT id FROM events WHERE id = ANY(:ids::bigint[]) ORDER BY id FOR UPDATE SKIP LOCKED;

-- name: delete_events
DELETE FROM events e WHERE e.id = ANY(:ids::bigint[])
  AND (SELECT 1 FROM deliveries WHERE event_id = e.id LIMIT 1) IS NULL
  AND (SELECT 1 FROM orders WHERE houdini_id = e.lane AND last_event_id = e.id LIMIT 1) IS NULL;

-- name: old_orders
SELECT o.id, (o.terminal = 1 OR o.aged_out_ms IS NOT NULL) AND o.believed_ms < :before
         AND (SELECT 1 FROM questions WHERE houdini_id = o.houdini_id LIMIT 1) IS NULL
         AND (SELECT 1 FROM events WHERE lane = o.houdini_id AND id IS DISTINCT FROM o.last_event_id LIMIT 1) IS NULL
         AND (SELECT 1 FROM deliveries WHERE event_id = o.last_event_id LIMIT 1) IS NULL,
       o.learned_ms BETWEEN :before AND :now, o.last_event_id
FROM orders o WHERE o.id > :after ORDER BY o.id LIMIT :limit;

-- name: lock_old_orders
SELECT id FROM orders WHERE id = ANY(:ids::bigint[]) ORDER BY houdini_id FOR UPDATE SKIP LOCKED;

-- name: delete_orders
DELETE FROM orders o WHERE o.id = ANY(:ids::bigint[])
  AND (o.terminal = 1 OR o.aged_out_ms IS NOT NULL) AND o.believed_ms < :before
  AND (SELECT 1 FROM questions WHERE houdini_id = o.houdini_id LIMIT 1) IS NULL
  AND (SELECT 1 FROM events WHERE lane = o.houdini_id AND id IS DISTINCT FROM o.last_event_id LIMIT 1) IS NULL
  AND (SELECT 1 FROM deliveries WHERE event_id = o.last_event_id LIMIT 1) IS NULL
RETURNING o.last_event_id;

-- name: old_gaps
SELECT id, swept_ms IS NOT NULL AND to_ms < :before, from_ms BETWEEN :before AND :now FROM gaps
WHERE id > :after ORDER BY id LIMIT :limit;

-- name: delete_gaps
DELETE FROM gaps WHERE id = ANY(:ids::bigint[]);

-- Everything that violates an invariant; read in one snapshot.

-- name: fault_lane_heads
SELECT target_id, lane, count(*) FILTER (WHERE state = 0) FROM deliveries WHERE state < 2
GROUP BY target_id, lane HAVING count(*) FILTER (WHERE state = 0) <> 1;

-- name: fault_lane_order
SELECT target_id, lane, min(id) FILTER (WHERE state = 0), min(id) FROM deliveries WHERE state < 2
GROUP BY target_id, lane HAVING count(*) FILTER (WHERE state = 0) = 1 AND min(id) FILTER (WHERE state = 0) <> min(id);

-- name: fault_doubled
SELECT event_id, target_id, count(*), replay FROM deliveries GROUP BY event_id, target_id, replay HAVING count(*) > 1;

-- name: fault_no_event
SELECT id, event_id FROM deliveries d WHERE NOT EXISTS (SELECT 1 FROM events WHERE id = d.event_id);

-- name: fault_no_target
SELECT id, target_id FROM deliveries d WHERE NOT EXISTS (SELECT 1 FROM targets WHERE id = d.target_id);

-- name: fault_wrong_lane
SELECT d.id, d.lane, e.lane FROM deliveries d JOIN events e ON e.id = d.event_id
WHERE d.lane NOT IN (e.lane, e.lane || '#' || e.id || CASE WHEN d.replay > 0 THEN 'r' || d.replay ELSE '' END);

-- name: fault_state
SELECT id, state FROM deliveries WHERE state NOT BETWEEN 0 AND 5;

-- name: fault_steps
SELECT id, steps_used, attempts_made FROM deliveries
WHERE steps_used NOT BETWEEN 0 AND attempts_made OR asked NOT IN (0, 1) OR (asked > 0 AND state <> 0);

-- name: fault_finished
SELECT id, state, finished_ms FROM deliveries WHERE (state > 1) <> (finished_ms IS NOT NULL);

-- name: fault_lease
SELECT id, state FROM deliveries WHERE state <> 0 AND leased_until IS NOT NULL;

-- name: fault_order_event
SELECT o.houdini_id, o.last_event_id,
       CASE WHEN e.id IS NULL THEN 'missing' WHEN e.lane <> o.houdini_id THEN 'of ' || e.lane ELSE 'not its newest' END
FROM orders o LEFT JOIN events e ON e.id = o.last_event_id
WHERE o.last_event_id IS DISTINCT FROM (SELECT max(id) FROM events WHERE lane = o.houdini_id);

-- name: fault_order_sequence
SELECT o.houdini_id, o.sequence, coalesce(e.sequence, 0)
FROM orders o LEFT JOIN events e ON e.id = o.last_event_id
WHERE o.sequence <> coalesce(e.sequence, 0);

-- name: fault_orphan_event
SELECT id, lane FROM events e WHERE sequence IS NOT NULL AND NOT EXISTS (SELECT 1 FROM orders WHERE houdini_id = e.lane);

-- name: fault_attempt
SELECT id, delivery_id FROM attempts a WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE id = a.delivery_id);

-- name: fault_count
SELECT t.name, coalesce(c.counted, 0), coalesce(d.found, 0) FROM targets t
LEFT JOIN (SELECT target_id, sum(deliveries)::bigint AS counted FROM open_counts GROUP BY target_id) c ON c.target_id = t.id
LEFT JOIN (SELECT target_id, count(*) AS found FROM deliveries WHERE state < 2 GROUP BY target_id) d ON d.target_id = t.id
WHERE coalesce(c.counted, 0) <> coalesce(d.found, 0);

-- What people look at. The `walk_` queries only find ids, each along an index, and are read no further than a
-- look may go; the others fetch what stands behind a handful of ids. Only `event` and `order` read bodies.

-- name: walk_deliveries
SELECT id FROM deliveries WHERE id < :below AND id > :above ORDER BY id DESC;

-- name: walk_open
SELECT id FROM deliveries WHERE target_id = :target_id AND state < 2 AND id < :below AND id > :above ORDER BY id DESC;

-- name: walk_dead
SELECT id FROM deliveries WHERE target_id = :target_id AND state = 3 AND id < :below AND id > :above ORDER BY id DESC;

-- name: walk_deliveries_of_order
SELECT d.id FROM events e CROSS JOIN deliveries d ON d.event_id = e.id
WHERE e.lane = :order AND d.id < :below AND d.id > :above ORDER BY d.id DESC;

-- name: walk_events
SELECT id FROM events WHERE id < :below AND id > :above ORDER BY id DESC;

-- name: walk_events_of_order
SELECT id FROM events WHERE lane = :order AND id < :below AND id > :above ORDER BY id DESC;

-- name: walk_routed_events
SELECT DISTINCT event_id FROM deliveries WHERE event_id < :below AND event_id > :above ORDER BY event_id DESC;

-- name: climb_events_of_order
SELECT id FROM events WHERE lane = :order AND id < :below AND id > :above ORDER BY id;

-- name: climb_routed_events
SELECT DISTINCT event_id FROM deliveries WHERE event_id < :below AND event_id > :above ORDER BY event_id;

-- name: target_names
SELECT id, name FROM targets;

-- name: newest_event
SELECT max(id) FROM events;

-- name: newest_delivery
SELECT max(id) FROM deliveries;

-- name: event_moment
SELECT id, at_ms FROM events WHERE id > :above AND id <= :upto ORDER BY id DESC LIMIT 1;

-- name: delivery_moment
SELECT id, created_ms FROM deliveries WHERE id > :above AND id <= :upto ORDER BY id DESC LIMIT 1;

-- name: look_at_deliveries
SELECT d.id, e.webhook_id, e.type, e.lane, t.name, d.state, d.reason, d.replay, d.attempts_made, d.due_ms,
       d.created_ms, d.finished_ms, d.last_outcome, d.last_status_code,
       d.state > 1 AND EXISTS(SELECT 1 FROM deliveries later
                              WHERE later.event_id = d.event_id AND later.target_id = d.target_id
                                AND later.replay > d.replay AND (later.state < 4 OR later.attempts_made > 0))
FROM json_each(:ids) j
CROSS JOIN deliveries d ON d.id = j.value
CROSS JOIN events e ON e.id = d.event_id
CROSS JOIN targets t ON t.id = d.target_id
WHERE d.state BETWEEN :lowest AND :highest
  AND (:target IS NULL OR t.name = :target)
  AND (:type IS NULL OR e.type = :type)
  AND (:order IS NULL OR e.lane = :order)
  AND (:since IS NULL OR d.created_ms >= :since)
  AND (:until IS NULL OR d.created_ms < :until)
ORDER BY d.id DESC;

-- name: look_at_events
SELECT e.id, e.webhook_id, e.lane, e.type, e.at_ms, e.sequence, e.status, e.previous_status, e.changed, e.origin, x''
FROM json_each(:ids) j
CROSS JOIN events e ON e.id = j.value
WHERE (:type IS NULL OR e.type = :type)
  AND (:order IS NULL OR e.lane = :order)
  AND (:since IS NULL OR e.at_ms >= :since)
  AND (:until IS NULL OR e.at_ms < :until)
ORDER BY e.id DESC;

-- name: standings
SELECT d.event_id, t.name, d.id, d.state
FROM json_each(?) j
CROSS JOIN deliveries d ON d.event_id = j.value
CROSS JOIN targets t ON t.id = d.target_id
ORDER BY d.event_id, d.target_id, d.replay;

-- name: event
SELECT id, webhook_id, lane, type, at_ms, sequence, status, previous_status, changed, origin, body
FROM events WHERE webhook_id = ?;

-- name: deliveries_of_event
SELECT d.id FROM events e CROSS JOIN deliveries d ON d.event_id = e.id
WHERE e.webhook_id = ? ORDER BY d.target_id, d.replay;

-- name: attempts
SELECT number, at_ms, duration_ms, outcome, status_code, kind, error, response_body, headers, dns_ms, connect_ms,
       tls_ms, first_byte_ms, manual, probe
FROM attempts WHERE delivery_id = ? ORDER BY id DESC LIMIT ?;

-- name: order
SELECT o.learned_ms, o.believed_ms, o.aged_out_ms, o.houdini_id, o.status, o.ranked_status, o.fields, o.created,
       o.silent, o.sequence, o.status_counts, o.frame, e.body, e.origin
FROM orders o LEFT JOIN events e ON e.id = o.last_event_id
WHERE o.houdini_id = ?;

-- name: dead_letters
SELECT count(*), max(d.finished_ms)
FROM (SELECT event_id, target_id, replay, lane, finished_ms FROM deliveries
      WHERE target_id = :target AND state = 3 ORDER BY id DESC LIMIT :most) d
WHERE d.lane NOT LIKE 'relay:%'
  AND NOT EXISTS (SELECT 1 FROM deliveries later
                  WHERE later.event_id = d.event_id AND later.target_id = d.target_id AND later.replay > d.replay);

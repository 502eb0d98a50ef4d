-- What people look at. The walks only find ids, each along an index, and never more than `limit`; the others fetch
-- what stands behind a handful of ids. Only `event` and `order` read bodies.

-- name: walk_deliveries
SELECT id FROM deliveries WHERE id < :below AND id > :above ORDER BY id DESC LIMIT :limit;

-- name: walk_open
SELECT d.id FROM unnest(:target_ids::bigint[]) AS t(id) CROSS JOIN LATERAL (
  SELECT id FROM deliveries WHERE target_id = t.id AND state < 2 AND id + 0 < :below AND id + 0 > :above
  ORDER BY id + 0 DESC LIMIT :limit
) d ORDER BY d.id DESC LIMIT :limit;

-- name: walk_dead
SELECT d.id FROM unnest(:target_ids::bigint[]) AS t(id) CROSS JOIN LATERAL (
  SELECT id FROM deliveries WHERE target_id = t.id AND state = 3 AND id + 0 < :below AND id + 0 > :above
  ORDER BY id + 0 DESC LIMIT :limit
) d ORDER BY d.id DESC LIMIT :limit;

-- name: walk_deliveries_of_order
SELECT d.id FROM events e JOIN deliveries d ON d.event_id = e.id
WHERE e.lane = :order AND d.id < :below AND d.id > :above ORDER BY d.id DESC LIMIT :limit;

-- name: walk_events
SELECT id FROM events WHERE id < :below AND id > :above ORDER BY id DESC LIMIT :limit;

-- name: walk_events_of_order
SELECT id FROM events WHERE lane = :order AND id + 0 < :below AND id + 0 > :above ORDER BY id + 0 DESC LIMIT :limit;

-- name: walk_routed_events
SELECT DISTINCT event_id FROM deliveries WHERE event_id < :below AND event_id > :above
ORDER BY event_id DESC LIMIT :limit;

-- name: climb_events_of_order
SELECT id FROM events WHERE lane = :order AND id + 0 < :below AND id + 0 > :above ORDER BY id + 0 LIMIT :limit;

-- name: climb_routed_events
SELECT DISTINCT event_id FROM deliveries WHERE event_id < :below AND event_id > :above ORDER BY event_id LIMIT :limit;

-- name: newest_event
SELECT max(id) FROM events;

-- name: newest_delivery
SELECT max(id) FROM deliveries;

-- name: event_moment
SELECT id, at_ms FROM events WHERE id > :above AND id <= :upto ORDER BY id DESC LIMIT 1;

-- name: delivery_moment
SELECT id, created_ms FROM deliveries WHERE id > :above AND id <= :upto ORDER BY id DESC LIMIT 1;

-- name: look_at_deliveries
SELECT d.leased_until IS NOT NULL AND d.leased_until > now(),
       d.id, e.webhook_id, e.type, e.lane, t.name, d.state, d.reason, d.replay, d.attempts_made, d.due_ms,
       d.created_ms, d.finished_ms, d.last_outcome, d.last_status_code,
       d.state > 1 AND EXISTS(SELECT 1 FROM deliveries later
                              WHERE later.event_id = d.event_id AND later.target_id = d.target_id
                                AND later.replay > d.replay AND (later.state < 4 OR later.attempts_made > 0))
FROM deliveries d JOIN events e ON e.id = d.event_id JOIN targets t ON t.id = d.target_id
WHERE d.id = ANY(:ids::bigint[]) AND d.state BETWEEN :lowest AND :highest
  AND (:target::text IS NULL OR t.name = :target)
  AND (:type::text IS NULL OR e.type = :type)
  AND (:order::text IS NULL OR e.lane = :order)
  AND (:since::bigint IS NULL OR d.created_ms >= :since)
  AND (:until::bigint IS NULL OR d.created_ms < :until)
ORDER BY d.id DESC;

-- name: look_at_events
SELECT e.id, e.webhook_id, e.lane, e.type, e.at_ms, e.sequence, e.status, e.previous_status, e.changed, e.origin,
       ''::bytea
FROM events e
WHERE e.id = ANY(:ids::bigint[])
  AND (:type::text IS NULL OR e.type = :type)
  AND (:order::text IS NULL OR e.lane = :order)
  AND (:since::bigint IS NULL OR e.at_ms >= :since)
  AND (:until::bigint IS NULL OR e.at_ms < :until)
ORDER BY e.id DESC;

-- name: standings
SELECT d.event_id, t.name, d.id, d.state, d.leased_until IS NOT NULL AND d.leased_until > now()
FROM deliveries d JOIN targets t ON t.id = d.target_id
WHERE d.event_id = ANY(:ids::bigint[]) ORDER BY d.event_id, d.target_id, d.replay;

-- name: event
SELECT id, webhook_id, lane, type, at_ms, sequence, status, previous_status, changed, origin, body
FROM events WHERE webhook_id = :webhook_id;

-- name: deliveries_of_event
SELECT d.id FROM events e JOIN deliveries d ON d.event_id = e.id
WHERE e.webhook_id = :webhook_id ORDER BY d.target_id, d.replay;

-- name: attempts
SELECT number, at_ms, duration_ms, outcome, status_code, kind, error, response_body, headers, dns_ms, connect_ms,
       tls_ms, first_byte_ms, manual, probe
FROM attempts WHERE delivery_id = :id ORDER BY id + 0 DESC LIMIT :limit;

-- name: order
SELECT o.learned_ms, o.believed_ms, o.aged_out_ms, o.houdini_id, o.status, o.ranked_status, o.fields, o.created,
       o.silent, o.sequence, o.status_counts, o.frame, e.body, e.origin
FROM orders o LEFT JOIN events e ON e.id = o.last_event_id
WHERE o.houdini_id = :houdini_id;

-- name: dead_letters
SELECT t.name, count(d.id), max(d.finished_ms)
FROM targets t LEFT JOIN LATERAL (
  SELECT x.id, x.finished_ms
  FROM (SELECT id, event_id, target_id, replay, lane, finished_ms FROM deliveries
        WHERE target_id = t.id AND state = 3 ORDER BY id + 0 DESC LIMIT :most) x
  WHERE NOT (x.lane >= 'relay:' AND x.lane < 'relay;')
    AND (SELECT 1 FROM deliveries later
         WHERE later.event_id = x.event_id AND later.target_id = x.target_id AND later.replay > x.replay LIMIT 1) IS NULL
) d ON true
WHERE t.configured = 1 GROUP BY t.name;

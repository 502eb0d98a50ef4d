-- name: known_orders
SELECT o.houdini_id, o.status, o.ranked_status, o.fields, o.created, o.silent, o.sequence, o.status_counts,
       o.frame, e.body, e.origin
FROM orders o LEFT JOIN events e ON e.id = o.last_event_id
WHERE o.houdini_id IN (SELECT value FROM json_each(:ids));

-- name: upsert_orders
INSERT INTO orders(houdini_id, status, ranked_status, fields, created, terminal, silent, sequence, status_counts,
                   last_event_id, frame, learned_ms, believed_ms, terminal_ms)
VALUES(:houdini_id, :status, :ranked_status, :fields, :created, :terminal, :silent, :sequence, :status_counts,
       :last_event_id, :frame, :now, :now, :terminal_ms)
ON CONFLICT(houdini_id) DO UPDATE SET
  status = excluded.status, ranked_status = excluded.ranked_status, fields = excluded.fields,
  created = coalesce(excluded.created, created), terminal = excluded.terminal, silent = excluded.silent,
  sequence = excluded.sequence, status_counts = excluded.status_counts,
  last_event_id = coalesce(excluded.last_event_id, last_event_id),
  frame = excluded.frame, believed_ms = excluded.believed_ms,
  terminal_ms = iif(excluded.terminal, coalesce(terminal_ms, excluded.terminal_ms), NULL),
  hidden_times = 0, hidden_ms = NULL, aged_out_ms = NULL;

-- name: insert_events
INSERT INTO events(webhook_id, lane, type, at_ms, sequence, status, previous_status, changed, origin, body)
VALUES(:webhook_id, :lane, :type, :at_ms, :sequence, :status, :previous_status, :changed, :origin, :body)
RETURNING webhook_id, id;

-- name: insert_notices
INSERT INTO events(webhook_id, lane, type, at_ms, sequence, status, previous_status, changed, origin, body)
VALUES(:webhook_id, :lane, :type, :at_ms, :sequence, :status, :previous_status, :changed, :origin, :body)
ON CONFLICT(webhook_id) DO NOTHING
RETURNING webhook_id, id;

-- name: insert_deliveries
WITH r(target, lane, event, replay) AS (VALUES (:target, :lane, :event, :replay))
INSERT INTO deliveries(target_id, lane, event_id, replay, state, due_ms, created_ms)
SELECT r.target, r.lane, r.event, r.replay,
       EXISTS(SELECT 1 FROM deliveries d WHERE d.target_id = r.target AND d.lane = r.lane AND d.state < 2), :now, :now
FROM r;

-- name: insert_superseded
INSERT INTO deliveries(target_id, lane, event_id, replay, state, due_ms, created_ms, finished_ms)
VALUES(:target, :lane, :event, :replay, 4, :now, :now, :now);

-- name: supersede
WITH r(target, lane, terminal) AS (VALUES (:target, :lane, :terminal))
UPDATE deliveries SET state = 4, finished_ms = :now
FROM r
WHERE target_id = r.target AND deliveries.lane = r.lane AND state < 2 AND state = 1
  AND (r.terminal OR NOT EXISTS (SELECT 1 FROM events e
                                 WHERE e.id = deliveries.event_id
                                   AND e.status IN (SELECT value FROM json_each(:terminal_statuses))))
RETURNING target_id;

-- name: upsert_question
INSERT INTO questions(houdini_id, status, frame, sideways, seen_ms, ask_at_ms)
VALUES(:houdini_id, :status, :frame, :sideways, :seen_ms, :ask_at_ms)
ON CONFLICT(houdini_id) DO UPDATE SET
  status = excluded.status, frame = excluded.frame, sideways = excluded.sideways, seen_ms = excluded.seen_ms;

-- name: delete_questions
DELETE FROM questions WHERE houdini_id IN (SELECT value FROM json_each(?));

-- name: due_questions
SELECT houdini_id, status, frame, sideways, seen_ms, ask_at_ms FROM questions
WHERE ask_at_ms <= :now ORDER BY ask_at_ms LIMIT :limit;

-- name: postpone_question
UPDATE questions SET ask_at_ms = :ask_at_ms, asked = asked + 1 WHERE houdini_id = :houdini_id RETURNING asked;

-- name: count_questions
SELECT count(*) FROM questions;

-- name: due_heads
SELECT id FROM deliveries
WHERE state = 0 AND target_id = :target AND due_ms <= :now AND id NOT IN (SELECT value FROM json_each(:claimed))
ORDER BY due_ms, id LIMIT :limit;

-- name: any_heads
-- Least recently tried: what was never tried comes first, as far as one look along the index goes.
SELECT id FROM (SELECT id, due_ms, attempts_made FROM deliveries
                WHERE state = 0 AND target_id = :target AND id NOT IN (SELECT value FROM json_each(:claimed))
                ORDER BY due_ms, id LIMIT :limit + 1000)
ORDER BY attempts_made > 0 AND due_ms > 0, due_ms, id LIMIT :limit;

-- name: claimed
SELECT d.id, d.attempts_made, d.steps_used, d.created_ms, d.first_attempt_ms, d.replay > 0 OR d.asked > 0,
       e.webhook_id, e.lane, e.type, e.at_ms, e.sequence, e.status, e.previous_status, e.changed, e.origin, e.body
FROM deliveries d JOIN events e ON e.id = d.event_id
WHERE d.id IN (SELECT value FROM json_each(:ids)) ORDER BY d.due_ms, d.id;

-- name: next_due
SELECT min(due_ms) FROM deliveries WHERE state = 0 AND target_id = :target AND due_ms > :now;

-- name: standing
SELECT configured, paused_ms, paused_by_config, parked_ms, resumed_ms, breaker, breaker_changed_ms, failures,
       failing_order, several_orders, vain_probes, probes_failed, probe_due_ms, throttled_until_ms, allowance,
       ok_ms, ok_order, other_ok_ms, last_error
FROM targets WHERE id = ?;

-- name: write_standing
UPDATE targets SET
  configured = :configured, paused_ms = :paused_ms, paused_by_config = :paused_by_config, parked_ms = :parked_ms,
  resumed_ms = :resumed_ms, breaker = :breaker, breaker_changed_ms = :breaker_changed_ms, failures = :failures,
  failing_order = :failing_order, several_orders = :several_orders, vain_probes = :vain_probes,
  probes_failed = :probes_failed, probe_due_ms = :probe_due_ms, throttled_until_ms = :throttled_until_ms,
  allowance = :allowance, ok_ms = :ok_ms, ok_order = :ok_order, other_ok_ms = :other_ok_ms, last_error = :last_error
WHERE id = :id;

-- name: bring_forward
UPDATE deliveries SET due_ms = :now, steps_used = max(steps_used - 1, 0)
WHERE state = 0 AND target_id = :target AND due_ms > :now;

-- name: finish
WITH r(id, state, reason, step, at_ms, outcome, status_code) AS (
  VALUES (:id, :state, :reason, :step, :at_ms, :outcome, :status_code)
)
UPDATE deliveries SET
  state = r.state, reason = r.reason, finished_ms = :now, attempts_made = attempts_made + 1,
  steps_used = steps_used + r.step, asked = 0, first_attempt_ms = coalesce(first_attempt_ms, r.at_ms),
  last_outcome = r.outcome, last_status_code = r.status_code
FROM r
WHERE deliveries.id = r.id AND deliveries.state < 2
RETURNING id, lane, attempts_made;

-- name: acknowledge_late
WITH r(id, state, at_ms, outcome, status_code) AS (VALUES (:id, :state, :at_ms, :outcome, :status_code))
UPDATE deliveries SET
  state = r.state, reason = NULL, finished_ms = :now, attempts_made = attempts_made + 1,
  first_attempt_ms = coalesce(first_attempt_ms, r.at_ms), last_outcome = r.outcome, last_status_code = r.status_code
FROM r
WHERE deliveries.id = r.id AND deliveries.state > 2
RETURNING id, lane, attempts_made;

-- name: postpone
WITH r(id, due_ms, step, at_ms, outcome, status_code) AS (
  VALUES (:id, :due_ms, :step, :at_ms, :outcome, :status_code)
)
UPDATE deliveries SET
  due_ms = r.due_ms, attempts_made = attempts_made + 1, steps_used = steps_used + r.step, asked = 0,
  first_attempt_ms = coalesce(first_attempt_ms, r.at_ms), last_outcome = r.outcome, last_status_code = r.status_code
FROM r
WHERE deliveries.id = r.id AND deliveries.state = 0
RETURNING id, lane, attempts_made;

-- name: due_at_once
UPDATE deliveries SET due_ms = :now
WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 0 AND due_ms > :now;

-- name: promote
WITH r(target, lane) AS (VALUES (:target, :lane))
UPDATE deliveries SET state = 0, due_ms = :now
WHERE state = 1
  AND id IN (SELECT (SELECT d.id FROM deliveries d
                     WHERE d.target_id = r.target AND d.lane = r.lane AND d.state < 2 ORDER BY d.id LIMIT 1)
             FROM r);

-- name: insert_attempts
INSERT INTO attempts(delivery_id, number, at_ms, duration_ms, outcome, status_code, kind, error, response_body, headers,
                     dns_ms, connect_ms, tls_ms, first_byte_ms, manual, probe)
VALUES(:id, :number, :at_ms, :duration_ms, :outcome, :status_code, :kind, :error, :response_body, :headers,
       :dns_ms, :connect_ms, :tls_ms, :first_byte_ms, :manual, :probe);

-- name: shift_due
UPDATE deliveries SET due_ms = due_ms + :by_ms
WHERE state = 0 AND target_id = :target AND due_ms > :after_ms;

-- name: shift_standing
UPDATE targets SET
  probe_due_ms = iif(probe_due_ms > :after_ms, probe_due_ms + :by_ms, probe_due_ms),
  throttled_until_ms = iif(throttled_until_ms > :after_ms, throttled_until_ms + :by_ms, throttled_until_ms)
WHERE id = :target;

-- name: clamp_due
UPDATE deliveries SET due_ms = :latest_ms
WHERE state = 0 AND target_id = :target AND due_ms > :latest_ms;

-- name: clamp_standing
UPDATE targets SET
  probe_due_ms = iif(probe_due_ms > :latest_ms, :latest_ms, probe_due_ms),
  throttled_until_ms = iif(throttled_until_ms > :latest_ms, :latest_ms, throttled_until_ms)
WHERE id = :target AND (probe_due_ms > :latest_ms OR throttled_until_ms > :latest_ms);

-- name: count_open
SELECT count(*) FROM deliveries WHERE target_id = ? AND state < 2;

-- name: oldest_open
SELECT created_ms FROM deliveries WHERE target_id = ? AND state < 2 ORDER BY id LIMIT 1;

-- name: oldest_open_order
SELECT created_ms FROM deliveries d
WHERE target_id = ? AND state < 2
  AND NOT (lane >= 'relay:' AND lane < 'relay;'
           AND EXISTS (SELECT 1 FROM events WHERE id = d.event_id AND sequence IS NULL))
ORDER BY id LIMIT 1;

-- name: first_heads
SELECT id, due_ms FROM deliveries WHERE state = 0 AND target_id = ? AND due_ms > 0 ORDER BY due_ms, id LIMIT ?;

-- name: delivery_state
SELECT t.name, d.lane, d.state FROM deliveries d JOIN targets t ON t.id = d.target_id WHERE d.id = ?;

-- name: ask
UPDATE deliveries SET due_ms = 0, asked = 1 WHERE id = ? AND state = 0;

-- name: oldest_deliveries
SELECT id, lane, created_ms, attempts_made FROM deliveries
WHERE target_id = :target AND state < 2 AND id > :after ORDER BY id LIMIT :limit;

-- name: old_notices
SELECT d.id, d.lane FROM deliveries d JOIN events e ON e.id = d.event_id
WHERE d.target_id = :target AND d.state < 2 AND d.lane >= 'relay:' AND d.lane < 'relay;'
  AND d.created_ms < :made_before AND e.sequence IS NULL LIMIT :limit;

-- name: said_of
SELECT e.webhook_id, e.type FROM deliveries d JOIN events e ON e.id = d.event_id
WHERE d.id IN (SELECT value FROM json_each(?)) ORDER BY d.id;

-- name: end_unsent
UPDATE deliveries SET state = :state, reason = :reason, finished_ms = :now, asked = 0
WHERE id IN (SELECT value FROM json_each(:ids)) AND state < 2;

-- name: open_orders
SELECT houdini_id, created FROM orders WHERE terminal = 0 AND aged_out_ms IS NULL ORDER BY id LIMIT ?;

-- name: note_hidden
UPDATE orders SET
  hidden_times = hidden_times + (hidden_ms IS NULL OR :now - hidden_ms >= :spacing OR :now < hidden_ms),
  hidden_ms = iif(hidden_ms IS NULL OR :now - hidden_ms >= :spacing OR :now < hidden_ms, :now, hidden_ms),
  aged_out_ms = iif(hidden_times + (hidden_ms IS NULL OR :now - hidden_ms >= :spacing OR :now < hidden_ms) >= :limit,
                    coalesce(aged_out_ms, :now), aged_out_ms)
WHERE houdini_id = :houdini_id
RETURNING aged_out_ms IS NOT NULL;

-- name: ended_orders
SELECT houdini_id FROM orders
WHERE houdini_id IN (SELECT value FROM json_each(:ids)) AND terminal = 1 AND terminal_ms <= :terminal_before;

-- name: aged_out_orders
SELECT houdini_id FROM orders
WHERE houdini_id IN (SELECT value FROM json_each(:ids)) AND aged_out_ms IS NOT NULL;

-- name: begin_gap
INSERT INTO gaps(from_ms, cause) SELECT :from_ms, :cause WHERE NOT EXISTS (SELECT 1 FROM gaps WHERE to_ms IS NULL);

-- name: end_gap
UPDATE gaps SET to_ms = max(from_ms, :to_ms) WHERE to_ms IS NULL
RETURNING id, from_ms, to_ms, cause, swept_ms, closed_by;

-- name: close_gaps
UPDATE gaps SET swept_ms = :swept_ms, closed_by = :closed_by WHERE swept_ms IS NULL AND to_ms IS NOT NULL;

-- name: gaps
SELECT id, from_ms, to_ms, cause, swept_ms, closed_by FROM gaps
WHERE to_ms IS NULL OR to_ms - from_ms >= :at_least ORDER BY id DESC LIMIT :limit;

-- name: order_deliveries
SELECT e.lane, e.webhook_id, e.sequence, e.status, t.name, d.state, d.reason, d.replay,
       e.sequence = 1 OR EXISTS (SELECT 1 FROM json_each(e.changed) WHERE value = 'status')
FROM events e JOIN deliveries d ON d.event_id = e.id JOIN targets t ON t.id = d.target_id
WHERE e.lane IN (SELECT value FROM json_each(:ids))
ORDER BY e.lane, e.id, t.id, d.replay;

-- name: replay_source
SELECT e.id, e.lane,
       coalesce((SELECT max(replay) FROM deliveries WHERE event_id = e.id AND target_id = :target), 0) + 1,
       EXISTS(SELECT 1 FROM events n JOIN deliveries d ON d.event_id = n.id AND d.target_id = :target
              WHERE n.lane = e.lane AND n.id > e.id)
FROM events e WHERE e.webhook_id = :webhook_id;

-- name: targets
SELECT id, name, ordering, configured FROM targets;

-- name: add_target
INSERT INTO targets(name, ordering, reach, paused_by_config, resumed_ms)
VALUES(:name, :ordering, :reach, :paused, :now);

-- name: move_target
UPDATE targets SET reach = :reach WHERE id = :id AND reach <> :reach;

-- name: order_target
UPDATE targets SET ordering = :ordering WHERE id = :id AND ordering <> :ordering;

-- name: old_deliveries
SELECT id, state > 1 AND finished_ms < :before, created_ms BETWEEN :before AND :now, attempts_made FROM deliveries
WHERE id > :after ORDER BY id LIMIT :limit;

-- name: delete_attempts
DELETE FROM attempts WHERE delivery_id IN (SELECT value FROM json_each(?));

-- name: delete_deliveries
DELETE FROM deliveries WHERE id IN (SELECT value FROM json_each(?));

-- name: old_events
SELECT e.id, e.at_ms < :before
         AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event_id = e.id)
         AND NOT EXISTS (SELECT 1 FROM orders WHERE houdini_id = e.lane AND last_event_id = e.id),
       e.at_ms BETWEEN :before AND :now
FROM events e WHERE e.id > :after ORDER BY e.id LIMIT :limit;

-- name: delete_events
DELETE FROM events WHERE id IN (SELECT value FROM json_each(?));

-- name: old_orders
SELECT o.id, (o.terminal = 1 OR o.aged_out_ms IS NOT NULL) AND o.believed_ms < :before
         AND NOT EXISTS (SELECT 1 FROM questions WHERE houdini_id = o.houdini_id)
         AND NOT EXISTS (SELECT 1 FROM events WHERE lane = o.houdini_id AND id IS NOT o.last_event_id)
         AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event_id = o.last_event_id),
       o.learned_ms BETWEEN :before AND :now, o.last_event_id
FROM orders o WHERE o.id > :after ORDER BY o.id LIMIT :limit;

-- name: delete_orders
DELETE FROM orders WHERE id IN (SELECT value FROM json_each(?));

-- name: old_gaps
SELECT id, swept_ms IS NOT NULL AND to_ms < :before, from_ms BETWEEN :before AND :now FROM gaps WHERE id > :after ORDER BY id LIMIT :limit;

-- name: delete_gaps
DELETE FROM gaps WHERE id IN (SELECT value FROM json_each(?));

-- name: meta_get
SELECT value FROM meta WHERE key = ?;

-- name: meta_set
INSERT INTO meta(key, value) VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value;

-- name: count_open_all
SELECT target_id, count(*) FROM deliveries WHERE state < 2 GROUP BY target_id;

-- name: fault_lane_heads
SELECT target_id, lane, sum(state = 0) FROM deliveries WHERE state < 2
GROUP BY target_id, lane HAVING sum(state = 0) <> 1;

-- name: fault_lane_order
SELECT target_id, lane, min(iif(state = 0, id, NULL)), min(id) FROM deliveries WHERE state < 2
GROUP BY target_id, lane HAVING sum(state = 0) = 1 AND min(iif(state = 0, id, NULL)) <> min(id);

-- name: fault_doubled
SELECT event_id, target_id, count(*), replay FROM deliveries GROUP BY event_id, target_id, replay HAVING count(*) > 1;

-- name: fault_no_event
SELECT id, event_id FROM deliveries WHERE event_id NOT IN (SELECT id FROM events);

-- name: fault_no_target
SELECT id, target_id FROM deliveries WHERE target_id NOT IN (SELECT id FROM targets);

-- name: fault_wrong_lane
SELECT d.id, d.lane, e.lane FROM deliveries d JOIN events e ON e.id = d.event_id
WHERE d.lane NOT IN (e.lane, e.lane || '#' || e.id || iif(d.replay > 0, 'r' || d.replay, ''));

-- name: fault_state
SELECT id, state FROM deliveries WHERE state NOT BETWEEN 0 AND 5;

-- name: fault_steps
SELECT id, steps_used, attempts_made FROM deliveries
WHERE steps_used NOT BETWEEN 0 AND attempts_made OR asked NOT IN (0, 1) OR asked > 0 AND state <> 0;

-- name: fault_finished
SELECT id, state, finished_ms FROM deliveries WHERE (state > 1) <> (finished_ms IS NOT NULL);

-- name: fault_order_event
SELECT o.houdini_id, o.last_event_id,
       iif(e.id IS NULL, 'missing', iif(e.lane <> o.houdini_id, 'of ' || e.lane, 'not its newest'))
FROM orders o LEFT JOIN events e ON e.id = o.last_event_id
WHERE o.last_event_id IS NOT (SELECT max(id) FROM events WHERE lane = o.houdini_id);

-- name: fault_order_sequence
SELECT o.houdini_id, o.sequence, coalesce(e.sequence, 0)
FROM orders o LEFT JOIN events e ON e.id = o.last_event_id
WHERE o.sequence <> coalesce(e.sequence, 0);

-- name: fault_orphan_event
SELECT id, lane FROM events WHERE sequence IS NOT NULL AND lane NOT IN (SELECT houdini_id FROM orders);

-- name: fault_attempt
SELECT id, delivery_id FROM attempts WHERE delivery_id NOT IN (SELECT id FROM deliveries);

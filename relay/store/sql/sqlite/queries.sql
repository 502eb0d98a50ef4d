-- name: known_orders
SELECT o.houdini_id, o.status, o.ranked_status, o.fields, o.created, o.silent, o.sequence, o.status_counts,
       o.frame, e.body, e.origin
FROM orders o LEFT JOIN events e ON e.id = o.last_event_id
WHERE o.houdini_id IN (SELECT value FROM json_each(:ids));

-- name: upsert_order
INSERT INTO orders(houdini_id, status, ranked_status, fields, created, terminal, silent, sequence, status_counts,
                   last_event_id, frame, learned_ms, believed_ms, terminal_ms)
VALUES(:houdini_id, :status, :ranked_status, :fields, :created, :terminal, :silent, :sequence, :status_counts,
       :last_event_id, :frame, :now, :now, iif(:terminal, :now, NULL))
ON CONFLICT(houdini_id) DO UPDATE SET
  status = excluded.status, ranked_status = excluded.ranked_status, fields = excluded.fields,
  created = coalesce(excluded.created, created), terminal = excluded.terminal, silent = excluded.silent,
  sequence = excluded.sequence, status_counts = excluded.status_counts,
  last_event_id = coalesce(excluded.last_event_id, last_event_id),
  frame = excluded.frame, believed_ms = excluded.believed_ms,
  terminal_ms = iif(excluded.terminal, coalesce(terminal_ms, excluded.terminal_ms), NULL),
  hidden_times = 0, hidden_ms = NULL, aged_out_ms = NULL;

-- name: insert_event
INSERT INTO events(webhook_id, lane, type, at_ms, sequence, status, previous_status, changed, origin, body)
VALUES(:webhook_id, :lane, :type, :at_ms, :sequence, :status, :previous_status, :changed, :origin, :body);

-- name: insert_notice
INSERT INTO events(webhook_id, lane, type, at_ms, sequence, status, previous_status, changed, origin, body)
VALUES(:webhook_id, :lane, :type, :at_ms, :sequence, :status, :previous_status, :changed, :origin, :body)
ON CONFLICT(webhook_id) DO NOTHING;

-- name: insert_delivery
INSERT INTO deliveries(target_id, lane, event_id, state, due_ms, created_ms)
SELECT :target, :lane, :event,
       EXISTS(SELECT 1 FROM deliveries WHERE target_id = :target AND lane = :lane AND state < 2), :now, :now;

-- name: upsert_question
INSERT INTO questions(houdini_id, status, frame, sideways, seen_ms, ask_at_ms)
VALUES(:houdini_id, :status, :frame, :sideways, :seen_ms, :ask_at_ms)
ON CONFLICT(houdini_id) DO UPDATE SET
  status = excluded.status, frame = excluded.frame, sideways = excluded.sideways, seen_ms = excluded.seen_ms;

-- name: delete_question
DELETE FROM questions WHERE houdini_id = ?;

-- name: due_questions
SELECT houdini_id, status, frame, sideways, seen_ms, ask_at_ms FROM questions
WHERE ask_at_ms <= :now ORDER BY ask_at_ms LIMIT :limit;

-- name: postpone_question
UPDATE questions SET ask_at_ms = :ask_at_ms, asked = asked + 1 WHERE houdini_id = :houdini_id RETURNING asked;

-- name: count_questions
SELECT count(*) FROM questions;

-- name: claim
SELECT d.id, d.attempts_made, d.created_ms, d.replay,
       e.webhook_id, e.lane, e.type, e.at_ms, e.sequence, e.status, e.previous_status, e.changed, e.origin, e.body
FROM (SELECT id, event_id, attempts_made, created_ms, replay, due_ms FROM deliveries
      WHERE state = 0 AND target_id = :target AND due_ms <= :now ORDER BY due_ms, id LIMIT :limit) d
JOIN events e ON e.id = d.event_id
ORDER BY d.due_ms, d.id;

-- name: next_due
SELECT min(due_ms) FROM deliveries WHERE state = 0 AND target_id = :target AND due_ms > :now;

-- name: target_state
SELECT paused_ms, parked_ms FROM targets WHERE id = ?;

-- name: finish
UPDATE deliveries SET
  state = :state, reason = :reason, finished_ms = :now, attempts_made = attempts_made + 1,
  first_attempt_ms = coalesce(first_attempt_ms, :at_ms), last_outcome = :outcome, last_status_code = :status_code
WHERE id = :id AND state = 0
RETURNING target_id, lane, attempts_made;

-- name: postpone
UPDATE deliveries SET
  due_ms = :due_ms, attempts_made = attempts_made + 1,
  first_attempt_ms = coalesce(first_attempt_ms, :at_ms), last_outcome = :outcome, last_status_code = :status_code
WHERE id = :id AND state = 0
RETURNING target_id, lane, attempts_made;

-- name: promote
UPDATE deliveries SET state = 0, due_ms = :now
WHERE state = 1
  AND id = (SELECT id FROM deliveries WHERE target_id = :target AND lane = :lane AND state < 2 ORDER BY id LIMIT 1);

-- name: insert_attempt
INSERT INTO attempts(delivery_id, number, at_ms, duration_ms, outcome, status_code, error, response_body, manual)
VALUES(:id, :number, :at_ms, :duration_ms, :outcome, :status_code, :error, :response_body, :manual);

-- name: park
UPDATE targets SET parked_ms = coalesce(parked_ms, :now) WHERE id = :target;

-- name: shift_due
UPDATE deliveries SET due_ms = due_ms + :by_ms
WHERE state = 0 AND target_id = (SELECT id FROM targets WHERE name = :target) AND due_ms > :after_ms;

-- name: clamp_due
UPDATE deliveries SET due_ms = :latest_ms
WHERE state = 0 AND target_id = (SELECT id FROM targets WHERE name = :target) AND due_ms > :latest_ms;

-- name: resume
UPDATE targets SET parked_ms = NULL, paused_ms = NULL, resumed_ms = :now
WHERE name = :target AND (parked_ms IS NOT NULL OR paused_ms IS NOT NULL);

-- name: orphans
SELECT t.name, (SELECT count(*) FROM deliveries d WHERE d.target_id = t.id AND d.state < 2) AS held
FROM targets t WHERE t.configured = 0 AND held > 0;

-- name: count_open
SELECT count(*) FROM deliveries WHERE target_id = ? AND state < 2;

-- name: oldest_open
SELECT created_ms FROM deliveries WHERE target_id = ? AND state < 2 ORDER BY id LIMIT 1;

-- name: first_heads
SELECT id, due_ms FROM deliveries WHERE state = 0 AND target_id = ? ORDER BY due_ms, id LIMIT ?;

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
WHERE houdini_id IN (SELECT value FROM json_each(:ids))
  AND (aged_out_ms IS NOT NULL OR (terminal = 1 AND terminal_ms <= :terminal_before));

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
SELECT e.lane, e.webhook_id, e.sequence, e.status, t.name, d.state, d.reason, d.replay
FROM events e JOIN deliveries d ON d.event_id = e.id JOIN targets t ON t.id = d.target_id
WHERE e.lane IN (SELECT value FROM json_each(:ids))
ORDER BY e.lane, e.id, t.id, d.replay;

-- name: replay
INSERT INTO deliveries(target_id, lane, event_id, state, replay, due_ms, created_ms)
SELECT :target, e.lane, e.id,
       EXISTS(SELECT 1 FROM deliveries WHERE target_id = :target AND lane = e.lane AND state < 2),
       (SELECT coalesce(max(replay), 0) + 1 FROM deliveries WHERE event_id = e.id AND target_id = :target), :now, :now
FROM events e WHERE e.webhook_id = :webhook_id;

-- name: targets
SELECT id, name FROM targets;

-- name: add_target
INSERT INTO targets(name, resumed_ms) VALUES(:name, :now) ON CONFLICT(name) DO UPDATE SET configured = 1;

-- name: orphan_targets
UPDATE targets SET configured = 0 WHERE name NOT IN (SELECT value FROM json_each(:names));

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
SELECT d.id, d.lane, e.lane FROM deliveries d JOIN events e ON e.id = d.event_id WHERE d.lane <> e.lane;

-- name: fault_state
SELECT id, state FROM deliveries WHERE state NOT BETWEEN 0 AND 5;

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

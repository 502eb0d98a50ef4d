-- name: known_orders
SELECT o.houdini_id, o.status, o.ranked_status, o.fields, o.created, o.silent, o.sequence, o.status_counts,
       e.body, e.origin
FROM orders o LEFT JOIN events e ON e.id = o.last_event_id
WHERE o.houdini_id IN (SELECT value FROM json_each(:ids));

-- name: upsert_order
INSERT INTO orders(houdini_id, status, ranked_status, fields, created, terminal, silent, sequence, status_counts,
                   last_event_id, learned_ms, believed_ms)
VALUES(:houdini_id, :status, :ranked_status, :fields, :created, :terminal, :silent, :sequence, :status_counts,
       :last_event_id, :now, :now)
ON CONFLICT(houdini_id) DO UPDATE SET
  status = excluded.status, ranked_status = excluded.ranked_status, fields = excluded.fields,
  created = coalesce(excluded.created, created), terminal = excluded.terminal, silent = excluded.silent,
  sequence = excluded.sequence, status_counts = excluded.status_counts,
  last_event_id = coalesce(excluded.last_event_id, last_event_id), believed_ms = excluded.believed_ms;

-- name: insert_event
INSERT INTO events(webhook_id, lane, type, at_ms, sequence, status, previous_status, changed, origin, body)
VALUES(:webhook_id, :lane, :type, :at_ms, :sequence, :status, :previous_status, :changed, :origin, :body);

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

-- name: count_open
SELECT count(*) FROM deliveries WHERE target_id = ? AND state < 2;

-- name: oldest_open
SELECT created_ms FROM deliveries WHERE target_id = ? AND state < 2 ORDER BY id LIMIT 1;

-- name: first_heads
SELECT id, due_ms FROM deliveries WHERE state = 0 AND target_id = ? ORDER BY due_ms, id LIMIT ?;

-- name: open_orders
SELECT houdini_id, created FROM orders WHERE terminal = 0 ORDER BY id LIMIT ?;

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

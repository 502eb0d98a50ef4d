-- Locks are taken in one order everywhere: leader, targets by name, orders by id, the notices' lock, rows, counts.
-- Where a look-up by row must stay one, it is a scalar subquery with LIMIT: EXISTS may become a hash of a whole table.
-- Whoever writes to lane heads holds their target, but for claims, which skip what is locked.

-- name: lead
INSERT INTO leader AS l(name, holder, epoch, expires_at)
VALUES('upstream', :holder, 1, clock_timestamp() + :ttl::interval)
ON CONFLICT(name) DO UPDATE SET
  epoch = CASE WHEN l.holder = :holder AND l.expires_at > clock_timestamp() THEN l.epoch ELSE l.epoch + 1 END,
  holder = :holder, expires_at = clock_timestamp() + :ttl::interval
WHERE l.expires_at <= clock_timestamp() OR l.holder = :holder
RETURNING epoch;

-- name: renew
UPDATE leader SET expires_at = clock_timestamp() + :ttl::interval
WHERE name = 'upstream' AND holder = :holder AND epoch = :epoch AND expires_at > clock_timestamp()
RETURNING epoch;

-- name: resign
UPDATE leader SET expires_at = clock_timestamp() WHERE name = 'upstream' AND holder = :holder AND epoch = :epoch
RETURNING epoch;

-- name: still_leads
SELECT 1 FROM leader
WHERE name = 'upstream' AND holder = :holder AND epoch = :epoch AND expires_at > clock_timestamp() FOR SHARE;

-- name: leads_elsewhere
SELECT 1 FROM leader WHERE name = 'upstream' AND holder <> :holder AND expires_at > clock_timestamp();

-- name: end_frozen
-- A statement is parsed before its values are sent. No limit of the server's own ends the wait for them.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = :application::text
  AND (usename = current_user OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)) AND pid <> pg_backend_pid() AND state = 'active' AND wait_event = 'ClientRead' AND xact_start IS NOT NULL
  AND state_change < clock_timestamp() - :patience::interval AND query NOT ILIKE 'copy%';

-- name: note_instance
INSERT INTO instances(id, host, started_ms, in_flight, seen_at)
VALUES(:id, :host, :started_ms, :in_flight, clock_timestamp())
ON CONFLICT(id) DO UPDATE SET in_flight = excluded.in_flight, seen_at = excluded.seen_at;

-- name: forget_instances
DELETE FROM instances WHERE id = :id OR seen_at < clock_timestamp() - :kept::interval;

-- name: instances
SELECT i.id, i.host, i.started_ms, i.in_flight, round(extract(epoch FROM i.seen_at) * 1000)::bigint,
       (SELECT epoch FROM leader WHERE name = 'upstream' AND holder = i.id AND expires_at > clock_timestamp())
FROM instances i WHERE i.seen_at > clock_timestamp() - :ttl::interval ORDER BY i.started_ms, i.id;

-- name: notify
SELECT pg_notify(:channel::text, :payload::text);

-- name: clock
SELECT round(extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- name: lock_notices
SELECT pg_advisory_xact_lock(:key::bigint);

-- name: lock_orders
SELECT id FROM orders WHERE houdini_id = ANY(:ids::text[]) ORDER BY houdini_id FOR NO KEY UPDATE;

-- name: lock_targets
SELECT name, id, configured, paused_ms, paused_by_config, parked_ms, resumed_ms, breaker, breaker_changed_ms, failures,
       failing_order, several_orders, vain_probes, probes_failed, probe_due_ms, throttled_until_ms, allowance,
       ok_ms, ok_order, other_ok_ms, last_error
FROM targets WHERE name = ANY(:names::text[]) ORDER BY name FOR NO KEY UPDATE;

-- name: lock_every_target
SELECT name, id, configured, paused_ms, paused_by_config, parked_ms, resumed_ms, breaker, breaker_changed_ms, failures,
       failing_order, several_orders, vain_probes, probes_failed, probe_due_ms, throttled_until_ms, allowance,
       ok_ms, ok_order, other_ok_ms, last_error
FROM targets ORDER BY name FOR NO KEY UPDATE;

-- name: standing
SELECT name, id, configured, paused_ms, paused_by_config, parked_ms, resumed_ms, breaker, breaker_changed_ms, failures,
       failing_order, several_orders, vain_probes, probes_failed, probe_due_ms, throttled_until_ms, allowance,
       ok_ms, ok_order, other_ok_ms, last_error
FROM targets WHERE name = :name;

-- name: write_standing
UPDATE targets SET
  configured = :configured, paused_ms = :paused_ms, paused_by_config = :paused_by_config, parked_ms = :parked_ms,
  resumed_ms = :resumed_ms, breaker = :breaker, breaker_changed_ms = :breaker_changed_ms, failures = :failures,
  failing_order = :failing_order, several_orders = :several_orders, vain_probes = :vain_probes,
  probes_failed = :probes_failed, probe_due_ms = :probe_due_ms, throttled_until_ms = :throttled_until_ms,
  allowance = :allowance, ok_ms = :ok_ms, ok_order = :ok_order, other_ok_ms = :other_ok_ms, last_error = :last_error
WHERE id = :id;

-- name: targets
SELECT id, name, ordering, configured FROM targets ORDER BY name;

-- name: orderings
SELECT name, id, ordering FROM targets WHERE name = ANY(:names::text[]);

-- name: add_target
INSERT INTO targets(name, ordering, reach, paused_by_config, resumed_ms)
VALUES(:name, :ordering, :reach, :paused, :now)
ON CONFLICT(name) DO NOTHING;

-- name: move_target
UPDATE targets SET reach = :reach WHERE id = :id AND reach <> :reach;

-- name: order_target
UPDATE targets SET ordering = :ordering WHERE id = :id AND ordering <> :ordering;

-- name: bring_forward
UPDATE deliveries SET due_ms = :now, steps_used = greatest(steps_used - 1, 0)
WHERE state = 0 AND target_id = :target AND due_ms > :now;

-- name: known_orders
SELECT o.houdini_id, o.status, o.ranked_status, o.fields, o.created, o.silent, o.sequence, o.status_counts,
       o.frame, e.body, e.origin
FROM orders o LEFT JOIN events e ON e.id = o.last_event_id
WHERE o.houdini_id = ANY(:ids::text[]);

-- name: upsert_orders
INSERT INTO orders AS o(houdini_id, status, ranked_status, fields, created, terminal, silent, sequence, status_counts,
                        last_event_id, frame, learned_ms, believed_ms, terminal_ms)
SELECT r.houdini_id, r.status, r.ranked_status, r.fields, r.created, r.terminal, r.silent, r.sequence, r.status_counts,
       r.last_event_id, r.frame, r.now, r.now, r.terminal_ms
FROM unnest(:houdini_id::text[], :status::bigint[], :ranked_status::bigint[], :fields::text[], :created::text[],
            :terminal::smallint[], :silent::smallint[], :sequence::bigint[], :status_counts::text[],
            :last_event_id::bigint[], :frame::bytea[], :now::bigint[], :terminal_ms::bigint[])
  AS r(houdini_id, status, ranked_status, fields, created, terminal, silent, sequence, status_counts,
       last_event_id, frame, now, terminal_ms)
ORDER BY r.houdini_id COLLATE "C"
ON CONFLICT(houdini_id) DO UPDATE SET
  status = excluded.status, ranked_status = excluded.ranked_status, fields = excluded.fields,
  created = coalesce(excluded.created, o.created), terminal = excluded.terminal, silent = excluded.silent,
  sequence = excluded.sequence, status_counts = excluded.status_counts,
  last_event_id = coalesce(excluded.last_event_id, o.last_event_id),
  frame = excluded.frame, believed_ms = excluded.believed_ms,
  terminal_ms = CASE WHEN excluded.terminal = 1 THEN coalesce(o.terminal_ms, excluded.terminal_ms) END,
  hidden_times = 0, hidden_ms = NULL, aged_out_ms = NULL;

-- name: insert_events
INSERT INTO events(webhook_id, lane, type, at_ms, sequence, status, previous_status, changed, origin, body)
SELECT r.webhook_id, r.lane, r.type, r.at_ms, r.sequence, r.status, r.previous_status, r.changed, r.origin, r.body
FROM unnest(:webhook_id::text[], :lane::text[], :type::text[], :at_ms::bigint[], :sequence::bigint[],
            :status::bigint[], :previous_status::bigint[], :changed::text[], :origin::text[], :body::bytea[])
  WITH ORDINALITY AS r(webhook_id, lane, type, at_ms, sequence, status, previous_status, changed, origin, body, place)
ORDER BY r.place
RETURNING webhook_id, id;

-- name: insert_notices
INSERT INTO events(webhook_id, lane, type, at_ms, sequence, status, previous_status, changed, origin, body)
SELECT r.webhook_id, r.lane, r.type, r.at_ms, r.sequence, r.status, r.previous_status, r.changed, r.origin, r.body
FROM unnest(:webhook_id::text[], :lane::text[], :type::text[], :at_ms::bigint[], :sequence::bigint[],
            :status::bigint[], :previous_status::bigint[], :changed::text[], :origin::text[], :body::bytea[])
  WITH ORDINALITY AS r(webhook_id, lane, type, at_ms, sequence, status, previous_status, changed, origin, body, place)
ORDER BY r.place
ON CONFLICT(webhook_id) DO NOTHING
RETURNING webhook_id, id;

-- name: insert_deliveries
INSERT INTO deliveries(target_id, lane, event_id, replay, state, due_ms, created_ms)
SELECT r.target, r.lane, r.event, r.replay,
       coalesce((SELECT 1 FROM deliveries d WHERE d.target_id = r.target AND d.lane = r.lane AND d.state < 2
                 ORDER BY d.id + 0 LIMIT 1), 0),
       :now::bigint, :now::bigint
FROM unnest(:target::bigint[], :lane::text[], :event::bigint[], :replay::bigint[])
  WITH ORDINALITY AS r(target, lane, event, replay, place)
ORDER BY r.place;

-- name: insert_superseded
INSERT INTO deliveries(target_id, lane, event_id, replay, state, due_ms, created_ms, finished_ms)
VALUES(:target, :lane, :event, :replay, 4, :now, :now, :now);

-- name: supersede
UPDATE deliveries d SET state = 4, finished_ms = :now
FROM unnest(:target::bigint[], :lane::text[], :terminal::smallint[]) AS r(target, lane, terminal)
WHERE d.target_id = r.target AND d.lane = r.lane AND d.state < 2 AND d.state = 1
  AND (r.terminal = 1 OR (SELECT e.status = ANY(:terminal_statuses::bigint[]) FROM events e
                          WHERE e.id = d.event_id) IS NOT TRUE)
RETURNING d.target_id;

-- name: count_open_by
INSERT INTO open_counts AS c(target_id, writer, deliveries)
SELECT r.target, :writer::smallint, r.change FROM unnest(:target::bigint[], :change::bigint[]) AS r(target, change)
ORDER BY r.target
ON CONFLICT(target_id, writer) DO UPDATE SET deliveries = c.deliveries + excluded.deliveries;

-- name: count_open
SELECT coalesce(sum(deliveries), 0)::bigint FROM open_counts WHERE target_id = :target;

-- name: claim_due
WITH due AS MATERIALIZED (
  SELECT id FROM deliveries
  WHERE state = 0 AND target_id = :target AND due_ms <= :now AND (leased_until IS NULL OR leased_until <= now())
  ORDER BY due_ms, id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
), taken AS (
  UPDATE deliveries d SET claims = d.claims + 1, leased_until = clock_timestamp() + :lease::interval
  FROM due WHERE d.id = due.id RETURNING d.*
)
SELECT d.claims, d.id, d.attempts_made, d.steps_used, d.created_ms, d.first_attempt_ms, d.replay > 0 OR d.asked > 0,
       e.webhook_id, e.lane, e.type, e.at_ms, e.sequence, e.status, e.previous_status, e.changed, e.origin, e.body
FROM taken d JOIN events e ON e.id = d.event_id ORDER BY d.due_ms, d.id;

-- name: claim_any
-- Least recently tried: what was never tried comes first, as far as one look along the index goes.
WITH due AS MATERIALIZED (
  SELECT id FROM deliveries
  WHERE id = ANY(ARRAY(SELECT id FROM deliveries WHERE state = 0 AND target_id = :target
                       ORDER BY due_ms, id LIMIT :limit::bigint + 1000))
    AND state = 0 AND (leased_until IS NULL OR leased_until <= now())
  ORDER BY attempts_made > 0 AND due_ms > 0, due_ms, id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
), taken AS (
  UPDATE deliveries d SET claims = d.claims + 1, leased_until = clock_timestamp() + :lease::interval
  FROM due WHERE d.id = due.id RETURNING d.*
)
SELECT d.claims, d.id, d.attempts_made, d.steps_used, d.created_ms, d.first_attempt_ms, d.replay > 0 OR d.asked > 0,
       e.webhook_id, e.lane, e.type, e.at_ms, e.sequence, e.status, e.previous_status, e.changed, e.origin, e.body
FROM taken d JOIN events e ON e.id = d.event_id ORDER BY d.due_ms, d.id;

-- name: next_due
SELECT due_ms FROM deliveries WHERE state = 0 AND target_id = :target AND due_ms > :now ORDER BY due_ms LIMIT 1;

-- name: next_lease_end
SELECT ceil(extract(epoch FROM min(leased_until) - clock_timestamp()) * 1000)::bigint FROM deliveries
WHERE state = 0 AND target_id = :target AND due_ms <= :now AND leased_until > now() AND id <> ALL(:held::bigint[]);

-- name: take_probe
UPDATE targets SET probe_by = :holder, probe_until = clock_timestamp() + :lease::interval
WHERE id = :target AND (probe_by = :holder OR probe_until IS NULL OR probe_until <= clock_timestamp());

-- name: probe_ends
SELECT ceil(extract(epoch FROM probe_until - clock_timestamp()) * 1000)::bigint FROM targets WHERE id = :target;

-- name: give_probe_back
UPDATE targets SET probe_by = NULL, probe_until = NULL WHERE id = :target AND probe_by = :holder;

-- name: release
UPDATE deliveries d SET leased_until = NULL
FROM unnest(:id::bigint[], :claim::bigint[]) AS r(id, claim)
WHERE d.id = r.id AND d.claims = r.claim AND d.state = 0 AND d.leased_until IS NOT NULL;

-- name: finish
UPDATE deliveries d SET
  state = r.state, reason = r.reason, finished_ms = :now, attempts_made = d.attempts_made + 1,
  steps_used = d.steps_used + r.step, asked = 0, first_attempt_ms = coalesce(d.first_attempt_ms, r.at_ms),
  last_outcome = r.outcome, last_status_code = r.status_code, leased_until = NULL
FROM unnest(:id::bigint[], :claim::bigint[], :state::smallint[], :reason::text[], :step::bigint[], :at_ms::bigint[],
            :outcome::text[], :status_code::bigint[])
  AS r(id, claim, state, reason, step, at_ms, outcome, status_code)
WHERE d.id = r.id AND d.state < 2 AND (r.state = 2 OR (d.claims = r.claim AND d.leased_until IS NOT NULL))
RETURNING d.id, d.lane, d.attempts_made;

-- name: acknowledge_late
UPDATE deliveries d SET
  state = r.state, reason = NULL, finished_ms = :now, attempts_made = d.attempts_made + 1,
  first_attempt_ms = coalesce(d.first_attempt_ms, r.at_ms), last_outcome = r.outcome, last_status_code = r.status_code
FROM unnest(:id::bigint[], :state::smallint[], :at_ms::bigint[], :outcome::text[], :status_code::bigint[])
  AS r(id, state, at_ms, outcome, status_code)
WHERE d.id = r.id AND d.state > 2
RETURNING d.id, d.lane, d.attempts_made;

-- name: postpone
UPDATE deliveries d SET
  due_ms = r.due_ms, attempts_made = d.attempts_made + 1, steps_used = d.steps_used + r.step, asked = 0,
  first_attempt_ms = coalesce(d.first_attempt_ms, r.at_ms), last_outcome = r.outcome, last_status_code = r.status_code,
  leased_until = NULL
FROM unnest(:id::bigint[], :claim::bigint[], :due_ms::bigint[], :step::bigint[], :at_ms::bigint[], :outcome::text[],
            :status_code::bigint[])
  AS r(id, claim, due_ms, step, at_ms, outcome, status_code)
WHERE d.id = r.id AND d.state = 0 AND d.claims = r.claim AND d.leased_until IS NOT NULL
RETURNING d.id, d.lane, d.attempts_made;

-- name: due_at_once
UPDATE deliveries SET due_ms = :now WHERE id = ANY(:ids::bigint[]) AND state = 0 AND due_ms > :now;

-- name: promote
UPDATE deliveries d SET state = 0, due_ms = :now
FROM (SELECT DISTINCT target, lane FROM unnest(:target::bigint[], :lane::text[]) AS u(target, lane)) r
CROSS JOIN LATERAL (SELECT id FROM deliveries WHERE target_id = r.target AND lane = r.lane AND state < 2
                    ORDER BY id + 0 LIMIT 1) h
WHERE d.id = h.id AND d.state = 1;

-- name: insert_attempts
INSERT INTO attempts(delivery_id, number, at_ms, duration_ms, outcome, status_code, kind, error, response_body, headers,
                     dns_ms, connect_ms, tls_ms, first_byte_ms, manual, probe)
SELECT * FROM unnest(:id::bigint[], :number::bigint[], :at_ms::bigint[], :duration_ms::double precision[],
                     :outcome::text[], :status_code::bigint[], :kind::text[], :error::text[], :response_body::bytea[],
                     :headers::text[], :dns_ms::double precision[], :connect_ms::double precision[],
                     :tls_ms::double precision[], :first_byte_ms::double precision[], :manual::smallint[],
                     :probe::smallint[]);

-- name: shift_due
UPDATE deliveries SET due_ms = due_ms + :by_ms
WHERE state = 0 AND target_id = :target AND due_ms > :after_ms;

-- name: shift_standing
UPDATE targets SET
  probe_due_ms = CASE WHEN probe_due_ms > :after_ms THEN probe_due_ms + :by_ms ELSE probe_due_ms END,
  throttled_until_ms = CASE WHEN throttled_until_ms > :after_ms THEN throttled_until_ms + :by_ms
                            ELSE throttled_until_ms END
WHERE id = :target;

-- name: clamp_due
UPDATE deliveries SET due_ms = :latest_ms
WHERE state = 0 AND target_id = :target AND due_ms > :latest_ms;

-- name: clamp_standing
UPDATE targets SET probe_due_ms = least(probe_due_ms, :latest_ms),
                   throttled_until_ms = least(throttled_until_ms, :latest_ms)
WHERE id = :target AND (probe_due_ms > :latest_ms OR throttled_until_ms > :latest_ms);

-- name: backlog
SELECT t.name, t.id, t.configured, t.paused_ms, t.paused_by_config, t.parked_ms, t.resumed_ms, t.breaker,
       t.breaker_changed_ms, t.failures, t.failing_order, t.several_orders, t.vain_probes, t.probes_failed,
       t.probe_due_ms, t.throttled_until_ms, t.allowance, t.ok_ms, t.ok_order, t.other_ok_ms, t.last_error,
       (SELECT coalesce(sum(deliveries), 0)::bigint FROM open_counts WHERE target_id = t.id) AS pending,
       (SELECT created_ms FROM deliveries WHERE target_id = t.id AND state < 2 ORDER BY id + 0 LIMIT 1) AS oldest,
       (SELECT due_ms FROM deliveries
        WHERE target_id = t.id AND state = 0 AND due_ms > 0 AND (leased_until IS NULL OR leased_until <= now())
        ORDER BY due_ms, id LIMIT 1) AS waiting,
       (SELECT d.created_ms FROM deliveries d
        WHERE d.target_id = t.id AND d.state < 2
          AND NOT (d.lane >= 'relay:' AND d.lane < 'relay;'
                   AND (SELECT sequence IS NULL FROM events WHERE id = d.event_id))
        ORDER BY d.id + 0 LIMIT 1) AS oldest_order
FROM targets t ORDER BY t.name;

-- name: delivery_target
SELECT t.name, d.lane FROM deliveries d JOIN targets t ON t.id = d.target_id WHERE d.id = :id;

-- name: delivery_state
SELECT lane, state, leased_until IS NOT NULL AND leased_until > now() FROM deliveries WHERE id = :id FOR NO KEY UPDATE;

-- name: ask
UPDATE deliveries SET due_ms = 0, asked = 1 WHERE id = :id AND state = 0;

-- name: oldest_deliveries
SELECT id, lane, created_ms, attempts_made, leased_until IS NOT NULL AND leased_until > now() FROM deliveries
WHERE target_id = :target AND state < 2 AND id + 0 > :after ORDER BY id + 0 LIMIT :limit;

-- name: oldest_unclaimed
SELECT id, lane FROM (
  SELECT id, lane, leased_until FROM deliveries WHERE target_id = :target AND state < 2 ORDER BY id + 0 LIMIT :most
) o WHERE leased_until IS NULL OR leased_until <= now() ORDER BY id LIMIT :limit;

-- name: old_notices
SELECT d.id, d.lane FROM deliveries d JOIN events e ON e.id = d.event_id
WHERE d.target_id = :target AND d.state < 2 AND d.lane >= 'relay:' AND d.lane < 'relay;'
  AND d.created_ms < :made_before AND e.sequence IS NULL AND (d.leased_until IS NULL OR d.leased_until <= now())
LIMIT :limit;

-- name: end_unsent
UPDATE deliveries SET state = :state, reason = :reason, finished_ms = :now, asked = 0, leased_until = NULL
WHERE id = ANY(:ids::bigint[]) AND state < 2 AND (leased_until IS NULL OR leased_until <= now())
RETURNING id, lane;

-- name: said_of
SELECT e.webhook_id, e.type FROM deliveries d JOIN events e ON e.id = d.event_id
WHERE d.id = ANY(:ids::bigint[]) ORDER BY d.id;

-- name: replay_lanes
SELECT DISTINCT lane FROM events WHERE webhook_id = ANY(:webhook_ids::text[]);

-- name: replay_source
SELECT e.id, e.lane,
       coalesce((SELECT max(replay) FROM deliveries WHERE event_id = e.id AND target_id = :target), 0) + 1,
       (SELECT 1 FROM events n JOIN deliveries d ON d.event_id = n.id AND d.target_id = :target
        WHERE n.lane = e.lane AND n.id > e.id LIMIT 1) IS NOT NULL
FROM events e WHERE e.webhook_id = :webhook_id FOR KEY SHARE OF e;

-- name: open_orders
SELECT houdini_id, created FROM orders WHERE terminal = 0 AND aged_out_ms IS NULL ORDER BY id LIMIT :limit;

-- name: note_hidden
UPDATE orders SET
  hidden_times = hidden_times + CASE WHEN hidden_ms IS NULL OR :now::bigint - hidden_ms >= :spacing
                                       OR :now < hidden_ms THEN 1 ELSE 0 END,
  hidden_ms = CASE WHEN hidden_ms IS NULL OR :now - hidden_ms >= :spacing OR :now < hidden_ms THEN :now
                   ELSE hidden_ms END,
  aged_out_ms = CASE WHEN hidden_times + CASE WHEN hidden_ms IS NULL OR :now - hidden_ms >= :spacing
                                                OR :now < hidden_ms THEN 1 ELSE 0 END >= :limit::bigint
                     THEN coalesce(aged_out_ms, :now) ELSE aged_out_ms END
WHERE houdini_id = :houdini_id
RETURNING aged_out_ms IS NOT NULL;

-- name: ended_orders
SELECT houdini_id FROM orders
WHERE houdini_id = ANY(:ids::text[]) AND terminal = 1 AND terminal_ms <= :terminal_before;

-- name: aged_out_orders
SELECT houdini_id FROM orders WHERE houdini_id = ANY(:ids::text[]) AND aged_out_ms IS NOT NULL;

-- name: order_deliveries
SELECT e.lane, e.webhook_id, e.sequence, e.status, t.name, d.state, d.reason, d.replay,
       e.sequence = 1 OR coalesce(e.changed ~ '[[,]"status"[],]', false)
FROM events e JOIN deliveries d ON d.event_id = e.id JOIN targets t ON t.id = d.target_id
WHERE e.lane = ANY(:ids::text[])
ORDER BY e.lane, e.id, t.id, d.replay;

-- name: upsert_question
INSERT INTO questions(houdini_id, status, frame, sideways, seen_ms, ask_at_ms)
VALUES(:houdini_id, :status, :frame, :sideways, :seen_ms, :ask_at_ms)
ON CONFLICT(houdini_id) DO UPDATE SET
  status = excluded.status, frame = excluded.frame, sideways = excluded.sideways, seen_ms = excluded.seen_ms;

-- name: delete_questions
DELETE FROM questions WHERE houdini_id = ANY(:ids::text[]);

-- name: due_questions
SELECT houdini_id, status, frame, sideways, seen_ms, ask_at_ms FROM questions
WHERE ask_at_ms <= :now ORDER BY ask_at_ms LIMIT :limit;

-- name: postpone_question
UPDATE questions SET ask_at_ms = :ask_at_ms, asked = asked + 1 WHERE houdini_id = :houdini_id RETURNING asked;

-- name: count_questions
SELECT count(*) FROM questions;

-- name: begin_gap
INSERT INTO gaps(from_ms, cause) SELECT :from_ms::bigint, :cause::text
WHERE NOT EXISTS (SELECT 1 FROM gaps WHERE to_ms IS NULL)
ON CONFLICT DO NOTHING;

-- name: end_gap
UPDATE gaps SET to_ms = greatest(from_ms, :to_ms) WHERE to_ms IS NULL
RETURNING id, from_ms, to_ms, cause, swept_ms, closed_by;

-- name: close_gaps
UPDATE gaps SET swept_ms = :swept_ms, closed_by = :closed_by WHERE swept_ms IS NULL AND to_ms IS NOT NULL;

-- name: gaps
SELECT id, from_ms, to_ms, cause, swept_ms, closed_by FROM gaps
WHERE to_ms IS NULL OR to_ms - from_ms >= :at_least ORDER BY id DESC LIMIT :limit;

-- name: meta_get
SELECT value FROM meta WHERE key = :key;

-- name: meta_set
INSERT INTO meta(key, value) VALUES(:key, :value) ON CONFLICT(key) DO UPDATE SET value = excluded.value;

-- name: size
-- An operator may have parted a table: then the room is in its parts.
SELECT coalesce(sum(pg_total_relation_size(to_regclass(name)) + coalesce(
  (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(to_regclass(name)) WHERE level > 0), 0)), 0)::bigint
FROM unnest(:tables::text[]) AS t(name);

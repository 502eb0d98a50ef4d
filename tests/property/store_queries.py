"""What is asked of the database itself; those that look for faults answer nothing when all is well."""

LANES = """
SELECT target_id, lane, group_concat(state || ':' || id, ' ') FROM deliveries WHERE state < 2
GROUP BY target_id, lane HAVING sum(state = 0) != 1 OR min(id) != min(iif(state = 0, id, NULL))
"""
TWICE = "SELECT event_id, target_id, replay FROM deliveries GROUP BY 1, 2, 3 HAVING count(*) > 1"
SEQUENCES = """
SELECT lane, group_concat(sequence) FROM events GROUP BY lane
HAVING min(sequence) != 1 OR max(sequence) != count(*) OR count(DISTINCT sequence) != count(*)
"""
COUNTS = """
SELECT o.houdini_id, o.sequence, count(e.id) FROM orders o LEFT JOIN events e ON e.lane = o.houdini_id
GROUP BY o.id HAVING o.sequence != count(e.id) OR coalesce(o.last_event_id, 0) != coalesce(max(e.id), 0)
"""
FAN_OUT = """
SELECT e.type, group_concat(t.name, ',') FROM events e LEFT JOIN deliveries d ON d.event_id = e.id AND d.replay = 0
LEFT JOIN targets t ON t.id = d.target_id GROUP BY e.id
"""
UNFINISHED = "SELECT target_id, lane, state, due_ms FROM deliveries WHERE state < 2"
LOG = "SELECT lane, status, webhook_id FROM events ORDER BY id"

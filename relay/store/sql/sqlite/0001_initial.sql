CREATE TABLE meta(
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row a target: everything that must survive a restart about it as a whole.
CREATE TABLE targets(
  id                 INTEGER PRIMARY KEY AUTOINCREMENT,
  name               TEXT NOT NULL UNIQUE,
  ordering           TEXT NOT NULL DEFAULT 'per_order',
  reach              TEXT NOT NULL DEFAULT '',   -- keyed digest of where and how it is reached
  configured         INTEGER NOT NULL DEFAULT 1, -- 0: orphaned, its deliveries are kept
  paused_ms          INTEGER,
  paused_by_config   INTEGER NOT NULL DEFAULT 0,
  parked_ms          INTEGER,
  resumed_ms         INTEGER NOT NULL,
  breaker            TEXT NOT NULL DEFAULT 'closed',
  breaker_changed_ms INTEGER,
  failures           INTEGER NOT NULL DEFAULT 0,
  failing_order      TEXT,
  several_orders     INTEGER NOT NULL DEFAULT 0,
  vain_probes        TEXT NOT NULL DEFAULT '[]', -- JSON list of moments
  probes_failed      INTEGER NOT NULL DEFAULT 0,
  probe_due_ms       INTEGER,
  throttled_until_ms INTEGER,
  allowance          INTEGER,
  ok_ms              INTEGER,
  ok_order           TEXT,
  other_ok_ms        INTEGER,
  last_error         TEXT
) STRICT;

-- The projection: the last believed state of every order seen.
CREATE TABLE orders(
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  houdini_id    TEXT NOT NULL UNIQUE,
  status        INTEGER NOT NULL,
  ranked_status INTEGER,                     -- last believed code that the table of codes knows
  fields        TEXT NOT NULL,               -- JSON object of the status fields
  created       TEXT,
  terminal      INTEGER NOT NULL,
  silent        INTEGER NOT NULL,
  sequence      INTEGER NOT NULL,
  status_counts TEXT NOT NULL,               -- JSON object: status code -> events
  last_event_id INTEGER REFERENCES events(id),
  frame         BLOB,                        -- the last frame, where it is not the body of the last event
  learned_ms    INTEGER NOT NULL,
  believed_ms   INTEGER NOT NULL,
  terminal_ms   INTEGER,                     -- since when the status has been a terminal one
  hidden_times  INTEGER NOT NULL DEFAULT 0,  -- definitive 404 answers in a row
  hidden_ms     INTEGER,                     -- when the last of them was counted
  aged_out_ms   INTEGER                      -- past the upstream's window: not asked for any more
) STRICT;
CREATE INDEX orders_open ON orders(id) WHERE terminal = 0 AND aged_out_ms IS NULL;

CREATE TABLE events(
  id              INTEGER PRIMARY KEY AUTOINCREMENT,
  webhook_id      TEXT NOT NULL UNIQUE,
  lane            TEXT NOT NULL,             -- houdiniId, or relay:<subject>
  type            TEXT NOT NULL,
  at_ms           INTEGER NOT NULL,
  sequence        INTEGER,                   -- from here on: NULL for a notice
  status          INTEGER,
  previous_status INTEGER,
  changed         TEXT,                      -- JSON list
  origin          TEXT,
  body            BLOB NOT NULL
) STRICT;
CREATE INDEX events_lane ON events(lane, id);

-- state: 0 ready (head of its lane), 1 blocked, 2 delivered, 3 dead, 4 superseded, 5 cancelled
CREATE TABLE deliveries(
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  target_id        INTEGER NOT NULL REFERENCES targets(id),
  lane             TEXT NOT NULL,             -- the event's; with ordering none one of its own
  event_id         INTEGER NOT NULL REFERENCES events(id),
  state            INTEGER NOT NULL,
  reason           TEXT,
  replay           INTEGER NOT NULL DEFAULT 0, -- 0: made by the event; n: the nth time a person asked
  due_ms           INTEGER NOT NULL,
  attempts_made    INTEGER NOT NULL DEFAULT 0,
  steps_used       INTEGER NOT NULL DEFAULT 0, -- of the retry schedule; probes use none
  asked            INTEGER NOT NULL DEFAULT 0, -- 1: a person asked for the next attempt
  created_ms       INTEGER NOT NULL,
  first_attempt_ms INTEGER,
  finished_ms      INTEGER,
  last_outcome     TEXT,
  last_status_code INTEGER
) STRICT;
CREATE UNIQUE INDEX deliveries_once ON deliveries(event_id, target_id, replay);
CREATE INDEX deliveries_due  ON deliveries(target_id, due_ms, id) WHERE state = 0;
CREATE INDEX deliveries_lane ON deliveries(target_id, lane, id) WHERE state < 2;
CREATE INDEX deliveries_open ON deliveries(target_id, id) WHERE state < 2;
CREATE INDEX deliveries_dead ON deliveries(target_id, id) WHERE state = 3;

CREATE TABLE attempts(
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  delivery_id   INTEGER NOT NULL REFERENCES deliveries(id),
  number        INTEGER NOT NULL,
  at_ms         INTEGER NOT NULL,
  duration_ms   REAL NOT NULL,
  outcome       TEXT NOT NULL,
  status_code   INTEGER,
  kind          TEXT,
  error         TEXT,
  response_body BLOB NOT NULL,
  headers       TEXT NOT NULL DEFAULT '{}',  -- JSON object
  dns_ms        REAL,
  connect_ms    REAL,
  tls_ms        REAL,
  first_byte_ms REAL,
  manual        INTEGER NOT NULL DEFAULT 0,
  probe         INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX attempts_delivery ON attempts(delivery_id);

-- Frames that were not believed, one an order, until REST has said what is true.
CREATE TABLE questions(
  houdini_id TEXT PRIMARY KEY,
  status     INTEGER NOT NULL,
  frame      BLOB NOT NULL,
  sideways   INTEGER NOT NULL,
  seen_ms    INTEGER NOT NULL,
  ask_at_ms  INTEGER NOT NULL,
  asked      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX questions_due ON questions(ask_at_ms);

-- Times without a live, acknowledged subscription; closed by the sweep that followed.
CREATE TABLE gaps(
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  from_ms   INTEGER NOT NULL,
  to_ms     INTEGER,                         -- NULL: open
  cause     TEXT NOT NULL,
  swept_ms  INTEGER,
  closed_by TEXT
) STRICT;
CREATE UNIQUE INDEX gaps_open ON gaps(to_ms IS NULL) WHERE to_ms IS NULL;
CREATE INDEX gaps_unswept ON gaps(id) WHERE swept_ms IS NULL;

# frozen_string_literal: true

# Receives houdini-relay's webhooks with Rack: verify, drop repeats and old news, store, answer. Work comes later.
require "json"
require "openssl"
require "sqlite3"

MAX_BODY = 1024 * 1024
TOLERANCE_SECONDS = 5 * 60
STATE = ENV.fetch("RELAY_STATE", "receiver.db")
KEY = ENV.fetch("RELAY_SECRET").delete_prefix("whsec_").unpack1("m0")
raise "RELAY_SECRET is damaged" if KEY.bytesize < 24 # never verify with an empty key

def open_state
  SQLite3::Database.new(STATE) do |db|
    # Wait in Ruby for other writers, 5 s at most: busy_timeout would stop every thread, the writer's own too.
    db.busy_handler { |tries| tries < 500 && sleep(0.01) }
    yield db
  end
end

open_state { |db| db.execute_batch(<<~SQL) }
  CREATE TABLE IF NOT EXISTS seen(webhook_id TEXT PRIMARY KEY, at TEXT DEFAULT CURRENT_TIMESTAMP);
  CREATE TABLE IF NOT EXISTS orders(houdini_id TEXT PRIMARY KEY, order_sequence INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS work(number INTEGER PRIMARY KEY, webhook_id TEXT NOT NULL, body BLOB NOT NULL);
SQL

# Standard Webhooks 1.0.0: any one of the signatures, over id, time and bytes, made within the last five minutes.
def genuine?(id, timestamp, signatures, body)
  return false if id.to_s.empty? || !timestamp.to_s.match?(/\A\d{1,12}\z/)
  return false if (Time.now.to_i - timestamp.to_i).abs > TOLERANCE_SECONDS

  mac = OpenSSL::HMAC.digest("SHA256", KEY, "#{id}.#{timestamp}.".b + body)
  expected = "v1,#{[mac].pack("m0")}"
  signatures.to_s.split(" ").any? { |offered| OpenSSL.secure_compare(expected, offered) }
end

# Store an event to work on, unless it is a repeat or older than what this order already had.
def accept(webhook_id, body)
  event = JSON.parse(body)
  relay = event["relay"] # the relay's own notices (relay.*) have none
  open_state do |db|
    db.transaction(:immediate) do # all of it or, when anything raises, nothing
      db.execute("INSERT INTO seen(webhook_id) VALUES(?) ON CONFLICT DO NOTHING", [webhook_id])
      next if db.changes.zero?

      if relay
        db.execute(<<~SQL, [event["data"]["houdiniId"], relay["orderSequence"]])
          INSERT INTO orders VALUES(?, ?) ON CONFLICT(houdini_id) DO UPDATE
          SET order_sequence = excluded.order_sequence WHERE excluded.order_sequence > order_sequence
        SQL
        next if db.changes.zero?
      end
      # Your effect goes here, in the same transaction. The body is kept as it came: no digit of an amount is lost.
      db.execute("INSERT INTO work(webhook_id, body) VALUES(?, ?)", [webhook_id, SQLite3::Blob.new(body)])
    end
  end
end

# 2xx says "I have it", so it is said only once the event is stored; an exception answers 500 and it comes again.
run lambda { |env|
  # The bytes as they came, for the signature is over them.
  body = env["rack.input"]&.read(MAX_BODY + 1) || "".b
  next [413, {}, []] if body.bytesize > MAX_BODY

  id = env["HTTP_WEBHOOK_ID"]&.dup&.force_encoding("UTF-8") # or SQLite would take it for bytes
  next [401, {}, []] unless genuine?(id, env["HTTP_WEBHOOK_TIMESTAMP"], env["HTTP_WEBHOOK_SIGNATURE"], body)

  accept(id, body)
  [204, {}, []]
}

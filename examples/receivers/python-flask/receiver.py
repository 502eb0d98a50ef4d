"""Receives houdini-relay's webhooks with Flask: verify, drop repeats and old news, store, answer."""

import json
import os
import sqlite3
from contextlib import closing

from flask import Flask, Response, request
from standardwebhooks import Webhook, WebhookVerificationError

STATE = os.environ.get("RELAY_STATE", "receiver.db")
webhook = Webhook(os.environ["RELAY_SECRET"])  # a missing or empty secret must stop the start, not verify everything

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 1024 * 1024  # a longer body is answered with 413

with closing(sqlite3.connect(STATE)) as db:
    db.executescript("""
        CREATE TABLE IF NOT EXISTS seen(webhook_id TEXT PRIMARY KEY, at TEXT DEFAULT CURRENT_TIMESTAMP);
        CREATE TABLE IF NOT EXISTS orders(houdini_id TEXT PRIMARY KEY, order_sequence INTEGER NOT NULL);
        CREATE TABLE IF NOT EXISTS work(number INTEGER PRIMARY KEY, webhook_id TEXT NOT NULL, body BLOB NOT NULL);
    """)


@app.post("/hooks/houdini")
def receive() -> Response:
    """2xx says "I have it", so it is said only once the event is stored; after an exception (500) it comes again."""
    body = request.get_data()  # the signature is over these bytes; parsed and written again they would be others
    try:
        webhook.verify(body, dict(request.headers), json_parse=False)
    except (WebhookVerificationError, ValueError):  # ValueError: a header that is no signature at all
        return Response(status=401)
    accept(request.headers["webhook-id"], body)
    return Response(status=204)


def accept(webhook_id: str, body: bytes) -> None:
    """Store an event to work on, unless it is a repeat or older than what this order already had."""
    event = json.loads(body)
    with closing(sqlite3.connect(STATE, timeout=5)) as db, db:  # `db`: one transaction, all of it or nothing
        if not db.execute("INSERT INTO seen(webhook_id) VALUES(?) ON CONFLICT DO NOTHING", [webhook_id]).rowcount:
            return
        relay = event.get("relay")  # the relay's own notices (relay.*) have none
        if relay:
            newer = db.execute(
                """INSERT INTO orders VALUES(?, ?) ON CONFLICT(houdini_id) DO UPDATE
                   SET order_sequence = excluded.order_sequence WHERE excluded.order_sequence > order_sequence""",
                [event["data"]["houdiniId"], relay["orderSequence"]],
            )
            if not newer.rowcount:
                return
        # Your effect goes here, in the same transaction. The body is kept as it came: no digit of an amount is lost.
        db.execute("INSERT INTO work(webhook_id, body) VALUES(?, ?)", [webhook_id, body])


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8790")), threaded=True)

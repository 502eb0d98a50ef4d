"""How a delivery enters its lane in the SQLite store, by its target's ordering."""

import json
import sqlite3
from typing import Final

from relay.model import TERMINAL, DeliveryStatus, Event
from relay.standing import Ordering
from relay.store.sqlite_verbs import SQL, KnownTarget

_TERMINAL: Final = json.dumps(sorted(TERMINAL))


def insert_delivery(
    connection: sqlite3.Connection, target: KnownTarget, event: Event, event_id: int, now_ms: int
) -> int:
    """Put a new event's delivery at the tail of its lane; returns how many waiting ones it supersedes."""
    superseded = 0
    if target.ordering is Ordering.LATEST_ONLY:
        terminal = event.facts is not None and event.facts.status in TERMINAL
        bound = {"target": target.id, "lane": event.lane, "now": now_ms}
        bound |= {"terminal": int(terminal), "terminal_statuses": _TERMINAL}
        superseded = connection.execute(SQL["supersede"], bound).rowcount
    _insert(connection, "insert_delivery", target, event_id, event.lane, 0, now_ms)
    return superseded


def insert_replay(
    connection: sqlite3.Connection, target: KnownTarget, webhook_id: str, now_ms: int
) -> DeliveryStatus | None:
    """Put another delivery of an event at the tail of its lane; how it stands now, None if there is no such event."""
    bound = {"target": target.id, "webhook_id": webhook_id}
    row = connection.execute(SQL["replay_source"], bound).fetchone()
    if row is None:
        return None
    event_id, lane, replay, newer = row
    if newer and target.ordering is Ordering.LATEST_ONLY:
        _insert(connection, "insert_superseded", target, event_id, lane, replay, now_ms)
        return DeliveryStatus.SUPERSEDED
    _insert(connection, "insert_delivery", target, event_id, lane, replay, now_ms)
    return DeliveryStatus.PENDING


def _insert(
    connection: sqlite3.Connection,
    statement: str,
    target: KnownTarget,
    event_id: int,
    event_lane: str,
    replay: int,
    now_ms: int,
) -> None:
    lane = event_lane
    if target.ordering is Ordering.NONE:  # every delivery is its own lane
        lane = f"{event_lane}#{event_id}" + (f"r{replay}" if replay else "")
    bound = {"target": target.id, "lane": lane, "event": event_id, "replay": replay, "now": now_ms}
    connection.execute(SQL[statement], bound)

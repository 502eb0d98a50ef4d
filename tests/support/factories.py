"""Values for tests, made the way the program makes them."""

import json
from typing import Any

import msgspec

from relay.model import Attempt, Event, KnownOrder, OrderFacts, Origin, Outcome, Snapshot, event_type


def order_body(houdini_id: str = "order-1", status: int = 0, **fields: Any) -> bytes:
    return json.dumps({"houdiniId": houdini_id, "status": status, **fields}).encode()


def snapshot(
    houdini_id: str = "order-1",
    status: int = 0,
    *,
    origin: Origin = Origin.WEBSOCKET,
    asked_at: float = 0.0,
    first_sweep: bool = False,
    silent: bool = False,
    seen_ms: int = 1_000,
    **fields: Any,
) -> Snapshot:
    body = order_body(houdini_id, status, **fields)
    raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return Snapshot(
        houdini_id=houdini_id,
        status=status,
        body=body,
        fields={name: bytes(text) for name, text in raw.items()},
        created=fields.get("created"),
        origin=origin,
        seen_ms=seen_ms,
        asked_at=asked_at,
        first_sweep=first_sweep,
        silent=silent,
    )


def row(houdini_id: str = "order-1", status: int = 0, **kwargs: Any) -> Snapshot:
    return snapshot(houdini_id, status, origin=Origin.BACKFILL, **kwargs)


def known(houdini_id: str = "order-1", status: int = 0, **changes: Any) -> KnownOrder:
    body = changes.pop("last_frame", order_body(houdini_id, status))
    values: dict[str, Any] = {
        "ranked_status": status,
        "fields": {"status": status},
        "created": None,
        "silent": False,
        "sequence": 1,
        "status_counts": {status: 1},
        "last_frame": body,
        "frame_is_event": body is not None,
    }
    return KnownOrder(houdini_id=houdini_id, status=status, **{**values, **changes})


def event(houdini_id: str = "order-1", status: int = 0, sequence: int = 1, **changes: Any) -> Event:
    facts = OrderFacts(sequence, status, None, ("status",), Origin.WEBSOCKET)
    values: dict[str, Any] = {
        "webhook_id": f"evt_{houdini_id}_{sequence}",
        "lane": houdini_id,
        "type": event_type(status),
        "at_ms": 1_000,
        "body": order_body(houdini_id, status),
        "facts": facts,
    }
    return Event(**{**values, **changes})


def ok_attempt(at_ms: int = 1_000) -> Attempt:
    return Attempt(at_ms, 12.5, Outcome.OK, status_code=200)


def failed_attempt(at_ms: int = 1_000) -> Attempt:
    return Attempt(at_ms, 12.5, Outcome.RETRY, status_code=500, response_body=b"oops")

"""Between the store's values and a SQL driver's rows; the same for both stores."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from relay.model import DeadReason, Delivery, DeliveryStatus, Event, KnownOrder, OrderFacts, Origin
from relay.store.base import DeliveryOfOrder, PlannedEvent, Question, Settlement

STATE_WORDS: Final = (
    DeliveryStatus.PENDING,
    DeliveryStatus.PENDING,
    DeliveryStatus.DELIVERED,
    DeliveryStatus.DEAD,
    DeliveryStatus.SUPERSEDED,
    DeliveryStatus.CANCELLED,
)
"""The column `deliveries.state` in words; ready and blocked are both pending."""


def order_from_row(row: Sequence[Any]) -> KnownOrder:
    """A row of the query `known_orders`."""
    houdini_id, status, ranked, fields, created, silent, sequence, counts, frame, body, origin = row
    is_event = frame is None and origin == Origin.WEBSOCKET.value
    return KnownOrder(
        houdini_id=houdini_id,
        status=status,
        ranked_status=ranked,
        fields=msgspec.json.decode(fields),
        created=created,
        silent=bool(silent),
        sequence=sequence,
        status_counts=msgspec.json.decode(counts, type=dict[int, int]),
        last_frame=body if is_event else frame,
        frame_is_event=is_event,
    )


def order_to_row(order: KnownOrder, last_event_id: int | None, now_ms: int) -> Mapping[str, Any]:
    """Parameters of the query `upsert_order`."""
    return {
        "houdini_id": order.houdini_id,
        "status": order.status,
        "ranked_status": order.ranked_status,
        "fields": msgspec.json.encode(order.fields).decode(),
        "created": order.created,
        "terminal": int(order.terminal),
        "silent": int(order.silent),
        "sequence": order.sequence,
        "status_counts": msgspec.json.encode(order.status_counts).decode(),
        "frame": None if order.frame_is_event else order.last_frame,
        "last_event_id": last_event_id,
        "now": now_ms,
    }


def event_to_row(planned: PlannedEvent) -> Mapping[str, Any]:
    """Parameters of the query `insert_event`."""
    event, facts = planned.event, planned.event.facts
    return {
        "webhook_id": event.webhook_id,
        "lane": event.lane,
        "type": event.type,
        "at_ms": event.at_ms,
        "sequence": facts and facts.sequence,
        "status": facts and facts.status,
        "previous_status": facts and facts.previous_status,
        "changed": facts and msgspec.json.encode(facts.changed).decode(),
        "origin": facts and facts.origin.value,
        "body": event.body,
    }


def delivery_from_row(row: Sequence[Any], target: str) -> Delivery:
    """A row of the query `claim`."""
    delivery_id, attempts_made, created_ms, replay, *event = row
    return Delivery(
        id=delivery_id,
        target=target,
        event=event_from_row(event),
        attempts_made=attempts_made,
        created_ms=created_ms,
        replay=bool(replay),
    )


def event_from_row(row: Sequence[Any]) -> Event:
    """The event columns in the order of the query `claim`."""
    webhook_id, lane, kind, at_ms, sequence, status, previous, changed, origin, body = row
    facts = None
    if sequence is not None:
        facts = OrderFacts(
            sequence=sequence,
            status=status,
            previous_status=previous,
            changed=msgspec.json.decode(changed, type=tuple[str, ...]),
            origin=Origin(origin),
        )
    return Event(webhook_id=webhook_id, lane=lane, type=kind, at_ms=at_ms, body=body, facts=facts)


def delivery_of_order_from_row(row: Sequence[Any]) -> DeliveryOfOrder:
    """A row of the query `order_deliveries`."""
    lane, webhook_id, sequence, status, target, state, reason, replay = row
    words = STATE_WORDS[state], None if reason is None else DeadReason(reason)
    return DeliveryOfOrder(lane, webhook_id, sequence, status, target, *words, replay)


def question_from_row(row: Sequence[Any]) -> Question:
    """A row of the query `due_questions`."""
    houdini_id, status, frame, sideways, seen_ms, ask_at_ms = row
    return Question(houdini_id, status, frame, bool(sideways), seen_ms, ask_at_ms)


def question_to_row(question: Question) -> Mapping[str, Any]:
    """Parameters of the query `upsert_question`."""
    return {
        "houdini_id": question.houdini_id,
        "status": question.status,
        "frame": question.frame,
        "sideways": int(question.sideways),
        "seen_ms": question.seen_ms,
        "ask_at_ms": question.ask_at_ms,
    }


def attempt_to_row(settlement: Settlement, number: int) -> Mapping[str, Any]:
    """Parameters of the query `insert_attempt`."""
    attempt = settlement.attempt
    return {
        "id": settlement.delivery_id,
        "number": number,
        "at_ms": attempt.at_ms,
        "duration_ms": attempt.duration_ms,
        "outcome": attempt.outcome.value,
        "status_code": attempt.status_code,
        "error": attempt.error,
        "response_body": attempt.response_body,
        "manual": int(attempt.manual),
    }

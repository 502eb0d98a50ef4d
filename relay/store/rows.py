"""Between the store's values and a SQL driver's rows; the same for both stores."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from relay.model import DeadReason, Delivery, DeliveryStatus, Event, KnownOrder, OrderFacts, Origin
from relay.standing import Breaker, Standing
from relay.store.values import DeliveryOfOrder, PlannedEvent, Question, Settlement

STATE_WORDS: Final = (
    DeliveryStatus.PENDING,
    DeliveryStatus.PENDING,
    DeliveryStatus.DELIVERED,
    DeliveryStatus.DEAD,
    DeliveryStatus.SUPERSEDED,
    DeliveryStatus.CANCELLED,
)
"""The column `deliveries.state` in words; ready and blocked are both pending."""

END_STATES: Final[Mapping[DeliveryStatus, int]] = {word: code for code, word in enumerate(STATE_WORDS) if code > 1}
"""The words that end a delivery as `deliveries.state`."""

_COUNTS: Final = msgspec.json.Decoder(dict[int, int])
_NAMES: Final = msgspec.json.Decoder(tuple[str, ...])

_STANDING_FIELDS: Final = Standing.__struct_fields__
"""In the order of the columns of the query `standing`."""


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
        status_counts=_COUNTS.decode(counts),
        last_frame=body if is_event else frame,
        frame_is_event=is_event,
    )


def order_to_row(order: KnownOrder, last_event_id: int | None, now_ms: int) -> Mapping[str, Any]:
    """Parameters of the query `upsert_orders`."""
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
        "terminal_ms": now_ms if order.terminal else None,
    }


def event_to_row(planned: PlannedEvent) -> Mapping[str, Any]:
    """Parameters of the query `insert_events`."""
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


def delivery_from_row(row: Sequence[Any], target: str, *, probe: bool) -> Delivery:
    """A row of the query `claimed`."""
    delivery_id, attempts_made, steps_used, created_ms, first_attempt_ms, manual, *event = row
    return Delivery(
        id=delivery_id,
        target=target,
        event=event_from_row(event),
        attempts_made=attempts_made,
        steps_used=steps_used,
        created_ms=created_ms,
        first_attempt_ms=first_attempt_ms,
        manual=bool(manual),
        probe=probe,
    )


def event_from_row(row: Sequence[Any]) -> Event:
    """The event columns in the order of the query `claimed`."""
    webhook_id, lane, kind, at_ms, sequence, status, previous, changed, origin, body = row
    facts = None
    if sequence is not None:
        facts = OrderFacts(
            sequence=sequence,
            status=status,
            previous_status=previous,
            changed=_NAMES.decode(changed),
            origin=Origin(origin),
        )
    return Event(webhook_id=webhook_id, lane=lane, type=kind, at_ms=at_ms, body=body, facts=facts)


def delivery_of_order_from_row(row: Sequence[Any]) -> DeliveryOfOrder:
    """A row of the query `order_deliveries`."""
    lane, webhook_id, sequence, status, target, state, reason, replay, moves_status = row
    words = STATE_WORDS[state], None if reason is None else DeadReason(reason)
    return DeliveryOfOrder(lane, webhook_id, sequence, status, target, *words, replay, bool(moves_status))


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
    """Parameters of the query `insert_attempts`."""
    attempt, delivery = settlement.attempt, settlement.delivery
    return {
        "id": delivery.id,
        "number": number,
        "at_ms": attempt.at_ms,
        "duration_ms": attempt.duration_ms,
        "outcome": attempt.outcome.value,
        "status_code": attempt.status_code,
        "kind": attempt.kind and attempt.kind.value,
        "error": attempt.error,
        "response_body": attempt.response_body,
        "headers": msgspec.json.encode(dict(attempt.headers)).decode(),
        "dns_ms": attempt.timings.dns_ms,
        "connect_ms": attempt.timings.connect_ms,
        "tls_ms": attempt.timings.tls_ms,
        "first_byte_ms": attempt.timings.first_byte_ms,
        "manual": int(delivery.manual),
        "probe": int(delivery.probe),
    }


def standing_from_row(row: Sequence[Any]) -> Standing:
    """A row of the query `standing`.

    Raises:
        ValueError: something is written there that this program never writes; says what.
    """
    values = dict(zip(_STANDING_FIELDS, row, strict=True))
    for name in ("configured", "paused_by_config", "several_orders"):
        values[name] = bool(values[name])
    for name in ("failures", "probes_failed"):
        if values[name] < 0:
            raise ValueError(f"{name} is {values[name]}")
    if values["allowance"] is not None and values["allowance"] < 1:
        raise ValueError(f"allowance is {values['allowance']}")
    if values["breaker"] not in (Breaker.CLOSED, Breaker.OPEN):  # half_open is how an open one is shown
        raise ValueError(f"breaker is {values['breaker']!r}")
    values["breaker"] = Breaker(values["breaker"])
    try:
        values["vain_probes"] = msgspec.json.decode(values["vain_probes"], type=tuple[int, ...])
    except msgspec.DecodeError as error:
        raise ValueError(f"vain_probes is no list of moments ({error})") from error
    return Standing(**values)


def standing_to_row(standing: Standing) -> dict[str, Any]:
    """Parameters of the query `write_standing`, the target's id aside."""
    values = {name: getattr(standing, name) for name in _STANDING_FIELDS}
    for name in ("configured", "paused_by_config", "several_orders"):
        values[name] = int(values[name])
    values["breaker"] = standing.breaker.value
    values["vain_probes"] = msgspec.json.encode(standing.vain_probes).decode()
    return values

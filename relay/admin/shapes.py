"""How events, deliveries, attempts, orders and targets look in answers (interface, section 5). Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from relay.admin.answers import Shown, embedded, outside_text
from relay.model import Attempt, DeliveryStatus, iso_utc, status_label
from relay.standing import Breaker, Standing
from relay.store.reads import AttemptRow, DeliveryRow, EventRow, OrderRow
from relay.store.values import Backlog

Shape = dict[str, Any]


def moment(wall_ms: int | None) -> str | None:
    """RFC 3339 in UTC, None for what has not happened."""
    return None if wall_ms is None else iso_utc(wall_ms)


def delivery_shape(row: DeliveryRow) -> Shape:
    """A delivery."""
    return {
        "id": row.id,
        "event_id": row.webhook_id,
        "type": row.type,
        "order": row.order,
        "target": row.target,
        "status": row.status.value,
        "reason": row.reason and row.reason.value,
        "replay": row.replay,
        "head": row.head,
        "attempts_made": row.attempts_made,
        "due_at": moment(row.due_ms),
        "created_at": iso_utc(row.created_ms),
        "finished_at": moment(row.finished_ms),
        "last_outcome": row.last_outcome and row.last_outcome.value,
        "last_status_code": row.last_status_code,
        "replayed": row.replayed,
    }


def held_shape(row: DeliveryRow, standing: Standing | None, now_ms: int) -> Shape:
    """What of its target holds a waiting delivery back, whatever its own `due_at` says, and until when."""
    by, until_ms = _held(row, standing or Standing(), now_ms)
    return {"held_by": by, "held_until": moment(until_ms)}


def _held(row: DeliveryRow, standing: Standing, now_ms: int) -> tuple[str | None, int | None]:
    if row.status is not DeliveryStatus.PENDING:
        return None, None
    if standing.stopped:
        return standing.state, None
    throttled_ms = standing.throttled_until_ms or 0
    if standing.breaker is not Breaker.CLOSED:
        return "breaker_open", max(now_ms, standing.probe_due_ms or 0, throttled_ms)
    return ("throttled", throttled_ms) if throttled_ms > max(now_ms, row.due_ms or 0) else (None, None)


def attempt_shape(row: AttemptRow) -> Shape:
    """An attempt; what its receiver said is escaped."""
    timings = row.timings
    return {
        "number": row.number,
        "at": iso_utc(row.at_ms),
        "outcome": row.outcome.value,
        "status_code": row.status_code,
        "duration_ms": row.duration_ms,
        "kind": row.kind,
        "error": row.error,
        "response_body": outside_text(row.response_body),
        "headers": {name: outside_text(value.encode()) for name, value in row.headers.items()},
        "timings": {
            "dns_ms": timings.dns_ms,
            "connect_ms": timings.connect_ms,
            "tls_ms": timings.tls_ms,
            "first_byte_ms": timings.first_byte_ms,
        },
        "manual": row.manual,
        "probe": row.probe,
    }


def unstored(attempt: Attempt) -> AttemptRow:
    """The one attempt of a `relay.test` event, which no store keeps, as if it had been logged."""
    return AttemptRow(
        number=1,
        at_ms=attempt.at_ms,
        duration_ms=attempt.duration_ms,
        outcome=attempt.outcome,
        status_code=attempt.status_code,
        kind=attempt.kind and attempt.kind.value,
        error=attempt.error,
        response_body=attempt.response_body,
        headers=attempt.headers,
        timings=attempt.timings,
        manual=True,
        probe=False,
    )


def event_shape(row: EventRow) -> Shape:
    """An event without its data; `counts` says at how many targets its last delivery stands how."""
    event, facts = row.event, row.event.facts
    previous = None if facts is None else facts.previous_status
    return {
        "id": event.webhook_id,
        "type": event.type,
        "order": event.lane,
        "at": iso_utc(event.at_ms),
        "sequence": facts and facts.sequence,
        "status": facts and status_label(facts.status),
        "previous_status": None if previous is None else status_label(previous),
        "changed": [] if facts is None else list(facts.changed),
        "origin": facts and facts.origin.value,
        "counts": {status.value: number for status, number in sorted(row.deliveries.items())},
    }


def whole_event_shape(row: EventRow, deliveries: Sequence[DeliveryRow]) -> Shape:
    """An event with its data, byte for byte, and its deliveries."""
    return event_shape(row) | {
        "deliveries": [delivery_shape(one) for one in deliveries],
        "data": embedded(row.event.body),
    }


def order_shape(row: OrderRow) -> Shape:
    """An order's projection."""
    known = row.known
    return {
        "id": known.houdini_id,
        "status": status_label(known.status),
        "status_code": known.status,
        "terminal": known.terminal,
        "fields": dict(known.fields),
        "created": known.created,
        "events": known.sequence,
        "silent": known.silent,
        "learned_at": iso_utc(row.learned_ms),
        "believed_at": iso_utc(row.believed_ms),
        "aged_out_at": moment(row.aged_out_ms),
        "data": None if known.last_frame is None else embedded(known.last_frame),
    }


def target_shape(name: str, url: str | None, backlog: Backlog, now_ms: int, *, probing: bool, in_flight: int) -> Shape:
    """A target; its `url` has been redacted, and is None for one that is no longer configured."""
    standing = backlog.standing
    return {
        "name": name,
        "url": None if url is None else Shown(url),
        "state": standing.state,
        "breaker": _breaker(standing, probing=probing),
        "pending": backlog.pending,
        "oldest_age_s": None if backlog.oldest_ms is None else max(0, now_ms - backlog.oldest_ms) / 1000,
        "last_success_at": moment(standing.ok_ms),
        "last_error": standing.last_error,
        "in_flight": in_flight,
        "failures": standing.failures,
        "paused_by": _paused_by(standing),
        "paused_at": moment(standing.paused_ms),
        "parked_at": moment(standing.parked_ms),
        "probe_at": moment(standing.probe_due_ms),
        "throttled_until": moment(standing.throttled_until_ms),
    }


def _breaker(standing: Standing, *, probing: bool) -> str:
    shown = Breaker.HALF_OPEN if probing and standing.breaker is Breaker.OPEN else standing.breaker
    return shown.value


def _paused_by(standing: Standing) -> str | None:
    if standing.paused_by_config:
        return "configuration"
    return None if standing.paused_ms is None else "person"


def page_shape(items: Sequence[Mapping[str, Any]], following: str | None) -> Shape:
    """One page of a list."""
    return {"items": list(items), "next": following}

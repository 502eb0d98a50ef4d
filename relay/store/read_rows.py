"""Between the values that people look at and a SQL driver's rows; the same for both stores."""

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from relay.model import DeadReason, DeliveryStatus, Outcome, Timings
from relay.store.reads import AttemptRow, DeliveryRow, OrderRow
from relay.store.rows import STATE_WORDS, order_from_row

ENDED: Final = (
    DeliveryStatus.DELIVERED,
    DeliveryStatus.DEAD,
    DeliveryStatus.SUPERSEDED,
    DeliveryStatus.CANCELLED,
)
"""The statuses in which nothing happens any more."""
_READY: Final = 0
_BLOCKED: Final = 1


def status_word(state: int, delivery_id: int, claimed: Collection[int]) -> DeliveryStatus:
    """The column `deliveries.state` in words, `claimed` being the deliveries under way."""
    if state == _READY and delivery_id in claimed:
        return DeliveryStatus.IN_FLIGHT
    return STATE_WORDS[state]


def states_of(status: DeliveryStatus | None) -> tuple[int, int]:
    """The lowest and the highest value of `deliveries.state` that a status may have."""
    if status is None:
        return 0, len(STATE_WORDS) - 1
    if status in (DeliveryStatus.PENDING, DeliveryStatus.IN_FLIGHT):
        return _READY, _BLOCKED
    state = STATE_WORDS.index(status)
    return state, state


def delivery_row(row: Sequence[Any], claimed: Collection[int]) -> DeliveryRow:
    """A row of the query `look_at_deliveries`."""
    delivery_id, webhook_id, kind, order, target, state, reason, replay, attempts, due_ms, *rest = row
    created_ms, finished_ms, outcome, status_code, replayed = rest
    return DeliveryRow(
        id=delivery_id,
        webhook_id=webhook_id,
        type=kind,
        order=order,
        target=target,
        status=status_word(state, delivery_id, claimed),
        reason=None if reason is None else DeadReason(reason),
        replay=replay,
        head=state == _READY,
        attempts_made=attempts,
        due_ms=due_ms if state == _READY else None,
        created_ms=created_ms,
        finished_ms=finished_ms,
        last_outcome=None if outcome is None else Outcome(outcome),
        last_status_code=status_code,
        replayed=bool(replayed),
    )


def attempt_row(row: Sequence[Any]) -> AttemptRow:
    """A row of the query `attempts`."""
    number, at_ms, duration_ms, outcome, status_code, kind, error, body, headers, *rest = row
    *timings, manual, probe = rest
    return AttemptRow(
        number=number,
        at_ms=at_ms,
        duration_ms=duration_ms,
        outcome=Outcome(outcome),
        status_code=status_code,
        kind=kind,
        error=error,
        response_body=body,
        headers=msgspec.json.decode(headers, type=dict[str, str]),
        timings=Timings(*timings),
        manual=bool(manual),
        probe=bool(probe),
    )


def order_row(row: Sequence[Any]) -> OrderRow:
    """A row of the query `order`."""
    learned_ms, believed_ms, aged_out_ms, *known = row
    return OrderRow(order_from_row(known), learned_ms, believed_ms, aged_out_ms)

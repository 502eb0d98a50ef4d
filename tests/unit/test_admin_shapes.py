"""How a delivery looks: in a word, and what of its target holds it back, whatever its own due time says."""

from dataclasses import replace
from typing import Any

import pytest

from relay.admin.shapes import delivery_shape, held_shape, moment
from relay.cli.deliveries import status_of
from relay.model import DeadReason, DeliveryStatus
from relay.standing import Breaker, Standing
from relay.store.reads import DeliveryRow

NOW = 1_795_330_000_000
OPEN = {"breaker": Breaker.OPEN}


def row(status: DeliveryStatus = DeliveryStatus.PENDING, due_ms: int | None = NOW - 5_000) -> DeliveryRow:
    made: dict[str, Any] = {
        "created_ms": NOW,
        "finished_ms": None,
        "last_outcome": None,
        "last_status_code": None,
        "replayed": False,
    }
    whose: dict[str, Any] = {"webhook_id": "evt_1", "type": "order.new", "order": "o1", "target": "shop"}
    return DeliveryRow(
        id=1, status=status, reason=None, replay=0, head=True, attempts_made=1, due_ms=due_ms, **whose, **made
    )


@pytest.mark.parametrize(
    ("standing", "by", "until_ms"),
    [
        ({}, None, None),
        ({"paused_ms": 1}, "paused", None),
        ({"paused_by_config": True, **OPEN}, "paused", None),
        ({"parked_ms": 1}, "parked", None),
        ({"configured": False}, "orphaned", None),
        ({**OPEN, "probe_due_ms": NOW + 9_000}, "breaker_open", NOW + 9_000),
        ({**OPEN, "probe_due_ms": NOW - 9_000}, "breaker_open", NOW),
        ({**OPEN, "probe_due_ms": NOW + 9_000, "throttled_until_ms": NOW + 10_000}, "breaker_open", NOW + 10_000),
        ({"throttled_until_ms": NOW + 10_000}, "throttled", NOW + 10_000),
        ({"throttled_until_ms": NOW - 10_000}, None, None),
    ],
)
def test_what_holds_it_back(standing: dict[str, Any], by: str | None, until_ms: int | None):
    assert held_shape(row(), Standing(**standing), NOW) == {"held_by": by, "held_until": moment(until_ms)}


def test_what_is_due_later_anyway_ended_or_is_on_its_way_is_not_held():
    free = {"held_by": None, "held_until": None}
    assert held_shape(row(due_ms=NOW + 60_000), Standing(throttled_until_ms=NOW + 10_000), NOW) == free
    assert held_shape(row(DeliveryStatus.DELIVERED, None), Standing(paused_ms=1), NOW) == free
    assert held_shape(row(DeliveryStatus.IN_FLIGHT), Standing(paused_ms=1), NOW) == free
    assert held_shape(row(), None, NOW) == free


@pytest.mark.parametrize(
    ("reason", "replayed", "text"),
    [
        (None, False, "delivered"),
        (None, True, "delivered, sent again"),
        (DeadReason.EXPIRED, True, "delivered (expired), sent again"),
    ],
)
def test_a_delivery_in_a_word_or_three(reason: DeadReason | None, replayed: bool, text: str) -> None:
    assert status_of(delivery_shape(replace(row(DeliveryStatus.DELIVERED), reason=reason, replayed=replayed))) == text

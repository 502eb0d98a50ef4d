"""The audit's comparison as a table: what is a difference, of what kind, and what is none."""

import dataclasses
from typing import Any

import pytest
from msgspec.structs import replace
from support.factories import known

from relay.admin.compare import Difference, Expectation, Kind, Ledger, SeenOrder, compare, is_certain
from relay.model import DeadReason, DeliveryStatus
from relay.store.values import DeliveryOfOrder

P, D, X, S, C = (
    DeliveryStatus.PENDING,
    DeliveryStatus.DELIVERED,
    DeliveryStatus.DEAD,
    DeliveryStatus.SUPERSEDED,
    DeliveryStatus.CANCELLED,
)
CREATED = 1_000_000


def seen(status: int = 4, created_ms: int | None = CREATED, **fields: Any) -> SeenOrder:
    return SeenOrder("order-1", status, {"status": status, **fields}, b"{}", created_ms, 0.0)


def made(
    sequence: int, status: DeliveryStatus, target: str = "alpha", replay: int = 0, code: int = 4
) -> DeliveryOfOrder:
    reason = DeadReason.EXHAUSTED if status is X else None
    return DeliveryOfOrder("order-1", f"evt_{sequence}", sequence, code, target, status, reason, replay)


def expect(name: str = "alpha", since_ms: int = 0, *types: str) -> Expectation:
    return Expectation(name, lambda kind: not types or kind in types, since_ms)


def differences(
    order: Any, *deliveries: DeliveryOfOrder, to: Any = None, row: SeenOrder | None = None
) -> list[Difference]:
    orders = {} if order is None else {"order-1": order}
    return compare(row or seen(), Ledger(orders, deliveries), to or [expect()], lambda one: f"evt_{one.sequence}")


def kinds(*args: Any, **kwargs: Any) -> list[tuple[str | None, Kind]]:
    return [(one.target, one.kind) for one in differences(*args, **kwargs)]


def test_all_acknowledged_is_no_difference():
    assert differences(known(status=4, sequence=2), made(1, D, code=2), made(2, D)) == []


def test_an_order_the_ledger_does_not_know():
    (one,) = differences(None)
    assert (one.kind, one.target, one.upstream, one.known) == (Kind.UNKNOWN_ORDER, None, "FINISHED", None)


def test_an_order_learned_silently_owes_nobody_anything():
    assert differences(known(status=4, sequence=0, silent=True)) == []


@pytest.mark.parametrize(
    ("fields", "shown", "different"),
    [
        ({"status": 4}, {}, False),
        ({"status": 2}, {}, True),
        ({"status": 4, "outStatus": 1}, {"outStatus": 2}, True),
        ({"status": 4, "outStatus": 1}, {}, False),
        ({"status": 4}, {"outStatus": 2}, False),
        ({"status": 4, "actionRequired": True}, {"actionRequired": True}, False),
    ],
)
def test_status_fields_are_compared_where_both_have_them(fields: Any, shown: Any, different: bool):
    order = known(status=fields["status"], fields=fields, sequence=0, silent=True)
    assert kinds(order, row=seen(**shown)) == ([(None, Kind.STATUS_DIFFERS)] if different else [])


def test_a_status_that_differs_names_both():
    (one,) = differences(known(status=2, sequence=0, silent=True), row=seen(4))
    assert (one.upstream, one.known, one.detail) == ("FINISHED", "EXCHANGING", "status is 4, known as 2")


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([D], []),
        ([X], [Kind.DEAD]),
        ([P], [Kind.PENDING]),
        ([S], []),
        ([C], []),
        ([X, D], []),
        ([X, X], [Kind.DEAD]),
        ([X, P], [Kind.PENDING]),
        ([D, P], []),
        ([D, X], []),
        ([X, C], []),
    ],
)
def test_one_event_at_one_target_replays_included(states: list[DeliveryStatus], expected: list[Kind]):
    deliveries = [made(1, state, replay=number) for number, state in enumerate(states)]
    assert [kind for _, kind in kinds(known(status=4, sequence=1), *deliveries)] == expected


def test_a_dead_one_says_why_and_which_event_to_send_again():
    (one,) = differences(known(status=4, sequence=1), made(1, X))
    assert (one.detail, one.webhook_id) == ("event 1 (order.finished) ended dead: exhausted", "evt_1")


def test_every_event_counts_not_only_the_last():
    assert kinds(known(status=4, sequence=2), made(1, X, code=2), made(2, D)) == [("alpha", Kind.DEAD)]


def test_targets_are_told_apart():
    both = [expect("alpha"), expect("beta")]
    deliveries = [made(1, D), made(1, X, "beta")]
    assert kinds(known(status=4, sequence=1), *deliveries, to=both) == [("beta", Kind.DEAD)]
    assert kinds(known(status=4, sequence=1), *deliveries, to=[expect("alpha")]) == []


def test_a_last_event_that_no_target_was_given():
    (one,) = differences(known(status=4, sequence=3), made(1, D, code=1), made(2, D, code=2))
    assert (one.kind, one.target, one.known, one.webhook_id) == (Kind.MISSING, "alpha", "FINISHED", "evt_3")


def test_an_event_that_only_another_target_was_given():
    both = [expect("alpha"), expect("beta")]
    deliveries = [made(1, D), made(1, D, "beta"), made(2, D, "beta")]
    assert kinds(known(status=4, sequence=2), *deliveries, to=both) == [("alpha", Kind.MISSING)]


def test_what_a_target_does_not_want_is_not_missing():
    assert kinds(known(status=4, sequence=1), to=[expect("alpha", 0, "order.failed")]) == []
    assert kinds(known(status=4, sequence=1), to=[expect("alpha", 0, "order.finished")]) == [("alpha", Kind.MISSING)]


@pytest.mark.parametrize(("since", "missing"), [(CREATED - 1, True), (CREATED, True), (CREATED + 1, False)])
def test_a_target_that_came_later_than_the_order_is_owed_nothing(since: int, missing: bool):
    assert bool(kinds(known(status=4, sequence=1), to=[expect("alpha", since)])) is missing


def test_it_is_owed_what_follows_its_first_delivery():
    late = [expect("alpha", CREATED + 1)]
    order = known(status=4, sequence=3)
    assert kinds(order, made(1, D, "beta"), made(2, D), to=late) == [("alpha", Kind.MISSING)]
    assert kinds(order, made(1, D, "beta"), made(2, D, "beta"), made(3, D), to=late) == []


def test_without_a_time_of_making_only_an_earlier_delivery_proves_it():
    order = known(status=4, sequence=2)
    assert kinds(order, row=seen(created_ms=None)) == []
    assert kinds(order, made(1, D, code=1), row=seen(created_ms=None)) == [("alpha", Kind.MISSING)]


@pytest.mark.parametrize(
    ("kind", "created_ms", "certain"),
    [
        (Kind.DEAD, None, True),
        (Kind.MISSING, None, True),
        (Kind.STATUS_DIFFERS, 0, False),
        (Kind.PENDING, 0, False),
        (Kind.UNKNOWN_ORDER, 999, True),
        (Kind.UNKNOWN_ORDER, 1000, False),
        (Kind.UNKNOWN_ORDER, None, False),
    ],
)
def test_what_needs_a_second_look(kind: Kind, created_ms: int | None, certain: bool):
    assert is_certain(Difference("o", None, kind, "", None, ""), created_ms, settled_ms=1000) is certain


def test_the_same_difference_has_the_same_key_until_the_ledger_moves():
    before = differences(known(status=2, sequence=0, silent=True))[0]
    again = differences(known(status=2, sequence=0, silent=True))[0]
    moved = differences(known(status=3, sequence=0, silent=True))[0]
    assert before.key == again.key != moved.key


def test_unknown_codes_are_shown_as_numbers():
    assert differences(None, row=seen(77))[0].upstream == "UNKNOWN (77)"


def test_a_target_that_wants_status_changes_is_owed_no_others():
    """`changes: status`; a repair would send it what it does not want."""
    everything, status_only = expect("alpha"), dataclasses.replace(expect("beta"), status_only=True)
    finer = replace(made(2, D), moves_status=False)
    order, deliveries = known(status=4, sequence=2), (made(1, D), made(1, D, "beta"), finer)
    assert kinds(order, *deliveries, to=[everything, status_only]) == []
    assert kinds(order, *deliveries, to=[everything, expect("beta")]) == [("beta", Kind.MISSING)]
    moved = (made(1, D), made(1, D, "beta"), made(2, D))
    assert kinds(order, *moved, to=[everything, status_only]) == [("beta", Kind.MISSING)]
    assert kinds(known(status=4, sequence=2), made(1, D, "beta"), to=[status_only]) == []
    assert kinds(known(status=4, sequence=1), to=[status_only]) == [("beta", Kind.MISSING)]

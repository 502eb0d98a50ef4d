"""What is written of a target as a whole, and what follows from that alone."""

from typing import Any

import pytest

from relay.standing import EXPIRY_TRIES, Breaker, Standing, has_expired, suspends_schedule

NOW = 1_795_331_090_000
VAIN = (NOW - 50, NOW - 40, NOW - 30, NOW - 20, NOW - 10)


@pytest.mark.parametrize(
    ("changes", "state", "stopped"),
    [
        ({}, "active", False),
        ({"paused_ms": NOW}, "paused", True),
        ({"paused_by_config": True}, "paused", True),
        ({"parked_ms": 0}, "parked", True),
        ({"parked_ms": NOW, "paused_ms": NOW}, "parked", True),
        ({"configured": False}, "orphaned", True),
        ({"configured": False, "parked_ms": NOW}, "orphaned", True),
    ],
)
def test_its_state_in_a_word(changes: dict[str, Any], state: str, stopped: bool) -> None:
    standing = Standing(**changes)
    assert (standing.state, standing.stopped) == (state, stopped)


def test_what_it_answered_for_other_orders() -> None:
    standing = Standing(ok_ms=NOW, ok_order="a", other_ok_ms=NOW - 10)
    assert standing.answered_other("b", NOW)
    assert not standing.answered_other("b", NOW + 1)
    assert standing.answered_other("a", NOW - 10)
    assert not standing.answered_other("a", NOW - 9)
    assert not Standing().answered_other("a", 0)


@pytest.mark.parametrize(("breaker", "probe_due_ms"), [(Breaker.CLOSED, None), (Breaker.OPEN, NOW)])
def test_a_person_resumes_it(breaker: Breaker, probe_due_ms: int | None) -> None:
    held = Standing(paused_ms=1, parked_ms=2, breaker=breaker, probe_due_ms=None, throttled_until_ms=NOW + 60_000)
    resumed = held.resumed(NOW)
    assert (resumed.paused_ms, resumed.parked_ms, resumed.resumed_ms) == (None, None, NOW)
    assert (resumed.probe_due_ms, resumed.throttled_until_ms) == (probe_due_ms, None)


@pytest.mark.parametrize("changes", [{}, {"parked_ms": 1}])
def test_the_waits_between_probes_begin_anew_when_a_person_resumes(changes: dict[str, Any]) -> None:
    """Else whoever presses the button while the receiver is still down would put the next probe off each time."""
    vain = Standing(breaker=Breaker.OPEN, probes_failed=6, probe_due_ms=NOW + 300_000, vain_probes=VAIN, **changes)
    resumed = vain.resumed(NOW)
    assert (resumed.probes_failed, resumed.probe_due_ms, resumed.vain_probes) == (0, NOW, VAIN)
    assert resumed.breaker is Breaker.OPEN


def test_a_person_asks_for_one_attempt_past_the_breaker_and_not_past_retry_after() -> None:
    closed = Standing(throttled_until_ms=NOW + 60_000)
    assert closed.asked(NOW) is closed
    asked = Standing(breaker=Breaker.OPEN, probe_due_ms=NOW + 9, throttled_until_ms=NOW + 60_000).asked(NOW)
    assert (asked.probe_due_ms, asked.throttled_until_ms) == (NOW, NOW + 60_000)


@pytest.mark.parametrize(
    ("before", "after", "suspends"),
    [
        (Standing(), Standing(breaker=Breaker.OPEN), True),
        (Standing(breaker=Breaker.OPEN), Standing(breaker=Breaker.OPEN), False),
        (Standing(breaker=Breaker.OPEN), Standing(), False),
        (Standing(), Standing(), False),
        (Standing(parked_ms=NOW), Standing(), True),
        (Standing(paused_ms=NOW), Standing(paused_by_config=True), False),
        (Standing(), Standing(paused_ms=NOW), False),
        (Standing(configured=False), Standing(), True),
    ],
)
def test_what_ends_the_waits_of_its_deliveries(before: Standing, after: Standing, suspends: bool) -> None:
    assert suspends_schedule(before, after) is suspends


@pytest.mark.parametrize(
    ("attempts", "changes", "created_ms", "expired"),
    [
        (EXPIRY_TRIES, {}, NOW - 1, True),
        (EXPIRY_TRIES + 3, {}, NOW - 1, True),
        (EXPIRY_TRIES - 1, {}, NOW - 1, False),
        (EXPIRY_TRIES, {}, NOW, False),
        (EXPIRY_TRIES, {}, NOW + 1, False),
        (EXPIRY_TRIES, {"resumed_ms": NOW}, NOW - 1, False),
        (EXPIRY_TRIES, {"resumed_ms": NOW - 1}, NOW - 9, True),
        (EXPIRY_TRIES, {"paused_ms": NOW - 5}, NOW - 1, False),
        (EXPIRY_TRIES, {"parked_ms": NOW - 5}, NOW - 1, False),
        (EXPIRY_TRIES, {"configured": False}, NOW - 1, False),
        (0, {"vain_probes": VAIN}, VAIN[0], True),
        (0, {"vain_probes": VAIN}, VAIN[0] + 1, False),
        (0, {"vain_probes": VAIN[1:]}, VAIN[0], False),
        (0, {"vain_probes": (0, *VAIN)}, -1, True),
        (0, {}, NOW - 1, False),
    ],
)
def test_age_alone_ends_nothing(attempts: int, changes: dict[str, Any], created_ms: int, expired: bool) -> None:
    """A delivery ends of age only after it, or its target's probes since it was made, were in vain often enough."""
    assert has_expired(created_ms, attempts, Standing(**changes), NOW) is expired


def test_a_standing_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Standing().failures = 1  # type: ignore[misc]  # that is the point


def test_a_target_nobody_has_tried_stands_well() -> None:
    fresh = Standing()
    assert (fresh.state, fresh.stopped, fresh.breaker) == ("active", False, Breaker.CLOSED)
    assert (fresh.failures, fresh.probes_failed, fresh.vain_probes, fresh.resumed_ms) == (0, 0, (), 0)
    assert (fresh.allowance, fresh.probe_due_ms, fresh.throttled_until_ms, fresh.ok_ms) == (None, None, None, None)

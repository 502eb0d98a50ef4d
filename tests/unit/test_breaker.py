"""A target's standing: what opens the breaker, what closes it, and what is permitted meanwhile."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.factories import event

from relay.delivery.breaker import BreakerPolicy, Load, after, permits
from relay.delivery.retry import classify
from relay.model import Attempt, Delivery, Outcome
from relay.standing import Breaker, Permit, Standing, has_expired, suspends_schedule

NOW = 1_795_331_090_000
POLICY = BreakerPolicy(concurrency=16, failures=10, probe_initial=10.0, probe_max=300.0, retry_after_max=3600.0)
OPENED = Standing(breaker=Breaker.OPEN, breaker_changed_ms=NOW, failures=10, probe_due_ms=NOW + 10_000)


def answered(status: int, **headers: str) -> Attempt:
    lower = {name.replace("_", "-"): value for name, value in headers.items()}
    return Attempt(NOW, 1.0, classify(status), status_code=status, headers=lower)


def delivery(order: str = "o1", *, probe: bool = False) -> Delivery:
    return Delivery(1, "shop", event(order), attempts_made=0, steps_used=0, created_ms=0, probe=probe)


def standing_after(
    standing: Standing, status: int, order: str = "o1", now: int = NOW, *, probe: bool = False, **more: Any
) -> Standing:
    policy = more.pop("policy", POLICY)
    return after(standing, answered(status, **more), delivery(order, probe=probe), policy, now)


def failing(*orders: str, status: int = 500, standing: Standing | None = None) -> Standing:
    standing = standing or Standing()
    for order in orders:
        standing = standing_after(standing, status, order)
    return standing


def permitted(standing: Standing, in_flight: int = 0, now: int = NOW, **load: Any) -> Permit:
    return permits(standing, POLICY, Load(in_flight, **load), now)


def test_it_opens_after_failures_in_a_row_of_several_orders():
    standing = failing(*["o1"] * 8, "o2")
    assert (standing.breaker, standing.failures, standing.failing_order) == (Breaker.CLOSED, 9, "o1")
    opened = failing("o1", standing=standing)
    assert (opened.breaker, opened.breaker_changed_ms, opened.probe_due_ms) == (Breaker.OPEN, NOW, NOW + 10_000)
    assert suspends_schedule(standing, opened)


def test_one_order_alone_never_opens_it():
    """Failure mode 100: one poison event says nothing of its target."""
    standing = failing(*["o1"] * 1000)
    assert (standing.breaker, standing.failures) == (Breaker.CLOSED, 1000)
    assert failing("o2", standing=standing).breaker is Breaker.OPEN


def test_a_notices_lane_counts_as_an_order():
    assert failing(*["o1"] * 9, "relay:upstream").breaker is Breaker.OPEN


def test_a_success_in_between_starts_the_count_anew():
    standing = failing(*["o2"] * 9, standing=standing_after(failing(*["o1"] * 9), 200, "o3"))
    assert (standing.breaker, standing.failures, standing.several_orders) == (Breaker.CLOSED, 9, False)


@pytest.mark.parametrize("status", [302, 400, 401, 404, 422, 429, 500, 503])
def test_every_failed_attempt_counts(status: int):
    assert failing(*["o1", "o2"] * 5, status=status).breaker is Breaker.OPEN


def test_410_does_not_count_and_parks():
    standing = failing(*["o1", "o2"] * 20, status=410)
    assert (standing.breaker, standing.failures, standing.parked_ms) == (Breaker.CLOSED, 0, NOW)
    assert standing.last_error == "status 410"
    assert permitted(standing) == Permit(0)
    assert standing_after(standing, 410, now=NOW + 5).parked_ms == NOW


@pytest.mark.parametrize("status", [200, 500])
def test_disable_parks_whatever_the_status(status: int):
    assert standing_after(Standing(), status, webhook_delivery="disable").parked_ms == NOW
    assert standing_after(Standing(), status, webhook_delivery="enable").parked_ms is None


def test_while_open_only_one_probe_when_it_is_due():
    assert permitted(OPENED) == Permit(0, look_again_ms=NOW + 10_000)
    assert permitted(OPENED, now=NOW + 10_000) == Permit(1, probe=True)
    assert permitted(OPENED, 1, now=NOW + 10_000, probing=True) == Permit(0)
    assert permitted(OPENED, 5, now=NOW + 10_000) == Permit(1, probe=True)
    assert permitted(OPENED, 16, now=NOW + 10_000) == Permit(0)


def test_waits_between_probes_double_up_to_their_maximum():
    standing, now, waits = OPENED, NOW, []
    for number in range(1, 9):
        standing = standing_after(standing, 500, f"o{number}", now, probe=True)
        assert standing.probe_due_ms is not None
        waits.append((standing.probe_due_ms - now) / 1000)
        assert standing.probes_failed == number
    assert waits == [20, 40, 80, 160, 300, 300, 300, 300]
    assert len(standing.vain_probes) == 5
    assert standing.breaker is Breaker.OPEN


def test_a_thousand_vain_probes_do_not_overflow():
    standing = standing_after(replace(OPENED, probes_failed=10**6), 500, probe=True)
    assert standing.probe_due_ms == NOW + 300_000


def test_what_was_under_way_when_it_opened_is_no_vain_probe():
    standing = standing_after(OPENED, 500, "o7")
    assert (standing.vain_probes, standing.probes_failed, standing.probe_due_ms) == ((), 0, OPENED.probe_due_ms)
    assert standing.failures == 11


def test_a_2xx_closes_it_and_it_starts_slowly():
    """Failure mode 101: no storm on a receiver that has just come back."""
    standing = standing_after(OPENED, 200, probe=True, now=NOW + 9)
    assert (standing.breaker, standing.breaker_changed_ms, standing.probe_due_ms) == (Breaker.CLOSED, NOW + 9, None)
    rounds = []
    while standing.allowance is not None:
        at_once = permitted(standing).limit
        rounds.append(at_once)
        for number in range(at_once):
            standing = standing_after(standing, 200, f"o{number}")
    assert rounds == [1, 2, 4, 8]
    assert permitted(standing).limit == 16


def test_a_target_with_one_slot_needs_no_slow_start():
    one = replace(POLICY, concurrency=1)
    assert standing_after(OPENED, 200, policy=one).allowance is None


def test_failures_after_a_slow_start_open_it_again():
    standing = standing_after(OPENED, 200)
    assert failing(*["o1", "o2"] * 5, standing=standing).breaker is Breaker.OPEN


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_without_retry_after_half_of_it_at_a_time(status: int):
    standing, seen = Standing(), []
    for _ in range(6):
        standing = standing_after(standing, status)
        seen.append(standing.allowance)
    assert seen == [8, 4, 2, 1, 1, 1]
    assert permitted(standing, 1) == Permit(0)
    assert permitted(standing).limit == 1
    assert standing_after(standing, 200).allowance == 2


def test_with_retry_after_nothing_until_then():
    standing = standing_after(Standing(), 503, retry_after="120")
    assert (standing.throttled_until_ms, standing.allowance) == (NOW + 120_000, None)
    assert permitted(standing) == Permit(0, look_again_ms=NOW + 120_000)
    assert permitted(standing, now=NOW + 120_000).limit == 16
    shorter = standing_after(standing, 503, now=NOW + 1000, retry_after="5")
    assert shorter.throttled_until_ms == NOW + 120_000


def test_retry_after_counts_up_to_its_maximum():
    assert standing_after(Standing(), 429, retry_after="999999").throttled_until_ms == NOW + 3_600_000


@pytest.mark.parametrize("status", [500, 400, 404])
def test_other_failures_slow_nothing(status: int):
    standing = standing_after(Standing(), status, retry_after="120")
    assert (standing.throttled_until_ms, standing.allowance) == (None, None)


def test_a_throttle_holds_back_probes_too():
    standing = standing_after(OPENED, 503, probe=True, retry_after="120")
    assert permitted(standing, now=NOW + 60_000) == Permit(0, look_again_ms=NOW + 120_000)
    assert permitted(standing, now=NOW + 120_000) == Permit(1, probe=True)


@pytest.mark.parametrize(
    "stopped", [{"paused_ms": 1}, {"paused_by_config": True}, {"parked_ms": 1}, {"configured": False}]
)
def test_nothing_for_a_stopped_target(stopped: dict[str, Any]):
    assert permitted(Standing(**stopped)) == Permit(0)
    assert permitted(replace(OPENED, **stopped), now=NOW + 10**6) == Permit(0)


def test_a_rate_limit_counts_for_attempts_and_probes():
    assert permitted(Standing(), tokens=3, token_ms=NOW) == Permit(3)
    assert permitted(Standing(), tokens=0, token_ms=NOW + 20) == Permit(0, look_again_ms=NOW + 20)
    assert permitted(Standing(), 10, tokens=50, token_ms=NOW) == Permit(6)
    due = NOW + 10_000
    assert permitted(OPENED, now=due, tokens=0, token_ms=due + 20) == Permit(0, look_again_ms=due + 20)
    assert permitted(OPENED, now=due, tokens=9, token_ms=due) == Permit(1, probe=True)


def test_moments_that_only_a_clock_set_back_can_explain_hold_nothing_back():
    """Failure mode 132."""
    year = 365 * 86_400_000
    assert permitted(replace(OPENED, probe_due_ms=NOW + year)) == Permit(1, probe=True)
    assert permitted(Standing(throttled_until_ms=NOW + year)).limit == 16


def test_a_healthy_target_is_written_at_most_once_a_second():
    standing = standing_after(Standing(), 200, "o1", NOW)
    written = 0
    for millis in range(10_000):
        now = NOW + millis
        changed = standing_after(standing, 200, f"o{millis % 7}", now)
        written += changed != standing
        standing = changed
    assert written <= 12


def test_when_it_answered_whom():
    standing = standing_after(Standing(), 200, "o1", NOW)
    assert not standing.answered_other("o1", NOW)
    assert standing.answered_other("o2", NOW)
    standing = standing_after(standing, 200, "o2", NOW + 1)
    assert standing.answered_other("o1", NOW + 1)
    assert standing.answered_other("o2", NOW)
    standing = standing_after(standing, 200, "o2", NOW + 5000)
    assert not standing.answered_other("o2", NOW + 1)
    assert standing_after(standing, 200, "o3", NOW - 10**9).other_ok_ms == NOW - 10**9


def test_the_last_error_until_a_2xx():
    assert standing_after(Standing(), 500).last_error == "status 500"
    refused = Attempt(NOW, 1.0, Outcome.RETRY, error="connect: refused")
    assert after(Standing(), refused, delivery(), POLICY, NOW).last_error == "connect: refused"
    assert standing_after(failing("o1"), 200).last_error is None


def test_vain_probes_let_age_end_a_delivery_and_a_2xx_forgets_them():
    standing = OPENED
    for number in range(5):
        assert not has_expired(NOW - 10, 0, standing, NOW)
        standing = standing_after(standing, 500, now=NOW + number, probe=True)
    assert has_expired(NOW - 10, 0, standing, NOW)
    assert not has_expired(NOW + 1, 0, standing, NOW + 10)
    assert standing_after(standing, 200).vain_probes == ()


STEPS = st.lists(
    st.tuples(
        st.sampled_from([200, 200, 204, 400, 404, 410, 429, 500, 503]),
        st.sampled_from(["o1", "o2", "o3"]),
        st.booleans(),
        st.sampled_from(["", "0", "7", "999999", "soon"]),
        st.integers(-10_000, 400_000),
    ),
    max_size=80,
)


@given(steps=STEPS, concurrency=st.integers(1, 20), failures=st.integers(1, 12))
def test_whatever_happens_it_can_always_go_on(steps: list[Any], concurrency: int, failures: int):
    policy = replace(POLICY, concurrency=concurrency, failures=failures)
    standing, now = Standing(), NOW
    for status, order, probe, retry_after, wait in steps:
        before, now = standing, now + wait
        attempt = answered(status, retry_after=retry_after)
        standing = after(before, attempt, delivery(order, probe=probe), policy, now)
        assert standing.allowance is None or 1 <= standing.allowance < concurrency
        assert (standing.breaker is Breaker.OPEN) == (standing.probe_due_ms is not None)
        if before.breaker is Breaker.OPEN and standing.breaker is Breaker.CLOSED:
            assert attempt.outcome is Outcome.OK
        assert len(standing.vain_probes) <= 5
        if not standing.stopped:
            assert_something_is_permitted_in_time(standing, policy, now)


def assert_something_is_permitted_in_time(standing: Standing, policy: BreakerPolicy, now: int) -> None:
    """With nothing under way a target that is not stopped may be sent to within the longest wait."""
    permit, turns = permits(standing, policy, Load(0), now), 0
    while permit.limit == 0:
        assert permit.look_again_ms is not None
        assert now < permit.look_again_ms <= now + 3_700_000
        now, turns = permit.look_again_ms, turns + 1
        assert turns < 4
        permit = permits(standing, policy, Load(0), now)
    assert permit.limit <= policy.concurrency


@pytest.mark.parametrize(
    ("concurrency", "instances", "in_flight", "free"), [(16, 1, 0, 16), (16, 3, 0, 5), (16, 3, 4, 1), (2, 5, 0, 1)]
)
def test_instances_share_what_may_be_in_flight(concurrency: int, instances: int, in_flight: int, free: int):
    policy = replace(POLICY, concurrency=concurrency)
    assert permits(Standing(), policy, Load(in_flight, instances=instances), NOW).limit == free


def test_instances_share_what_trouble_leaves():
    assert permits(Standing(allowance=6), POLICY, Load(0, instances=3), NOW).limit == 2
    assert permits(Standing(allowance=1), POLICY, Load(0, instances=3), NOW).limit == 1


def test_what_a_throttle_leaves_is_the_targets_and_not_an_instances():
    assert standing_after(Standing(), 503).allowance == 8


def test_what_is_not_settled_takes_slots_only_while_there_is_trouble():
    assert permitted(Standing(), 10, unsettled=40) == Permit(6)
    assert permitted(Standing(failures=1), 10, unsettled=4) == Permit(2)
    assert permitted(Standing(failures=1), 10, unsettled=6) == Permit(0)
    assert permitted(Standing(allowance=4), 1, unsettled=2) == Permit(1)


def test_a_probe_may_be_due_as_late_as_the_longest_wait_and_a_clocks_slack():
    latest = NOW + 300_000 + 60_000
    assert permitted(replace(OPENED, probe_due_ms=latest)) == Permit(0, look_again_ms=latest)
    assert permitted(replace(OPENED, probe_due_ms=latest + 1)) == Permit(1, probe=True)


def test_a_refused_event_is_no_failure_of_its_target_and_its_probe_is_soon_followed_by_another():
    """The target takes other events: had it not, a 400 would count as its failure."""
    taken = replace(OPENED, ok_ms=NOW, ok_order="other", probes_failed=5, probe_due_ms=NOW)
    first = replace(delivery(probe=True), first_attempt_ms=NOW - 1)
    probed = after(taken, answered(400), first, POLICY, NOW)
    assert (probed.failures, probed.probes_failed, probed.probe_due_ms) == (10, 5, NOW + 10_000)
    under_way = after(taken, answered(400), replace(first, probe=False), POLICY, NOW)
    assert under_way.probe_due_ms == NOW


def test_slowing_down_leaves_an_open_breaker_as_it_is():
    assert standing_after(OPENED, 503, probe=True).allowance is None
    assert standing_after(replace(OPENED, breaker=Breaker.CLOSED, failures=0), 503).allowance == 8


@pytest.mark.parametrize("status", [500, 422])
def test_a_probe_that_began_before_a_person_asked_does_not_put_off_what_they_asked_for(status: int):
    """The receiver may have been mended while it hung; `at_ms` is when it began."""
    under_way = replace(OPENED, probe_due_ms=NOW - 5, probes_failed=3, ok_ms=NOW, ok_order="o2")
    asked = under_way.resumed(NOW + 4_000)
    standing = standing_after(asked, status, now=NOW + 9_000, probe=True)
    assert (standing.probe_due_ms, standing.probes_failed) == (NOW + 4_000, 0)
    assert permitted(standing, now=NOW + 9_000) == Permit(1, probe=True)
    assert standing_after(under_way, status, now=NOW + 9_000, probe=True).probe_due_ms != under_way.probe_due_ms

"""The table of answers: what each means for its delivery."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.factories import event

from relay.delivery.retry import (
    Again,
    Dead,
    Delivered,
    RetryPolicy,
    asks_to_stop,
    classify,
    decide,
    retry_after,
    slowing,
)
from relay.model import Attempt, DeadReason, Delivery, Outcome
from relay.standing import Breaker, Standing

SCHEDULE = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
STEADY = RetryPolicy(SCHEDULE, jitter=0.0, retry_after_max=86400.0)
NOW_MS = 1795331090123
DATE = "Sun, 22 Nov 2026 07:00:00 GMT"
DELIVERY = Delivery(1, "shop", event("o1"), attempts_made=0, steps_used=0, created_ms=0)
OTHERS_TAKEN = Standing(ok_ms=NOW_MS, ok_order="o2")
OPEN = Standing(breaker=Breaker.OPEN)
FAILURES = [101, 199, 300, 301, 302, 304, 307, 308, 401, 403, 404, 409, 411, 429, 500, 501, 502, 503, 504, 600, 999]


def answered(status, **headers):
    lower = {name.replace("_", "-"): value for name, value in headers.items()}
    return Attempt(at_ms=0, duration_ms=1.0, outcome=classify(status), status_code=status, headers=lower)


def decided(attempt, policy=STEADY, rng=None, standing=OTHERS_TAKEN, **delivery):
    changed = replace(DELIVERY, **delivery)
    return decide(attempt, changed, standing, policy, rng or random.Random(1), NOW_MS)


def after(seconds, *, uses_step=True):
    return Again(NOW_MS + round(seconds * 1000), uses_step)


def wait_of(decision):
    assert isinstance(decision, Again)
    return (decision.due_ms - NOW_MS) / 1000


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "ok"), (201, "ok"), (204, "ok"), (299, "ok"), (410, "gone")]
    + [(code, "refused") for code in (400, 413, 415, 422)]
    + [(code, "retry") for code in FAILURES],
)
def test_the_table_of_answers(status, outcome):
    assert classify(status) == Outcome(outcome)


def test_2xx_is_delivered_however_often_it_was_attempted():
    assert decided(answered(200)) == decided(answered(204), attempts_made=99, steps_used=9) == Delivered()
    assert decided(answered(200, webhook_delivery="disable")) == Delivered()


def test_410_keeps_the_delivery_even_when_the_schedule_is_used_up():
    assert decided(answered(410)) == decided(answered(410), attempts_made=99, steps_used=9) == after(0, uses_step=False)


@pytest.mark.parametrize("steps", range(9))
def test_each_failed_attempt_waits_its_entry_of_the_schedule(steps):
    assert decided(answered(500), steps_used=steps, attempts_made=steps + 7) == after(SCHEDULE[steps])


@pytest.mark.parametrize("steps", [9, 10, 1000])
def test_nine_entries_make_ten_attempts(steps):
    assert decided(answered(500, retry_after="60"), steps_used=steps) == Dead(DeadReason.EXHAUSTED)


def test_attempts_that_used_no_step_do_not_count_for_the_schedule():
    assert decided(answered(500), attempts_made=500, steps_used=8) == after(86400)


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.FORBIDDEN])
def test_an_attempt_without_an_answer_is_retried(outcome):
    assert decided(Attempt(at_ms=0, duration_ms=1.0, outcome=outcome, error="connect: refused")) == after(5)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_refused_after_five_attempts_if_the_target_took_another_order_meanwhile(status):
    """Failure mode 100: one poison event does not hold its order for days."""
    first_ms = NOW_MS - 60_000
    late = {"first_attempt_ms": first_ms, "steps_used": 3}
    assert decided(answered(status), attempts_made=4, **late) == Dead(DeadReason.REFUSED)
    assert decided(answered(status), attempts_made=3, **late) == after(7200)
    same = Standing(ok_ms=NOW_MS, ok_order="o1")
    assert decided(answered(status), attempts_made=4, standing=same, **late) == after(7200)
    assert decided(answered(status), attempts_made=4, standing=replace(same, other_ok_ms=first_ms), **late) == Dead(
        DeadReason.REFUSED
    )
    before = Standing(ok_ms=first_ms - 1, ok_order="o2")
    assert decided(answered(status), attempts_made=4, standing=before, **late) == after(7200)
    assert decided(answered(500), attempts_made=4, **late) == after(7200)


def test_a_target_that_refuses_everything_has_nothing_refused():
    """A wrong secret at the receiver is the target's fault, not the event's."""
    assert decided(answered(400), attempts_made=40, steps_used=0, standing=Standing()) == after(5)


def test_a_probe_never_ends_a_delivery_by_itself():
    first = {"first_attempt_ms": 1, "attempts_made": 40, "probe": True}
    assert decided(answered(400), standing=replace(OTHERS_TAKEN, breaker=Breaker.OPEN), **first) == after(
        0, uses_step=False
    )
    assert decided(answered(500), standing=OPEN, steps_used=9, **first) == after(0, uses_step=False)
    assert decided(answered(500), standing=Standing(), steps_used=9, **first) == after(86400, uses_step=False)


def test_what_was_under_way_when_the_breaker_opened_is_due_at_once_and_used_a_step():
    assert decided(answered(500), standing=OPEN) == after(0)
    assert decided(answered(503, retry_after="60"), standing=OPEN) == after(0)


def test_nothing_dies_of_a_target_that_is_down():
    assert decided(answered(500), standing=OPEN, steps_used=9) == after(0, uses_step=False)


@pytest.mark.parametrize(
    "word", ["abort-message", "ABORT-Message", " abort-message ", "later, abort-message", "abort-message,x"]
)
def test_abort_message_ends_this_delivery_at_once(word):
    assert decided(answered(500, webhook_delivery=word)) == Dead(DeadReason.REFUSED)
    assert decided(answered(404, webhook_delivery=word), standing=OPEN, probe=True) == Dead(DeadReason.REFUSED)
    assert decided(answered(200, webhook_delivery=word)) == Delivered()


@pytest.mark.parametrize("word", ["", "abort", "abort message", "continue", "disabled", "\x00", "d\u0131sable"])
def test_other_words_are_nobodys_business(word):
    assert decided(answered(500, webhook_delivery=word)) == after(5)
    assert not asks_to_stop(answered(500, webhook_delivery=word))


@pytest.mark.parametrize("status", [200, 204, 302, 400, 500, 503])
def test_disable_asks_to_stop_whatever_the_status(status):
    assert asks_to_stop(answered(status, webhook_delivery="Disable"))
    assert not asks_to_stop(answered(status))


def test_disable_keeps_the_delivery():
    assert decided(answered(500, webhook_delivery="disable"), steps_used=9) == after(0, uses_step=False)
    assert asks_to_stop(answered(410))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_answers_that_ask_for_less(status):
    assert slowing(answered(status), NOW_MS, 86400.0) == 0.0
    assert slowing(answered(status, retry_after="120"), NOW_MS, 86400.0) == 120.0
    assert slowing(answered(status, retry_after="120"), NOW_MS, 60.0) == 60.0
    assert slowing(answered(status, retry_after="soon"), NOW_MS, 60.0) == 0.0


@pytest.mark.parametrize("status", [200, 400, 404, 410, 500, 501])
def test_answers_that_do_not(status):
    assert slowing(answered(status, retry_after="120"), NOW_MS, 86400.0) is None


@given(
    status=st.integers(100, 599),
    attempts=st.integers(0, 50),
    steps=st.integers(0, 12),
    probe=st.booleans(),
    is_open=st.booleans(),
    word=st.sampled_from(["", "disable", "abort-message"]),
)
def test_only_a_2xx_is_delivered_and_nothing_is_due_before_now(status, attempts, steps, probe, is_open, word):
    standing = Standing(breaker=Breaker.OPEN if is_open else Breaker.CLOSED)
    made = {"attempts_made": attempts, "steps_used": steps, "probe": probe}
    decision = decided(answered(status, webhook_delivery=word), standing=standing, **made)
    assert (decision == Delivered()) is (200 <= status <= 299)
    if isinstance(decision, Again):
        assert decision.due_ms >= NOW_MS
        assert not (decision.uses_step and probe)
        assert not (decision.uses_step and steps >= len(SCHEDULE))


@given(seed=st.integers(), steps=st.integers(min_value=0, max_value=8))
def test_jitter_stays_within_its_share(seed, steps):
    policy = RetryPolicy(SCHEDULE, jitter=0.2, retry_after_max=86400.0)
    wait = wait_of(decided(answered(503), policy, random.Random(seed), steps_used=steps))
    assert 0.8 * SCHEDULE[steps] <= wait <= 1.2 * SCHEDULE[steps]


def test_jitter_spreads_both_ways():
    policy = RetryPolicy((100.0,), jitter=0.2, retry_after_max=0.0)
    rng = random.Random(7)
    waits = [wait_of(decided(answered(503), policy, rng)) for _ in range(200)]
    assert min(waits) < 85 < 115 < max(waits)


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("120", None, 120.0),
        (" 120 ", None, 120.0),
        ("120.6", None, 120.6),
        ("0", None, 0.0),
        ("-5", None, 0.0),
        ("86401", None, 86400.0),
        ("9999999999", None, 86400.0),
        ("9" * 400, None, 86400.0),
        ("Sun, 22 Nov 2026 07:02:00 GMT", DATE, 120.0),
        ("Sunday, 22-Nov-26 07:02:00 GMT", DATE, 120.0),
        ("Sun Nov 22 07:02:00 2026", DATE, 120.0),
        ("Sun, 22 Nov 2026 07:02:00 GMT", "Sunday, 22-Nov-26 07:00:00 GMT", 120.0),
        ("Sun, 22 Nov 2026 07:02:00 GMT", "Sun Nov 22 07:00:00 2026", 120.0),
        ("Sun, 22 Nov 2026 07:04:51 GMT", None, 0.877),
        ("Sun, 22 Nov 2026 07:04:51 GMT", "yesterday", 0.877),
        ("Sun, 22 Nov 2026 06:00:00 GMT", DATE, 0.0),
        ("Fri, 01 Jan 2343 00:00:00 GMT", DATE, 86400.0),
        ("Sun, 99 Nov 2026 07:02:00 GMT", DATE, 0.0),
        ("Sun, 22 Nov 99999999999999999999 07:02:00 GMT", DATE, 0.0),
        ("soon", DATE, 0.0),
        ("", DATE, 0.0),
        ("120 seconds", None, 0.0),
        ("inf", None, 0.0),
        ("nan", None, 0.0),
        ("1e9", None, 0.0),
        ("0x10", None, 0.0),
        ("1_000", None, 0.0),
        ("١٢٠", None, 0.0),
        (None, DATE, 0.0),
    ],
)
def test_retry_after(value, date, seconds):
    headers = {name: text for name, text in (("retry-after", value), ("date", date)) if text is not None}
    assert retry_after(headers, NOW_MS, 86400.0) == pytest.approx(seconds, abs=1e-6)


@given(value=st.text(max_size=60), date=st.text(max_size=60), most=st.floats(min_value=0, max_value=1e6))
def test_no_retry_after_breaks_out_of_its_bounds(value, date, most):
    assert 0 <= retry_after({"retry-after": value, "date": date}, NOW_MS, most) <= most


@given(st.text(alphabet="0123456789 ,:-+.GMTSunNov", max_size=40))
def test_nothing_that_looks_like_a_date_breaks_out_either(value):
    assert 0 <= retry_after({"retry-after": value, "date": value}, NOW_MS, 60.0) <= 60.0


@pytest.mark.parametrize("status", [302, 400, 429, 500, 503])
def test_retry_after_lengthens_the_wait(status):
    assert decided(answered(status, retry_after="600")) == after(600)


def test_retry_after_never_shortens_the_wait():
    assert decided(answered(503, retry_after="60"), steps_used=1) == after(300)


def test_retry_after_is_honoured_up_to_the_policys_most():
    assert decided(answered(503, retry_after="9999"), policy=RetryPolicy((5.0,), 0.0, 60.0)) == after(60)


def test_the_longest_wait_is_that_of_the_schedule_or_of_retry_after_with_jitter():
    assert RetryPolicy((5.0, 60.0), jitter=0.5, retry_after_max=10.0).longest_wait == 90.0
    assert RetryPolicy((5.0,), jitter=0.1, retry_after_max=100.0).longest_wait == pytest.approx(110.0)
    assert RetryPolicy((), jitter=0.1, retry_after_max=0.0).longest_wait == 0.0


def test_what_was_under_way_when_the_breaker_opened_uses_its_step_but_for_the_last():
    steps = len(SCHEDULE)
    assert decided(answered(500), standing=OPEN, steps_used=steps - 1) == after(0, uses_step=True)
    assert decided(answered(500), standing=OPEN, steps_used=steps) == after(0, uses_step=False)


def test_a_date_without_a_zone_is_utc():
    headers = {"retry-after": "Sun, 22 Nov 2026 07:01:00 -0000", "date": "Sun, 22 Nov 2026 07:00:00 -0000"}
    assert retry_after(headers, NOW_MS, 3_600.0) == 60.0


class Fixed:
    """Chance that has been decided."""

    def __init__(self, factor):
        self.factor = factor

    def uniform(self, low, high):
        assert low <= self.factor <= high
        return self.factor


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.2])
def test_the_jitter_is_a_factor_of_the_wait(factor):
    policy = RetryPolicy((100.0,), jitter=0.2, retry_after_max=0.0)
    assert wait_of(decided(answered(503), policy, Fixed(factor))) == pytest.approx(100.0 * factor)


def test_a_date_of_another_zone_is_that_moment():
    headers = {"retry-after": "Sun, 22 Nov 2026 09:01:00 +0200", "date": DATE}
    assert retry_after(headers, NOW_MS, 3_600.0) == 60.0

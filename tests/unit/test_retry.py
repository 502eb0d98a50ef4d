import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.retry import Dead, Delivered, Park, RetryIn, RetryPolicy, classify, decide, retry_after
from relay.model import Attempt, DeadReason, Outcome

SCHEDULE = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
STEADY = RetryPolicy(SCHEDULE, jitter=0.0, retry_after_max=86400.0)
NOW_MS = 1795331090123
DATE = "Sun, 22 Nov 2026 07:00:00 GMT"


def answered(status, **headers):
    lower = {name.replace("_", "-"): value for name, value in headers.items()}
    return Attempt(at_ms=0, duration_ms=1.0, outcome=classify(status), status_code=status, headers=lower)


def decided(attempt, attempts_made=1, policy=STEADY, rng=None):
    return decide(attempt, attempts_made, policy, rng or random.Random(1), NOW_MS)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "ok"), (201, "ok"), (204, "ok"), (299, "ok"), (410, "gone")]
    + [(code, "retry") for code in (101, 199, 300, 301, 302, 304, 307, 308, 400, 401, 404, 409, 411, 413, 415)]
    + [(code, "retry") for code in (422, 429, 500, 501, 502, 503, 504, 599, 600, 999)],
)
def test_the_table_of_answers(status, outcome):
    assert classify(status) == Outcome(outcome)


def test_2xx_is_delivered_however_often_it_was_attempted():
    assert decided(answered(200)) == decided(answered(204), attempts_made=99) == Delivered()


def test_410_parks_even_when_the_schedule_is_used_up():
    assert decided(answered(410)) == decided(answered(410), attempts_made=99) == Park()


@pytest.mark.parametrize("attempts_made", range(1, 10))
def test_each_failed_attempt_waits_its_entry_of_the_schedule(attempts_made):
    assert decided(answered(500), attempts_made) == RetryIn(SCHEDULE[attempts_made - 1])


@pytest.mark.parametrize("attempts_made", [10, 11, 1000])
def test_nine_entries_make_ten_attempts(attempts_made):
    assert decided(answered(500, retry_after="60"), attempts_made) == Dead(DeadReason.EXHAUSTED)


def test_an_empty_schedule_is_one_attempt():
    assert decided(answered(500), policy=RetryPolicy((), 0.2, 60.0)) == Dead(DeadReason.EXHAUSTED)


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.REFUSED, Outcome.FORBIDDEN])
def test_an_attempt_without_an_answer_is_retried(outcome):
    assert decided(Attempt(at_ms=0, duration_ms=1.0, outcome=outcome, error="connect: refused")) == RetryIn(5.0)


def test_an_attempt_that_was_not_counted_is_a_mistake():
    with pytest.raises(ValueError, match="counts as made"):
        decided(answered(500), attempts_made=0)


@given(seed=st.integers(), attempts_made=st.integers(min_value=1, max_value=9))
def test_jitter_stays_within_its_share(seed, attempts_made):
    policy = RetryPolicy(SCHEDULE, jitter=0.2, retry_after_max=86400.0)
    decision = decided(answered(503), attempts_made, policy, random.Random(seed))
    assert isinstance(decision, RetryIn)
    assert 0.8 * SCHEDULE[attempts_made - 1] <= decision.seconds <= 1.2 * SCHEDULE[attempts_made - 1]


def test_jitter_spreads_both_ways():
    policy = RetryPolicy((100.0,), jitter=0.2, retry_after_max=0.0)
    rng = random.Random(7)
    waits = [decided(answered(503), policy=policy, rng=rng).seconds for _ in range(200)]
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
    assert decided(answered(status, retry_after="600")) == RetryIn(600.0)


def test_retry_after_never_shortens_the_wait():
    assert decided(answered(503, retry_after="60"), attempts_made=2) == RetryIn(300.0)


def test_retry_after_is_honoured_up_to_the_policys_most():
    assert decided(answered(503, retry_after="9999"), policy=RetryPolicy((5.0,), 0.0, 60.0)) == RetryIn(60.0)

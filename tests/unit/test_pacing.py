"""`rate_limit`: how many attempts may begin, by a monotonic clock that the test moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.pacing import TokenBucket, share


def test_no_limit():
    bucket = TokenBucket(None, 0.0)
    bucket.take(1000, 0.0)
    assert bucket.available(0.0) is None
    assert bucket.wait(0.0) == 0.0


def test_a_restart_is_no_burst():
    bucket = TokenBucket(50.0, 100.0)
    assert bucket.available(100.0) == 1
    bucket.take(1, 100.0)
    assert bucket.available(100.0) == 0
    assert bucket.wait(100.0) == pytest.approx(0.02)
    assert bucket.available(100.1) == 5


def test_it_holds_one_seconds_worth():
    bucket = TokenBucket(50.0, 0.0)
    assert bucket.available(3600.0) == 50
    bucket.take(50, 3600.0)
    assert bucket.available(3600.0) == 0


def test_a_slow_rate_holds_one():
    bucket = TokenBucket(1 / 3600, 0.0)
    bucket.take(1, 0.0)
    assert bucket.available(3599.0) == 0
    assert bucket.wait(3599.0) == pytest.approx(1.0)
    assert bucket.available(3600.0) == 1
    assert bucket.available(36_000.0) == 1


@given(
    rate=st.floats(min_value=1 / 3600, max_value=1000.0),
    naps=st.lists(st.floats(min_value=0.0, max_value=5.0), max_size=50),
)
def test_never_more_than_the_rate_permits(rate: float, naps: list[float]):
    bucket, now, taken = TokenBucket(rate, 0.0), 0.0, 0
    for nap in naps:
        now += nap
        count = bucket.available(now)
        assert count is not None
        bucket.take(count, now)
        taken += count
    assert taken <= rate * now + 1 + 1e-3


@given(rate=st.floats(min_value=1 / 3600, max_value=1000.0), used=st.floats(min_value=0.0, max_value=10.0))
def test_after_the_wait_there_is_one(rate: float, used: float):
    bucket = TokenBucket(rate, 0.0)
    bucket.take(bucket.available(used) or 0, used)
    assert bucket.available(used + bucket.wait(used) + 1e-6)


def test_another_rate_holds_from_now_on_and_makes_no_burst():
    bucket = TokenBucket(10.0, 0.0)
    assert bucket.available(5.0) == 10
    bucket.change(2.0, 5.0)
    assert bucket.available(5.0) == 2
    bucket.take(2, 5.0)
    assert bucket.wait(5.0) == pytest.approx(0.5)
    bucket.change(4.0, 5.25)
    assert bucket.wait(5.25) == pytest.approx(0.125)
    bucket.change(None, 6.0)
    assert bucket.available(6.0) is None
    bucket.change(1.0, 100.0)
    assert bucket.available(100.0) == 1


@pytest.mark.parametrize(("limit", "instances", "part"), [(16, 1, 16), (16, 2, 8), (16, 3, 5), (1, 4, 1), (3, 4, 1)])
def test_an_instance_has_an_even_part_and_at_least_one(limit: int, instances: int, part: int):
    assert share(limit, instances) == part


def test_what_may_begin_now_waits_for_exactly_nothing():
    bucket = TokenBucket(10.0, 0.0)
    assert bucket.wait(0.0) == 0.0
    assert bucket.wait(5.0) == 0.0


def test_a_moment_before_the_last_one_takes_nothing_away():
    bucket = TokenBucket(10.0, 100.0)
    assert bucket.available(100.5) == 6
    assert bucket.available(100.0) == 6

"""When those who look regularly wake."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.clock import until_beat


@pytest.mark.parametrize(
    ("mono", "seconds"), [(1000.0, 5.0), (1001.0, 4.0), (1004.25, 0.75), (1004.75, 5.25), (1004.999999, 5.000001)]
)
def test_a_beat_is_a_whole_multiple_and_never_at_once(mono: float, seconds: float):
    assert until_beat(5.0, mono) == pytest.approx(seconds)


@given(st.floats(0, 1e7), st.sampled_from([1.0, 5.0, 15.0, 60.0]), st.sampled_from([1.0, 5.0, 15.0, 60.0]))
def test_whoever_looks_with_another_period_wakes_at_the_same_moments(mono: float, short: float, long: float):
    woken = mono + until_beat(max(short, long), mono)
    assert abs(woken / min(short, long) - round(woken / min(short, long))) < 1e-6

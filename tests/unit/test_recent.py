"""The last hour in memory: what is counted where, how exact percentiles are, and that it stays small."""

import random

import pytest

from relay import recent
from relay.recent import MINUTES, Recent


def test_nothing_happened():
    hour = Recent().hour("shop", 1e6)
    assert hour.delivered == hour.failed == (0,) * MINUTES
    assert (hour.p50_ms, hour.p95_ms, hour.p99_ms) == (None, None, None)


def test_attempts_count_in_their_minute_and_move_out_after_an_hour():
    seen = Recent()
    seen.note("shop", True, 10, 59.9)
    seen.note("shop", False, 10, 60.0)
    seen.note("other", True, 10, 60.0)
    now = 61.0
    assert seen.hour("shop", now).delivered[-2:] == (1, 0)
    assert seen.hour("shop", now).failed[-2:] == (0, 1)
    at_last = 59 * 60 + 59.0
    assert seen.hour("shop", at_last).delivered[0] == 1
    assert seen.hour("shop", at_last).p50_ms is not None
    gone = seen.hour("shop", at_last + 1)
    assert sum(gone.delivered) == 0
    assert gone.p50_ms is None, "latencies move out with their minute"
    assert gone.failed[0] == 1


def test_minutes_without_attempts_are_empty_not_skipped():
    seen = Recent()
    seen.note("shop", True, 1, 0)
    seen.note("shop", True, 1, 10 * 60)
    delivered = seen.hour("shop", 10 * 60).delivered
    assert delivered[-1] == delivered[-11] == 1
    assert sum(delivered) == 2


@pytest.mark.parametrize("scale", [1, 20, 3_000, 90_000_000])
def test_percentiles_are_right_to_within_a_tenth(scale: float):
    rng, seen = random.Random(4), Recent()
    latencies = sorted(scale * rng.uniform(1, 8) for _ in range(5_000))
    for number, latency in enumerate(latencies):
        seen.note("shop", True, latency, number % 600)
    hour = seen.hour("shop", 600)
    for share, found in ((0.5, hour.p50_ms), (0.95, hour.p95_ms), (0.99, hour.p99_ms)):
        assert found == pytest.approx(latencies[int(len(latencies) * share) - 1], rel=0.1)


def test_one_slow_one_in_a_hundred_is_not_the_median():
    seen = Recent()
    for _ in range(99):
        seen.note("shop", True, 20, 0)
    seen.note("shop", True, 60_000, 0)
    hour = seen.hour("shop", 0)
    assert hour.p95_ms == pytest.approx(20, rel=0.1)
    assert hour.p99_ms == pytest.approx(20, rel=0.1)
    seen.note("shop", True, 60_000, 0)
    assert seen.hour("shop", 0).p99_ms == pytest.approx(60_000, rel=0.1)


@pytest.mark.parametrize("latency", [-5.0, 0.0, 0.3, 1.0])
def test_what_takes_no_time_takes_a_millisecond(latency: float):
    seen = Recent()
    seen.note("shop", True, latency, 0)
    assert seen.hour("shop", 0).p50_ms == 1.0


def test_failures_have_no_latency():
    seen = Recent()
    seen.note("shop", False, 15_000, 0)
    assert seen.hour("shop", 0).p50_ms is None


def test_it_stays_small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recent, "_MOST_TARGETS", 3)
    seen = Recent()
    for minute in range(200):
        seen.note("shop", True, float(2 ** (minute % 60)), minute * 60)
    assert len(seen._minutes["shop"]) == MINUTES
    for number, name in enumerate(("a", "b", "c", "d")):
        seen.note(name, True, 1, 20_000 + number * 60)
    assert set(seen._minutes) == {"b", "c", "d"}, "the one that was silent longest is forgotten"
    assert all(recent._bucket(latency) < 130 for latency in (1e12, float("inf")))

"""What only shows over time: clocks that drift apart, words that are not understood; what a long gap says."""

import json

import pytest

from relay.clock import ClockJump, ClockWatch
from relay.store.values import Gap
from relay.upstream.gaps import exceeds, notice
from relay.upstream.questions import PATIENCE_MS, patience_left_ms
from relay.upstream.watches import StrangeWatch


@pytest.mark.parametrize(
    ("wall_s", "mono_s", "jump"),
    [
        (5, 5, None),
        (35, 5, None),
        (36, 5, ClockJump(31, 1_000_000)),
        (-26, 5, ClockJump(-31, 1_000_000 - 26_000)),
        (-25, 5, None),
        (3_600, 3_600, None),
        (28_800, 5, ClockJump(28_795, 1_000_000)),
        (-315_360_000, 5, ClockJump(-315_360_005, 1_000_000 - 315_360_000_000)),
    ],
)
def test_clocks_that_drift_apart(wall_s: int, mono_s: int, jump: ClockJump | None):
    """132, 133, 134: a step either way, a suspended machine; not a stopped process, not a long wait."""
    watch = ClockWatch(1_000_000, 50.0)
    assert watch.look(1_000_000 + wall_s * 1000, 50.0 + mono_s) == jump
    assert watch.look(1_000_000 + (wall_s + 5) * 1000, 55.0 + mono_s) is None


def feed(watch: StrangeWatch, pattern: str, start: float, seconds: float) -> list[bool]:
    step = seconds / max(1, len(pattern) - 1)
    return [watch.feed(letter == "k", start + number * step) for number, letter in enumerate(pattern)]


def test_a_majority_that_is_not_understood_is_said_once():
    """25: more than half, over five minutes, and not again until it was better in between."""
    watch = StrangeWatch()
    assert feed(watch, "skskss", 0, 300) == [False] * 5 + [True]
    assert not any(feed(watch, "ssssss", 400, 300))
    assert not any(feed(watch, "kkkkss", 800, 300))
    assert any(feed(watch, "ssssss", 1200, 300))


@pytest.mark.parametrize("pattern", ["skskks", "kkkkkk", "ssss", "s"])
def test_half_or_a_few_are_no_alarm(pattern: str):
    assert not any(feed(StrangeWatch(), pattern, 0, 300))


def test_less_than_five_minutes_are_no_alarm():
    assert not any(feed(StrangeWatch(), "s" * 1000, 0, 299))


@pytest.mark.parametrize(
    ("age_ms", "left"),
    [(0, PATIENCE_MS), (61_000, 59_000), (119_999, 1), (120_000, 0), (10**9, 0), (-1, 0), (-(10**9), 0)],
)
def test_patience_with_a_frame_about_an_invisible_order(age_ms: int, left: int):
    """132: a frame from the future means that the clock was set back; it has waited long enough."""
    assert patience_left_ms(10**12, 10**12 + age_ms) == left


@pytest.mark.parametrize(("hours", "too_long"), [(46.99, False), (47.01, True)])
def test_an_hour_of_margin(hours: float, too_long: bool):
    """65."""
    assert exceeds(hours * 3600) is too_long


def test_the_notice_says_what_since_when_and_what_to_do():
    gap = Gap(7, 1_795_330_000_000, None, 'a "cause"', None, None)
    event = notice(gap, 1_795_600_000_000)
    assert event.webhook_id == notice(gap, 1_795_700_000_000).webhook_id
    other = Gap(7, 1_795_330_000_001, None, 'a "cause"', None, None)
    assert event.webhook_id != notice(other, 1_795_600_000_000).webhook_id
    body = json.loads(event.body)
    assert (body["since"], body["until"]) == ("2026-11-22T06:46:40.000Z", "2026-11-25T09:46:40.000Z")
    assert body["cause"] == 'a "cause"'
    assert (event.lane, event.facts) == ("relay:upstream", None)

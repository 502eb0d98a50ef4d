"""Why a connection ended, and how long to wait."""

import random

import pytest

from relay.upstream.endings import (
    STABLE,
    Backoff,
    EndKind,
    EpochEnd,
    classify_close,
    classify_handshake,
    wait_before_next,
)

LOST = EpochEnd(EndKind.CLOSED, "lost", subscribed=True)


class Top:
    """Always the upper end."""

    def uniform(self, a: float, b: float, /) -> float:
        return b


def wait(end: EpochEnd, in_sync_for: float = 0.0, backoff: Backoff | None = None) -> float:
    return wait_before_next(end, in_sync_for, backoff or Backoff(1.0, 60.0), 300.0, Top())


@pytest.mark.parametrize(
    ("code", "kind"),
    [(1000, EndKind.PLANNED), (1001, EndKind.PLANNED), (1012, EndKind.PLANNED), (1013, EndKind.PLANNED),
     (4401, EndKind.AUTH), (1009, EndKind.TOO_BIG), (1011, EndKind.CLOSED),
     (0, EndKind.CLOSED), (4999, EndKind.CLOSED)],
)  # fmt: skip
def test_close_codes(code: int, kind: EndKind) -> None:
    """2, 23: 4401 is about credentials, a frame without a code is not a planned close."""
    assert classify_close(code) is kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, EndKind.AUTH), (401, EndKind.AUTH), (402, EndKind.AUTH), (403, EndKind.AUTH), (429, EndKind.THROTTLED),
     (503, EndKind.THROTTLED), (302, EndKind.REDIRECT), (404, EndKind.REFUSED),
     (500, EndKind.REFUSED), (101, EndKind.REFUSED)],
)  # fmt: skip
def test_handshake_statuses(status: int, kind: EndKind) -> None:
    """1, 3, 4."""
    assert classify_handshake(status) is kind


def test_waits_double_to_the_maximum_and_start_over() -> None:
    """46."""
    backoff = Backoff(1.0, 60.0)
    assert [backoff.next(Top()) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.reset()
    assert backoff.next(Top()) == 1


def test_initial_above_maximum() -> None:
    assert Backoff(10.0, 5.0).next(Top()) == 5.0


def test_full_jitter_spreads_a_fleet() -> None:
    """47: of 100 clients no 100 ms hold more than a fifth of the first retries."""
    firsts = [Backoff(1.0, 60.0).next(random.Random(seed)) for seed in range(100)]
    buckets = [sum(1 for first in firsts if start <= first * 10 < start + 1) for start in range(10)]
    assert sum(buckets) == 100
    assert max(buckets) <= 20


def test_refused_for_a_thousand_seconds() -> None:
    """46: some forty attempts in a thousand seconds, and never near one a second."""
    attempts = []
    for seed in range(20):
        rng, backoff, now, count = random.Random(seed), Backoff(1.0, 60.0), 0.0, 0
        while now < 1000:
            now += backoff.next(rng)
            count += 1
        attempts.append(count)
    assert sum(attempts) / len(attempts) < 45
    assert max(attempts) < 70


def test_backoff_starts_over_only_after_a_minute_in_sync() -> None:
    """48: accept-then-close loops keep backing off."""
    backoff = Backoff(1.0, 60.0)
    assert [wait(LOST, 0.0, backoff), wait(LOST, STABLE - 1, backoff), wait(LOST, 0.0, backoff)] == [1, 2, 4]
    assert wait(LOST, STABLE, backoff) == 1


def test_planned_close() -> None:
    """23: at once after a stable epoch, else the normal backoff."""
    planned = EpochEnd(EndKind.PLANNED, "deploy", subscribed=True)
    backoff = Backoff(30.0, 60.0)
    assert wait(planned, STABLE, backoff) == 3.0
    assert wait(planned, 0.0, backoff) == 30.0


def test_credentials_wait_their_own_time() -> None:
    """1, 2."""
    assert 300 <= wait(EpochEnd(EndKind.AUTH, "4401", subscribed=False)) <= 330
    assert 300 <= wait(EpochEnd(EndKind.AUTH, "4401", subscribed=True), STABLE) <= 330


def test_retry_after_at_the_upgrade() -> None:
    """4: followed, with jitter on top, up to a quarter of an hour, never faster than the backoff."""
    assert wait(EpochEnd(EndKind.THROTTLED, "429", retry_after=7.0)) == 8.0
    assert wait(EpochEnd(EndKind.THROTTLED, "429", retry_after=1e9)) == 901.0
    assert wait(EpochEnd(EndKind.THROTTLED, "429", retry_after=0.0), 0.0, Backoff(30.0, 60.0)) == 30.0
    assert wait(EpochEnd(EndKind.THROTTLED, "429")) == 1.0


def test_another_configuration_connects_at_once() -> None:
    """The operator waits for it, and it is no sign of trouble."""
    assert wait(EpochEnd(EndKind.RECONFIGURED, "changed", subscribed=True)) == 0
    assert wait(EpochEnd(EndKind.RECONFIGURED, "changed")) == 0

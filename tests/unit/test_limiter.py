"""One budget for every REST call."""

import asyncio

from support.clock import JumpClock

from relay.upstream.limiter import Limiter, TokenBucket


def test_bucket_gives_a_burst_then_its_rate() -> None:
    bucket = TokenBucket(rate=0.5, burst=2, now=0.0)
    for _ in range(2):
        assert bucket.wait(0.0) == 0
        bucket.take(0.0)
    assert bucket.wait(0.0) == 2
    assert bucket.wait(1.5) == 0.5
    assert bucket.wait(2.0) == 0


def test_bucket_never_holds_more_than_its_burst() -> None:
    bucket = TokenBucket(rate=1.0, burst=2, now=0.0)
    for _ in range(2):
        bucket.take(1000.0)
    assert bucket.wait(1000.0) == 1


def test_hold_only_grows() -> None:
    bucket = TokenBucket(rate=1.0, burst=2, now=0.0)
    bucket.hold(30.0)
    bucket.hold(10.0)
    assert bucket.wait(0.0) == 30


async def test_requests_stay_within_the_budget() -> None:
    """53: thirty requests at ten a minute, ten at once: two minutes for the other twenty."""
    clock = JumpClock()
    limiter = Limiter(10, clock)
    for _ in range(30):
        await limiter.acquire()
    assert 119 < clock.mono() - 1000 < 121


async def test_everybody_waits_while_throttled() -> None:
    """66."""
    clock = JumpClock()
    limiter = Limiter(600, clock)
    limiter.hold(45)
    await asyncio.gather(limiter.acquire(), limiter.acquire())
    assert clock.mono() - 1000 >= 45


async def test_one_request_a_minute_is_possible() -> None:
    limiter = Limiter(1, clock := JumpClock())
    await limiter.acquire()
    await limiter.acquire()
    assert 59.9 < clock.mono() - 1000 < 60.1


def test_another_rate_holds_from_now_on_and_gives_nothing_away() -> None:
    bucket = TokenBucket(rate=1.0, burst=10, now=0.0)
    for _ in range(8):
        bucket.take(0.0)
    bucket.hold(20.0)
    bucket.change(rate=0.1, burst=1, now=4.0)
    assert bucket.wait(4.0) == 16
    assert bucket.wait(30.0) == 0
    bucket.take(30.0)
    assert bucket.wait(30.0) == 10


async def test_a_limit_is_changed_in_place() -> None:
    clock = JumpClock()
    limiter = Limiter(10, clock)
    for _ in range(10):
        await limiter.acquire()
    limiter.change(600)
    began = clock.mono()
    for _ in range(10):
        await limiter.acquire()
    assert clock.mono() - began < 1.1

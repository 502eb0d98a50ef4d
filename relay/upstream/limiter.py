"""One budget for every REST call: a token bucket, and a hold while the upstream asks to wait."""

import asyncio

from relay.clock import Clock


class TokenBucket:
    """Tokens that grow by `rate` a second up to `burst`; pure, `now` is monotonic seconds."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now
        self._held_until = now

    def hold(self, until: float) -> None:
        """Give nothing out before this moment."""
        self._held_until = max(self._held_until, until)

    def change(self, rate: float, burst: float, now: float) -> None:
        """Grow by another rate from now on."""
        self._tokens, self._at = min(burst, self._grown(now)), now
        self._rate, self._burst = rate, burst

    def wait(self, now: float) -> float:
        """Seconds until a token can be taken, 0 when one is there now."""
        missing = 1.0 - self._grown(now)
        return max(self._held_until - now, missing / self._rate if missing > 1e-9 else 0.0, 0.0)

    def take(self, now: float) -> None:
        """Take one token; only right when `wait` is 0."""
        self._tokens = self._grown(now) - 1.0
        self._at = now

    def _grown(self, now: float) -> float:
        return min(self._burst, self._tokens + (now - self._at) * self._rate)


class Limiter:
    """The bucket with a queue in front: first come, first served."""

    def __init__(self, requests_per_minute: float, clock: Clock) -> None:
        self._bucket = TokenBucket(requests_per_minute / 60.0, _burst(requests_per_minute), clock.mono())
        self._clock = clock
        self._turn = asyncio.Lock()

    async def acquire(self) -> None:
        """Return when one request may be sent; as long as the upstream asked to wait, if it did."""
        async with self._turn:
            while (seconds := self._bucket.wait(self._clock.mono())) > 0:
                await self._clock.sleep(seconds)
            self._bucket.take(self._clock.mono())

    def change(self, requests_per_minute: float) -> None:
        """Let out so many from now on; who waits already waits as long as the old rate said."""
        self._bucket.change(requests_per_minute / 60.0, _burst(requests_per_minute), self._clock.mono())

    def hold(self, seconds: float) -> None:
        """Let no request out for this long."""
        self._bucket.hold(self._clock.mono() + seconds)


def _burst(requests_per_minute: float) -> float:
    return max(1.0, min(requests_per_minute, 10.0))

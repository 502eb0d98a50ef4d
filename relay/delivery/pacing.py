"""How many attempts a target's `rate_limit` permits: a token bucket on monotonic time. Pure."""

from typing import Final

_WHOLE: Final = 1e-9
"""What rounding may take from a token that is complete."""


def share(limit: int, instances: int) -> int:
    """How much of a target's limit is one instance's, of several that share the store: an even part, at least one."""
    return max(1, limit // instances)


class TokenBucket:
    """Fills with `rate` tokens a second; an attempt takes one.

    It holds one second's worth, at least one, and starts with one, so that restarts make no bursts.
    """

    def __init__(self, rate: float | None, now: float) -> None:
        """Prepare.

        Args:
            rate: attempts per second; None for no limit.
            now: monotonic seconds.
        """
        self._rate = rate
        self._capacity = max(1.0, rate or 0.0)
        self._tokens = 1.0
        self._at = now

    def change(self, rate: float | None, now: float) -> None:
        """Fill at another rate from now on."""
        if self._rate is not None:
            self._fill(self._rate, now)
        self._rate, self._at = rate, now
        self._capacity = max(1.0, rate or 0.0)
        self._tokens = min(self._tokens, self._capacity)

    def available(self, now: float) -> int | None:
        """How many attempts may begin now; None when there is no limit."""
        if self._rate is None:
            return None
        self._fill(self._rate, now)
        return int(self._tokens + _WHOLE)

    def take(self, count: int, now: float) -> None:
        """Say that this many attempts begin."""
        if self._rate is not None:
            self._fill(self._rate, now)
            self._tokens = max(0.0, self._tokens - count)

    def wait(self, now: float) -> float:
        """Seconds until one more attempt may begin; 0 when one may now."""
        if self._rate is None:
            return 0.0
        self._fill(self._rate, now)
        missing = 1.0 - self._tokens
        return missing / self._rate if missing > _WHOLE else 0.0

    def _fill(self, rate: float, now: float) -> None:
        self._tokens = min(self._capacity, self._tokens + max(0.0, now - self._at) * rate)
        self._at = now

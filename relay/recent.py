"""What targets did in the last hour, minute by minute, in memory: for sparklines and percentiles. Pure.

Latencies are counted in buckets a quarter of a doubling wide, so a percentile is right to within a tenth and an hour
of any traffic takes the same room.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

MINUTES: Final = 60
_MOST_TARGETS: Final = 1000
_STEPS: Final = 4
"""Buckets to a doubling."""
_LONGEST_MS: Final = 30 * 86_400_000.0


@dataclass(frozen=True, slots=True)
class Hour:
    """A target's last hour.

    Attributes:
        delivered: attempts answered 2xx in each of the last 60 minutes, oldest first.
        failed: the others.
        p50_ms: half of the deliveries took at most so long, from the change being seen to the 2xx; None without any.
        p95_ms: the same of 95 in a hundred.
        p99_ms: the same of 99.
    """

    delivered: tuple[int, ...]
    failed: tuple[int, ...]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(slots=True)
class _Minute:
    number: int
    delivered: int = 0
    failed: int = 0
    latencies: dict[int, int] = field(default_factory=dict)


class Recent:
    """All targets' last hours. `now` is monotonic seconds everywhere, so that a set clock moves nothing."""

    def __init__(self) -> None:
        self._minutes: dict[str, deque[_Minute]] = {}

    def note(self, target: str, ok: bool, latency_ms: float, now: float) -> None:
        """An attempt has ended; its latency counts when it was answered 2xx."""
        minute = self._minute(target, int(now // 60))
        if not ok:
            minute.failed += 1
            return
        minute.delivered += 1
        bucket = _bucket(latency_ms)
        minute.latencies[bucket] = minute.latencies.get(bucket, 0) + 1

    def hour(self, target: str, now: float) -> Hour:
        """The 60 minutes that end with the present one."""
        first = int(now // 60) - MINUTES + 1
        kept = {minute.number: minute for minute in self._minutes.get(target, ()) if minute.number >= first}
        minutes = [kept.get(number, _Minute(number)) for number in range(first, first + MINUTES)]
        counts = _sum(minute.latencies for minute in minutes)
        return Hour(
            delivered=tuple(minute.delivered for minute in minutes),
            failed=tuple(minute.failed for minute in minutes),
            p50_ms=_percentile(counts, 0.5),
            p95_ms=_percentile(counts, 0.95),
            p99_ms=_percentile(counts, 0.99),
        )

    def _minute(self, target: str, number: int) -> _Minute:
        minutes = self._minutes.get(target)
        if minutes is None:
            if len(self._minutes) >= _MOST_TARGETS:
                del self._minutes[min(self._minutes, key=lambda name: self._minutes[name][-1].number)]
            minutes = self._minutes[target] = deque(maxlen=MINUTES)
        if not minutes or minutes[-1].number < number:
            minutes.append(_Minute(number))
        return minutes[-1]


def _bucket(latency_ms: float) -> int:
    return math.ceil(math.log2(min(max(latency_ms, 1.0), _LONGEST_MS)) * _STEPS)


def _sum(parts: Iterable[dict[int, int]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for part in parts:
        for bucket, count in part.items():
            found[bucket] = found.get(bucket, 0) + count
    return found


def _percentile(counts: dict[int, int], share: float) -> float | None:
    """The middle of the bucket that this share of all lies in or below."""
    wanted = math.ceil(sum(counts.values()) * share)
    for bucket in sorted(counts):
        wanted -= counts[bucket]
        if wanted <= 0:
            return float(2.0 ** ((bucket - 0.5) / _STEPS)) if bucket else 1.0
    return None

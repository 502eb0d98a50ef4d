"""The only place that reads the time, sleeps or makes chance; everything else is handed these.

Wall time (`wall_ms`) is for what is stored or shown. Deadlines and durations inside the process use
`mono`, which no clock step moves.
"""

import asyncio
import random
import time
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch; may step in either direction."""
        ...

    def mono(self) -> float:
        """Seconds on a clock that never steps; comparable only inside this process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleep for this many seconds of monotonic time."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def mono(self) -> float:
        """Seconds on the monotonic clock (the event loop's own)."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep for this many seconds."""
        await asyncio.sleep(seconds)


Rng = random.Random


def system_rng() -> Rng:
    """Randomness seeded by the operating system, for jitter (never for secrets)."""
    return random.Random()  # noqa: S311 - jitter only

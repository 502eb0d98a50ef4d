"""The only place that reads the time, sleeps or makes chance; everything else is handed these.

Wall time (`wall_ms`) is for what is stored or shown. Deadlines and durations inside the process use
`mono`, which no clock step moves.
"""

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Final, Protocol


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


class SharedClock:
    """The machine's clocks, but for the wall time: that of a store which several instances share.

    Between two looks at the store it goes on by the monotonic clock, so no machine's wall clock matters. Until the
    first look, and where nothing is shared, it is the machine's.
    """

    def __init__(self, own: Clock) -> None:
        self._own = own
        self._anchor: tuple[int, float] | None = None

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        if self._anchor is None:
            return self._own.wall_ms()
        anchor_ms, at = self._anchor
        return anchor_ms + round((self._own.mono() - at) * 1000)

    def mono(self) -> float:
        """Seconds on the monotonic clock."""
        return self._own.mono()

    async def sleep(self, seconds: float) -> None:
        """Sleep for this many seconds."""
        await self._own.sleep(seconds)

    def set_by(self, shared_ms: int, at: float) -> None:
        """Go by this wall time, which held at that moment of the monotonic clock."""
        self._anchor = shared_ms, at


def until_beat(period: float, mono: float) -> float:
    """Seconds from `mono` to the next whole multiple of `period`, or to the one after where that is all but here."""
    ahead = period - mono % period
    return ahead if ahead > period / 10 else ahead + period


async def next_beat(clock: Clock, period: float) -> None:
    """Sleep to the next whole multiple of `period`: whoever looks regularly wakes together, not one after another."""
    await clock.sleep(until_beat(period, clock.mono()))


JUMP: Final = 30.0
"""Seconds by which wall and monotonic time may drift apart between two looks."""


@dataclass(frozen=True, slots=True)
class ClockJump:
    """The wall clock was set, or the machine slept.

    Attributes:
        seconds: by how much wall time moved more than monotonic time; negative for a step back.
        alive_ms: wall time, by the new clock at the latest, up to which all was well.
    """

    seconds: float
    alive_ms: int


class ClockWatch:
    """Compares the two clocks from one look to the next."""

    def __init__(self, wall_ms: int, mono: float) -> None:
        self._wall_ms = wall_ms
        self._mono = mono

    def look(self, wall_ms: int, mono: float) -> ClockJump | None:
        """What happened since the last look, None when nothing did."""
        before_ms, drift = self._wall_ms, (wall_ms - self._wall_ms) / 1000 - (mono - self._mono)
        self._wall_ms, self._mono = wall_ms, mono
        return ClockJump(drift, min(before_ms, wall_ms)) if abs(drift) > JUMP else None


Rng = random.Random


def system_rng() -> Rng:
    """Randomness seeded by the operating system, for jitter (never for secrets)."""
    return random.Random()  # noqa: S311 - jitter only

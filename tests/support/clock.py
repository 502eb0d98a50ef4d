"""Clocks that obey the test."""

import asyncio
import heapq
import itertools


class FakeClock:
    """Time that moves only when the test says so; `until_asleep` is the barrier before moving it."""

    def __init__(self, wall_ms: int = 1_795_330_000_000) -> None:
        self._wall_ms = wall_ms
        self._mono = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._slept = asyncio.Condition()

    def wall_ms(self) -> int:
        return self._wall_ms + round((self._mono - 1000.0) * 1000)

    def mono(self) -> float:
        return self._mono

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self._mono + max(seconds, 0.0), next(self._order), future)
        heapq.heappush(self._sleepers, entry)
        async with self._slept:
            self._slept.notify_all()
        try:
            await future
        finally:
            if entry in self._sleepers:
                self._sleepers.remove(entry)
                heapq.heapify(self._sleepers)

    def step_wall(self, seconds: float) -> None:
        """The wall clock is set; monotonic time does not notice."""
        self._wall_ms += round(seconds * 1000)

    @property
    def sleepers(self) -> int:
        return len(self._sleepers)

    async def until_asleep(self, count: int = 1, patience: float = 5.0) -> None:
        """Wait (in real time, at most `patience`) until this many tasks sleep on this clock."""
        async with asyncio.timeout(patience), self._slept:
            await self._slept.wait_for(lambda: len(self._sleepers) >= count)

    async def advance(self, seconds: float) -> None:
        """Move time, waking sleepers one by one at their own moments and letting each run on."""
        goal = self._mono + seconds
        while self._sleepers and self._sleepers[0][0] <= goal:
            at, _, future = heapq.heappop(self._sleepers)
            self._mono = max(self._mono, at)
            if not future.done():
                future.set_result(None)
            for _ in range(10):
                await asyncio.sleep(0)
        self._mono = goal


class JumpClock:
    """Every sleep ends at once and moves time by its length; `slept` tells how long each was."""

    def __init__(self, wall_ms: int = 1_795_330_000_000) -> None:
        self._start_ms = wall_ms
        self._mono = 1000.0
        self.slept: list[float] = []

    def wall_ms(self) -> int:
        return self._start_ms + round((self._mono - 1000.0) * 1000)

    def mono(self) -> float:
        return self._mono

    def move(self, seconds: float) -> None:
        self._mono += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._mono += max(seconds, 0.0)
        await asyncio.sleep(0)

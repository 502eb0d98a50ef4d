"""What the simulator's unit tests share: a clock moved by hand and a world on it."""

import asyncio
from random import Random

from relay.simulator.world import World


class ManualClock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.wall_start_ms = 1_790_000_000_000

    def wall_ms(self) -> int:
        return self.wall_start_ms + round((self.now - 1000.0) * 1000)

    def mono(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def quiet_world() -> tuple[World, ManualClock]:
    clock = ManualClock()
    return World(clock, Random(7)), clock

"""Servers beside a command that has an event loop of its own, as every command has."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from relay.clock import SystemClock
from relay.simulator.receiver import Receiver
from relay.simulator.server import SimulatedUpstream
from relay.simulator.world import World

PARTNER, UPSTREAM_SECRET = "threaded-partner", "CANARY-upstream-secret"


@contextmanager
def upstream_and_receiver(secret: str) -> Iterator[tuple[SimulatedUpstream, Receiver]]:
    """Both are up in a thread of theirs; look at them freely, change nothing but plain attributes."""
    clock, loop = SystemClock(), asyncio.new_event_loop()
    upstream = SimulatedUpstream(World(clock, Random(1)), partner_id=PARTNER, secret=UPSTREAM_SECRET)
    receiver = Receiver([secret], clock=clock, rng=Random(1))

    async def start() -> None:
        await upstream.start()
        await receiver.start()

    async def stop() -> None:
        await receiver.stop()
        await upstream.stop()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield upstream, receiver
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.run_until_complete(stop())
        loop.close()

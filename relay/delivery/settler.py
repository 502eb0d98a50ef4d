"""Outcomes of attempts, written in groups: while one commit is under way the next group gathers."""

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

from relay.clock import Clock, Rng
from relay.delivery.sender import PostRequest
from relay.errors import StoreError
from relay.metrics import Metrics
from relay.model import Attempt
from relay.store.base import Settlement, Store

SETTLE_BATCH: Final = 500


class Sends(Protocol):
    """The seam to the wire."""

    async def post(self, request: PostRequest) -> Attempt:
        """One attempt; never raises but when cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What all loops share."""

    store: Store
    sender: Sends
    metrics: Metrics
    clock: Clock
    rng: Rng


class Settler:
    """Writes outcomes in groups: while one commit is under way the next group gathers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting: list[tuple[Settlement, asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()

    async def settle(self, settlement: Settlement) -> None:
        """Return once the outcome is committed."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((settlement, done))
        self._arrived.set()
        await done

    async def run(self) -> None:
        """Settle until cancelled; what has gathered by then is still written."""
        try:
            while True:
                await self._arrived.wait()
                await self.run_once()
        finally:
            while self._waiting:
                await asyncio.shield(self.run_once())

    async def run_once(self) -> int:
        """Write what has gathered, return how many outcomes it was."""
        group = self._waiting[:SETTLE_BATCH]
        del self._waiting[: len(group)]
        if not self._waiting:
            self._arrived.clear()
        if not group:
            return 0
        try:
            await self._context.store.settle([settlement for settlement, _ in group], self._context.clock.wall_ms())
        except StoreError:
            for _, done in group:
                done.cancel()
            raise
        for _, done in group:
            if not done.done():
                done.set_result(None)
        return len(group)

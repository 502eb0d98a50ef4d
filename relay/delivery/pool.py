"""The connections of one target: those that wait to be used again, and all that are open.

There is one pool per target, so no target's stalled connections can hold up another's. Only as many are made as
there are attempts at a time, and each carries one attempt at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from relay.clock import Clock
from relay.delivery.connection import Connection
from relay.delivery.dialing import Progress
from relay.delivery.failures import AttemptFailed
from relay.log_names import Log
from relay.model import FailureKind

IDLE_LIMIT_S: Final = 4.0
"""Seconds a connection may wait for its next use; many servers hang up after five."""
CLOSE_GRACE_S: Final = 2.0
"""Seconds that closing waits for connections to end."""

log = structlog.get_logger()


class Pool:
    """Hands out connections and takes them back."""

    def __init__(self, dial: Callable[[Progress], Awaitable[Connection]], clock: Clock) -> None:
        self._dial = dial
        self._clock = clock
        self._idle: list[tuple[float, Connection]] = []
        self._open: set[Connection] = set()
        self._all_gone = asyncio.Event()
        self._all_gone.set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False

    def take_idle(self) -> Connection | None:
        """The most recently used one on which nothing lies; those on which something does are closed."""
        now = self._clock.mono()
        while self._idle:
            since, connection = self._idle.pop()
            if now - since < IDLE_LIMIT_S and connection.undisturbed():
                return connection
            connection.abort()
        return None

    async def dial(self, progress: Progress) -> Connection:
        """A new one, on which nothing has been said yet.

        Raises:
            AttemptFailed: there is none.
        """
        if self._closed:
            raise AttemptFailed(FailureKind.REQUEST, "not sent, this target's connections are closed")
        connection = await self._dial(progress)
        self._open.add(connection)
        self._all_gone.clear()
        connection.when_lost(self._forget)
        # Under TLS, session tickets may lie there by right.
        if self._closed or not (connection.encrypted or connection.undisturbed()):
            connection.abort()
            raise AttemptFailed(FailureKind.RESET, "the receiver spoke, or hung up, before anything was sent")
        return connection

    def give_back(self, connection: Connection) -> None:
        """After an exchange, however it ended: keep it for the next one if that is possible, or close it."""
        if self._closed:
            connection.abort()
        elif connection.retire():
            self._idle.append((self._clock.mono(), connection))
            if self._sweeping is None:
                self._sweep_in(IDLE_LIMIT_S)

    async def close(self) -> None:
        """Close every connection, those in use too, and wait a bounded time until they are gone."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._idle.clear()
        for connection in tuple(self._open):
            connection.abort()
        try:
            async with asyncio.timeout(CLOSE_GRACE_S):
                await self._all_gone.wait()
        except TimeoutError:
            log.warning(Log.WEBHOOK_CONNECTIONS_LEFT_OPEN, count=len(self._open), seconds=CLOSE_GRACE_S)

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._all_gone.set()

    def _sweep_in(self, seconds: float) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(seconds, self.sweep)

    def sweep(self) -> None:
        """Close those that have waited too long, and those that are gone; comes back by itself while any wait."""
        self._sweeping = None
        now = self._clock.mono()
        kept = []
        for since, connection in self._idle:
            if now - since < IDLE_LIMIT_S and not connection.lost:
                kept.append((since, connection))
            else:
                connection.abort()
        self._idle = kept
        if kept:
            self._sweep_in(max(0.1, kept[0][0] + IDLE_LIMIT_S - now))

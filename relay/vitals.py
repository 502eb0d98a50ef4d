"""Is this process alive? The one place for the facts behind `/healthz` and the watchdog; never the upstream's.

Alive means: the event loop turns without long delays, the store answers in time, and every room is at work.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn

from relay.board import Board
from relay.clock import Clock, until_beat
from relay.errors import StoreError

STORE_PATIENCE: Final = 5.0
"""Seconds that the store may take to answer before it counts as stuck."""
LAG_LIMIT: Final = 5.0
"""Seconds by which the loop may be late before it counts as stuck."""
TICK: Final = 1.0
"""Seconds between two measurements of the loop's lag."""
_LAGS: Final = 60


class Vitals:
    """What speaks against this process being alive.

    Attributes:
        rooms: name -> the task that the room lives in; none of them ends before the relay is asked to stop.
    """

    def __init__(
        self, ask_store: Callable[[], Awaitable[None]], board: Board, clock: Clock, show_lag: Callable[[float], object]
    ) -> None:
        """Prepare.

        Args:
            ask_store: returns once the store has answered a trivial question.
            board: says whether the relay is stopping.
            clock: the time.
            show_lag: told after each measurement the longest lag of the last minute, in seconds.
        """
        self.rooms: Mapping[str, asyncio.Task[Any]] = {}
        self._ask_store = ask_store
        self._board = board
        self._clock = clock
        self._show_lag = show_lag
        self._lags: deque[float] = deque([0.0], maxlen=_LAGS)
        self._asking: asyncio.Task[str | None] | None = None

    async def run(self) -> NoReturn:
        """Measure the loop's lag until cancelled."""
        try:
            while True:
                await self.run_once()
        finally:
            if self._asking is not None:
                self._asking.cancel()

    async def run_once(self) -> None:
        """One measurement."""
        asleep = self._clock.mono()
        pause = until_beat(TICK, asleep)
        await self._clock.sleep(pause)
        self._lags.append(max(0.0, self._clock.mono() - asleep - pause))
        self._show_lag(max(self._lags))

    async def reasons(self) -> list[str]:
        """Why this process is not alive, a sentence each; empty when it is."""
        found = []
        if (store := await self._stuck_store()) is not None:
            found.append(store)
        if self._lags[-1] > LAG_LIMIT:
            found.append(f"loop: it was {self._lags[-1]:.1f} s late")
        if not self._board.stopping:
            found += [f"room {name}: it has ended" for name, task in self.rooms.items() if task.done()]
        return found

    async def _stuck_store(self) -> str | None:
        """One question at a time, however many ask: a stuck store must not collect them."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._answer_of_store(), name="store-alive")
        answered, _ = await asyncio.wait([self._asking], timeout=STORE_PATIENCE)
        if not answered:
            return f"store: no answer within {STORE_PATIENCE:.0f} s"
        return None if self._asking.cancelled() else self._asking.result()

    async def _answer_of_store(self) -> str | None:
        try:
            await self._ask_store()
        except StoreError as error:
            return f"store: {error}"
        return None

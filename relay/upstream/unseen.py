"""Known open orders that a full sweep did not show: read by id, until REST has said often enough that they are gone.

Only a definitive 404 counts, three times, ten minutes apart; no failure of the network ever does. What has aged
out is remembered and not asked for again; it is never an event.
"""

from collections import deque
from collections.abc import Collection
from typing import Final

import structlog

from relay.clock import Clock
from relay.errors import UpstreamError
from relay.log import Sampler
from relay.log_names import Log
from relay.store.base import Store
from relay.upstream.sweep import Marking, Sweeper

PER_SWEEP: Final = 200
"""Orders read by id after one sweep, at most; the next sweep goes on with others."""

HIDDEN_SPACING: Final = 600.0
"""Seconds between two 404 answers that count."""

HIDDEN_LIMIT: Final = 3
FAILURE_PAUSE: Final = 60.0
_MANY: Final = 100_000

log = structlog.get_logger()


class Unseen:
    """The orders still to be read by id, one request at a time."""

    def __init__(self, store: Store, sweeper: Sweeper, clock: Clock) -> None:
        self._store = store
        self._sweeper = sweeper
        self._clock = clock
        self._queue: deque[str] = deque()
        self._asked: dict[str, float] = {}
        self._hidden: dict[str, float] = {}
        self._not_before = clock.mono()
        self._aged_out = Sampler()

    @property
    def ready(self) -> bool:
        """Whether there is an order to read now."""
        return bool(self._queue) and self._clock.mono() >= self._not_before

    async def refill(self, shown: Collection[str], *, everyone: bool) -> None:
        """A sweep has shown these: choose among the other open orders, least recently read first.

        Args:
            shown: ids that the sweep showed.
            everyone: whether to read all of them, as after a gap longer than the window.
        """
        now = self._clock.mono()
        unseen = [one.houdini_id for one in await self._store.open_orders(_MANY) if one.houdini_id not in shown]
        self._asked = {key: at for key in unseen if (at := self._asked.get(key)) is not None}
        self._hidden = {key: at for key, at in self._hidden.items() if now - at < HIDDEN_SPACING}
        useful = [key for key in unseen if key not in self._hidden]
        useful.sort(key=lambda key: self._asked.get(key, 0.0))
        chosen = useful if everyone else useful[:PER_SWEEP]
        left = [key for key in self._queue if key in set(useful)]  # of a longer list that is not read through yet
        self._queue = deque(dict.fromkeys([*left, *chosen]))

    async def read_next(self, marking: Marking) -> None:
        """Read one order by id into the intake, or count that it cannot be seen."""
        houdini_id = self._queue.popleft()
        self._asked[houdini_id] = self._clock.mono()
        try:
            visible = await self._sweeper.fetch(houdini_id, marking)
        except UpstreamError as error:
            self._sweeper.complain(error)
            self._queue.append(houdini_id)
            self._not_before = self._clock.mono() + FAILURE_PAUSE
            return
        if not visible:
            await self.note_hidden(houdini_id)

    async def note_hidden(self, houdini_id: str) -> None:
        """REST said definitively that it cannot see this order."""
        self._hidden[houdini_id] = self._clock.mono()
        spacing_ms = int(HIDDEN_SPACING * 1000)
        if await self._store.note_hidden(houdini_id, self._clock.wall_ms(), spacing_ms, HIDDEN_LIMIT):
            suppressed = self._aged_out.admit(self._clock.mono())
            if suppressed is not None:
                log.info(Log.ORDER_AGED_OUT, order=houdini_id, suppressed=suppressed)

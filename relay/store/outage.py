"""What is done while a store that is shared is away: it is said once, and loops look again at their next turn."""

from collections.abc import Awaitable
from typing import Final, TypeVar

import structlog

from relay.board import Board
from relay.errors import StoreError, StoreUnavailable
from relay.log_names import Log
from relay.metrics import Metrics

T = TypeVar("T")

_ADVICE: Final = "see whether the database runs and lets this user in; all goes on by itself when it can be reached"
_log = structlog.get_logger()


async def if_reachable(turn: Awaitable[T]) -> T | None:
    """What a turn comes to; None if the store is away, of which whoever keeps the lead tells.

    Raises:
        StoreError: the store cannot be used.
    """
    try:
        return await turn
    except StoreUnavailable:
        return None


class Availability:
    """Whether the store can be reached, told to people and machines when that changes.

    While it cannot, nothing is accepted that could not be kept.
    """

    def __init__(self, board: Board, metrics: Metrics) -> None:
        self._board = board
        self._metrics = metrics

    def away(self, error: StoreError | TimeoutError) -> None:
        """It cannot, for this reason."""
        sentence = str(error).removeprefix("store ") or "the database did not answer in time"
        if self._board.lead.store_away is None:
            _log.error(Log.STORE_AWAY, error=sentence, advice=_ADVICE)
        self._board.lead.store_away = sentence
        self._board.gate.shut(sentence)
        self._metrics.store_available.set(0)

    def back(self) -> None:
        """It can."""
        if self._board.lead.store_away is not None:
            self._board.lead.store_away = None
            self._board.gate.open()
            _log.info(Log.STORE_BACK)
        self._metrics.store_available.set(1)

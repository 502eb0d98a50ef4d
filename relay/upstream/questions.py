"""Asking REST about frames that were not believed, until something definite is known.

A question ends in the ingest: by a forward event, or by a quiet read. Where REST says that it cannot see the
order (past its window), a sideways frame is believed two minutes after it came, because a real correction must
not be lost for want of a witness; a backward one is given up and counted. The stored row is all the memory there
is, and it goes in the transaction that writes the event, so a crash at any moment only asks again.
"""

from collections.abc import Collection, Sequence
from typing import Final

import structlog

from relay.board import UpstreamBoard
from relay.clock import Clock
from relay.errors import UpstreamError
from relay.log import Sampler
from relay.log_names import Log
from relay.metrics import Metrics
from relay.model import Origin, Snapshot
from relay.store.base import Store
from relay.store.values import Question
from relay.upstream.protocol import BadOrder, parse_order, snapshot
from relay.upstream.sweep import Marking, RowSink, Sweeper

MANY_QUESTIONS: Final = 10
"""More due questions than this are answered by one sweep."""

PATIENCE_MS: Final = 120_000
"""How long after its coming a frame about an order that REST cannot see is settled without REST."""

_REMEMBERED: Final = 10_000
_FOR_EVER_MS: Final = 2**62

log = structlog.get_logger()


class Questions:
    """Finds out which questions are due and asks them, one request at a time."""

    def __init__(
        self,
        store: Store,
        sweeper: Sweeper,
        intake: RowSink,
        board: UpstreamBoard,
        metrics: Metrics,
        clock: Clock,
        settling: float,
    ) -> None:
        self._store = store
        self._sweeper = sweeper
        self._intake = intake
        self._board = board
        self._metrics = metrics
        self._clock = clock
        self._later = int((settling + 1) * 1000)
        self._believed, self._given_up = Sampler(), Sampler()

    async def due(self) -> Sequence[Question]:
        """Questions that may be asked now; more than `MANY_QUESTIONS` mean that a sweep is cheaper."""
        return await self._store.due_questions(self._clock.wall_ms(), MANY_QUESTIONS + 1)

    async def left_by(self, shown: Collection[str]) -> Sequence[Question]:
        """After a sweep: the due questions whose orders it did not show; the others may wait for the next answer."""
        left = []
        for question in await self._store.due_questions(self._clock.wall_ms(), _REMEMBERED):
            if question.houdini_id in shown:
                await self._postpone(question, self._later)
            else:
                left.append(question)
        return left

    async def ask(self, question: Question, marking: Marking) -> None:
        """Read the order by id; whatever fails is asked again later."""
        # Postponed first: whatever happens to this attempt, a crash included, it is not repeated at full speed.
        await self._postpone(question, self._later)
        try:
            visible = await self._sweeper.fetch(question.houdini_id, marking)
        except UpstreamError as error:
            self._sweeper.complain(error)
            return
        if not visible:
            await self._settle_unseen(question)

    async def clamp(self) -> None:
        """Bring back questions that a wall clock set back would postpone for as long as it was set back."""
        latest = self._clock.wall_ms() + max(self._later, PATIENCE_MS)
        if await self._store.count_questions() == 0:
            return
        for question in await self._store.due_questions(_FOR_EVER_MS, _REMEMBERED):
            if question.ask_at_ms > latest:
                await self._postpone(question, self._later)

    async def count(self) -> None:
        """Show on the board how many are open."""
        self._board.questions_open = await self._store.count_questions()

    async def _settle_unseen(self, question: Question) -> None:
        if wait := patience_left_ms(question.seen_ms, self._clock.wall_ms()):
            await self._postpone(question, wait)
            return
        frame = _frame(question, self._clock.mono()) if question.sideways else None
        names = {"order": question.houdini_id, "status": question.status}
        if frame is not None:
            if (suppressed := self._believed.admit(self._clock.mono())) is not None:
                log.info(Log.SIDEWAYS_FRAME_BELIEVED, **names, suppressed=suppressed)
            self._intake.confirm(frame)
            return
        await self._store.end_question(question.houdini_id)
        self._board.unconfirmed += 1
        self._metrics.unconfirmed.inc()
        if (suppressed := self._given_up.admit(self._clock.mono())) is not None:
            log.warning(Log.FRAME_UNCONFIRMED, **names, suppressed=suppressed)

    async def _postpone(self, question: Question, by_ms: int) -> None:
        await self._store.postpone_question(question.houdini_id, self._clock.wall_ms() + by_ms)


def patience_left_ms(seen_ms: int, now_ms: int) -> int:
    """Milliseconds until a frame seen then is settled without REST; 0 also when it seems to lie in the future."""
    age = now_ms - seen_ms
    return PATIENCE_MS - age if 0 <= age < PATIENCE_MS else 0


def _frame(question: Question, now: float) -> Snapshot | None:
    try:
        order = parse_order(question.frame)
    except BadOrder:
        log.error(Log.STORED_FRAME_UNREADABLE, order=question.houdini_id)
        return None
    return snapshot(order, question.frame, origin=Origin.WEBSOCKET, seen_ms=question.seen_ms, asked_at=now)

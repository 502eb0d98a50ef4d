"""Keeping what is known in line with REST: when to sweep, and which questions to ask.

The first sweep of an epoch makes it ready; one more, a settling time later, brings it in sync; then one
every `interval`, because push alone is not to be trusted. Sweeps go before questions, one at a time.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NoReturn, Protocol

import structlog

from relay.board import UpstreamBoard
from relay.clock import Clock
from relay.config.settings import UpstreamSettings
from relay.errors import UpstreamError
from relay.metrics import Metrics
from relay.store.base import Question
from relay.upstream.diff import SETTLING
from relay.upstream.orders_api import Page
from relay.upstream.sweep import Api, Marking, RowSink, Sweeper, Swept

SWEEP_SPACING: Final = 5.0
"""Seconds between the beginnings of two sweeps, at least."""

QUESTION_POLL: Final = 5.0
"""Seconds between looks at the questions."""

MANY_QUESTIONS: Final = 10
"""More due questions than this are answered by one sweep."""

NOT_VISIBLE_LIMIT: Final = 3
"""Definitive 404 answers after which a question is given up."""

BASELINE_DONE: Final = "baseline_done"
FIRST_SUBSCRIBED: Final = "first_subscribed"
_REMEMBERED: Final = 10_000

log = structlog.get_logger()


class Memory(Protocol):
    """The part of the store used here; every verb raises StoreError when it cannot be used."""

    async def due_questions(self, now_ms: int, limit: int) -> Sequence[Question]:
        """Questions that may be asked now."""
        ...

    async def postpone_question(self, houdini_id: str, ask_at_ms: int) -> int:
        """Ask again later."""
        ...

    async def end_question(self, houdini_id: str) -> None:
        """Forget an order's question."""
        ...

    async def count_questions(self) -> int:
        """How many questions are open."""
        ...

    async def meta_get(self, key: str) -> str | None:
        """A remembered value."""
        ...

    async def meta_set(self, key: str, value: str) -> None:
        """Remember a value."""
        ...


class Backfill:
    """Sweeps and questions of one epoch after the other; one object for the life of the process.

    Attributes:
        in_sync_at: monotonic time since when this epoch has been in sync, None while it is not.
        orders: which orders to follow; may be changed at any time, followed by `want_sweep`.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        api: Api,
        intake: RowSink,
        store: Memory,
        board: UpstreamBoard,
        metrics: Metrics,
        clock: Clock,
        *,
        settling: float = SETTLING,
    ) -> None:
        self.in_sync_at: float | None = None
        self.orders = settings.orders
        self._settings = settings
        self._sweeper = Sweeper(settings, api, intake, board, clock)
        self._intake = intake
        self._store = store
        self._board = board
        self._metrics = metrics
        self._clock = clock
        self._settling = settling
        self._wake = asyncio.Event()
        self._wanted: set[str] = set()
        self._swept_at = clock.mono() - SWEEP_SPACING
        self._trailing_at: float | None = None
        self._periodic_at: float | None = None
        self._marking = Marking()
        self._epoch_at = clock.mono()
        self._not_visible: dict[str, int] = {}

    def want_sweep(self, reason: str) -> None:
        """Ask for a sweep; requests that come before it begins are one."""
        self._wanted.add(reason)
        self._wake.set()

    async def run(self, server_date_ms: int | None) -> NoReturn:
        """Serve one epoch, from its acknowledged subscription until cancelled.

        Args:
            server_date_ms: the server's own time at the upgrade, None when it named none.
        """
        await self.begin(server_date_ms)
        while True:
            await self.run_once()

    async def begin(self, server_date_ms: int | None) -> None:
        """Start an epoch: nothing is in sync, the first sweep is wanted."""
        self.forget_epoch()
        self._epoch_at = self._clock.mono()
        baseline = self._settings.backfill.first_start == "baseline"
        remembered = await self._store.meta_get(FIRST_SUBSCRIBED)
        self._marking = Marking(
            first_sweep=True,
            silent=baseline and await self._store.meta_get(BASELINE_DONE) is None,
            subscribed_ms=int(remembered) if remembered else None,
        )
        if remembered is None and server_date_ms is not None:
            await self._remember_subscribed(server_date_ms)
        self.want_sweep("subscribed")

    def forget_epoch(self) -> None:
        """The subscription is gone: nothing is in sync any more."""
        self.in_sync_at = None
        self._trailing_at = self._periodic_at = None
        self._board.first_sweep_done = self._board.in_sync = False
        self._metrics.upstream_in_sync.set(0)

    async def run_once(self) -> None:
        """Do the one thing that is due: a sweep before questions, or wait for either."""
        if self._intake.overflowed.is_set():
            self._intake.overflowed.clear()
            self.want_sweep("intake overflow")
        now = self._clock.mono()
        if reason := self._sweep_reason(now):
            await self._sweep(reason)
        elif questions := await self._store.due_questions(self._clock.wall_ms(), MANY_QUESTIONS + 1):
            await self._answer(questions)
        else:
            await self._nap()

    def _sweep_reason(self, now: float) -> str | None:
        if now < self._swept_at + SWEEP_SPACING:
            return None
        if self._trailing_at is not None and now >= self._trailing_at:
            self._wanted.add("trailing")
        if self._periodic_at is not None and now >= self._periodic_at:
            self._wanted.add("periodic")
        return ", ".join(sorted(self._wanted)) or None

    async def _nap(self) -> None:
        self._wake.clear()
        now = self._clock.mono()
        moments = [at for at in (self._trailing_at, self._periodic_at) if at is not None]
        if self._wanted:
            moments.append(self._swept_at + SWEEP_SPACING)
        seconds = min([QUESTION_POLL, *(at - now for at in moments)])
        if seconds <= 0:
            return
        waiters = [asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._wake.wait())]
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)

    async def _sweep(self, reason: str) -> set[str]:
        """One sweep, to its committed end; returns the ids it showed."""
        began = self._swept_at = self._clock.mono()
        self._wanted.clear()
        result = "aborted"
        try:
            swept = await self._pass()
            result = "ok" if swept.problem is None else "incomplete"
        finally:
            self._metrics.sweeps.labels(result).inc()
        if swept.problem is not None:
            log.error("sweep_incomplete", reason=reason, problem=swept.problem, orders=len(swept.shown))
        await self._ended(began)
        return swept.shown

    async def _pass(self) -> Swept:
        if self.orders == "all":
            return await self._sweeper.all_orders(self._marking, self._learn_server_time)
        return await self._sweeper.by_id(self.orders, self._marking)

    async def _ended(self, began: float) -> None:
        if self._marking.first_sweep:
            if await self._store.meta_get(BASELINE_DONE) is None:
                await self._store.meta_set(BASELINE_DONE, "1")
            self._marking = Marking(subscribed_ms=self._marking.subscribed_ms)
            self._board.first_sweep_done = True
            self._trailing_at = self._clock.mono() + self._settling
        elif self._trailing_at is not None and began >= self._trailing_at:
            self._trailing_at = None
            self._board.in_sync = True
            self.in_sync_at = self._clock.mono()
            self._metrics.upstream_in_sync.set(1)
            log.info("upstream_in_sync", epoch=self._board.epoch)
        interval = self._settings.backfill.interval
        self._periodic_at = self._clock.mono() + interval if interval > 0 else None

    async def _answer(self, questions: Sequence[Question]) -> None:
        if len(questions) > MANY_QUESTIONS:
            shown = await self._sweep("questions")
            questions = await self._store.due_questions(self._clock.wall_ms(), _REMEMBERED)
            for question in questions:
                if question.houdini_id in shown:
                    await self._store.postpone_question(question.houdini_id, self._later_ms())
            questions = [question for question in questions if question.houdini_id not in shown]
        for question in questions[:MANY_QUESTIONS]:
            await self._ask(question.houdini_id)
        self._board.questions_open = await self._store.count_questions()

    async def _ask(self, houdini_id: str) -> None:
        # Postponed first: whatever happens to this attempt, a crash included, it is not repeated at full speed.
        await self._store.postpone_question(houdini_id, self._later_ms())
        try:
            visible = await self._sweeper.fetch(houdini_id, Marking(subscribed_ms=self._marking.subscribed_ms))
        except UpstreamError as error:
            self._sweeper.complain(error)
            return
        if visible:
            self._not_visible.pop(houdini_id, None)
        else:
            await self._count_not_visible(houdini_id)

    async def _count_not_visible(self, houdini_id: str) -> None:
        if len(self._not_visible) >= _REMEMBERED:
            self._not_visible.clear()
        times = self._not_visible[houdini_id] = self._not_visible.get(houdini_id, 0) + 1
        if times >= NOT_VISIBLE_LIMIT:
            del self._not_visible[houdini_id]
            await self._store.end_question(houdini_id)
            log.warning("question_unanswerable", order=houdini_id, times=times)

    async def _learn_server_time(self, page: Page) -> None:
        if self._marking.subscribed_ms is None:
            server_ms = page.server_ms if page.server_ms is not None else self._clock.wall_ms()
            await self._remember_subscribed(server_ms - int((self._clock.mono() - self._epoch_at) * 1000))

    async def _remember_subscribed(self, server_ms: int) -> None:
        self._marking.subscribed_ms = server_ms
        await self._store.meta_set(FIRST_SUBSCRIBED, str(server_ms))

    def _later_ms(self) -> int:
        return self._clock.wall_ms() + int((self._settling + 1) * 1000)

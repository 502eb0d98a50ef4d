"""Keeping what is known in line with REST: when to sweep, and what to read by id.

The first sweep of an epoch makes it ready; one more, a settling time later, brings it in sync; then one
every `interval`, because push alone is not to be trusted. A sweep that could not see everything counts for
none of these and is repeated. Sweeps go before questions, questions before orders that a sweep did not show;
one request at a time.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

import structlog

from relay.board import UpstreamBoard
from relay.clock import Clock, until_beat
from relay.config.settings import UpstreamSettings
from relay.log_names import Log
from relay.metrics import Metrics
from relay.store.base import Store
from relay.store.values import Question
from relay.upstream.diff import SETTLING
from relay.upstream.followed import Followed
from relay.upstream.gaps import GapKeeper
from relay.upstream.orders_api import Page
from relay.upstream.questions import MANY_QUESTIONS, Questions
from relay.upstream.sweep import Api, Marking, RowSink, Sweeper, Swept
from relay.upstream.unseen import Unseen

SWEEP_SPACING: Final = 5.0
"""Seconds between the beginnings of two sweeps, at least."""

ROUTINE: Final = frozenset({"subscribed", "trailing", "periodic", "questions", "asked for"})
"""Reasons for a sweep that do not mean that something was lost."""

QUESTION_POLL: Final = 5.0
"""Seconds between looks at the questions."""

RETRY_FIRST: Final = 30.0
RETRY_LONGEST: Final = 300.0
"""Seconds until an incomplete sweep is repeated: at first, and at most."""

BASELINE_DONE: Final = "baseline_done"
FIRST_SUBSCRIBED: Final = "first_subscribed"

log = structlog.get_logger()


def _nobody(_watched: frozenset[str]) -> None:
    return


class Backfill:
    """Sweeps and questions of one epoch after the other; one object for the life of the process.

    Attributes:
        in_sync_at: monotonic time since when this epoch has been in sync, None while it is not.
        followed: which orders to follow.
        on_watched: told after each sweep by id which of them are still worth a subscription.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        api: Api,
        intake: RowSink,
        store: Store,
        board: UpstreamBoard,
        metrics: Metrics,
        clock: Clock,
        gaps: GapKeeper,
        *,
        settling: float = SETTLING,
    ) -> None:
        self.in_sync_at: float | None = None
        self.followed = Followed(settings.orders, store, clock)
        self.on_watched: Callable[[frozenset[str]], None] = _nobody
        self._settings = settings.backfill
        self._sweeper = Sweeper(settings, api, intake, board, clock)
        self._questions = Questions(store, self._sweeper, intake, board, metrics, clock, settling)
        self._unseen = Unseen(store, self._sweeper, clock)
        self._gaps = gaps
        self._intake = intake
        self._store = store
        self._board = board
        self._metrics = metrics
        self._clock = clock
        self._settling = settling
        self._wake = asyncio.Event()
        self._wanted: set[str] = set()
        self._swept_at = clock.mono() - SWEEP_SPACING
        self._answered_at = clock.mono() - settling
        self._trailing_at: float | None = None
        self._periodic_at: float | None = None
        self._retry_at: float | None = None
        self._retry_pause = RETRY_FIRST
        self._problem: str | None = None
        self._marking = Marking()
        self._epoch_at = clock.mono()
        self._long_gap = False
        self._clock_jumped = True

    def reconfigure(self, settings: UpstreamSettings) -> None:
        """Go by these settings from now on."""
        before, self._settings = self._settings, settings.backfill
        self._sweeper.reconfigure(settings)
        if settings.backfill.interval != before.interval:
            self._periodic_at = self._next_periodic()
            self._wake.set()
        if settings.orders != self.followed.orders:
            self.followed.orders = settings.orders

    def want_sweep(self, reason: str) -> None:
        """Ask for a sweep; requests that come before it begins are one."""
        self._wanted.add(reason)
        self._wake.set()

    def clock_jumped(self) -> None:
        """Wall times written before may lie in a future that is far away now."""
        self._clock_jumped = True

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
        if self._clock_jumped:
            await self._questions.clamp()
            self._clock_jumped = False
        self._marking = await self._new_marking(first_sweep=True)
        if self._marking.subscribed_ms is None and server_date_ms is not None:
            await self._remember_subscribed(server_date_ms)
        self._long_gap = await self._gaps.unswept_exceeds()
        self.want_sweep("subscribed")

    async def bridge(self) -> None:
        """One sweep without a subscription, for when none lives long enough; it makes nothing ready."""
        self._marking = await self._new_marking(first_sweep=False)
        await self._sweep("no subscription")

    def forget_epoch(self) -> None:
        """The subscription is gone: nothing is in sync any more."""
        self.in_sync_at = None
        self._trailing_at = self._periodic_at = self._retry_at = None
        self._board.first_sweep_done = self._board.in_sync = False
        self._metrics.upstream_in_sync.set(0)

    async def run_once(self) -> None:
        """Do the one thing that is due, the most urgent first, or wait for something to be."""
        if self._intake.overflowed.is_set():
            self._intake.overflowed.clear()
            self.want_sweep("intake overflow")
        if reason := self._sweep_reason(self._clock.mono()):
            await self._sweep(reason)
        elif questions := await self._questions.due():
            await self._answer(questions)
        elif self._unseen.ready:
            await self._unseen.read_next(Marking(subscribed_ms=self._marking.subscribed_ms))
        else:
            await self._nap()

    async def _new_marking(self, *, first_sweep: bool) -> Marking:
        remembered = await self._store.meta_get(FIRST_SUBSCRIBED)
        baseline = self._settings.first_start == "baseline"
        return Marking(
            first_sweep=first_sweep,
            silent=baseline and await self._store.meta_get(BASELINE_DONE) is None,
            subscribed_ms=int(remembered) if remembered else None,
        )

    def _sweep_reason(self, now: float) -> str | None:
        if now < self._swept_at + SWEEP_SPACING:
            return None
        for at, reason in (
            (self._trailing_at, "trailing"),
            (self._periodic_at, "periodic"),
            (self._retry_at, "the last was incomplete"),
        ):
            if at is not None and now >= at:
                self._wanted.add(reason)
        return ", ".join(sorted(self._wanted)) or None

    async def _nap(self) -> None:
        self._wake.clear()
        now = self._clock.mono()
        moments = [at for at in (self._trailing_at, self._periodic_at, self._retry_at) if at is not None]
        if self._wanted:
            moments.append(self._swept_at + SWEEP_SPACING)
        seconds = min([until_beat(QUESTION_POLL, now), *(at - now for at in moments)])
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
        self._periodic_at = self._next_periodic()
        if swept.problem is None:
            await self._ended(began, swept.shown, repairs=not set(reason.split(", ")) <= ROUTINE)
        else:
            self._incomplete(reason, swept.problem)
        return swept.shown

    def _next_periodic(self) -> float | None:
        interval = self._settings.interval
        return self._clock.mono() + interval if interval > 0 else None

    async def _pass(self) -> Swept:
        visible = await self.followed.visible()
        if visible is None:
            return await self._sweeper.all_orders(self._marking, self._learn_server_time)
        swept = await self._sweeper.by_id(visible, self._marking)
        for houdini_id in swept.hidden:
            await self._unseen.note_hidden(houdini_id)
        watched = await self.followed.watched()
        if watched is not None:  # else all are followed by now
            self.on_watched(watched)
        return swept

    async def _ended(self, began: float, shown: set[str], *, repairs: bool) -> None:
        first = self._marking.first_sweep
        if await self._store.meta_get(BASELINE_DONE) is None:
            await self._store.meta_set(BASELINE_DONE, "1")
        await self._gaps.swept(began, f"{'first ' if first else ''}sweep of connection {self._board.epoch}")
        if self.followed.orders == "all":
            await self._unseen.refill(shown, everyone=first and self._long_gap)
        self._retry_at, self._retry_pause, self._problem = None, RETRY_FIRST, None
        self._marking = Marking(subscribed_ms=self._marking.subscribed_ms)
        if first:
            self._board.first_sweep_done = True
            self._trailing_at = self._clock.mono() + self._settling
        elif self._trailing_at is not None and began >= self._trailing_at:
            self._trailing_at = None
            self._board.in_sync = True
            self.in_sync_at = self._clock.mono()
            self._metrics.upstream_in_sync.set(1)
            log.info(Log.UPSTREAM_IN_SYNC, epoch=self._board.epoch)
        if repairs and not first:
            # Something was lost, and REST may have lagged behind it when this sweep looked.
            self._leave_sync()
            self._trailing_at = self._clock.mono() + self._settling

    def _leave_sync(self) -> None:
        self.in_sync_at = None
        self._board.in_sync = False
        self._metrics.upstream_in_sync.set(0)

    def _incomplete(self, reason: str, problem: str) -> None:
        if problem != self._problem:
            log.error(Log.SWEEP_INCOMPLETE, reason=reason, error=problem)
        self._problem = problem
        self._board.sweeps_stuck(f"the last sweep is incomplete: {problem}", self._clock.mono())
        self._retry_at = self._clock.mono() + self._retry_pause
        self._retry_pause = min(self._retry_pause * 2, RETRY_LONGEST)
        if self._trailing_at is not None:
            self._trailing_at = max(self._trailing_at, self._retry_at)

    async def _answer(self, questions: Sequence[Question]) -> None:
        # What is due although a sweep has just answered for all it could show is hidden from sweeps.
        recently = self._clock.mono() - self._answered_at < self._settling
        if len(questions) > MANY_QUESTIONS and not recently:
            self._answered_at = self._clock.mono()
            questions = await self._questions.left_by(await self._sweep("questions"))
        for question in questions[:MANY_QUESTIONS]:
            await self._questions.ask(question, Marking(subscribed_ms=self._marking.subscribed_ms))
        await self._questions.count()

    async def _learn_server_time(self, page: Page) -> None:
        if self._marking.subscribed_ms is None:
            server_ms = page.server_ms if page.server_ms is not None else self._clock.wall_ms()
            await self._remember_subscribed(server_ms - int((self._clock.mono() - self._epoch_at) * 1000))

    async def _remember_subscribed(self, server_ms: int) -> None:
        self._marking.subscribed_ms = server_ms
        await self._store.meta_set(FIRST_SUBSCRIBED, str(server_ms))

"""Gaps: times without a live, acknowledged subscription, kept in the store until a sweep has covered them.

The session tells when a subscription begins and ends without waiting; what it told is written soon after, in
that order. A crash tells nothing, so a living subscription leaves a mark every few seconds, and the next
process begins a gap at the last one.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final, NoReturn

import structlog

from relay.clock import Clock, next_beat
from relay.errors import StoreError
from relay.live import Live
from relay.log_names import Log
from relay.metrics import Metrics
from relay.model import Event, iso_utc
from relay.notice import UPSTREAM, NoticeType, make_notice
from relay.store.base import Store
from relay.store.notices import NoticeWriter
from relay.store.values import Gap
from relay.upstream.planner import Router

WINDOW: Final = 48 * 3600.0
"""Seconds for which the upstream's REST shows an order after its creation."""

MARGIN: Final = 3600.0
"""Seconds before the end of the window from which a gap counts as exceeding it: sweeping takes time, clocks differ."""

MARK_EVERY: Final = 15.0
"""Seconds between two marks of a living subscription."""

SUBSCRIBED_UNTIL: Final = "subscribed_until_ms"

NOT_RUNNING: Final = (
    "the relay was not running (it ended without notice; counted from its last sign of life, up to "
    f"{MARK_EVERY:.0f} s before)"
)
NOBODY_SUBSCRIBED: Final = "no instance was subscribed: the leader has gone, or could not reach the database"
"""Causes of a gap that nobody was there to record."""
_ADVICE: Final = (
    "States that orders went through between `since` and `until` may be missing, and orders older than 48 h are no "
    "longer shown. Compare your own records of that time with the upstream's."
)
_RECENT: Final = 20

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Found:
    at_ms: int
    at: float
    epoch: int


@dataclass(frozen=True, slots=True)
class _Lost:
    since_ms: int
    cause: str


class GapKeeper:
    """Writes gaps, marks and the notice about a gap that is too long."""

    def __init__(
        self,
        store: Store,
        route: Router,
        metrics: Metrics,
        clock: Clock,
        live: Live | None = None,
        absent: str = NOT_RUNNING,
    ) -> None:
        self._absent = absent
        self._store = store
        self._notices = NoticeWriter(store, route, metrics, live)
        self._metrics = metrics
        self._clock = clock
        self._started = False
        self._live = False
        self._lost_at: float | None = None
        self._found_at: float | None = None
        self._news: deque[_Found | _Lost] = deque()
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Once, before the first epoch: the time since the last mark of whoever was subscribed before is a gap."""
        if self._started:
            return
        mark = await self._store.meta_get(SUBSCRIBED_UNTIL)
        if mark is not None:
            await self._store.begin_gap(min(int(mark), self._clock.wall_ms()), self._absent)
        self._started = True

    def subscribed(self, epoch: int) -> None:
        """There is a subscription now; does not wait."""
        self._live = True
        self._found_at = self._clock.mono()
        self._tell(_Found(self._clock.wall_ms(), self._found_at, epoch))

    def lost(self, cause: str, since_ms: int | None = None) -> None:
        """The subscription has ended; does not wait.

        Args:
            cause: why, a sentence.
            since_ms: wall time at which it was last known to live, None for now.
        """
        self._live = False
        self._lost_at = self._clock.mono()
        now_ms = self._clock.wall_ms()
        self._tell(_Lost(now_ms if since_ms is None else min(since_ms, now_ms), cause))

    async def run(self) -> NoReturn:
        """Write news as it comes, and marks, until cancelled."""
        while True:
            await self.run_once()

    async def run_once(self) -> None:
        """Wait for news or for the time of the next mark, and write it."""
        nap, news = asyncio.ensure_future(next_beat(self._clock, MARK_EVERY)), asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait((nap, news), return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()
            news.cancel()
            await asyncio.gather(nap, news, return_exceptions=True)
        await self.settle()
        if self._live:
            await self._mark(self._clock.wall_ms())

    async def settle(self) -> None:
        """Write what was told; returns when it is committed."""
        async with self._turn:
            self._wake.clear()
            while self._news:
                # Taken off only after its commit: who is cancelled in between writes it again, which changes nothing.
                await self._write(self._news[0])
                self._news.popleft()

    async def leave(self) -> None:
        """Settle at the end of the process; a store that is already broken is not ours to report."""
        try:
            await self.settle()
        except StoreError as error:
            log.warning(Log.GAP_NOT_RECORDED, error=str(error))

    async def swept(self, began: float, sweep: str) -> None:
        """A complete sweep that began at this monotonic time is committed: it covers what had ended by then."""
        await self.settle()
        if self._found_at is not None and self._found_at <= began:
            await self._store.close_gaps(self._clock.wall_ms(), sweep)

    async def unswept_exceeds(self) -> bool:
        """Whether a gap that no sweep has covered yet was longer than the window."""
        await self.settle()
        recent = await self._store.gaps(_RECENT, int((WINDOW - MARGIN) * 1000))
        return any(
            gap.swept_ms is None and gap.to_ms is not None and exceeds((gap.to_ms - gap.from_ms) / 1000)
            for gap in recent
        )

    def _tell(self, news: _Found | _Lost) -> None:
        self._news.append(news)
        self._wake.set()

    async def _write(self, news: _Found | _Lost) -> None:
        if isinstance(news, _Lost):
            await self._mark(news.since_ms)
            await self._store.begin_gap(news.since_ms, news.cause)
            return
        await self._warn(news)
        gap = await self._store.end_gap(news.at_ms)
        await self._mark(news.at_ms)
        seconds = None if gap is None else (news.at_ms - gap.from_ms) / 1000
        log.info(Log.UPSTREAM_SUBSCRIBED, epoch=news.epoch, gap_seconds=seconds)
        if gap is not None:
            self._metrics.gaps.inc()
            self._metrics.gap_seconds.inc(max(0.0, seconds or 0.0))

    async def _warn(self, news: _Found) -> None:
        """Before the gap is ended, so that a crash in between says it again, under the same id."""
        newest = await self._store.gaps(1)
        if not newest or newest[0].to_ms is not None:
            return
        gap = newest[0]
        # Wall time may have been set back meanwhile, monotonic time stands still while the machine sleeps.
        here = news.at - self._lost_at if self._lost_at is not None else 0.0
        if not exceeds(max((news.at_ms - gap.from_ms) / 1000, here)):
            return
        log.error(Log.GAP_EXCEEDS_WINDOW, since=iso_utc(gap.from_ms), until=iso_utc(news.at_ms), cause=gap.cause)
        self._metrics.gaps_over_window.inc()
        await self._notices.write([notice(gap, news.at_ms)], self._clock.wall_ms())

    async def _mark(self, at_ms: int) -> None:
        await self._store.meta_set(SUBSCRIBED_UNTIL, str(at_ms))


def exceeds(seconds: float) -> bool:
    """Whether a gap of this length leaves something that no sweep can show."""
    return seconds > WINDOW - MARGIN


def notice(gap: Gap, until_ms: int) -> Event:
    """The notice about a gap that exceeds the window."""
    what = "there was no subscription for longer than the upstream remembers (48 h)"
    facts = {"until": iso_utc(until_ms), "cause": gap.cause}
    return make_notice(NoticeType.GAP_EXCEEDS_WINDOW, UPSTREAM, gap.from_ms, until_ms, what, _ADVICE, facts)

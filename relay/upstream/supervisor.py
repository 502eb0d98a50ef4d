"""One epoch after the other, for ever: wait, connect, stay in sync, end, decide how long to wait.

The next epoch begins only when every task of the last has ended. It never gives up; refused credentials only
make it slow and loud. While what came could not be stored (a shut gate) there is no connection.
"""

import asyncio
import logging
from typing import Final, NoReturn

import aiohttp
import structlog

from relay.board import Board, UpstreamState
from relay.clock import Clock, ClockJump, ClockWatch, Rng, next_beat
from relay.config.settings import UpstreamSettings
from relay.errors import StoreError
from relay.log_names import Log
from relay.metrics import Metrics
from relay.store.base import Store
from relay.upstream.backfill import Backfill
from relay.upstream.dial import close_session, open_rest_session, open_socket_session
from relay.upstream.diff import SETTLING
from relay.upstream.endings import Backoff, EndKind, EpochEnd, wait_before_next
from relay.upstream.gaps import NOBODY_SUBSCRIBED, NOT_RUNNING, GapKeeper
from relay.upstream.intake import Intake
from relay.upstream.orders_api import OrdersApi
from relay.upstream.planner import Router
from relay.upstream.session import Session, Surroundings
from relay.upstream.states import show_state
from relay.upstream.together import until_first_ends
from relay.upstream.watches import StrangeWatch

TOO_BIG_ALERT: Final = 3
"""Epochs ended in a row by an oversized message before that is said loudly and sweeps go on between them."""

BRIDGE_LIMIT: Final = 900.0
"""Seconds that a sweep without a subscription may take before the next connection is tried."""

CLOCK_TICK: Final = 5.0
"""Seconds between two looks at the clocks."""

_LOUDNESS: Final = {EndKind.AUTH: logging.ERROR, EndKind.PLANNED: logging.INFO, EndKind.RECONFIGURED: logging.INFO}

log = structlog.get_logger()


class Supervisor:
    """Holds the connection to the upstream; `run` until cancelled."""

    def __init__(
        self,
        settings: UpstreamSettings,
        intake: Intake,
        store: Store,
        board: Board,
        metrics: Metrics,
        clock: Clock,
        rng: Rng,
        version: str,
        *,
        route: Router,
        api: OrdersApi | None = None,
        settling: float = SETTLING,
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._board = board.upstream
        self._gate = board.gate
        self._live = board.live
        self._metrics = metrics
        self._clock = clock
        self._rng = rng
        self._version = version
        # The budget of REST requests outlives a term.
        self.api = api or OrdersApi(settings, lambda: open_rest_session(version), clock, metrics)
        absent = NOBODY_SUBSCRIBED if board.lead.shared else NOT_RUNNING
        self._gaps = GapKeeper(store, route, metrics, clock, board.live, absent=absent)
        self._backfill = Backfill(
            settings, self.api, intake, store, self._board, metrics, clock, self._gaps, settling=settling
        )
        self._backfill.on_watched = self._watch_less
        self._backoff = Backoff(settings.reconnect.initial, settings.reconnect.max)
        self._clock_watch = ClockWatch(clock.wall_ms(), clock.mono())
        self._strange = StrangeWatch()
        self._delay = 0.0
        self._http: aiohttp.ClientSession | None = None
        self._session: Session | None = None
        self._last_end: tuple[EndKind, str] | None = None
        self._too_big = 0
        self._nap: asyncio.Timeout | None = None
        self._renewed = asyncio.Event()
        self._renewed_because = ""

    async def run(self) -> NoReturn:
        """Live until cancelled; a cancellation closes the connection with 1000 within two seconds.

        Raises:
            StoreError: the store cannot be used, so nothing could be kept.
        """
        try:
            while True:
                await self.run_once()
        finally:
            self._set_state(UpstreamState.STOPPED, "stopped")
            try:
                await self._gaps.leave()
            finally:  # even if the store keeps us waiting until we are cancelled again
                await self.close()

    async def run_once(self) -> EpochEnd:
        """One epoch with the wait before it; returns how it ended."""
        await self._gaps.start()
        await self._pause()
        await self._gate.until_open()
        self._look_at_clocks()
        self._renewed.clear()
        self._board.epoch += 1
        try:
            end = await self._epoch()
            in_sync_at = self._backfill.in_sync_at
            in_sync_for = self._clock.mono() - in_sync_at if in_sync_at is not None else 0.0
        finally:
            self._session = None
            self._backfill.forget_epoch()
        self._delay = wait_before_next(end, in_sync_for, self._backoff, self._settings.auth_retry, self._rng)
        self._report(end)
        await self._gaps.settle()
        return end

    async def close(self) -> None:
        """Close what is open towards the upstream; needed only after `run_once`, `run` does it itself."""
        http, self._http = self._http, None
        try:
            await self.api.close()
        finally:  # even if we are cancelled again meanwhile
            if http is not None:
                await close_session(http)

    def want_sweep(self, reason: str) -> None:
        """Ask for a sweep soon; without a subscription the next epoch begins with one anyway."""
        self._backfill.want_sweep(reason)

    def reconfigure(self, settings: UpstreamSettings, renew: str | None = None) -> None:
        """Go by these settings from now on.

        Other `orders` are followed without dropping the connection, then a sweep begins.

        Args:
            settings: all of them.
            renew: why what changed needs another connection; None when it does not.
        """
        before, self._settings = self._settings, settings
        self.api.reconfigure(settings)
        self._backfill.reconfigure(settings)
        if renew is not None:
            self._backoff = Backoff(settings.reconnect.initial, settings.reconnect.max)
            self._renewed_because = renew
            self._renewed.set()
            if self._nap is not None:
                self._nap.reschedule(0.0)
        elif settings.orders != before.orders and self._session is not None:
            self._session.want(None if settings.orders == "all" else frozenset(settings.orders))

    async def _pause(self) -> None:
        """The wait before the next epoch; sweeps go on meanwhile when no epoch lives long enough for one."""
        if self._too_big >= TOO_BIG_ALERT and self._gate.reason is None:
            _, errors = await until_first_ends(
                sweep=self._backfill.bridge(),
                limit=self._clock.sleep(BRIDGE_LIMIT),
                gate=self._gate.until_shut(),
                renewed=self._until_renewed(),
            )
            self._raise_or_log(errors)
        if self._delay > 0 and not self._renewed.is_set():
            await self._sleep_until_renewed(self._delay)

    async def _sleep_until_renewed(self, seconds: float) -> None:
        """What makes us wait (refused credentials, say) may be what is changed."""
        try:
            async with asyncio.timeout(None) as self._nap:
                await self._clock.sleep(seconds)
        except TimeoutError:
            return
        finally:
            self._nap = None

    async def _epoch(self) -> EpochEnd:
        session = self._session = self._new_session(await self._backfill.followed.watched())
        ends, errors = await until_first_ends(
            session=session.run(),
            backfill=self._serve(session),
            gaps=self._gaps.run(),
            gate=self._until_shut(session),
            clock=self._until_clock_jumps(session),
            renewed=self._end_when_renewed(session),
        )
        self._raise_or_log(errors)
        if ends:
            return ends[0]
        detail = f"an error of our own: {type(errors[0]).__name__ if errors else 'no reason at all'}"
        return EpochEnd(EndKind.CRASHED, detail, session.subscribed.is_set())

    async def _serve(self, session: Session) -> NoReturn:
        await session.subscribed.wait()
        await self._backfill.run(session.server_date_ms)

    async def _until_shut(self, session: Session) -> EpochEnd:
        await self._gate.until_shut()
        return EpochEnd(EndKind.SHUT, self._gate.reason or "nothing more may be accepted", session.subscribed.is_set())

    async def _until_renewed(self) -> None:
        await self._renewed.wait()

    async def _end_when_renewed(self, session: Session) -> EpochEnd:
        await self._renewed.wait()
        return EpochEnd(EndKind.RECONFIGURED, self._renewed_because, session.subscribed.is_set())

    async def _until_clock_jumps(self, session: Session) -> EpochEnd:
        while True:
            await next_beat(self._clock, CLOCK_TICK)
            if jump := self._look_at_clocks():
                detail = f"the wall clock moved by {jump.seconds:.0f} s, or the machine slept"
                return EpochEnd(EndKind.CLOCK, detail, session.subscribed.is_set(), alive_ms=jump.alive_ms)

    def _look_at_clocks(self) -> ClockJump | None:
        """After a jump nothing is quiet, and no wall time written before can be waited for."""
        jump = self._clock_watch.look(self._clock.wall_ms(), self._clock.mono())
        if jump is not None:
            log.warning(Log.CLOCK_JUMPED, seconds=round(jump.seconds, 1))
            self._metrics.clock_jumps.inc()
            self._intake.touch_all(self._clock.mono())
            self._backfill.clock_jumped()
        return jump

    def _raise_or_log(self, errors: list[Exception]) -> None:
        for error in errors:
            if isinstance(error, StoreError):
                raise error
        for error in errors:
            log.error(Log.BACKFILL_CRASHED, exc_info=error)

    def _watch_less(self, watched: frozenset[str]) -> None:
        if self._session is not None:
            self._session.want(watched, sweep=False)

    def _new_session(self, watched: frozenset[str] | None) -> Session:
        if self._http is None:
            self._http = open_socket_session(self._version)
        around = Surroundings(
            self._intake,
            self._board,
            self._metrics,
            self._clock,
            self._set_state,
            self._backfill.want_sweep,
            self._strange,
        )
        return Session(self._settings, watched, self._http, around)

    def _set_state(
        self, state: UpstreamState, why: str = "the upstream ended the subscription", alive_ms: int | None = None
    ) -> None:
        before = self._board.state
        if state is before:
            return
        show_state(self._board, self._live, state, self._clock.wall_ms())
        self._metrics.upstream_connected.set(1 if self._board.subscribed else 0)
        if self._board.subscribed:
            self._last_end = None
            self._metrics.upstream_connects.labels("ok").inc()
            self._gaps.subscribed(self._board.epoch)
        elif before is UpstreamState.SUBSCRIBED:
            self._gaps.lost(why, alive_ms)

    def _report(self, end: EpochEnd) -> None:
        """The end of an epoch on the board, in the metrics and, when it is news, in the log."""
        self._board.last_error = end.detail
        state = UpstreamState.AUTH_FAILED if end.kind is EndKind.AUTH else UpstreamState.WAITING
        self._set_state(state, end.detail, end.alive_ms)
        self._metrics.upstream_epoch_ends.labels(end.kind.value).inc()
        if not end.subscribed:
            self._metrics.upstream_connects.labels(end.kind.value).inc()
        self._too_big = self._too_big + 1 if end.kind is EndKind.TOO_BIG else 0
        if self._too_big == TOO_BIG_ALERT:
            log.error(Log.UPSTREAM_MESSAGE_TOO_BIG, epochs=self._too_big, detail="orders it shows come by sweeps only")
        if end.subscribed or (end.kind, end.detail) != self._last_end:
            level = _LOUDNESS.get(end.kind, logging.WARNING)
            log.log(level, Log.UPSTREAM_EPOCH_ENDED, kind=end.kind.value, detail=end.detail, retry_in=self._delay)
        self._last_end = (end.kind, end.detail)

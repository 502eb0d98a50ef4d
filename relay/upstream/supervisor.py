"""One epoch after the other, for ever: wait, connect, stay in sync, end, decide how long to wait.

The next epoch begins only when every task of the last has ended. It never gives up; refused credentials only
make it slow and loud.
"""

from typing import Final, Literal, NoReturn

import aiohttp
import structlog

from relay.board import Board, UpstreamState
from relay.clock import Clock, Rng
from relay.config.settings import UpstreamSettings
from relay.errors import StoreError
from relay.metrics import Metrics
from relay.store.base import Store
from relay.upstream.backfill import Backfill
from relay.upstream.dial import close_session, open_rest_session, open_socket_session
from relay.upstream.diff import SETTLING
from relay.upstream.endings import Backoff, EndKind, EpochEnd, wait_before_next
from relay.upstream.ingest import Intake
from relay.upstream.orders_api import OrdersApi
from relay.upstream.session import Session, Surroundings
from relay.upstream.together import until_first_ends

WINDOW: Final = 48 * 3600.0
"""Seconds for which the upstream's REST shows an order after its creation."""

TOO_BIG_ALERT: Final = 3
"""Epochs ended in a row by an oversized message before that is said loudly."""

log = structlog.get_logger()

Orders = Literal["all"] | tuple[str, ...]


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
        settling: float = SETTLING,
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._board = board.upstream
        self._metrics = metrics
        self._clock = clock
        self._rng = rng
        self._version = version
        self.api = OrdersApi(settings, lambda: open_rest_session(version), clock, metrics)
        self._backfill = Backfill(settings, self.api, intake, store, self._board, metrics, clock, settling=settling)
        self._backoff = Backoff(settings.reconnect.initial, settings.reconnect.max)
        self._delay = 0.0
        self._http: aiohttp.ClientSession | None = None
        self._session: Session | None = None
        self._gap_since: float | None = None
        self._last_end: tuple[EndKind, str] | None = None
        self._too_big = 0

    async def run(self) -> NoReturn:
        """Live until cancelled; a cancellation closes the connection with 1000 within two seconds.

        Raises:
            StoreError: the store cannot be used, so nothing could be kept.
        """
        try:
            while True:
                await self.run_once()
        finally:
            self._set_state(UpstreamState.STOPPED)
            await self.close()

    async def run_once(self) -> EpochEnd:
        """One epoch with the wait before it; returns how it ended."""
        if self._delay > 0:
            await self._clock.sleep(self._delay)
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
        return end

    async def close(self) -> None:
        """Close what is open towards the upstream; needed only after `run_once`, `run` does it itself."""
        await self.api.close()
        http, self._http = self._http, None
        if http is not None:
            await close_session(http)

    def want_sweep(self, reason: str) -> None:
        """Ask for a sweep soon; without a subscription the next epoch begins with one anyway."""
        self._backfill.want_sweep(reason)

    def change_orders(self, orders: Orders) -> None:
        """Follow other orders from now on, without dropping the connection, then sweep."""
        self._settings = self._settings.model_copy(update={"orders": orders})
        self._backfill.orders = orders
        if self._session is not None:
            self._session.want(_watch(orders))

    async def _epoch(self) -> EpochEnd:
        session = self._session = self._new_session()
        ends, errors = await until_first_ends(session=session.run(), backfill=self._serve(session))
        for error in errors:
            if isinstance(error, StoreError):
                raise error
        for error in errors:
            log.error("backfill_crashed", exc_info=error)
            detail = f"an error of our own in backfill: {type(error).__name__}"
            return EpochEnd(EndKind.CRASHED, detail, session.subscribed.is_set())
        return ends[0] if ends else EpochEnd(EndKind.CRASHED, "an error of our own: the epoch ended without a reason")

    async def _serve(self, session: Session) -> NoReturn:
        await session.subscribed.wait()
        await self._backfill.run(session.server_date_ms)

    def _new_session(self) -> Session:
        if self._http is None:
            self._http = open_socket_session(self._version)
        around = Surroundings(
            self._intake, self._board, self._metrics, self._clock, self._set_state, self._backfill.want_sweep
        )
        return Session(self._settings, _watch(self._settings.orders), self._http, around)

    def _set_state(self, state: UpstreamState) -> None:
        before = self._board.state
        if state is before:
            return
        self._board.state = state
        self._board.since_ms = self._clock.wall_ms()
        self._metrics.upstream_connected.set(1 if self._board.subscribed else 0)
        if self._board.subscribed:
            self._subscription_began()
        elif before is UpstreamState.SUBSCRIBED:
            self._gap_since = self._clock.mono()

    def _subscription_began(self) -> None:
        self._last_end = None
        self._metrics.upstream_connects.labels("ok").inc()
        gap = self._clock.mono() - self._gap_since if self._gap_since is not None else None
        self._gap_since = None
        log.info("upstream_subscribed", epoch=self._board.epoch, gap_seconds=gap)
        if gap is None:
            return
        self._metrics.gaps.inc()
        self._metrics.gap_seconds.inc(gap)
        if gap > WINDOW:
            log.error("gap_exceeds_window", gap_seconds=gap, detail="what happened inside it cannot be known")

    def _report(self, end: EpochEnd) -> None:
        """The end of an epoch on the board, in the metrics and, when it is news, in the log."""
        self._board.last_error = end.detail
        self._set_state(UpstreamState.AUTH_FAILED if end.kind is EndKind.AUTH else UpstreamState.WAITING)
        if not end.subscribed:
            self._metrics.upstream_connects.labels(end.kind.value).inc()
        self._too_big = self._too_big + 1 if end.kind is EndKind.TOO_BIG else 0
        if self._too_big == TOO_BIG_ALERT:
            log.error("upstream_message_too_big", epochs=self._too_big, detail="orders it shows come by sweeps only")
        if end.subscribed or (end.kind, end.detail) != self._last_end:
            write = {EndKind.AUTH: log.error, EndKind.PLANNED: log.info}.get(end.kind, log.warning)
            write("upstream_epoch_ended", kind=end.kind.value, detail=end.detail, retry_in=round(self._delay, 3))
        self._last_end = (end.kind, end.detail)


def _watch(orders: Orders) -> frozenset[str] | None:
    return None if orders == "all" else frozenset(orders)

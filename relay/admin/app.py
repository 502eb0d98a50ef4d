"""The admin HTTP server: health, readiness and metrics; these three need no token and take any Host."""

import asyncio
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from relay.admin.health import unready_reasons
from relay.board import Board
from relay.clock import Clock
from relay.errors import StoreError
from relay.metrics import Metrics
from relay.store.base import Backlog, Store

STORE_PATIENCE: Final = 5.0
"""Seconds that the store may take to answer before it counts as stuck."""
BODY_CAP: Final = 64 * 1024
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Admin:
    """Serves `listen` from `start` to `stop`."""

    def __init__(
        self, listen: tuple[str, int], concurrency: Mapping[str, int], store: Store, board: Board,
        metrics: Metrics, clock: Clock,
    ) -> None:  # fmt: skip
        self._listen = listen
        self._concurrency = concurrency
        self._store = store
        self._board = board
        self._metrics = metrics
        self._clock = clock
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            OSError: the address cannot be bound.
        """
        app = web.Application(client_max_size=BODY_CAP)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._render_metrics)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=2.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._listen, backlog=64).start()

    async def stop(self) -> None:
        """Stop serving; answers under way get 2 s."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def port(self) -> int:
        """The port that was bound (the configured one may be 0)."""
        if self._runner is None:
            raise RuntimeError("the admin server is not started")
        return int(self._runner.addresses[0][1])

    async def _healthz(self, _request: web.Request) -> web.Response:
        try:
            await self._ask_store()
        except (StoreError, TimeoutError) as error:
            return _health(503, [_store_sentence(error)])
        return _health(200, [])

    async def _readyz(self, _request: web.Request) -> web.Response:
        try:
            backlog = await self._backlog()
        except (StoreError, TimeoutError) as error:
            return _health(503, [_store_sentence(error)])
        now, now_ms = self._clock.mono(), self._clock.wall_ms()
        reasons = unready_reasons(self._board, backlog, self._concurrency, now, now_ms)
        return _health(503 if reasons else 200, reasons)

    async def _render_metrics(self, _request: web.Request) -> web.Response:
        try:
            await self._measure_queues()
        except (StoreError, TimeoutError):
            # The counters in memory are still true and are wanted most when the store is in trouble.
            self._metrics.queue_depth.clear()
        return web.Response(body=self._metrics.render(), headers={"content-type": METRICS_TYPE})

    async def _measure_queues(self) -> None:
        now_ms = self._clock.wall_ms()
        for name, waiting in (await self._backlog()).items():
            in_flight = self._board.targets[name].in_flight if name in self._board.targets else 0
            self._metrics.queue_depth.labels(name, "in_flight").set(in_flight)
            self._metrics.queue_depth.labels(name, "pending").set(max(0, waiting.pending - in_flight))
            age_ms = 0 if waiting.oldest_ms is None else max(0, now_ms - waiting.oldest_ms)
            self._metrics.queue_oldest_age.labels(name).set(age_ms / 1000)
        self._metrics.store_size.set(await self._store.size_bytes())

    async def _ask_store(self) -> None:
        async with asyncio.timeout(STORE_PATIENCE):
            await self._store.check_alive()

    async def _backlog(self) -> Mapping[str, Backlog]:
        async with asyncio.timeout(STORE_PATIENCE):
            return await self._store.backlog()


def _health(status: int, reasons: list[str]) -> web.Response:
    return web.json_response({"ok": not reasons, "reasons": reasons}, status=status)


def _store_sentence(error: StoreError | TimeoutError) -> str:
    if isinstance(error, TimeoutError):
        return f"store: no answer within {STORE_PATIENCE:.0f} s"
    return f"store: {error}"

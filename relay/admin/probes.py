"""`/healthz`, `/readyz` and `/metrics`: what machines ask all the time."""

import asyncio
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from relay.admin.answers import json_answer
from relay.admin.context import Context
from relay.admin.health import unready_reasons
from relay.errors import StoreError
from relay.store.base import Backlog

STORE_PATIENCE: Final = 5.0
"""Seconds that the store may take to answer before it counts as stuck."""
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Probes:
    """The handlers; they need no token and take any Host."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        """Paths and handlers."""
        return [
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
        ]

    async def healthz(self, _request: web.Request) -> web.Response:
        """Whether the loop turns and the store answers."""
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                await self._context.store.check_alive()
        except (StoreError, TimeoutError) as error:
            return _health(503, [_store_sentence(error)])
        return _health(200, [])

    async def readyz(self, _request: web.Request) -> web.Response:
        """Whether changes can reach targets now."""
        context = self._context
        try:
            backlog = await self._backlog()
        except (StoreError, TimeoutError) as error:
            return _health(503, [_store_sentence(error)])
        slots = {target.name: target.concurrency for target in context.targets()}
        now, now_ms = context.clock.mono(), context.clock.wall_ms()
        reasons = unready_reasons(context.board, backlog, slots, now, now_ms)
        return _health(503 if reasons else 200, reasons)

    async def metrics(self, _request: web.Request) -> web.Response:
        """All metrics for Prometheus."""
        metrics = self._context.metrics
        try:
            await self._measure_queues()
        except (StoreError, TimeoutError):
            # The counters in memory are still true and are wanted most when the store is in trouble.
            metrics.queue_depth.clear()
        return web.Response(body=metrics.render(), headers={"content-type": METRICS_TYPE})

    async def _measure_queues(self) -> None:
        context, metrics = self._context, self._context.metrics
        now_ms = context.clock.wall_ms()
        for name, waiting in (await self._backlog()).items():
            in_flight = context.board.targets[name].in_flight if name in context.board.targets else 0
            metrics.queue_depth.labels(name, "in_flight").set(in_flight)
            metrics.queue_depth.labels(name, "pending").set(max(0, waiting.pending - in_flight))
            age_ms = 0 if waiting.oldest_ms is None else max(0, now_ms - waiting.oldest_ms)
            metrics.queue_oldest_age.labels(name).set(age_ms / 1000)
            metrics.target_paused.labels(name).set(1 if waiting.stopped else 0)
        metrics.store_size.set(await context.store.size_bytes())

    async def _backlog(self) -> Mapping[str, Backlog]:
        async with asyncio.timeout(STORE_PATIENCE):
            return await self._context.store.backlog()


def _health(status: int, reasons: list[str]) -> web.Response:
    return json_answer({"ok": not reasons, "reasons": reasons}, status)


def _store_sentence(error: StoreError | TimeoutError) -> str:
    if isinstance(error, TimeoutError):
        return f"store: no answer within {STORE_PATIENCE:.0f} s"
    return f"store: {error}"

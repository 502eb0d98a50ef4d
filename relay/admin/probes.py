"""`/healthz`, `/readyz` and `/metrics`: what machines ask all the time."""

import asyncio
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from relay.admin.answers import json_answer
from relay.admin.context import Context
from relay.admin.health import Limits, is_stalled, limits_of, unready_reasons
from relay.board import Reload, TargetBoard, UpstreamState
from relay.errors import StoreError
from relay.standing import Breaker
from relay.store.values import Backlog
from relay.vitals import STORE_PATIENCE

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
        """Whether this process is alive; the watchdog goes by the same facts."""
        reasons = await self._context.vitals.reasons()
        return _health(503 if reasons else 200, reasons)

    async def readyz(self, _request: web.Request) -> web.Response:
        """Whether changes can reach targets now."""
        context = self._context
        try:
            backlog = await self._backlog()
        except (StoreError, TimeoutError) as error:
            return _health(503, [_store_sentence(error)])
        limits = self._limits()
        now, now_ms = context.clock.mono(), context.clock.wall_ms()
        reasons = unready_reasons(context.board, backlog, limits, now, now_ms)
        return _health(503 if reasons else 200, reasons)

    async def metrics(self, _request: web.Request) -> web.Response:
        """All metrics for Prometheus."""
        context, metrics = self._context, self._context.metrics
        try:
            backlog, size = await self._backlog(), await context.store.size_bytes()
        except (StoreError, TimeoutError):
            # The counters in memory are still true and are wanted most when the store is in trouble.
            backlog, size = None, None
        of_process = await asyncio.to_thread(metrics.render_process)
        if backlog is None:
            metrics.forget_queues()
            metrics.ready.set(0)
        else:
            self._measure(backlog)
        if size is not None:
            metrics.store_size.set(size)
        metrics.backfill_failing.set(context.board.upstream.sweep_problem is not None)
        metrics.upstream_auth_failed.set(context.board.upstream.state is UpstreamState.AUTH_FAILED)
        metrics.config_reload_ok.set(context.board.config.result is not Reload.REFUSED)
        return web.Response(body=metrics.render() + of_process, headers={"content-type": METRICS_TYPE})

    def _measure(self, backlog: Mapping[str, Backlog]) -> None:
        context, metrics = self._context, self._context.metrics
        limits = self._limits()
        now, now_ms = context.clock.mono(), context.clock.wall_ms()
        metrics.forget_queues()
        for name, waiting in backlog.items():
            board, standing = context.board.targets.get(name, TargetBoard()), waiting.standing
            metrics.queue_depth.labels(name, "in_flight").set(board.in_flight)
            metrics.queue_depth.labels(name, "pending").set(max(0, waiting.pending - board.in_flight))
            age_ms = 0 if waiting.oldest_order_ms is None else max(0, now_ms - waiting.oldest_order_ms)
            metrics.queue_oldest_age.labels(name).set(age_ms / 1000)
            metrics.breaker_state.labels(name).set(_breaker_number(standing.breaker, probing=board.probing))
            metrics.target_paused.labels(name).set(standing.paused or standing.parked_ms is not None)
            metrics.target_parked.labels(name).set(standing.parked_ms is not None)
            metrics.target_orphaned.labels(name).set(not standing.configured)
            stalled = name in limits and is_stalled(board, waiting, limits[name], now, now_ms)
            metrics.target_stalled.labels(name).set(stalled)
        metrics.ready.set(not unready_reasons(context.board, backlog, limits, now, now_ms))

    def _limits(self) -> Mapping[str, Limits]:
        instances = self._context.board.lead.instances
        return {target.name: limits_of(target, instances) for target in self._context.targets()}

    async def _backlog(self) -> Mapping[str, Backlog]:
        async with asyncio.timeout(STORE_PATIENCE):
            return await self._context.store.backlog()


def _breaker_number(breaker: Breaker, *, probing: bool) -> int:
    if breaker is Breaker.CLOSED:
        return 0
    return 1 if probing else 2


def _health(status: int, reasons: list[str]) -> web.Response:
    return json_answer({"ok": not reasons, "reasons": reasons}, status)


def _store_sentence(error: StoreError | TimeoutError) -> str:
    if isinstance(error, TimeoutError):
        return f"store: no answer within {STORE_PATIENCE:.0f} s"
    return f"store: {error}"

"""One time of holding the connection to the upstream: the socket, the sweeps, and the one way in.

Each term has an intake, an ingest and a supervisor of its own, so that nothing is believed in it that was learned
before somebody else may have led.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from relay.board import Board
from relay.clock import Clock, Rng
from relay.config.settings import UpstreamSettings
from relay.metrics import Metrics
from relay.store.base import Store
from relay.tracing import OFF, Tracing
from relay.upstream.ingest import Ingest
from relay.upstream.intake import Intake
from relay.upstream.orders_api import OrdersApi
from relay.upstream.planner import Router
from relay.upstream.supervisor import Supervisor

UPSTREAM_GRACE: Final = 5.0
"""Seconds that closing the connection may take."""
COMMIT_GRACE: Final = 5.0
"""Seconds that storing what was read may take after that."""


@dataclass(frozen=True, slots=True)
class Term:
    """What runs while this instance leads."""

    intake: Intake
    ingest: Ingest
    supervisor: Supervisor

    async def run(self) -> None:
        """Until cancelled; the connection is closed then, and what was read is stored.

        Raises:
            StoreUnavailable: the store could not be reached for longer than can be waited for.
            NotLeader: another instance leads.
            StoreError: the store cannot be used.
        """
        upstream = asyncio.create_task(self.supervisor.run(), name="upstream-supervisor")
        ingest = asyncio.create_task(self.ingest.run(), name="ingest")
        try:
            ended, _ = await asyncio.wait([upstream, ingest], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._leave(upstream, ingest)
        for task in ended:
            await task

    async def _leave(self, upstream: "asyncio.Task[None]", ingest: "asyncio.Task[None]") -> None:
        stored = asyncio.create_task(self.intake.join(), name="intake-stored")
        try:
            upstream.cancel()
            await asyncio.wait([upstream], timeout=UPSTREAM_GRACE)
            await asyncio.wait([stored, ingest], timeout=COMMIT_GRACE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (upstream, stored, ingest):
                task.cancel()
        await asyncio.gather(upstream, stored, ingest, return_exceptions=True)


def begin_term(
    settings: UpstreamSettings,
    api: OrdersApi,
    store: Store,
    board: Board,
    metrics: Metrics,
    clock: Clock,
    rng: Rng,
    version: str,
    route: Router,
    tracing: Tracing = OFF,
) -> Term:
    """A term, not running yet; every order counts as just updated in it.

    Args:
        settings: of the upstream.
        api: its REST side, whose budget of requests goes on over terms.
        store: where what comes in goes.
        board: where is shown what is true right now.
        metrics: the same for machines.
        clock: the time.
        rng: for waits.
        version: of this program.
        route: the names of the targets that are to get an event.
        tracing: where traces go.
    """
    intake = Intake()
    ingest = Ingest(intake, store, settings.partner_id, route, metrics, clock, live=board.live, tracing=tracing)
    supervisor = Supervisor(settings, intake, store, board, metrics, clock, rng, version, route=route, api=api)
    return Term(intake, ingest, supervisor)

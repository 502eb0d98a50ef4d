"""An engine over a real store whose notices and disk watch run when the test says so."""

import json
from pathlib import Path
from typing import Any

from support.clock import JumpClock
from support.engine import Steps

from relay.board import Gate, UpstreamState
from relay.config import TargetSettings
from relay.delivery.notices import Notices
from relay.delivery.routing import routed
from relay.live import Listener
from relay.metrics import Metrics
from relay.model import Event
from relay.store.disk import MIB, DiskWatch, Watermarks
from relay.store.reads import EventRow, Filter

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
ALL = ["order.*", "relay.*"]
TOLD = ["relay.*"]
OPEN_DOWN = "relay.upstream.down upstream"
SWIFT = {"schedule": ["1s"]}


class Relay(Steps):
    """An engine whose notices and disk watch run when the test says so."""

    def __init__(self, path: Path, *targets: TargetSettings, clock: JumpClock | None = None) -> None:
        super().__init__(path, *targets, clock=clock)
        self.free = 4096 * MIB
        self.board.upstream.state = UpstreamState.SUBSCRIBED
        self.disk = DiskWatch(path, Gate(), Metrics("0").store_free, self.clock, Watermarks(ballast=MIB))

    async def _open(self, reach: Any) -> None:
        await super()._open(reach)
        self.notices = Notices(self.context, self.board, self.disk, self.route)

    def route(self, one: Event) -> tuple[str, ...]:
        return routed(self.targets, one)

    async def look(self) -> list[str]:
        """One round; what it told, oldest first."""
        before = {row.event.webhook_id for row in await self.rows()}
        count = await self.notices.run_once()
        new = [row.event for row in await self.rows() if row.event.webhook_id not in before]
        assert len(new) == count
        return [f"{one.type.removeprefix('relay.')} {one.lane.removeprefix('relay:')}" for one in new]

    async def rows(self) -> list[EventRow]:
        """Every notice in the store."""
        found = (await self.bench.store.list_events(Filter(), None, 500)).items
        return [row for row in reversed(found) if row.event.facts is None]

    async def data(self, type: str) -> dict[str, Any]:
        """What the only notice of this type says."""
        (row,) = [row for row in await self.rows() if row.event.type == "relay." + type]
        whole = await self.bench.store.event(row.event.webhook_id)
        assert whole is not None
        found: dict[str, Any] = json.loads(whole.event.body)
        return found

    async def told(self, name: str) -> list[str]:
        """Types of the notices that reached a target; sends what is due first."""
        await self.turn(name)
        found = [one.event.type.removeprefix("relay.") for one in self.clients[name].taken if one.event.facts is None]
        return found

    async def minutes(self, count: float, name: str | None = None) -> list[str]:
        """Let time pass, looking every minute; what was told meanwhile."""
        found = []
        for _ in range(round(count)):
            if name is None:
                self.clock.move(MINUTE)
            else:
                await self.live(MINUTE, name)
            found += await self.look()
        return found

    def listen(self) -> Listener:
        return self.board.live.subscribe(lambda happening: happening.kind == "notice")

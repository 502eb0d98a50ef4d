"""A backfill over a real store and a real ingest; a restart is a new one on the same file."""

import asyncio
from pathlib import Path
from typing import Any

from support.clock import JumpClock
from support.upstream_kit import Room
from support.upstream_script import ScriptedUpstream

from relay.metrics import Metrics
from relay.store.sqlite import SqliteStore
from relay.store.values import Gap, Question, TargetEntry
from relay.upstream.ingest import Ingest
from relay.upstream.intake import Intake

FAR = 2**50


class RealRoom(Room):
    """`async with` it; hints come back when the test says so."""

    def __init__(self, upstream: ScriptedUpstream, path: Path, clock: Any = None, **over: Any) -> None:
        clock = clock or JumpClock()
        store = SqliteStore(path, clock.wall_ms, lambda _seconds: None)
        super().__init__(upstream, clock=clock, store=store, intake=Intake(), **over)
        self.ingest = Ingest(self.intake, store, "p", lambda _kind: ("alpha",), Metrics("0"), clock)

    async def __aenter__(self) -> "RealRoom":
        await self.store.open([TargetEntry("alpha")])
        self._pump = asyncio.create_task(self._ingest_all())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)
        await self.api.close()
        await self.store.close()

    async def _ingest_all(self) -> None:
        while True:
            await self.ingest.run_once()

    async def see(self, *snapshots: Any) -> None:
        """Frames, and everything they lead to is committed."""
        for one in snapshots:
            assert self.intake.offer(one)
        await self.intake.join()

    async def events(self) -> list[tuple[str, int, str]]:
        """Order, status and origin of every event, as the target would get them (peeked at, not taken)."""
        store: Any = self.store
        found = await store._run(
            lambda connection: connection.execute("SELECT lane, status, origin FROM events ORDER BY id").fetchall()
        )
        return [tuple(row) for row in found]

    async def questions(self) -> list[Question]:
        return list(await self.store.due_questions(FAR, 100))

    async def gap_rows(self) -> list[Gap]:
        return list(await self.store.gaps(100))

    async def pass_time(self, seconds: float) -> None:
        """Let the backfill do whatever comes due."""
        goal = self.clock.mono() + seconds
        while self.clock.mono() < goal:
            await self.backfill.run_once()
        await self.intake.join()

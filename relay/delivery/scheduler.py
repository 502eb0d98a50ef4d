"""Store to target: every target has its own slots and its own loop, so one bad target delays nobody else."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import structlog

from relay.board import Board, TargetBoard
from relay.clock import ClockWatch, next_beat
from relay.config import TargetSettings
from relay.delivery.settler import Context, Settler, policy_of
from relay.delivery.target_loop import Client, TargetLoop
from relay.log_names import Log
from relay.model import Attempt, DeliveryStatus, iso_utc
from relay.standing import Breaker, Resume
from relay.store.outage import if_reachable
from relay.store.values import Backlog

CLOCK_TICK: Final = 5.0
"""Seconds between looks at the clocks."""
LOOKS_A_MARK: Final = 12
"""Looks between two marks of the wall time in the store."""
STEP_BACK: Final = 30.0
"""Seconds by which the wall clock may lie before the last mark at a start without counting as set back."""
WALL_KEY: Final = "wall_ms"

_log = structlog.get_logger()


class Scheduler:
    """All targets' loops, the settler they share, and what a person may ask of a target."""

    def __init__(
        self, targets: Sequence[TargetSettings], clients: Mapping[str, Client], context: Context, board: Board
    ) -> None:
        """Prepare.

        Args:
            targets: as configured.
            clients: how each of them is reached, by name.
            context: what all of them share.
            board: where each loop says what it does.
        """
        self._context = context
        self._board = board
        self._settler = Settler(context, {})
        self._loops: dict[str, TargetLoop] = {}
        self._running: dict[TargetLoop, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._drained = asyncio.Event()
        self._looked_back = False
        self._store = context.store
        self._clock = context.clock
        self._clock_watch = ClockWatch(context.clock.wall_ms(), context.clock.mono())
        self._metrics = context.metrics
        self.reconfigure(targets, clients)
        context.store.on_due(self._on_due)
        context.store.on_superseded(self._count_superseded)

    async def run(self) -> None:
        """Deliver until cancelled or drained."""
        await if_reachable(self._begin())
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch_clock(), name="delivery-clock")
            settling = tasks.create_task(self._settler.run(), name="settler")
            self._tasks = tasks
            for name, loop in self._loops.items():
                self._start(tasks, name, loop)
            await self._drained.wait()
            if self._running:
                await asyncio.wait(self._running.values())
            settling.cancel()
            watching.cancel()

    def reconfigure(self, targets: Sequence[TargetSettings], clients: Mapping[str, Client]) -> None:
        """Deliver to these targets from now on, once the store is configured for them.

        Attempts under way end by the settings they began with. A target that is left out claims nothing more.

        Args:
            targets: all of them.
            clients: how each of them is reached, by name.
        """
        leaving = {name: loop for name, loop in self._loops.items() if name not in {one.name for one in targets}}
        for name, loop in leaving.items():
            loop.leave()
            if loop not in self._running:
                self._forget(name)
        before = {loop.name: loop for loop in self._running} | self._loops
        self._loops = {one.name: self._loop(one, clients[one.name], before.get(one.name)) for one in targets}
        for name, loop in self._loops.items():
            if self._tasks is not None and loop not in self._running:
                self._start(self._tasks, name, loop)

    def _loop(self, target: TargetSettings, client: Client, before: TargetLoop | None) -> TargetLoop:
        """A target that comes back while its last attempts are under way goes on with the loop that has them."""
        policy = self._settler.policies[target.name] = policy_of(target)
        if before is not None and not before.ended:
            before.reconfigure(target, client, policy)
            return before
        board = self._board.targets.setdefault(target.name, TargetBoard())
        return TargetLoop(target, client, policy, self._settler, self._context, board)

    def _start(self, tasks: asyncio.TaskGroup, name: str, loop: TargetLoop) -> None:
        def ended(_task: asyncio.Task[None]) -> None:
            self._running.pop(loop, None)
            if name not in self._loops:
                self._forget(name)

        self._running[loop] = tasks.create_task(loop.run(), name=f"target-{name}")
        self._running[loop].add_done_callback(ended)

    def _forget(self, name: str) -> None:
        self._settler.policies.pop(name, None)
        self._settler.standings.pop(name, None)
        self._board.targets.pop(name, None)

    async def pause(self, target: str) -> bool:
        """Keep a target's deliveries without sending them; False when a person has paused it already."""
        paused = await self._store.pause(target, self._clock.wall_ms())
        if paused:
            _log.info(Log.TARGET_PAUSED, target=target)
        return paused

    async def resume(self, target: str) -> Resume:
        """Send to a target again that was parked, or paused by a person, and probe an open breaker at once.

        The configuration's pause stands.
        """
        loop = self._loops.get(target)
        if loop is not None and loop.paused_by_config:
            return Resume.PAUSED_BY_CONFIG
        found = await self._store.resume(target, self._clock.wall_ms())
        if found is not Resume.NOTHING:
            _log.info(Log.TARGET_RESUMED, target=target, was=found.value)
            self.wake(target)
        return found

    async def test(self, target: str) -> Attempt:
        """Make one attempt of a `relay.test` event now, past everything, changing nothing.

        Raises:
            KeyError: no target of this name is configured.
        """
        return await self._loops[target].test()

    def wake(self, target: str) -> None:
        """Look at a target now: a person has changed something."""
        if (loop := self._loops.get(target)) is not None:
            loop.look_anew()

    async def look_at_clock(self) -> None:
        """When the wall clock was set back, deliveries must not wait for it to come round again."""
        jump = self._clock_watch.look(self._clock.wall_ms(), self._clock.mono())
        if jump is None:
            return
        _log.warning(Log.WALL_CLOCK_JUMPED, seconds=jump.seconds)
        if jump.seconds < 0 and not self._board.lead.follows:
            for name in self._loops:
                await self._store.shift_due(name, round(jump.seconds * 1000), self._clock.wall_ms())
        self._on_due(self._loops)

    async def mark_time(self) -> None:
        """Remember the wall clock, so that the next process can tell when it has been set back in between."""
        await self._store.meta_set(WALL_KEY, str(self._clock.wall_ms()))

    async def drain(self, grace: float) -> int:
        """Stop claiming, let attempts under way finish; returns how many were cut off after `grace` seconds."""
        self._drained.set()
        loops = {*self._loops.values(), *self._running}
        return sum(await asyncio.gather(*(loop.drain(grace) for loop in loops)))

    async def _begin(self) -> None:
        if not self._board.lead.follows:
            await self.look_back()
            await self.mark_time()
        await self._say_what_is_left()

    async def _watch_clock(self) -> None:
        looks = 0
        while True:
            await next_beat(self._clock, CLOCK_TICK)
            await if_reachable(self._keep_time(mark=looks % LOOKS_A_MARK == LOOKS_A_MARK - 1))
            looks += 1

    async def _keep_time(self, *, mark: bool) -> None:
        """Of several instances only the one that leads changes due times and leaves the mark."""
        if self._board.lead.follows:
            self._looked_back = False
        elif not self._looked_back:
            await self.look_back()
        await self.look_at_clock()
        if mark and not self._board.lead.follows:
            await self.mark_time()

    async def look_back(self) -> None:
        """Undo due times that only a wrong clock can have written."""
        now_ms = self._clock.wall_ms()
        ahead_ms = int(await self._store.meta_get(WALL_KEY) or 0) - now_ms
        set_back = ahead_ms > STEP_BACK * 1000
        if set_back:
            _log.warning(Log.WALL_CLOCK_JUMPED, seconds=-ahead_ms / 1000)
        for name, loop in self._loops.items():
            if set_back:
                await self._store.shift_due(name, -ahead_ms, now_ms)
            await self._store.clamp_due(name, now_ms + round(loop.longest_wait * 1000))
        self._looked_back = True

    async def _say_what_is_left(self) -> None:
        for name, backlog in (await self._store.backlog()).items():
            _say_left(name, backlog)

    def _on_due(self, targets: Collection[str]) -> None:
        for name in targets:
            if (loop := self._loops.get(name)) is not None:
                loop.wake()

    def _count_superseded(self, counts: Mapping[str, int]) -> None:
        for name, count in counts.items():
            self._metrics.deliveries.labels(name, DeliveryStatus.SUPERSEDED.value).inc(count)


def _say_left(name: str, backlog: Backlog) -> None:
    """One line about a target that something waits for, or that is not simply sent to."""
    standing, pending = backlog.standing, backlog.pending
    if not standing.configured:
        advice = "its deliveries are kept; configure it again to deliver them"
        _log.warning(Log.TARGET_ORPHANED, target=name, pending=pending, advice=advice)
    elif standing.parked_ms is not None or standing.paused_ms is not None:
        advice = f"its deliveries are kept until: houdini-relay targets resume {name}"
        # Who paused it knows; that a receiver wants nothing more, perhaps nobody does.
        level = logging.WARNING if standing.parked_ms is None else logging.ERROR
        _log.log(level, Log.TARGET_STOPPED, target=name, state=standing.state, pending=pending, advice=advice)
    elif standing.paused_by_config:
        advice = "its deliveries are kept until its `paused` is false"
        _log.warning(Log.TARGET_STOPPED, target=name, state=standing.state, pending=pending, advice=advice)
    elif standing.breaker is not Breaker.CLOSED:
        since = None if standing.breaker_changed_ms is None else iso_utc(standing.breaker_changed_ms)
        _log.warning(Log.TARGET_FAILING, target=name, since=since, pending=pending, error=standing.last_error)
    elif pending:
        _log.info(Log.TARGET_BACKLOG, target=name, pending=pending)

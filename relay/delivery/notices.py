"""The loop that tells targets how the relay itself is doing: looks, judges, writes what is news.

What is open is remembered in the store, in the transaction that writes the notices, so a restart repeats nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

import msgspec
import structlog
from msgspec.structs import replace

from relay.board import Board, Reload, UpstreamState
from relay.clock import next_beat
from relay.delivery.notice_facts import Deaths, Disk, Facts, Refusal, Target, Upstream
from relay.delivery.notice_rules import FIRST, judge
from relay.delivery.settler import Context
from relay.errors import StoreError
from relay.log import redact
from relay.log_names import Log
from relay.model import Event
from relay.standing import Standing
from relay.store.disk import DiskLevel, DiskWatch
from relay.store.notices import NoticeWriter
from relay.store.outage import if_reachable
from relay.store.values import Death

EVERY: Final = 5.0
"""Seconds between two looks."""
TOGETHER: Final = 60.0
"""Seconds between two notices about dead deliveries of one target; what dies meanwhile is in the next."""
BATCH: Final = 20
"""Notices that one transaction writes: each may go to every target."""
LEAVE_GRACE: Final = 5.0
"""Seconds that the last words may take."""
OPEN: Final = "notices_open"
"""The key of what is open among the values that the store remembers."""

_log = structlog.get_logger()


class Notices:
    """Raises and ends every notice but the one about a long gap, which its keeper has to write before it is ended."""

    def __init__(
        self, context: Context, board: Board, disk: DiskWatch | None, route: Callable[[Event], tuple[str, ...]]
    ) -> None:
        """Prepare.

        Args:
            context: what the delivery room shares.
            board: what the other rooms say of themselves.
            disk: who measures the store's disk; None where the store is not a file.
            route: the names of the targets that are to get an event.
        """
        self._store = context.store
        self._clock = context.clock
        self._metrics = context.metrics
        self._board = board
        self._disk = disk
        self._writer = NoticeWriter(context.store, route, context.metrics, board.live)
        self._open: dict[str, int] | None = None
        self._lost: tuple[int, float] | None = None
        self._piles: dict[str, _Pile] = {}
        self._untold: list[Deaths] = []
        self._began = context.clock.mono()
        context.store.on_dead(self._collect)

    async def run(self) -> NoReturn:
        """Look until cancelled; what has been collected by then is still written."""
        try:
            while True:
                await if_reachable(self.run_once())
                await next_beat(self._clock, EVERY)
        finally:
            await self.leave()

    async def run_once(self) -> int:
        """Look, and write what is news; returns how many notices that was.

        What concerns the relay as a whole is the leader's to tell; every instance tells what died in its own hands.
        """
        if self._board.lead.follows:
            self._open = None  # what the leader writes meanwhile is read again
            return await self._tell_of_deaths()
        return await self._tell(await self._look())

    async def leave(self) -> None:
        """Write what died since; a store that is broken is not ours to report."""
        try:
            async with asyncio.timeout(LEAVE_GRACE):
                await self._tell_of_deaths(hurry=True)
        except (StoreError, TimeoutError) as error:
            _log.warning(Log.NOTICES_NOT_WRITTEN, deliveries=sum(sum(one.reasons.values()) for one in self._untold),
                         error=str(error) or "the store did not answer in time")  # fmt: skip

    async def _tell_of_deaths(self, *, hurry: bool = False) -> int:
        self._take_deaths(hurry=hurry)
        deaths, now_ms = tuple(self._untold), self._clock.wall_ms()
        notices, _ = judge(Facts(now_ms, self._running(), deaths=deaths), {})
        if notices:
            await self._writer.write(notices, now_ms)
        del self._untold[: len(deaths)]
        return len(notices)

    async def _look(self) -> Facts:
        self._take_deaths()
        return Facts(
            now_ms=self._clock.wall_ms(),
            running=self._running(),
            upstream=await self._look_at_upstream(),
            targets={
                name: Target(_told(waiting.standing), waiting.pending, waiting.oldest_order_ms)
                for name, waiting in (await self._store.backlog()).items()
            },
            disk=self._look_at_disk(),
            refusal=self._look_at_config(),
            deaths=tuple(self._untold),
        )

    def _running(self) -> float:
        return self._clock.mono() - self._began

    async def _look_at_upstream(self) -> Upstream | None:
        upstream = self._board.upstream
        if self._board.stopping or upstream.state in (UpstreamState.STOPPED, UpstreamState.FOLLOWING):
            return None  # it was left on purpose
        if upstream.subscribed:
            self._lost = None
            return Upstream(subscribed=True)
        if self._lost is None:
            self._lost = self._clock.wall_ms(), self._clock.mono()
        lost_ms, lost = self._lost
        newest = await self._store.gaps(1)
        if newest and newest[0].to_ms is None:
            lost_ms = min(lost_ms, newest[0].from_ms)
        refused_ms = upstream.since_ms if upstream.state is UpstreamState.AUTH_FAILED else None
        return Upstream(False, lost_ms, self._clock.mono() - lost, refused_ms, upstream.last_error)

    def _look_at_disk(self) -> Disk:
        disk = self._disk
        if disk is None:
            return Disk()
        return Disk(disk.level >= DiskLevel.LOW, disk.level >= DiskLevel.FULL, disk.free_bytes)

    def _look_at_config(self) -> Refusal | None:
        config = self._board.config
        if config.result is not Reload.REFUSED:
            return None
        return Refusal(config.reloaded_ms or self._clock.wall_ms(), config.refusal)

    async def _tell(self, facts: Facts) -> int:
        before = await self._load()
        notices, after = judge(facts, before)
        if not notices and after == before:
            return 0
        batches = [notices[at : at + BATCH] for at in range(0, len(notices), BATCH)] or [[]]
        for batch in batches[:-1]:
            await self._writer.write(batch, facts.now_ms)
        # With the last: until then a crash makes all of them anew, under the same ids.
        await self._writer.write(batches[-1], facts.now_ms, {OPEN: msgspec.json.encode(after).decode()})
        self._open = after
        del self._untold[: len(facts.deaths)]
        return len(notices)

    async def _load(self) -> Mapping[str, int]:
        if self._open is None:
            text = await self._store.meta_get(OPEN)
            try:
                self._open = {} if text is None else msgspec.json.decode(text, type=dict[str, int])
            except msgspec.DecodeError as error:
                _log.warning(Log.OPEN_NOTICES_FORGOTTEN, error=str(error))
                self._open = {}
        return self._open

    def _collect(self, deaths: Sequence[Death]) -> None:
        """Only what was an order's: notices never breed notices."""
        for death in deaths:
            if death.type.startswith("order."):
                self._metrics.deliveries_dead.labels(death.target, death.reason.value).inc()
                pile = self._piles.setdefault(death.target, _Pile(self._clock.wall_ms()))
                pile.add(death, self._clock.wall_ms())

    def _take_deaths(self, *, hurry: bool = False) -> None:
        """From the piles to what is to be told, where it stays until that is committed."""
        now = self._clock.mono()
        for name, pile in self._piles.items():
            if pile.reasons and (hurry or pile.told is None or now - pile.told >= TOGETHER):
                self._untold.append(Deaths(name, pile.since_ms, dict(pile.reasons), tuple(pile.first)))
                pile.told = now
                pile.reasons.clear()
                pile.first.clear()


def _told(standing: Standing) -> Standing:
    """As others may read it: what one receiver said of another's secrets is not passed on."""
    return standing if standing.last_error is None else replace(standing, last_error=redact(standing.last_error))


@dataclass(slots=True)
class _Pile:
    """Who died at one target since that was last told."""

    since_ms: int
    reasons: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)
    told: float | None = None

    def add(self, death: Death, now_ms: int) -> None:
        if not self.reasons:
            self.since_ms = now_ms
        self.reasons[death.reason.value] += 1
        if len(self.first) < FIRST:
            self.first.append(death.webhook_id)

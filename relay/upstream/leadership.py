"""Who holds the connection to the upstream: this instance, for as long as it leads.

It leads for as long as it renews its lease in the store; where no other instance can use the store, always. While it
follows it asks again and again, and so it takes over soon after the leader has gone. An outage of the store ends a
term before the lease does, so that nobody has the connection twice.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import structlog

from relay.board import Board, UpstreamState
from relay.clock import Clock, Rng, SharedClock, until_beat
from relay.errors import NotLeader, StoreError, StoreUnavailable
from relay.log_names import Log
from relay.metrics import Metrics
from relay.model import Snapshot
from relay.store.base import LEAD_RENEWAL, Store
from relay.store.outage import Availability
from relay.store.values import Instance
from relay.upstream.endings import STABLE, Backoff
from relay.upstream.intake import Intake
from relay.upstream.states import show_state
from relay.upstream.term import Term
from relay.upstream.together import until_first_ends

FOLLOW_EVERY: Final = LEAD_RENEWAL / 2
"""Seconds between two askings of an instance that does not lead."""
LEAD_PATIENCE: Final = 10.0
"""Seconds without a renewal after which the connection is given up: sooner than the lease ends for others."""
RENEW_AGAIN: Final = 1.0
"""Seconds until a renewal that failed is tried again."""
RESIGN_GRACE: Final = 3.0
"""Seconds that giving the lead back may take at the end; otherwise it ends by itself."""
SWEEP_WANTED: Final = "sweep_wanted"
"""The key of the last sweep that was asked for at an instance which does not lead."""

_BACKOFF: Final = (1.0, 60.0)

_log = structlog.get_logger()


class Leadership:
    """Asks for the lead, leads, renews, and says who does.

    Attributes:
        term: what runs while this instance leads; None while it follows.
    """

    def __init__(
        self,
        instance: Instance,
        store: Store,
        begin: Callable[[], Term],
        configure: Callable[[], Awaitable[None]],
        board: Board,
        metrics: Metrics,
        clock: Clock,
        rng: Rng,
    ) -> None:
        """Prepare.

        Args:
            instance: this process.
            store: where leads are kept.
            begin: makes what runs for one term.
            configure: makes this instance's targets those of the store.
            board: where it is said who leads, and that the store is away.
            metrics: the same for machines.
            clock: the time; one that is shared is kept right.
            rng: for waits between terms that do not last.
        """
        self.term: Term | None = None
        self._instance = instance
        self._store = store
        self._begin = begin
        self._configure = configure
        self._board = board
        self._metrics = metrics
        self._clock = clock
        self._rng = rng
        self._availability = Availability(board, metrics)
        self._backoff = Backoff(*_BACKOFF)
        self._vacant = asyncio.Event()
        self._wish: str | None = None
        self._unstored: tuple[int, list[Snapshot]] = 0, []
        board.lead.instance = instance.id
        store.on_vacant(self._vacant.set)

    async def run(self) -> NoReturn:
        """Lead or follow until cancelled; then the connection is closed, and the lead given back at once.

        Raises:
            StoreError: the store cannot be used.
        """
        try:
            while True:
                await self.run_once()
        finally:
            show_state(self._board.upstream, self._board.live, UpstreamState.STOPPED, self._clock.wall_ms())
            await self._resign()

    async def run_once(self) -> None:
        """Ask for the lead; lead for as long as it lasts, or wait until it is worth asking again."""
        self._vacant.clear()
        epoch = await self._ask()
        if epoch is None:
            self._show(UpstreamState.FOLLOWING)
            await self._nap(FOLLOW_EVERY)
        else:
            await self._lead(epoch)

    def intake(self) -> Intake | None:
        """The way in of the present term; None while this instance follows."""
        return None if self.term is None else self.term.intake

    async def want_sweep(self, reason: str) -> None:
        """Ask for a sweep: of this instance if it leads, or else of the leader, which looks every few seconds.

        Raises:
            StoreError: the store cannot be used.
        """
        if self.term is not None:
            self.term.supervisor.want_sweep(reason)
        else:
            await self._store.meta_set(SWEEP_WANTED, f"{self._clock.wall_ms()} {self._instance.id}")

    async def _ask(self) -> int | None:
        """This instance's epoch; None when another leads, or the store is away."""
        try:
            await tell_time(self._clock, self._store)
            epoch = await self._store.lead(self._instance)
            if epoch is not None:
                await self._configure()
                self._wish = await self._store.meta_get(SWEEP_WANTED)
            await self._look_around()
        except StoreUnavailable as error:
            self._availability.away(error)
            return None
        self._availability.back()
        return epoch

    async def _lead(self, epoch: int) -> None:
        began, self._board.lead.epoch = self._clock.mono(), epoch
        self._metrics.leading.set(1)
        if self._board.lead.shared:
            _log.info(Log.LEAD_TAKEN, epoch=epoch, instance=self._instance.id)
        self._show(UpstreamState.WAITING)
        term = self.term = self._begin()
        self._take_along(term, epoch)
        try:
            lost, errors = await until_first_ends(term=term.run(), renewal=self._keep(term))
        finally:
            self._unstored = epoch, term.intake.unstored_frames()
            self.term, self._board.lead.epoch = None, None
            self._metrics.leading.set(0)
        for error in errors:
            if not isinstance(error, (StoreUnavailable, NotLeader)):
                raise error
        reason = next((one for one in lost if one is not None), None) or next(iter(errors), None)
        self._show(UpstreamState.FOLLOWING)
        _log.warning(Log.LEAD_LOST, epoch=epoch, reason=str(reason or "it ended by itself"))
        if isinstance(reason, StoreUnavailable):
            self._availability.away(reason)
        if self._clock.mono() - began >= STABLE:
            self._backoff.reset()
        await self._nap(self._backoff.next(self._rng))

    def _take_along(self, term: Term, epoch: int) -> None:
        """Frames that the last term here read and could not store, unless another instance has led since."""
        before, frames = self._unstored
        self._unstored = 0, []
        if epoch - before <= 1:
            for frame in frames:
                term.intake.offer(frame)

    async def _keep(self, term: Term) -> str:
        """Renew until that is not possible any more; returns why."""
        renewed = self._clock.mono()
        pause = until_beat(LEAD_RENEWAL, renewed)
        while True:
            await self._clock.sleep(pause)
            asked = self._clock.mono()
            try:
                async with asyncio.timeout(max(RENEW_AGAIN, renewed + LEAD_PATIENCE - asked)):
                    if not await self._store.renew():
                        return "its lease has ended: another instance may lead"
                    renewed = asked
                    await self._look_around()
                    await self._take_wish(term)
                    pause = until_beat(LEAD_RENEWAL, self._clock.mono())
            except (StoreUnavailable, TimeoutError) as error:
                pause = RENEW_AGAIN
                if self._clock.mono() - renewed >= LEAD_PATIENCE - RENEW_AGAIN:
                    self._availability.away(error)
                    return f"it could not be renewed for {self._clock.mono() - renewed:.0f} s"

    async def _look_around(self) -> None:
        """Who else lives, and who leads; and what time it is for all of them."""
        await tell_time(self._clock, self._store)
        living = await self._store.instances()
        self._board.lead.instances = max(1, len(living))
        self._board.lead.leader = next((one.instance.host for one in living if one.epoch is not None), None)
        self._metrics.instances.set(self._board.lead.instances)
        self._metrics.has_leader.set(self._board.lead.leader is not None)

    async def _take_wish(self, term: Term) -> None:
        if not self._board.lead.shared:
            return
        wish = await self._store.meta_get(SWEEP_WANTED)
        if wish != self._wish:
            self._wish = wish
            term.supervisor.want_sweep("asked for")

    def _show(self, state: UpstreamState) -> None:
        """Say so where the supervisor says what it does while there is one."""
        self._board.upstream.last_error = None
        show_state(self._board.upstream, self._board.live, state, self._clock.wall_ms())

    async def _nap(self, seconds: float) -> None:
        """Wait for so long, less if the lead is given back meanwhile."""
        waits = [asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._vacant.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _resign(self) -> None:
        try:
            async with asyncio.timeout(RESIGN_GRACE):
                await self._store.resign()
        except (StoreError, TimeoutError) as error:
            reason = str(error) or "the store did not answer in time"
            _log.warning(Log.LEAD_NOT_RESIGNED, error=reason)


async def tell_time(clock: Clock, store: Store) -> None:
    """Set a shared clock by the store; any other is left alone.

    Raises:
        StoreUnavailable: the store cannot be reached.
        StoreError: it cannot be used.
    """
    if not isinstance(clock, SharedClock):
        return
    asked = clock.mono()
    shared_ms = await store.shared_ms()
    if shared_ms is not None:
        clock.set_by(shared_ms, (asked + clock.mono()) / 2)

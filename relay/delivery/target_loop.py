"""One target: claims due lane heads, has each attempted in a task of its own, and hands the results to the settler.

A slot is free again once its receiver has answered 2xx, and after anything else once that is committed: it may mean
that nothing more is to be sent. Of what is not committed yet there are a few times as many as slots at most, and while
a target is in trouble none beside the slots. Naps are bounded and recomputed, so a wall clock that steps cannot freeze
anything.
"""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import structlog

from relay.board import TargetBoard
from relay.config import TargetSettings
from relay.delivery import breaker, retry
from relay.delivery.pacing import TokenBucket, share
from relay.delivery.reporter import Reporter
from relay.delivery.settler import Context, Policy, Settled, Settler
from relay.delivery.trial_event import trial_delivery
from relay.errors import StoreUnavailable
from relay.log import Sampler
from relay.log_names import Log
from relay.model import Attempt, Delivery, Outcome
from relay.standing import Permit, Standing
from relay.store.outage import if_reachable

UNSETTLED: Final = 4
"""How many times as many deliveries as it has slots a target may have in memory: on the wire, or being settled."""
NAP: Final = 30.0
"""Seconds after which a sleeping loop looks again, whatever it was told."""
DENIED: Final = 1.0
"""Seconds for which a standing that permits nothing is believed, however often the loop is woken: what comes in for
a dead target must not cost the others a question to the store each time."""
AWAY: Final = 2.0
"""Seconds until a store that is away is asked again."""
_LEAST_NAP: Final = 0.01
"""Seconds between two looks that find nothing: no answer of the store may make a loop spin."""

_log = structlog.get_logger()


class Client(Protocol):
    """The seam to the wire: how one target is reached."""

    async def attempt(self, delivery: Delivery) -> Attempt:
        """One POST; never raises but when cancelled."""
        ...


class TargetLoop:
    """Claims, sends, reports.

    Attributes:
        name: the target's.
        ended: whether `run` has returned.
    """

    def __init__(
        self,
        target: TargetSettings,
        client: Client,
        policy: Policy,
        settler: Settler,
        context: Context,
        board: TargetBoard,
    ) -> None:
        self._target = target
        self._client = client
        self._policy = policy
        self._settler = settler
        self._context = context
        self._board = board
        self._reporter = Reporter(target.name, context, board)
        self._crashes = Sampler()
        self._outages = Sampler(1, 60.0)
        self._bucket = TokenBucket(target.rate_limit, context.clock.mono())
        self._attempts: set[asyncio.Task[None]] = set()
        self._unsettled: dict[int, Delivery] = {}
        self._on_wire: set[int] = set()
        self._probes = 0
        self._all_settled = asyncio.Event()
        self._all_settled.set()
        self._denied_until = context.clock.mono()
        self._testing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self.name = target.name
        self.ended = False
        board.last_started = context.clock.mono()

    def reconfigure(self, target: TargetSettings, client: Client, policy: Policy) -> None:
        """Go by these settings from the next attempt on; attempts under way end by the old ones."""
        if target.rate_limit != self._target.rate_limit:
            self._bucket = TokenBucket(target.rate_limit, self._context.clock.mono())
        self._target, self._client, self._policy = target, client, policy
        self._stopping.clear()
        self.look_anew()

    def leave(self) -> None:
        """Claim nothing more; `run` ends with the attempts under way, unless `reconfigure` comes first."""
        self._stopping.set()
        self.wake()

    @property
    def longest_wait(self) -> float:
        """Seconds beyond which no retry of this target is ever due."""
        return self._policy.retry.longest_wait

    @property
    def paused_by_config(self) -> bool:
        """Whether the configuration pauses it."""
        return self._target.paused

    def wake(self) -> None:
        """Look now: something has come due or a slot is free."""
        self._wake.set()

    def look_anew(self) -> None:
        """Look now, and do not believe what the target's standing was a moment ago."""
        self._denied_until = self._context.clock.mono()
        self._wake.set()

    async def run(self) -> None:
        """Deliver until told to stop, then until the attempts under way have ended."""
        while self._unsettled or not self._stopping.is_set():
            self._wake.clear()
            try:
                nap = await self.run_once()
            except StoreUnavailable as error:
                nap = self._wait_for_store(error)
            try:
                async with asyncio.timeout(nap):
                    await self._wake.wait()
            except TimeoutError:
                continue
        await self._reporter.say_breaker()
        self.ended = True

    async def run_once(self) -> float:
        """Start attempts for what is due and permitted; returns seconds until it is worth looking again.

        Raises:
            StoreUnavailable: the store cannot be reached; nothing was begun.
            StoreError: the store cannot be used.
        """
        await self._reporter.say_breaker()
        slots = share(self._target.concurrency, self._context.board.lead.instances)
        if self._stopping.is_set() or len(self._on_wire) >= slots or len(self._unsettled) >= UNSETTLED * slots:
            return NAP
        if (denied := self._denied_until - self._context.clock.mono()) > 0:
            return denied
        name, now_ms = self._target.name, self._context.clock.wall_ms()
        (tokens, token_ms), permit = self._tokens(now_ms), Permit(0)

        def ask(standing: Standing) -> Permit:
            nonlocal permit
            permit = breaker.permits(standing, self._policy.breaker, self._load(tokens, token_ms), now_ms)
            return permit

        claim = await self._context.store.claim(name, ask, now_ms)
        if self._stopping.is_set():
            await self._context.store.release(claim.deliveries)
            return NAP
        for delivery in claim.deliveries:
            self._begin(delivery)
        self._settler.standings[name] = claim.standing
        self._reporter.see(claim.standing)
        if permit.limit == 0:
            nap = _nap(permit.look_again_ms, now_ms)
            self._denied_until = self._context.clock.mono() + min(nap, DENIED)
            return nap
        if len(claim.deliveries) == permit.limit:
            return 0.0  # there may be more, and whether it is permitted is asked anew
        return _nap(claim.next_due_ms, now_ms)

    async def drain(self, grace: float) -> int:
        """Claim nothing new and let attempts finish for `grace` seconds; returns how many were cut off.

        A cut-off attempt has an unknown outcome: its delivery stays as it was and is attempted again. So does one
        whose outcome could not be written by then.
        """
        self.leave()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._all_settled.wait()
        late = len(self._unsettled)
        for task in (cut := tuple(self._attempts)):
            task.cancel()
        if cut:
            await asyncio.wait(cut)
        for delivery in tuple(self._unsettled.values()):
            self._end(delivery)
        return late

    async def test(self) -> Attempt:
        """One attempt of a `relay.test` event, now, whatever the target's standing; it changes nothing of it.

        One at a time: a second one waits for the first.
        """
        async with self._testing:
            return await self._client.attempt(trial_delivery(self._target.name, self._context.clock.wall_ms()))

    def _wait_for_store(self, error: StoreUnavailable) -> float:
        now = self._context.clock.mono()
        if (suppressed := self._outages.admit(now)) is not None:
            _log.warning(
                Log.DELIVERY_WAITS_FOR_STORE, target=self._target.name, error=str(error), suppressed=suppressed
            )
        self._denied_until = now + AWAY
        return AWAY

    def _tokens(self, now_ms: int) -> tuple[int | None, int]:
        """How many attempts the rate limit lets begin, and the wall time of the next one."""
        now = self._context.clock.mono()
        if (limit := self._target.rate_limit) is not None:
            self._bucket.change(limit / self._context.board.lead.instances, now)
        return self._bucket.available(now), now_ms + round(self._bucket.wait(now) * 1000)

    def _load(self, tokens: int | None, token_ms: int) -> breaker.Load:
        """As it is when the claim is answered: while that waited for a commit, slots may have become free.

        It may be asked in the store's thread. Nothing begins meanwhile, and a length can be read from there.
        """
        wire, instances = len(self._on_wire), self._context.board.lead.instances
        return breaker.Load(wire, self._probes > 0, tokens, token_ms, instances, len(self._unsettled) - wire)

    def _begin(self, delivery: Delivery) -> None:
        self._unsettled[delivery.id] = delivery
        self._on_wire.add(delivery.id)
        self._probes += delivery.probe
        self._all_settled.clear()
        now = self._context.clock.mono()
        self._bucket.take(1, now)
        self._board.last_started = now
        self._count()
        task = asyncio.create_task(self._attempt(delivery))
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)

    async def _attempt(self, delivery: Delivery) -> None:
        client = self._client
        try:
            attempt = await client.attempt(delivery)
        except asyncio.CancelledError:
            await if_reachable(self._context.store.release([delivery]))
            self._end(delivery)
            raise
        except Exception as error:
            self._say_crash(error)
            self._end(delivery)
            return
        if attempt.outcome is Outcome.OK and not retry.asks_to_stop(attempt):
            self._on_wire.discard(delivery.id)
            self.look_anew()
        settled = self._settler.settle(delivery, attempt, outdated=client is not self._client)
        settled.add_done_callback(partial(self._note, delivery))

    def _note(self, delivery: Delivery, done: asyncio.Future[Settled]) -> None:
        """What came of it is committed; or never will be, since the store has failed and the process ends."""
        try:
            if not done.cancelled():
                settled = done.result()
                self._reporter.settled(delivery, settled)
                self._reporter.see(settled.standing)
        except Exception as error:
            self._say_crash(error)
        finally:
            self._end(delivery)

    def _say_crash(self, error: Exception) -> None:
        if (suppressed := self._crashes.admit(self._context.clock.mono())) is not None:
            _log.error(Log.ATTEMPT_CRASHED, target=self.name, error=repr(error), suppressed=suppressed)

    def _end(self, delivery: Delivery) -> None:
        if self._unsettled.pop(delivery.id, None) is None:
            return  # given up in a drain
        self._on_wire.discard(delivery.id)
        self._probes -= delivery.probe
        if not self._unsettled:
            self._all_settled.set()
        self._count()
        self.look_anew()

    def _count(self) -> None:
        self._board.in_flight = len(self._unsettled)
        self._board.probing = self._probes > 0


def _nap(until_ms: int | None, now_ms: int) -> float:
    return NAP if until_ms is None else min(NAP, max(_LEAST_NAP, (until_ms - now_ms) / 1000))

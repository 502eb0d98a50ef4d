"""The store that several instances share: PostgreSQL, with claims that are leases and one leader."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from relay.config.store_url import StoreUrl
from relay.errors import StoreBroken, StoreError
from relay.store.lanes import Written
from relay.store.migrate import insist_on_postgres, migrate_postgres
from relay.store.postgres_hints import Hints
from relay.store.postgres_ingest import needs_lead, write_plan
from relay.store.postgres_lead import Leading
from relay.store.postgres_ledger import Ledger, read_known_orders
from relay.store.postgres_link import PATIENCE, Link, Session
from relay.store.postgres_prune import Pruning
from relay.store.postgres_queue import Queue
from relay.store.postgres_reads import Reader
from relay.store.postgres_targets import TargetVerbs
from relay.store.postgres_upkeep import Upkeep
from relay.store.postgres_verbs import lock_lanes
from relay.store.postgres_wishes import Wishes
from relay.store.values import Death, IngestPlan, Planner, TargetEntry

T = TypeVar("T")

_LEAVE_PATIENCE: Final = 5.0


class PostgresStore(Queue, Wishes, TargetVerbs, Pruning, Ledger, Reader, Leading, Upkeep):
    """`relay.store.base.Store` on a PostgreSQL database.

    It remembers nothing that another instance could change: which orderings, standings and counts hold is read in
    the transaction that needs it.
    """

    def __init__(
        self,
        url: StoreUrl | str,
        now_ms: Callable[[], int],
        on_commit: Callable[[float], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare.

        Args:
            url: as `postgresql://user:password@host:port/name?sslmode=verify-full`; what it leaves out is taken
                from the PG* environment. A secret is read anew for every connection.
            now_ms: the wall time that all instances share.
            on_commit: is told how many seconds each commit took.
            sleep: waits.
        """
        self._id = secrets.token_hex(8)
        self._link = Link(url, on_commit)
        self._now_ms = now_ms
        self._sleep = sleep
        self._held = {}
        self._returning = set()
        self._timeouts = {}
        self._instance, self._epoch = None, None
        self._hints: Hints | None = None
        self._ingesting = asyncio.Lock()
        self._broken: asyncio.Future[str] | None = None
        self._wake_here: Callable[[Collection[str]], None] = lambda _targets: None
        self._tell_superseded = lambda _counts: None
        self._tell_dead = lambda _deaths: None
        self._tell_vacant = lambda: None

    async def open(self, targets: Collection[TargetEntry]) -> None:
        """Connect, migrate, `configure` these targets and listen to the other instances.

        Raises:
            StoreTooNew: a newer version has migrated it.
            StoreUnavailable: it cannot be reached, or does not let this user in.
            StoreError: it cannot be used.
        """
        self._broken = asyncio.get_running_loop().create_future()
        await self._link.open()
        try:
            await migrate_postgres(self._link)
            await self.configure(targets)
            self._hints = Hints(self._link, self._id, self._hear_due, lambda: self._tell_vacant(), self._sleep)
            self._hints.start()
        except BaseException:
            await self.close()
            raise

    async def attach(self) -> None:
        """Connect to it as it is, to look at it or to look after it beside whatever runs on it.

        Raises:
            StoreError: it cannot be reached or used, or has another schema.
        """
        await self._link.open()
        try:
            await insist_on_postgres(self._link)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Give back what is held here, the lead included, finish what was asked, and close the connections."""
        hints, self._hints = self._hints, None
        if hints is not None:
            self._hints = hints
            with suppress(StoreError, TimeoutError):  # it will all come back by itself
                async with asyncio.timeout(_LEAVE_PATIENCE):
                    await self.release(list(self._held.values()))
                    await self.resign()
                    await self._leave()
            self._hints = None
            await hints.stop()
        self._held.clear()
        await self._link.close()

    async def check_alive(self) -> None:
        """Return once the database has answered."""
        await self._run(lambda session: session.value("clock"))

    async def failed(self) -> str:
        """Return the reason once the database has said that what it holds is damaged; wait for ever otherwise."""
        if self._broken is None:
            raise StoreError("the store is not open")
        return await asyncio.shield(self._broken)

    def on_due(self, wake: Callable[[Collection[str]], None]) -> None:
        """Call `wake` with target names after a commit that made deliveries due, and when another instance says so."""
        self._wake_here = wake

    def on_superseded(self, tell: Callable[[Mapping[str, int]], None]) -> None:
        """Call `tell` with target -> how many, after a commit that ended deliveries `superseded`."""
        self._tell_superseded = tell

    def on_dead(self, tell: Callable[[Sequence[Death]], None]) -> None:
        """Call `tell` after a commit that ended deliveries `dead`."""
        self._tell_dead = tell

    async def ingest(self, houdini_ids: Collection[str], plan: Planner) -> IngestPlan:
        """Read these orders, plan, write the plan: one transaction, one at a time in this process."""

        async def work(session: Session) -> tuple[IngestPlan, Written]:
            if houdini_ids:
                await self._insist_on_lead(session)
                await lock_lanes(session, houdini_ids)
            planned = plan(await read_known_orders(session, houdini_ids))
            if not houdini_ids and needs_lead(planned):
                await self._insist_on_lead(session)
            return planned, await write_plan(session, planned)

        def after(done: tuple[IngestPlan, Written]) -> None:
            self._note_superseded(done[1].superseded)
            if done[1].made:
                self._wake(done[1].made.keys(), everywhere=True)

        async def in_turn() -> IngestPlan:
            # Two that learn of the same new order at once would both take it for theirs.
            async with self._ingesting:
                planned, _ = await self._run(work, after)
            return planned

        return await asyncio.shield(self._link.start(in_turn()))

    async def _run(
        self,
        work: Callable[[Session], Awaitable[T]],
        after: Callable[[T], None] | None = None,
        *,
        patience: float = PATIENCE,
        isolation: str = "READ COMMITTED",
    ) -> T:
        try:
            return await self._link.run(work, after, patience=patience, isolation=isolation)
        except StoreBroken as error:
            if self._broken is not None and not self._broken.done():
                self._broken.set_result(str(error))
            raise

    def _background(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        return self._link.start(work)

    def _wake(self, targets: Collection[str], *, everywhere: bool = False) -> None:
        self._wake_here(targets)
        if everywhere and self._hints is not None:
            self._hints.say_due(targets)

    def _hear_due(self, targets: Collection[str] | None) -> None:
        self._wake_here(set(self._timeouts) if targets is None else set(targets))

    async def _say_vacant(self) -> None:
        if self._hints is not None:
            await self._hints.say_vacant()

"""The composition root: builds the rooms, runs them, and takes them down in order.

Start: store (lock, open, migrate), admin (so that `/healthz` answers), then ingest, upstream and scheduler.
Stop: unready, the upstream leaves, what was read is committed, nothing new is claimed, attempts under way
get their grace, then admin and store close. A second signal cuts the grace short.
"""

import asyncio
from enum import IntEnum
from typing import Final

import structlog

from relay import descriptors, systemd
from relay.admin.app import Admin
from relay.admin.context import Context as AdminContext
from relay.auditing import UpstreamAudit
from relay.board import Board
from relay.clock import Clock, SystemClock, system_rng
from relay.config import Settings, TargetSettings
from relay.delivery.janitor import Janitor
from relay.delivery.lookup import Lookup
from relay.delivery.reach import reach_digest
from relay.delivery.routing import routed
from relay.delivery.scheduler import Scheduler
from relay.delivery.settler import Context
from relay.delivery.signer import public_keys
from relay.delivery.target_client import TargetClient, connect
from relay.errors import SecretUnreadable, StoreError
from relay.metrics import Metrics
from relay.model import Event
from relay.shutdown import Shutdown, UnjoinedExecutor
from relay.standing import Ordering
from relay.store.disk import DiskWatch
from relay.store.sqlite import SqliteStore, sqlite_path
from relay.store.values import TargetEntry
from relay.upstream.ingest import Ingest, Intake
from relay.upstream.supervisor import Supervisor

DRAIN_GRACE: Final = 20.0
"""Seconds that attempts under way get on shutdown; the systemd unit's stop timeout is longer."""
COMMIT_GRACE: Final = 5.0
UPSTREAM_GRACE: Final = 5.0
RESOLVER_THREADS: Final = 64
"""Name look-ups run in threads; enough of them that slow names do not delay the upstream's."""

_log = structlog.get_logger()


class Exit(IntEnum):
    """Exit codes; `docs/operations.md` says what to do about each."""

    FINE = 0
    CRASHED = 1
    CONFIG = 2
    STORE = 3


class Daemon:
    """One relay process."""

    def __init__(self, settings: Settings, version: str, clock: Clock | None = None) -> None:
        self._settings = settings
        self._version = version
        self._clock = clock or SystemClock()
        self._board = Board()
        self._metrics = Metrics(version)
        self._shutdown = Shutdown()

    async def run(self) -> int:
        """Run until told to stop; returns the exit code."""
        self._raise_file_limit()
        asyncio.get_running_loop().set_default_executor(UnjoinedExecutor(RESOLVER_THREADS, "resolver"))
        path = sqlite_path(self._settings.store.url)
        store = SqliteStore(path, self._clock.wall_ms, self._metrics.store_commit.observe)
        disk = DiskWatch(path, self._board.gate, self._metrics.store_free, self._clock)
        with self._shutdown.listening():
            await disk.run_once()  # on a full disk opening would fail for want of the room that the ballast holds
            try:
                await store.open(await asyncio.to_thread(self._entries))
                return await self._run_rooms(store, disk)
            except StoreError as error:
                _log.error("store_unusable", error=str(error))
                return Exit.STORE
            finally:
                await store.close()

    async def _run_rooms(self, store: SqliteStore, disk: DiskWatch) -> int:
        rng, lookup = system_rng(), Lookup(self._clock)
        context = Context(store, self._metrics, self._clock, rng)
        clients = self._connect(lookup)
        scheduler = Scheduler(self._settings.targets, clients, context, self._board)
        janitor = Janitor(self._settings.targets, self._settings.store.retention, context, self._board)
        intake = Intake()
        upstream = self._settings.upstream
        ingest = Ingest(intake, store, upstream.partner_id, self._route, self._metrics, self._clock)
        supervisor = Supervisor(
            upstream, intake, store, self._board, self._metrics, self._clock, rng, self._version, route=self._route
        )
        admin = self._make_admin(store, intake, supervisor, scheduler)
        if admin is not None and not await self._start_admin(admin):
            return Exit.CRASHED
        rooms = {
            "disk": asyncio.create_task(disk.run(), name="disk"),
            "scheduler": asyncio.create_task(scheduler.run(), name="scheduler"),
            "janitor": asyncio.create_task(janitor.run(), name="janitor"),
            "ingest": asyncio.create_task(ingest.run(), name="ingest"),
            "upstream": asyncio.create_task(supervisor.run(), name="upstream"),
        }
        failed = asyncio.create_task(store.failed(), name="store-failed")
        try:
            systemd.notify("READY=1", f"STATUS=delivering to {len(self._settings.targets)} target(s)")
            _log.info(
                "started",
                version=self._version,
                targets=[target.name for target in self._settings.targets],
                store=self._settings.store.url,
                admin=_address(self._settings.admin.listen),
            )
            code = await self._wait(failed, rooms)
            await self._take_down(rooms, intake, scheduler, failed)
            if failed.done() and code is not Exit.STORE:
                code = await self._explain(failed, rooms)
        finally:
            for task in (failed, *rooms.values()):
                task.cancel()
            await asyncio.gather(failed, *rooms.values(), return_exceptions=True)
            await asyncio.gather(*(client.close() for client in clients.values()), return_exceptions=True)
            lookup.close()
            if admin is not None:
                await admin.stop()
        return self._shutdown.exit_code(code)

    async def _start_admin(self, admin: Admin) -> bool:
        """False when it cannot listen; the log says why."""
        try:
            await admin.start()
        except OSError as error:
            listen = _address(self._settings.admin.listen)
            advice = "another program listens there, or the address is not this machine's; change admin.listen"
            _log.error("admin_not_started", listen=listen, error=error.strerror or str(error), advice=advice)
            return False
        return True

    async def _wait(self, failed: asyncio.Task[str], rooms: dict[str, asyncio.Task[None]]) -> Exit:
        """Until a signal, a failed commit, or a room that ended though it never should."""
        stop = asyncio.create_task(self._shutdown.stop.wait(), name="stop")
        try:
            await asyncio.wait([stop, failed, *rooms.values()], return_when=asyncio.FIRST_COMPLETED)
            return Exit.FINE if stop.done() else await self._explain(failed, rooms)
        finally:
            stop.cancel()

    async def _explain(self, failed: asyncio.Task[str], rooms: dict[str, asyncio.Task[None]]) -> Exit:
        # A broken store fails the rooms that use it at the same moment; the store's own word counts.
        await asyncio.wait([failed], timeout=1)
        if failed.done():
            self._board.store_failure = failed.result()
            _log.error("store_failed", error=failed.result())
            return Exit.STORE
        for name, task in rooms.items():
            if task.cancelled():
                _log.error("room_ended", room=name, detail="it was cancelled by itself")
            elif task.done():
                _log.error("room_ended", room=name, exc_info=task.exception())
        return Exit.CRASHED

    async def _take_down(
        self, rooms: dict[str, asyncio.Task[None]], intake: Intake, scheduler: Scheduler, failed: asyncio.Task[str]
    ) -> None:
        self._board.stopping = True
        systemd.notify("STOPPING=1")
        _log.info("stopping", signal=self._shutdown.by.name if self._shutdown.by else None)
        rooms["upstream"].cancel()
        await asyncio.wait([rooms["upstream"]], timeout=UPSTREAM_GRACE)
        await self._shutdown.bounded(intake.join(), COMMIT_GRACE, failed)
        await self._shutdown.bounded(scheduler.drain(DRAIN_GRACE), DRAIN_GRACE + 1, failed)
        cut_off = await scheduler.drain(0.0)
        await asyncio.wait([rooms["scheduler"]], timeout=COMMIT_GRACE)
        _log.info("stopped", attempts_cut_off=cut_off)

    def _make_admin(
        self, store: SqliteStore, intake: Intake, supervisor: Supervisor, scheduler: Scheduler
    ) -> Admin | None:
        settings = self._settings
        if settings.admin.listen is None:
            return None
        audit = UpstreamAudit(settings.upstream, supervisor.api, intake, store, self._board, self._clock)
        context = AdminContext(
            settings=settings.admin,
            version=self._version,
            targets=lambda: settings.targets,
            store=store,
            board=self._board,
            metrics=self._metrics,
            clock=self._clock,
            want_sweep=supervisor.want_sweep,
            audit_source=audit,
            control=scheduler,
            public_keys=lambda: public_keys(settings.targets),
        )
        return Admin(settings.admin.listen, context)

    def _connect(self, lookup: Lookup) -> dict[str, TargetClient]:
        partner_id = self._settings.upstream.partner_id
        return {
            target.name: connect(target, lookup, self._clock, self._version, partner_id=partner_id)
            for target in self._settings.targets
        }

    def _entries(self) -> list[TargetEntry]:
        """Targets as the store has to know them; reads the files that say how each is reached."""
        return [
            TargetEntry(target.name, Ordering(target.ordering), target.paused, _reach(target))
            for target in self._settings.targets
        ]

    def _route(self, event: Event) -> tuple[str, ...]:
        return routed(self._settings.targets, event)

    def _raise_file_limit(self) -> None:
        limit, attempts = descriptors.raise_limit(), sum(target.concurrency for target in self._settings.targets)
        if missing := descriptors.shortage(limit, attempts):
            advice = f"raise the limit of open files by {missing} (LimitNOFILE=, ulimit -Hn), or lower `concurrency`"
            _log.warning("file_limit_low", limit=limit, attempts=attempts, advice=advice)


def _reach(target: TargetSettings) -> str:
    try:
        return reach_digest(target)
    except SecretUnreadable as error:
        # Its attempts will say so too; what it costs here is one look at what waits.
        _log.warning("secret_unreadable", target=target.name, error=str(error))
        return ""


def _address(listen: tuple[str, int] | None) -> str:
    return "off" if listen is None else f"{listen[0]}:{listen[1]}"

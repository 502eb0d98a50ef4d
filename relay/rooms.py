"""The rooms of one process and how they are wired; another configuration can be put under them while they run."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from relay import descriptors, log
from relay.admin.app import Admin
from relay.admin.context import Context as AdminContext
from relay.auditing import UpstreamAudit
from relay.board import Board
from relay.candidate import Candidate
from relay.clock import Clock, system_rng
from relay.config import Settings, TargetSettings
from relay.delivery.janitor import Janitor
from relay.delivery.lookup import Lookup
from relay.delivery.notices import Notices
from relay.delivery.routing import routed
from relay.delivery.scheduler import Scheduler
from relay.delivery.settler import Context
from relay.delivery.signer import public_keys
from relay.delivery.target_client import TargetClient, connect
from relay.errors import RelayError
from relay.log_names import Log
from relay.metrics import Metrics
from relay.model import Event
from relay.reload import Changes
from relay.reloader import Refused
from relay.store.base import Store
from relay.store.disk import DiskWatch
from relay.store.values import Instance, TargetEntry
from relay.tracing import OFF, Tracing
from relay.upstream.dial import open_rest_session
from relay.upstream.leadership import Leadership
from relay.upstream.orders_api import OrdersApi
from relay.upstream.term import Term, begin_term
from relay.vitals import Vitals

_log = structlog.get_logger()


class Rooms:
    """Built from a configuration over an open store.

    Attributes:
        settings: the configuration that holds; one reference, so that whoever reads it once sees one as a whole.
        admin: None when `admin.listen` is null.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        disk: DiskWatch | None,
        board: Board,
        metrics: Metrics,
        clock: Clock,
        version: str,
        instance: Instance,
        entries: Sequence[TargetEntry],
        tracing: Tracing = OFF,
    ) -> None:
        """Prepare; nothing is begun, and the store is not asked.

        Args:
            settings: the configuration to start with.
            store: the durable middle.
            disk: who measures the store's disk; None where it is not a file.
            board: what is true right now.
            metrics: the same for machines.
            clock: the time.
            version: of this program.
            instance: this process, among those that share the store.
            entries: the targets of `settings` as the store has to know them.
            tracing: where traces go.
        """
        self.settings = settings
        self._entries = entries
        self._tracing = tracing
        self._store, self._board, self._metrics = store, board, metrics
        self._clock, self._version = clock, version
        self._lookup = Lookup(clock)
        self._clients = {target.name: self._connect(target) for target in settings.targets}
        self._retiring: dict[asyncio.Task[None], TargetClient] = {}
        self._rng = system_rng()
        context = Context(store, metrics, clock, self._rng, board, tracing)
        self.scheduler = Scheduler(settings.targets, self._clients, context, board)
        self.janitor = Janitor(settings.targets, settings.store.retention, context, board)
        self.notices = Notices(context, board, disk, self.route)
        self._api = OrdersApi(settings.upstream, lambda: open_rest_session(version), clock, metrics)
        around = (board, metrics, clock, self._rng)
        self.leadership = Leadership(instance, store, self._begin_term, self._configure, *around)
        # A database that is away is no reason to end this process.
        self.vitals = Vitals(_nothing if board.lead.shared else store.check_alive, board, clock, metrics.loop_lag.set)
        self.admin = self._make_admin()
        self.warn_of_descriptors()

    def start(self) -> dict[str, asyncio.Task[Any]]:
        """Begin everything that lives as long as the process does; the tasks by name."""
        lives = {
            "scheduler": self.scheduler.run,
            "janitor": self.janitor.run,
            "notices": self.notices.run,
            "upstream": self.leadership.run,
            "vitals": self.vitals.run,
        }
        return {name: asyncio.create_task(live(), name=name) for name, live in lives.items()}

    def route(self, event: Event) -> tuple[str, ...]:
        """The targets of an event, all of it by one configuration; called from the store's thread."""
        return routed(self.settings.targets, event)

    async def prepare(self, candidate: Candidate, changes: Changes) -> Mapping[str, TargetClient]:
        """A client for each target: the present one where nothing of it changes, else a new one, ready to send.

        Raises:
            Refused: a secret or certificate cannot be used.
        """
        found = dict[str, TargetClient]()
        problems = []
        try:
            for target in candidate.settings.targets:
                if not changes.needs_client(target.name):
                    found[target.name] = self._clients[target.name]
                    continue
                found[target.name] = client = self._connect(target)
                try:
                    await client.prepare()
                except RelayError as error:
                    problems.append(f"targets.{target.name}: {error}")
            if problems:
                raise Refused(problems)
        except BaseException:
            for name, client in found.items():
                if self._clients.get(name) is not client:
                    await client.close()
            raise
        return found

    async def apply(self, candidate: Candidate, changes: Changes, prepared: Mapping[str, TargetClient]) -> None:
        """Go by this configuration from now on; attempts under way end by the old one.

        Raises:
            StoreError: the store cannot be used.
        """
        self._entries = candidate.entries
        if changes.touches("targets."):
            await self._configure()
        # Nothing waits until everything goes by it.
        settings = self.settings = candidate.settings
        before, self._clients = self._clients, dict(prepared)
        self.scheduler.reconfigure(settings.targets, self._clients)
        self.janitor.reconfigure(settings.targets, settings.store.retention)
        if changes.touches("upstream."):
            renew = changes.renews_upstream
            why = f"the configuration changed: {', '.join(renew)}" if renew else None
            self._api.reconfigure(settings.upstream)
            if self.leadership.term is not None:
                self.leadership.term.supervisor.reconfigure(settings.upstream, why)
        if changes.touches("log."):
            log.configure(settings.log.level, settings.log.format)
        for name, client in before.items():
            if self._clients.get(name) is not client:
                self._retire(name, client)
        if self.admin is not None:
            await self.admin.reconfigure(settings.admin)
        self.warn_of_descriptors()

    async def close(self) -> None:
        """Close everything towards targets and people; nothing is attempted any more."""
        for task in tuple(self._retiring):
            task.cancel()
        clients = [*self._retiring.values(), *self._clients.values()]
        await asyncio.gather(*(client.close() for client in clients), return_exceptions=True)
        self._lookup.close()
        await self._api.close()
        await self._tracing.close()
        if self.admin is not None:
            await self.admin.stop()

    def warn_of_descriptors(self) -> None:
        """Say so when fewer files may be open than all targets' attempts together need."""
        limit, attempts = descriptors.raise_limit(), sum(target.concurrency for target in self.settings.targets)
        if missing := descriptors.shortage(limit, attempts):
            advice = f"raise the limit of open files by {missing} (LimitNOFILE=, ulimit -Hn), or lower `concurrency`"
            _log.warning(Log.FILE_LIMIT_LOW, limit=limit, attempts=attempts, advice=advice)

    async def _configure(self) -> None:
        await self._store.configure(self._entries)

    def _begin_term(self) -> Term:
        around = (self._store, self._board, self._metrics, self._clock)
        return begin_term(
            self.settings.upstream, self._api, *around, self._rng, self._version, self.route, self._tracing
        )

    def _connect(self, target: TargetSettings) -> TargetClient:
        partner_id = self.settings.upstream.partner_id
        return connect(target, self._lookup, self._clock, self._version, partner_id=partner_id, tracing=self._tracing)

    def _retire(self, name: str, client: TargetClient) -> None:
        task = asyncio.create_task(client.retire(), name=f"retire-{name}")
        self._retiring[task] = client
        task.add_done_callback(lambda ended: self._retired(name, ended))

    def _retired(self, name: str, task: asyncio.Task[None]) -> None:
        self._retiring.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error(Log.CLIENT_NOT_CLOSED, target=name, error=repr(error))

    def _make_admin(self) -> Admin | None:
        listen = self.settings.admin.listen
        if listen is None:
            return None
        audit = UpstreamAudit(
            lambda: self.settings.upstream, self._api, self.leadership.intake, self._store, self._board, self._clock
        )
        context = AdminContext(
            settings=self.settings.admin,
            version=self._version,
            targets=lambda: self.settings.targets,
            store=self._store,
            board=self._board,
            metrics=self._metrics,
            clock=self._clock,
            want_sweep=self.leadership.want_sweep,
            audit_source=audit,
            control=self.scheduler,
            public_keys=lambda: public_keys(self.settings.targets),
            vitals=self.vitals,
        )
        return Admin(listen, context)


async def _nothing() -> None:
    return

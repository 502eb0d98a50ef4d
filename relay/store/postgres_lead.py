"""Who leads: one instance holds the upstream connection, for as long as it renews its lease on that."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import msgspec
import structlog

from relay.errors import NotLeader
from relay.log_names import Log
from relay.store.base import LEAD_TTL
from relay.store.postgres_link import APPLICATION, IDLE_PATIENCE, Session
from relay.store.postgres_verbs import Verbs
from relay.store.values import Instance, LiveInstance

_TTL: Final = timedelta(seconds=LEAD_TTL)
_KEPT: Final = timedelta(days=1)
"""What an instance that never said good-bye leaves behind is kept so long, for people to look at."""

_log = structlog.get_logger()


class Leading(Verbs):
    """The verbs about the lead. Its lease goes by the database's clock, so that no instance's clock matters."""

    _epoch: int | None
    _tell_vacant: Callable[[], None]

    async def lead(self, instance: Instance) -> int | None:
        """Say that this instance lives, and take the lead if nobody has it; the epoch, None while another leads."""
        await self._end_frozen()

        async def work(session: Session) -> int | None:
            epoch: int | None = await session.value("lead", {"holder": instance.id, "ttl": _TTL})
            await self._note(session, instance)
            return epoch

        def after(epoch: int | None) -> None:
            self._instance, self._epoch = instance, epoch

        return await self._run(work, after)

    async def renew(self) -> bool:
        """Say that this instance lives, and keep the lead; False once it does not lead, whatever the reason."""
        instance, epoch = self._instance, self._epoch
        if instance is None:
            return False
        await self._end_frozen()

        async def work(session: Session) -> bool:
            bound = {"holder": instance.id, "epoch": epoch, "ttl": _TTL}
            kept = epoch is not None and await session.value("renew", bound) is not None
            await self._note(session, instance)
            return kept

        def after(kept: bool) -> None:
            if not kept and self._epoch == epoch:
                self._epoch = None

        return await self._run(work, after)

    async def resign(self) -> None:
        """Give the lead back at once and tell the others; does nothing if this instance does not lead."""
        instance, epoch = self._instance, self._epoch
        if instance is None or epoch is None:
            return
        self._epoch = None  # whatever comes of it: nothing more is ingested
        bound = {"holder": instance.id, "epoch": epoch}
        if await self._run(lambda session: session.value("resign", bound)) is not None:
            await self._say_vacant()

    def on_vacant(self, tell: Callable[[], None]) -> None:
        """Call `tell` when another instance gave the lead back. A hint: it may be lost."""
        self._tell_vacant = tell

    async def instances(self) -> Sequence[LiveInstance]:
        """Every instance that was heard of lately, the longest running first."""
        rows = await self._run(lambda session: session.rows("instances", {"ttl": _TTL}))
        return [
            LiveInstance(
                Instance(instance_id, host, started_ms),
                seen_ms,
                epoch,
                msgspec.json.decode(in_flight, type=dict[str, int]),
            )
            for instance_id, host, started_ms, in_flight, seen_ms, epoch in rows
        ]

    async def shared_ms(self) -> int | None:
        """The database's wall time."""
        return int(await self._run(lambda session: session.value("clock")))

    async def _insist_on_lead(self, session: Session) -> None:
        """Let through the leader, and keep the lead from changing hands until the transaction ends.

        Raises:
            NotLeader: it is another, or nobody.
        """
        instance, epoch = self._instance, self._epoch
        if instance is not None and epoch is not None:
            if await session.row("still_leads", {"holder": instance.id, "epoch": epoch}) is not None:
                return
            self._epoch = None if self._epoch == epoch else self._epoch
        raise NotLeader("this instance does not hold the upstream connection (any more): another may")

    async def _end_frozen(self) -> None:
        """Give everybody back what transactions of a process that is frozen hold, the leader's row among it."""
        ended = await self._run(lambda session: session.rows("end_frozen", _frozen_after()))
        if ended:
            _log.warning(Log.FROZEN_SESSIONS_ENDED, count=len(ended))

    async def _leave(self) -> None:
        """Be forgotten at once: what others share out is shared by fewer."""
        instance = self._instance
        if instance is not None:
            await self._run(lambda session: session.run("forget_instances", {"id": instance.id, "kept": _KEPT}))

    async def _say_vacant(self) -> None:
        """Tell the other instances; overridden by what can."""

    async def _note(self, session: Session, instance: Instance) -> None:
        counts: dict[str, int] = {}
        for one in self._held.values():
            counts[one.target] = counts.get(one.target, 0) + 1
        bound = {"id": instance.id, "host": instance.host, "started_ms": instance.started_ms}
        await session.run("note_instance", bound | {"in_flight": msgspec.json.encode(counts).decode()})


def _frozen_after() -> dict[str, object]:
    return {"application": APPLICATION, "patience": timedelta(seconds=IDLE_PATIENCE)}

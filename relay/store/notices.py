"""How notices get into the store, from whichever room: routed, written and counted like any other event."""

from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from relay.live import Live
from relay.log_names import Log
from relay.metrics import Metrics
from relay.model import Event, KnownOrder
from relay.notice import subject_of
from relay.store.base import Store
from relay.store.values import IngestPlan, PlannedEvent

_log = structlog.get_logger()


class NoticeWriter:
    """Writes notices; one that was written before under the same webhook id is left as it is."""

    def __init__(
        self, store: Store, route: Callable[[Event], tuple[str, ...]], metrics: Metrics, live: Live | None = None
    ) -> None:
        """Prepare.

        Args:
            store: where they go.
            route: the names of the targets that are to get an event.
            metrics: where they are counted.
            live: where it is said that they were written.
        """
        self._store = store
        self._route = route
        self._metrics = metrics
        self._live = live or Live()

    async def write(self, notices: Sequence[Event], now_ms: int, remembered: Mapping[str, str] | None = None) -> None:
        """Write these, and what is to be remembered with them, in one transaction.

        Raises:
            StoreError: the store cannot be used.
        """

        def plan(_known: Mapping[str, KnownOrder]) -> IngestPlan:
            planned = [PlannedEvent(notice, self._route(notice)) for notice in notices]
            return IngestPlan(now_ms=now_ms, events=planned, remembered=dict(remembered or {}))

        written = await self._store.ingest((), plan)
        for planned in written.events:
            self._tell(planned)

    def _tell(self, planned: PlannedEvent) -> None:
        notice, subject = planned.event, subject_of(planned.event)
        self._metrics.events.labels(notice.type, "relay").inc()
        data = msgspec.json.decode(notice.body)
        _log.info(
            Log.NOTICE_WRITTEN,
            type=notice.type,
            subject=subject,
            webhook_id=notice.webhook_id,
            targets=len(planned.targets),
        )
        self._live.publish("notice", lambda: {"id": notice.webhook_id, "type": notice.type, "subject": subject, **data})

"""The audit: read the upstream's REST window, look twice where once is not enough, repair on request.

REST may lag, a delivery may be on its way: what could come by itself is looked at again one settling time
later, and only what has not moved since is a difference. What moved is settling, and counted as such.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from relay.admin.answers import ApiError
from relay.admin.compare import Difference, Expectation, Kind, Ledger, SeenOrder, compare, is_certain
from relay.clock import Clock
from relay.config import TargetSettings
from relay.log_names import Log
from relay.model import KnownOrder, iso_utc
from relay.store.base import Store

MOST_DIFFERENCES: Final = 5000
"""Differences after which an audit stops looking for more."""
FEW: Final = 20
"""Up to this many orders are asked for by id at the second look; for more the window is read again."""
_REPAIR_BATCH: Final = 100

_log = structlog.get_logger()


class AuditSource(Protocol):
    """The upstream's side. The reads raise UpstreamError when it cannot be asked.

    Attributes:
        settling: seconds by which REST may lag, and within which two reads may disagree.
    """

    settling: float

    async def not_ready(self) -> str | None:
        """Why a comparison would mean nothing now, a sentence; None when it would."""
        ...

    def window(self, since_ms: int) -> AsyncIterator[Sequence[SeenOrder]]:
        """Every order that REST shows and that was made since then, page by page."""
        ...

    async def one(self, houdini_id: str) -> SeenOrder | None:
        """One order, None when REST cannot see it."""
        ...

    async def ingest(self, orders: Sequence[SeenOrder]) -> None:
        """Put them on the way that backfill takes; returns once they are committed."""
        ...

    def last_webhook_id(self, known: KnownOrder) -> str:
        """The webhook id of an order's last event."""
        ...


@dataclass(slots=True)
class Report:
    """What an audit found.

    Attributes:
        compared: how many orders were looked at.
        settling: differences that moved while they were looked at.
        truncated: whether there may be more than it names.
        repaired: keys of the differences that were put right.
    """

    compared: int = 0
    differences: list[Difference] = field(default_factory=list)
    settling: int = 0
    truncated: bool = False
    repaired: set[tuple[object, ...]] = field(default_factory=set)

    def document(self) -> dict[str, Any]:
        """The answer of `POST /api/v1/audit`."""
        return {
            "compared": self.compared,
            "differences": [
                {
                    "order": one.order,
                    "target": one.target,
                    "kind": one.kind.value,
                    "upstream": one.upstream,
                    "known": one.known,
                    "detail": one.detail,
                    "repaired": one.key in self.repaired,
                }
                for one in self.differences
            ],
            "settling": self.settling,
            "truncated": self.truncated,
        }


@dataclass(slots=True)
class _Look:
    """One look: differences with the orders they are about."""

    compared: int = 0
    found: list[Difference] = field(default_factory=list)
    seen: dict[str, SeenOrder] = field(default_factory=dict)


class Auditor:
    """Does one audit at a time."""

    def __init__(
        self, source: AuditSource, store: Store, targets: Callable[[], Sequence[TargetSettings]], clock: Clock
    ) -> None:
        self._source = source
        self._store = store
        self._targets = targets
        self._clock = clock
        self._busy = False

    async def remember_targets(self) -> None:
        """Note since when each target has wanted what it wants: older orders owe it nothing."""
        for target in self._targets():
            wanted = json.dumps([*sorted(target.events), target.changes])
            remembered = await self._remembered(target.name)
            if remembered is None or remembered[1] != wanted:
                noted = json.dumps([self._clock.wall_ms(), wanted])
                await self._store.meta_set(_key(target.name), noted)

    async def run(self, since_ms: int, target: str | None, *, repair: bool) -> Report:
        """Compare everything made since then; `target` limits it to what this target lacks.

        Raises:
            ApiError: another audit is under way, or a comparison would mean nothing now.
            UpstreamError: REST cannot be asked.
            StoreError: the store cannot be used.
        """
        if self._busy:
            raise ApiError(409, "audit_under_way", "another audit is under way; wait for its end")
        self._busy = True
        try:
            if (reason := await self._source.not_ready()) is not None:
                raise ApiError(409, "not_ready", reason)
            expected = await self._expectations(target)
            _log.info(Log.AUDIT_BEGAN, since=iso_utc(since_ms), target=target, repair=repair)
            report = await self._run_told(since_ms, expected, repair)
        finally:
            self._busy = False
        _log.info(
            Log.AUDIT_ENDED,
            compared=report.compared,
            differences=len(report.differences),
            repaired=len(report.repaired),
            settling=report.settling,
        )
        return report

    async def _run_told(self, since_ms: int, expected: Sequence[Expectation], repair: bool) -> Report:
        try:
            return await self._run(since_ms, expected, repair)
        except asyncio.CancelledError:
            _log.warning(Log.AUDIT_BROKEN_OFF, error="the relay stops, or whoever asked has gone")
            raise
        except Exception as error:
            _log.warning(Log.AUDIT_BROKEN_OFF, error=str(error) or type(error).__name__)
            raise

    async def _run(self, since_ms: int, expected: Sequence[Expectation], repair: bool) -> Report:
        settled_ms = self._clock.wall_ms() - int(self._source.settling * 1000)
        look = await self._look(self._source.window(since_ms), expected)
        report = Report(look.compared, truncated=len(look.found) >= MOST_DIFFERENCES)
        suspects = {}
        for one in look.found:
            if is_certain(one, look.seen[one.order].created_ms, settled_ms):
                report.differences.append(one)
            else:
                suspects[one.key] = one
        if suspects:
            await self._clock.sleep(self._source.settling + 1)
            orders = {one.order for one in suspects.values()}
            second = await self._look(self._again(orders, since_ms), expected)
            look.seen.update(second.seen)
            certain = [one for one in second.found if one.key in suspects]
            report.differences += certain
            report.settling = len(suspects) - len(certain)
            # A minute has passed since the first look: what is certain may have been put right by somebody.
            still = await self._still_there(report, look.seen, expected)
            left = [one for one in report.differences if one.key in still]
            report.settling += len(report.differences) - len(left)
            report.differences = left
        if repair:
            await self._repair(report, look.seen, expected)
        return report

    async def _look(self, pages: AsyncIterator[Sequence[SeenOrder]], expected: Sequence[Expectation]) -> _Look:
        look = _Look()
        async for page in pages:
            ledger = await self._ledger([seen.houdini_id for seen in page])
            look.compared += len(page)
            for seen in page:
                if found := compare(seen, ledger, expected, self._source.last_webhook_id):
                    look.found += found
                    look.seen[seen.houdini_id] = seen
            if len(look.found) >= MOST_DIFFERENCES:
                break
        return look

    async def _again(self, orders: Collection[str], since_ms: int) -> AsyncIterator[Sequence[SeenOrder]]:
        if len(orders) <= FEW:
            for houdini_id in sorted(orders):
                if (seen := await self._source.one(houdini_id)) is not None:
                    yield [seen]
            return
        async for page in self._source.window(since_ms):
            if chosen := [seen for seen in page if seen.houdini_id in orders]:
                yield chosen

    async def _ledger(self, orders: Collection[str]) -> Ledger:
        return Ledger(await self._store.known_orders(orders), await self._store.order_deliveries(orders))

    async def _repair(self, report: Report, seen: Mapping[str, SeenOrder], expected: Sequence[Expectation]) -> None:
        """Older events go first: what is sent again, then what the ledger did not know."""
        for one in report.differences:
            if one.kind in (Kind.DEAD, Kind.MISSING) and one.target and one.webhook_id:
                made = await self._store.replay(one.target, [one.webhook_id], self._clock.wall_ms())
                if made:
                    report.repaired.add(one.key)
        strange = [one for one in report.differences if one.kind in (Kind.UNKNOWN_ORDER, Kind.STATUS_DIFFERS)]
        for start in range(0, len(strange), _REPAIR_BATCH):
            batch = strange[start : start + _REPAIR_BATCH]
            await self._source.ingest([seen[one.order] for one in batch])
        left = await self._still_there(report, seen, expected)
        report.repaired.update(one.key for one in strange if one.key not in left)

    async def _still_there(
        self, report: Report, seen: Mapping[str, SeenOrder], expected: Sequence[Expectation]
    ) -> set[tuple[object, ...]]:
        """Keys of the differences that the ledger still shows: since they were found, time has passed."""
        orders = sorted({one.order for one in report.differences})
        keys: set[tuple[object, ...]] = set()
        for start in range(0, len(orders), _REPAIR_BATCH):
            batch = orders[start : start + _REPAIR_BATCH]
            ledger = await self._ledger(batch)
            for order in batch:
                keys.update(one.key for one in compare(seen[order], ledger, expected, self._source.last_webhook_id))
        return keys

    async def _expectations(self, target: str | None) -> list[Expectation]:
        chosen = [one for one in self._targets() if target is None or one.name == target]
        if not chosen:
            raise ApiError(404, "no_such_target", "the configuration has no target of this name")
        expected = []
        for one in chosen:
            remembered = await self._remembered(one.name)
            since_ms = remembered[0] if remembered is not None else self._clock.wall_ms()
            expected.append(Expectation(one.name, one.wants, since_ms, status_only=one.changes == "status"))
        return expected

    async def _remembered(self, target: str) -> tuple[int, str] | None:
        text = await self._store.meta_get(_key(target))
        with suppress(ValueError, TypeError):
            since_ms, wanted = json.loads(text or "null")
            return int(since_ms), str(wanted)
        return None


def _key(target: str) -> str:
    return f"audit_since:{target}"

"""The upstream's side of the audit: the admin room knows no upstream, so the daemon hands it this."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from relay.admin.compare import SeenOrder
from relay.board import Board
from relay.clock import Clock
from relay.config import UpstreamSettings
from relay.errors import BadCredentials, NotLeader, NotVisible, Throttled, UpstreamError
from relay.model import KnownOrder, Origin
from relay.store.base import Store
from relay.upstream import diff
from relay.upstream.backfill import BASELINE_DONE
from relay.upstream.intake import Intake
from relay.upstream.orders_api import OrdersApi
from relay.upstream.protocol import BadOrder, parse_order, snapshot, stand_in
from relay.upstream.walk import Row, Walk, created_ms, iso_ms

ATTEMPTS: Final = 5
"""Failed requests in a row after which an audit is given up; being asked to wait is no failure."""

T = TypeVar("T")


class UpstreamAudit:
    """`relay.admin.audit.AuditSource` over the one REST client and the leader's intake."""

    settling = diff.SETTLING

    def __init__(
        self,
        settings: Callable[[], UpstreamSettings],
        api: OrdersApi,
        intake: Callable[[], Intake | None],
        store: Store,
        board: Board,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._api = api
        self._intake = intake
        self._store = store
        self._board = board
        self._clock = clock

    async def not_ready(self) -> str | None:
        """Before the first sweep has ended, every order would look unknown; whether it has, the leader knows."""
        upstream, lead = self._board.upstream, self._board.lead
        if lead.follows:
            where = f" (on host {lead.leader})" if lead.leader is not None else ""
            return f"this instance does not hold the upstream connection; ask the one that does{where}"
        catching_up = upstream.subscribed and not upstream.first_sweep_done
        if catching_up or await self._store.meta_get(BASELINE_DONE) is None:
            return "the relay is still reading what the upstream has; ask again once `houdini-relay status` is fine"
        return None

    async def window(self, since_ms: int) -> AsyncIterator[Sequence[SeenOrder]]:
        """Every order followed that was made since then."""
        orders = self._settings().orders
        if orders == "all":
            async for page in self._pages(since_ms):
                yield page
            return
        for houdini_id in orders:
            seen = await self.one(houdini_id)
            if seen is not None and _made_since(seen, since_ms):
                yield [seen]

    async def one(self, houdini_id: str) -> SeenOrder | None:
        """One order by id."""
        try:
            answer = await self._insist(partial(self._api.get, houdini_id))
        except NotVisible:
            return None
        seen = _seen(answer.body, answer.asked_at)
        if seen is None or seen.houdini_id != houdini_id:
            raise UpstreamError("REST: the answer is not about the order that was asked for")
        return seen

    async def ingest(self, orders: Sequence[SeenOrder]) -> None:
        """As rows of a first sweep, which are believed at once when they are ahead."""
        now_ms, intake = self._clock.wall_ms(), self._intake()
        if intake is None:
            raise NotLeader("this instance does not hold the upstream connection (any more): another may")
        await intake.put(
            [
                snapshot(
                    parse_order(one.body),
                    one.body,
                    origin=Origin.BACKFILL,
                    seen_ms=now_ms,
                    asked_at=one.asked_at,
                    first_sweep=True,
                )
                for one in orders
            ]
        )
        await intake.join()

    def last_webhook_id(self, known: KnownOrder) -> str:
        """The id that the order's last event has."""
        nth = known.status_counts.get(known.status, 1)
        return diff.webhook_id(self._settings().partner_id, known.houdini_id, known.status, nth)

    async def _pages(self, since_ms: int) -> AsyncIterator[Sequence[SeenOrder]]:
        walk, unreadable = Walk(self._settings().backfill.page_size), set[bytes]()
        while not walk.done:
            query = {"from": iso_ms(since_ms), **walk.query()}
            page = await self._insist(partial(self._api.list_page, **query))
            orders = [_seen(body, page.asked_at) for body in page.rows]
            unreadable |= {body for one, body in zip(orders, page.rows, strict=True) if one is None}
            fresh = walk.feed([_row(one, body) for one, body in zip(orders, page.rows, strict=True)], page.total)
            new = [one for position in fresh if (one := orders[position]) is not None]
            yield [one for one in new if _made_since(one, since_ms)]
        if walk.problem is not None:
            raise UpstreamError(f"REST did not show everything, so nothing can be said: {walk.problem}")
        if unreadable:
            raise UpstreamError(
                f"{len(unreadable)} of the orders that REST shows cannot be read, so nothing can be said"
            )

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        failures = 0
        while True:
            if self._board.stopping:
                # The REST client is closed by now, and asking would open it again.
                raise UpstreamError("the relay is stopping")
            try:
                return await ask()
            except Throttled as error:
                await self._clock.sleep(error.retry_after)
            except (BadCredentials, NotVisible):
                raise
            except UpstreamError:
                failures += 1
                if failures >= ATTEMPTS:
                    raise
                await self._clock.sleep(2.0 ** (failures - 1))


def _row(seen: SeenOrder | None, body: bytes) -> Row:
    """An unreadable order keeps its place in the walk."""
    if seen is None:
        return Row(*stand_in(body))
    return Row(seen.houdini_id, None if seen.created_ms is None else iso_ms(seen.created_ms))


def _seen(body: bytes, asked_at: float) -> SeenOrder | None:
    try:
        order = parse_order(body)
    except BadOrder:
        return None
    made_ms = created_ms(order.created)
    return SeenOrder(order.houdini_id, order.status, diff.status_values(order.fields), body, made_ms, asked_at)


def _made_since(seen: SeenOrder, since_ms: int) -> bool:
    return seen.created_ms is None or seen.created_ms >= since_ms

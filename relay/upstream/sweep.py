"""One pass over REST: every page of the window, or every watched order by id, into the intake.

A sweep never gives up on a page: the same request again, after as long as the upstream says or a growing
pause. Rows take the same way as frames, behind every frame already read.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import structlog
import tenacity

from relay.board import UpstreamBoard
from relay.clock import Clock
from relay.config.settings import UpstreamSettings
from relay.errors import BadCredentials, NotVisible, Throttled, UpstreamError
from relay.log_names import Log
from relay.model import Origin, Snapshot
from relay.upstream.orders_api import OneOrder, Page
from relay.upstream.protocol import BadOrder, ParsedOrder, parse_order, snapshot, stand_in
from relay.upstream.walk import Row, Walk, created_ms

LONGEST_PAUSE: Final = 60.0
"""Seconds to which the pause between failing requests grows."""

BY_ID_ATTEMPTS: Final = 5
"""Failed requests after which a sweep by id goes on to the next order."""

T = TypeVar("T")
log = structlog.get_logger()


class Api(Protocol):
    """The part of the orders API used here."""

    async def list_page(self, **query: str | int) -> Page:
        """One page of orders."""
        ...

    async def get(self, houdini_id: str) -> OneOrder:
        """One order."""
        ...


class RowSink(Protocol):
    """The intake's side for REST rows."""

    overflowed: asyncio.Event

    async def put(self, snapshots: Sequence[Snapshot]) -> None:
        """Add them, waiting for room."""
        ...

    def confirm(self, snapshot: Snapshot) -> None:
        """Add the frame of a question that REST can never answer."""
        ...

    async def join(self) -> None:
        """Wait until everything added so far is committed."""
        ...


@dataclass(slots=True)
class Marking:
    """What the rows of a sweep are marked with.

    Attributes:
        first_sweep: whether it is the first of its epoch.
        silent: whether orders unknown so far are learned without an event.
        subscribed_ms: server time of the first subscription ever; an order created later is never silent.
    """

    first_sweep: bool = False
    silent: bool = False
    subscribed_ms: int | None = None

    def snapshot(self, order: ParsedOrder, body: bytes, asked_at: float, seen_ms: int) -> Snapshot:
        """A row as a snapshot."""
        created = created_ms(order.created)
        newer = created is not None and self.subscribed_ms is not None and created > self.subscribed_ms
        return snapshot(
            order,
            body,
            origin=Origin.BACKFILL,
            seen_ms=seen_ms,
            asked_at=asked_at,
            first_sweep=self.first_sweep,
            silent=self.silent and not newer,
        )


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep saw.

    Attributes:
        shown: ids of the orders.
        problem: why it may not have seen everything, None when it has.
        hidden: asked for by id, and definitively not visible.
    """

    shown: set[str]
    problem: str | None
    hidden: tuple[str, ...] = ()


class Sweeper:
    """Does the sweeps; also the single reads by id, which fail in the same ways."""

    def __init__(
        self, settings: UpstreamSettings, api: Api, intake: RowSink, board: UpstreamBoard, clock: Clock
    ) -> None:
        self._settings = settings
        self._api = api
        self._intake = intake
        self._board = board
        self._clock = clock
        self._complained: str | None = None
        self._said_by_number, self._unreadable = False, 0

    def reconfigure(self, settings: UpstreamSettings) -> None:
        """Sweep by these settings; a sweep under way keeps its page size."""
        self._settings = settings

    async def all_orders(self, marking: Marking, on_page: Callable[[Page], Awaitable[None]]) -> Swept:
        """Every order of the window; `on_page` is awaited before a page's rows are put into the intake."""
        walk = Walk(self._settings.backfill.page_size)
        unreadable = 0
        while not walk.done:
            page = await self._insist(lambda: self._api.list_page(**walk.query()))
            await on_page(page)
            parsed = [_readable(body) for body in page.rows]
            unreadable += parsed.count(None)
            by_number = walk.by_number
            fresh = walk.feed([_row(order, body) for order, body in zip(parsed, page.rows, strict=True)], page.total)
            if walk.by_number and not by_number and not self._said_by_number:
                self._said_by_number = True
                log.warning(Log.SWEEP_BY_PAGE_NUMBER, detail="the upstream does not sort by created")
            now_ms = self._clock.wall_ms()
            await self._intake.put(
                [
                    marking.snapshot(order, page.rows[position], page.asked_at, now_ms)
                    for position in fresh
                    if (order := parsed[position]) is not None
                ]
            )
        await self._intake.join()
        if unreadable > self._unreadable:
            log.error(Log.UNREADABLE_ORDERS, count=unreadable)
        self._unreadable = unreadable
        return Swept(walk.shown, walk.problem)

    async def by_id(self, ids: Iterable[str], marking: Marking) -> Swept:
        """These orders, one after the other."""
        shown: set[str] = set()
        hidden: list[str] = []
        failed = 0
        for houdini_id in ids:
            try:
                visible = await self._insist(self._fetching(houdini_id, marking), BY_ID_ATTEMPTS)
            except UpstreamError:
                failed += 1
            else:
                (shown.add if visible else hidden.append)(houdini_id)
        await self._intake.join()
        return Swept(shown, f"{failed} orders could not be asked for" if failed else None, tuple(hidden))

    async def fetch(self, houdini_id: str, marking: Marking) -> bool:
        """Read one order into the intake; False when the upstream says that it cannot see it.

        Raises:
            UpstreamError: no usable answer; the caller decides when to ask again.
        """
        try:
            one = await self._api.get(houdini_id)
        except NotVisible:
            return False
        order = _readable(one.body)
        if order is None or order.houdini_id != houdini_id:
            raise UpstreamError("REST: the answer is not about the order that was asked for")
        await self._intake.put([marking.snapshot(order, one.body, one.asked_at, self._clock.wall_ms())])
        return True

    def complain(self, error: BaseException | None) -> None:
        """One line when REST begins to fail or fails in another way, none for its repetitions."""
        self._board.sweeps_stuck(str(error), self._clock.mono())
        if type(error).__name__ != self._complained:
            self._complained = type(error).__name__
            log.warning(Log.REST_FAILING, kind=self._complained, error=str(error))

    def _fetching(self, houdini_id: str, marking: Marking) -> Callable[[], Awaitable[bool]]:
        return lambda: self.fetch(houdini_id, marking)

    async def _insist(self, ask: Callable[[], Awaitable[T]], attempts: int | None = None) -> T:
        """The same request until it is answered; throttled and unauthorised ones do not count as attempts."""

        def exhausted(state: tenacity.RetryCallState) -> bool:
            waits = isinstance(_error_of(state), Throttled | BadCredentials)
            return attempts is not None and not waits and state.attempt_number >= attempts

        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(UpstreamError),
            wait=self._pause,
            stop=exhausted,
            sleep=self._clock.sleep,
            before_sleep=lambda state: self.complain(_error_of(state)),
            reraise=True,
        ):
            with attempt:
                answer = await ask()
                self._complained = None
                self._board.sweeps_get_on()
        return answer

    def _pause(self, state: tenacity.RetryCallState) -> float:
        match _error_of(state):
            case Throttled(retry_after=seconds):
                return seconds
            case BadCredentials():
                return self._settings.auth_retry
            case _:
                return float(min(2.0 ** min(state.attempt_number - 1, 10), LONGEST_PAUSE))


def _row(order: ParsedOrder | None, body: bytes) -> Row:
    """An unreadable order keeps its place, or the walk would think that rows were hidden from it."""
    return Row(*stand_in(body)) if order is None else Row(order.houdini_id, order.created)


def _readable(body: bytes) -> ParsedOrder | None:
    try:
        return parse_order(body)
    except BadOrder:
        return None


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None

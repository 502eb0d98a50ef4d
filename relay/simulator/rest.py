"""The REST half of the stand-in upstream: `GET /orders`, `GET /orders/{houdiniId}`, and how they go wrong."""

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web
from multidict import MultiMapping

from relay.simulator.faults import Faults, RestFault, ThrottleShape
from relay.simulator.world import Change, Order, World

_HANG_SECONDS: Final = 120.0
_RATE_WINDOW_SECONDS: Final = 60.0
_MAX_PAGE: Final = 10_000
_MAX_PAGE_SIZE: Final = 100

Row = tuple[Order, Change]

_SORT_KEYS: Final[Mapping[str, Callable[[Row], Any]]] = {
    "created": lambda row: (row[0].created_ms, row[0].houdini_id),
    "updated": lambda row: (row[0].modified_ms, row[0].houdini_id),
    "amount": lambda row: (row[0].fields["inAmount"], row[0].houdini_id),
}


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What `GET /orders` was asked for, within the documented bounds."""

    page: int = 1
    page_size: int = _MAX_PAGE_SIZE
    statuses: frozenset[int] = frozenset()
    from_ms: int | None = None
    to_ms: int | None = None
    anonymous: bool | None = None
    multi_id: str | None = None
    sort_by: str = "created"
    descending: bool = True

    def takes(self, row: Row) -> bool:
        """Whether this row is among those asked for."""
        order, change = row
        return (
            (not self.statuses or change.status in self.statuses)
            and (self.from_ms is None or order.created_ms >= self.from_ms)
            and (self.to_ms is None or order.created_ms <= self.to_ms)
            and (self.anonymous is None or order.fields["anonymous"] is self.anonymous)
            and (self.multi_id is None or order.fields.get("multiId") == self.multi_id)
        )


def parse_query(query: MultiMapping[str]) -> ListQuery:
    """Read the parameters that are known, ignore the others, as the upstream does.

    Raises:
        ValueError: a known parameter is out of its bounds; says which.
    """
    return ListQuery(
        page=_bounded(query, "page", 1, _MAX_PAGE),
        page_size=_bounded(query, "pageSize", _MAX_PAGE_SIZE, _MAX_PAGE_SIZE),
        statuses=frozenset(_integer("status", text) for text in query.getall("status", [])),
        from_ms=_instant(query, "from"),
        to_ms=_instant(query, "to"),
        anonymous={"true": True, "false": False}.get(query.get("anonymous", "")),
        multi_id=query.get("multiId"),
        sort_by=_choice(query, "sortBy", ("created", "updated", "amount")),
        descending=_choice(query, "sortOrder", ("desc", "asc")) == "desc",
    )


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be an integer") from None


def _bounded(query: MultiMapping[str], name: str, default: int, most: int) -> int:
    number = _integer(name, query.get(name, str(default)))
    if not 1 <= number <= most:
        raise ValueError(f"{name} must be between 1 and {most}")
    return number


def _instant(query: MultiMapping[str], name: str) -> int | None:
    if name not in query:
        return None
    try:
        moment = datetime.fromisoformat(query[name])
    except ValueError:
        raise ValueError(f"{name} must be an ISO 8601 date") from None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def _choice(query: MultiMapping[str], name: str, choices: tuple[str, ...]) -> str:
    chosen = query.get(name, choices[0])
    if chosen not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}")
    return chosen


class OrdersApi:
    """The two documented reads. Orders are spliced in as the bytes they are, never encoded again."""

    def __init__(self, world: World, faults: Faults, partner_id: str, secret: str) -> None:
        self._world = world
        self._faults = faults
        self._credentials = f"{partner_id}:{secret}"
        self._request_ids = itertools.count(1)
        self._recent: deque[float] = deque()
        self.requests = 0

    async def list_orders(self, request: web.Request) -> web.StreamResponse:
        """`GET /v2/orders`."""
        refusal = await self._refusal(request)
        if refusal is not None:
            return refusal
        try:
            wanted = parse_query(request.query)
        except ValueError as error:
            return self._error(400, "VALIDATION_ERROR", str(error))
        rows = [row for row in self._world.visible(self._faults.rest_lag_seconds) if wanted.takes(row)]
        if not self._faults.ignore_sort:
            rows.sort(key=_SORT_KEYS[wanted.sort_by], reverse=wanted.descending)
        start = (wanted.page - 1) * wanted.page_size
        changes = [change for _, change in rows[start : start + wanted.page_size]]
        head = f'{{"total":{len(rows)},"totalPages":{math.ceil(len(rows) / wanted.page_size)},"orders":['
        body = head.encode() + b",".join(change.body for change in changes) + b"]}"
        return await self._show(request, body, changes)

    async def get_order(self, request: web.Request) -> web.StreamResponse:
        """`GET /v2/orders/{houdiniId}`."""
        refusal = await self._refusal(request)
        if refusal is not None:
            return refusal
        found = self._world.find(request.match_info["houdini_id"], self._faults.rest_lag_seconds)
        if found is None:
            return self._error(404, "ORDER_NOT_FOUND", "Order not found")
        return await self._show(request, found[1].body, [found[1]])

    async def _show(self, request: web.Request, body: bytes, changes: list[Change]) -> web.StreamResponse:
        """Write the answer here, so that only what was written is recorded as shown."""
        response = web.Response(body=body, content_type="application/json", charset="utf-8")
        try:
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:
            return response  # the client has left
        self._world.shown(changes)
        return response

    async def _refusal(self, request: web.Request) -> web.Response | None:
        self.requests += 1
        match self._faults.take_rest_fault():
            case RestFault.STATUS:
                return self._error(self._faults.rest_status, "INTERNAL_ERROR", "Something went wrong")
            case RestFault.THROTTLED:
                return self._throttled()
            case RestFault.HTML:
                page = "<html><head><title>502 Bad Gateway</title></head><body>cloud edge</body></html>"
                return web.Response(status=502, text=page, content_type="text/html")
            case RestFault.EMPTY:
                return web.Response(status=200, content_type="application/json")
            case RestFault.HANG:
                await asyncio.sleep(_HANG_SECONDS)
        if "Authorization" not in request.headers:
            return web.json_response({}, status=402)
        if request.headers["Authorization"] != self._credentials:
            return self._error(401, "UNAUTHORIZED", "Invalid credentials")
        return self._throttled() if self._over_rate() else None

    def _over_rate(self) -> bool:
        if not self._faults.rate_limit:
            return False
        now = self._world.clock.mono()
        while self._recent and self._recent[0] <= now - _RATE_WINDOW_SECONDS:
            self._recent.popleft()
        if len(self._recent) >= self._faults.rate_limit:
            return True
        self._recent.append(now)
        return False

    def _throttled(self) -> web.Response:
        seconds, limit = self._faults.retry_after, self._faults.rate_limit or 10
        sentence = f"FREE tier: {limit} readHeavy requests per minute. Try again in {seconds} seconds."
        plain = {"code": "RATE_LIMIT_EXCEEDED", "message": "Too many requests", "requestId": self._request_id()}
        bodies: dict[ThrottleShape, dict[str, Any]] = {
            ThrottleShape.META: {**plain, "retryAfter": seconds, "meta": {"retryAfter": seconds}},
            ThrottleShape.EXTENSIONS: {
                "code": 429,
                "type": "RATE_LIMIT_EXCEEDED",
                "extensions": {"retryAfter": seconds, "limit": limit, "windowMs": 60000},
            },
            ThrottleShape.GRAPHQL: {"errors": [{"extensions": {"code": 429, "retryAfter": seconds}}]},
            ThrottleShape.SENTENCE: {**plain, "message": sentence},
        }
        headers = {"Retry-After": str(seconds)} if self._faults.retry_after_header else None
        return web.json_response(bodies[self._faults.throttle_shape], status=429, headers=headers)

    def _error(self, status: int, code: str, message: str) -> web.Response:
        return web.json_response({"code": code, "message": message, "requestId": self._request_id()}, status=status)

    def _request_id(self) -> str:
        return f"req-{next(self._request_ids):08d}"

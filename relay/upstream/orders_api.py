"""The upstream's REST side: pages of orders, one order, and what its refusals mean.

Every call goes through one limiter, so that sweeps, questions and commands together stay within the budget,
and everybody waits while the upstream asks to.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
import structlog
from yarl import URL

from relay.clock import Clock
from relay.config.settings import UpstreamSettings
from relay.errors import BadCredentials, NotVisible, SecretUnreadable, Throttled, UpstreamError
from relay.http_date import http_date_ms
from relay.metrics import Metrics
from relay.upstream.dial import close_session, credentials, describe_failure, secret_headers
from relay.upstream.limiter import Limiter
from relay.upstream.splice import NotSplit, elements, members
from relay.upstream.throttling import is_throttled, throttle_seconds

MAX_BODY: Final = 8 * 2**20
"""Bytes of an answer beyond which it is given up."""

REQUEST_TIMEOUT: Final = 30.0
"""Seconds for a whole request, from dialling to the last byte of its answer."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of orders.

    Attributes:
        rows: order objects as they came, byte for byte.
        total: how many orders match the query, None when the answer does not say.
        asked_at: monotonic time at which the request was sent.
        server_ms: the server's own time of the answer, None when it names none.
    """

    rows: tuple[bytes, ...]
    total: int | None
    asked_at: float
    server_ms: int | None


@dataclass(frozen=True, slots=True)
class OneOrder:
    """One order, as it came; `asked_at` is the monotonic time at which the request was sent."""

    body: bytes
    asked_at: float


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    asked_at: float


_MALFORMED: Final = (msgspec.MsgspecError, RecursionError, UnicodeError)


class OrdersApi:
    """`GET /orders` and `GET /orders/{id}`.

    All calls raise BadCredentials, Throttled, NotVisible (only a JSON 404 about one order) or, for anything
    else that is not the documented answer, UpstreamError.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        open_session: Callable[[], aiohttp.ClientSession],
        clock: Clock,
        metrics: Metrics,
        *,
        timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        self._settings = settings
        self._open_session = open_session
        self._session: aiohttp.ClientSession | None = None
        self._clock = clock
        self._metrics = metrics
        self._timeout = timeout
        self._limiter = Limiter(settings.backfill.requests_per_minute, clock)
        self._base = settings.rest_url.rstrip("/")
        self._host = URL(settings.rest_url).host or "the upstream"

    def reconfigure(self, settings: UpstreamSettings) -> None:
        """Ask by these settings from the next request on."""
        before, self._settings = self._settings, settings
        self._base = settings.rest_url.rstrip("/")
        self._host = URL(settings.rest_url).host or "the upstream"
        if settings.backfill.requests_per_minute != before.backfill.requests_per_minute:
            self._limiter.change(settings.backfill.requests_per_minute)

    async def list_page(self, **query: str | int) -> Page:
        """One page of `GET /orders`, the query as given (`page`, `pageSize`, `sortBy`, `from`, ...)."""
        answer = await self._get("orders", f"/orders?{urlencode(query)}" if query else "/orders")
        try:
            page = members(answer.body)
            rows = tuple(elements(page.get("orders", b"")))
        except NotSplit as error:
            raise self._unusable(answer, error) from None
        return Page(rows, _count(page.get("total", b"null")), answer.asked_at, http_date_ms(answer.headers.get("Date")))

    async def get(self, houdini_id: str) -> OneOrder:
        """`GET /orders/{houdini_id}`; the caller checks that the answer is about that order."""
        answer = await self._get("order", f"/orders/{path_segment(houdini_id)}")
        try:
            fields = members(answer.body)
        except NotSplit as error:
            raise self._unusable(answer, error) from None
        if "houdiniId" not in fields:
            raise self._unusable(answer, ValueError("no houdiniId"))
        return OneOrder(answer.body.strip(), answer.asked_at)

    async def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await close_session(session)

    async def _get(self, endpoint: str, path_and_query: str) -> _Answer:
        await self._limiter.acquire()
        code = "error"
        try:
            answer = await self._fetch(path_and_query)
            code = str(answer.status) if 100 <= answer.status < 600 else "other"
        finally:
            self._metrics.rest_requests.labels(endpoint, code).inc()
        if not 200 <= answer.status < 300 or not answer.body.strip():
            raise self._refusal(endpoint, answer)
        return answer

    async def _fetch(self, path_and_query: str) -> _Answer:
        try:
            async with asyncio.timeout(self._timeout):
                headers = {
                    **await secret_headers(self._settings.rest_headers),
                    "Authorization": await credentials(self._settings.partner_id, self._settings.secret),
                }
                return await self._exchange(URL(self._base + path_and_query, encoded=True), headers)
        except SecretUnreadable as error:
            raise BadCredentials(str(error)) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            _, reason = describe_failure(error, self._host)
            raise UpstreamError(f"REST: {reason}") from None

    async def _exchange(self, url: URL, headers: Mapping[str, str]) -> _Answer:
        if self._session is None:
            self._session = self._open_session()
        asked_at = self._clock.mono()
        async with self._session.get(url, headers=headers, allow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(65_536):
                body += chunk
                if len(body) > MAX_BODY:
                    response.close()
                    raise UpstreamError(f"REST: an answer of {self._host} is larger than {MAX_BODY} bytes")
            return _Answer(response.status, response.headers, bytes(body), asked_at)

    def _refusal(self, endpoint: str, answer: _Answer) -> UpstreamError:
        status = answer.status
        if status in (401, 402, 403):
            return BadCredentials(f"REST: {self._host} refused the credentials ({status})")
        if is_throttled(status, answer.headers, answer.body):
            return self._throttled(answer)
        if status == 404 and endpoint == "order" and _is_json_object(answer.body):
            return NotVisible("REST: the upstream cannot see this order (404)")
        what = "with an empty body" if 200 <= status < 300 else "instead of 2xx"
        return UpstreamError(f"REST: {self._host} answered {status} {what}")

    def _unusable(self, answer: _Answer, error: Exception) -> UpstreamError:
        """The error for a 2xx whose body is not what it should be; a limit may hide behind it."""
        if is_throttled(answer.status, answer.headers, answer.body):
            return self._throttled(answer)
        return UpstreamError(f"REST: {self._host} answered {answer.status} with a wrong body ({type(error).__name__})")

    def _throttled(self, answer: _Answer) -> Throttled:
        seconds = throttle_seconds(answer.headers, answer.body, self._clock.wall_ms())
        self._limiter.hold(seconds)
        return Throttled(f"REST: {self._host} asks to wait {seconds:g} s", seconds)


def path_segment(houdini_id: str) -> str:
    """An id as one path segment that nothing on the way takes for a separator or a parent folder."""
    encoded = quote(houdini_id, safe="")
    return encoded.replace(".", "%2E") if not encoded.strip(".") else encoded


def _count(raw: bytes) -> int | None:
    try:
        return msgspec.json.decode(raw, type=int)
    except _MALFORMED:
        return None


def _is_json_object(body: bytes) -> bool:
    try:
        members(body)
    except NotSplit:
        return False
    return True

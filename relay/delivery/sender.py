"""One attempt over the wire: a request in, an `Attempt` out, never an exception.

aiohttp is behind `Sender.post`; nothing else in the relay sends webhooks. The status line decides what an
attempt was worth; the body that follows is only kept for people to look at.
"""

import asyncio
import contextlib
import os
import ssl
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver
from yarl import URL

from relay.clock import Clock
from relay.config import TargetSettings
from relay.delivery import envelope, retry
from relay.delivery.signer import Signer
from relay.model import Attempt, Delivery, Outcome

READ_CAP: Final = 64 * 1024
"""Bytes of an answer's body that are read before its connection is closed."""
KEEP_CAP: Final = 4 * 1024
"""Bytes of an answer's body that are kept with the attempt."""
BODY_GRACE_S: Final = 2.0
"""Seconds the body may take once the status is known."""
CLOSE_GRACE_S: Final = 2.0
ERROR_CAP: Final = 512
"""Bytes of an attempt's error text."""
_HEADER_CAP: Final = 256
_SHORTEST_HIDDEN: Final = 8

_LEAKY_TLS: Final = sys.version_info < (3, 12, 8) or sys.version_info[:3] == (3, 13, 0)
"""Pythons that leak a TLS transport whose peer does not finish the closing handshake."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PostRequest:
    """Everything one attempt sends.

    Attributes:
        url: where to.
        headers: all of the request's own headers, lower-case names.
        body: the signed bytes.
        timeout: seconds for the whole attempt: resolve, connect, TLS, send, answer and its body.
        hidden: secret values that must not be kept if the receiver echoes them.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    timeout: float
    hidden: tuple[str, ...] = field(default=(), repr=False)


def build_request(delivery: Delivery, target: TargetSettings, signer: Signer, now_ms: int) -> PostRequest:
    """The next attempt of this delivery, signed for now.

    Raises:
        SecretUnreadable: the URL's or a header's secret cannot be read now.
        ValueError: the target's format is not one this program has.
    """
    event = delivery.event
    body = envelope.compose(event, target.format)
    timestamp_s = now_ms // 1000
    static = {name.lower(): value.reveal() for name, value in target.headers.items()}
    own = {
        "content-type": envelope.content_type(target.format),
        "accept-encoding": "identity",
        "webhook-id": event.webhook_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signer.sign(event.webhook_id, timestamp_s, body),
        "relay-attempt": str(delivery.attempts_made + 1),
    }
    url = target.url.reveal()
    return PostRequest(url, {**static, **own}, body, target.timeout, (*static.values(), *_url_secrets(url)))


class Sender:
    """Sends webhooks over one pool of connections; `open` before the first `post`, `close` after the last."""

    def __init__(self, clock: Clock, version: str, resolver: AbstractResolver | None = None) -> None:
        self._clock = clock
        self._user_agent = f"houdini-relay/{version}"
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the pool; nothing is dialled yet."""
        connector = _Connector(
            limit=0,
            limit_per_host=0,
            keepalive_timeout=4,
            ttl_dns_cache=10,
            resolver=self._resolver,
            ssl=ssl.create_default_context(),
            enable_cleanup_closed=_LEAKY_TLS,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"user-agent": self._user_agent},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=16 * 1024,
        )

    async def close(self) -> None:
        """Close every connection, waiting a bounded time for them to end."""
        session, self._session = self._session, None
        if session is None:
            return
        try:
            async with asyncio.timeout(CLOSE_GRACE_S):
                await session.close()
        except TimeoutError:
            log.warning("webhook_connections_left_open", waited_s=CLOSE_GRACE_S)

    async def post(self, request: PostRequest) -> Attempt:
        """Send it once and say what came of it. Raises nothing but `CancelledError`."""
        at_ms, began = self._clock.wall_ms(), self._clock.mono()
        try:
            response = await self._send(request)
        except Exception as failure:
            error = describe_failure(failure, request.timeout)
            return Attempt(at_ms, self._since(began), Outcome.RETRY, error=error)
        try:
            spent_s = self._clock.mono() - began
            body = await _read_body(response, min(BODY_GRACE_S, max(0.0, request.timeout - spent_s)))
        finally:
            response.close()
        return Attempt(
            at_ms,
            self._since(began),
            retry.classify(response.status),
            status_code=response.status,
            response_body=_hide(body, request.hidden)[:KEEP_CAP],
            headers=_deciding_headers(response.headers),
        )

    async def _send(self, request: PostRequest) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("the sender is not open")
        return await self._session.post(
            request.url,
            data=request.body,
            headers=request.headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=request.timeout, ceil_threshold=60),
        )

    def _since(self, began: float) -> float:
        return (self._clock.mono() - began) * 1000


class _Connector(aiohttp.TCPConnector):
    """A pool that does not hand out a connection on which unasked bytes lie.

    aiohttp would take a second answer to the last request for the answer to the next one: a delivery nobody
    received would count as delivered.
    """

    async def _get(self, key: Any, traces: Any) -> Any:
        while (connection := await super()._get(key, traces)) is not None:
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        return None


async def _read_body(response: aiohttp.ClientResponse, seconds: float) -> bytes:
    """What can be had of the body within the cap and the time; the status has decided already."""
    kept = bytearray()
    # However a body stalls, breaks off or lies about its length: it changes nothing about the delivery.
    with contextlib.suppress(Exception):
        async with asyncio.timeout(seconds):
            while len(kept) < READ_CAP and (chunk := await response.content.read(READ_CAP - len(kept))):
                kept += chunk
    return bytes(kept)


def describe_failure(failure: Exception, timeout: float) -> str:
    """`kind: detail` of an attempt without an answer.

    The detail never quotes what was sent or received: a receiver that echoes garbage would put our URL and
    headers into it.
    """
    kind, detail = _kind_and_detail(failure, timeout)
    return _printable(f"{kind}: {detail}", ERROR_CAP)


def _kind_and_detail(failure: Exception, timeout: float) -> tuple[str, str]:
    match failure:
        case aiohttp.ClientConnectorDNSError():
            return "dns", _os_words(failure.os_error)
        case aiohttp.ClientConnectorCertificateError():
            return "tls", _tls_words(failure.certificate_error)
        case aiohttp.ClientSSLError():
            return "tls", _tls_words(failure.os_error)
        case aiohttp.ClientConnectorError():
            return "connect", _os_words(failure.os_error)
        case TimeoutError():
            return "timeout", f"no answer within {timeout:g} s"
        case aiohttp.ServerDisconnectedError():
            return "reset", "connection closed before an answer; the request may have been processed"
        case aiohttp.ClientConnectionError() | OSError():
            return "reset", _os_words(failure)
        case aiohttp.NonHttpUrlClientError() | ValueError() | TypeError():
            return "request", f"the URL or a header cannot be sent ({type(failure).__name__})"
        case aiohttp.ClientError():
            return "protocol", f"the answer is not usable HTTP ({type(failure.__cause__ or failure).__name__})"
    log.error("attempt_failed_unexpectedly", error_type=type(failure).__name__)
    return "request", f"unexpected {type(failure).__name__}"


def _os_words(failure: BaseException) -> str:
    number = getattr(failure, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    # getaddrinfo numbers its errors below zero and words them itself.
    return getattr(failure, "strerror", None) or type(failure).__name__


def _tls_words(failure: BaseException) -> str:
    if isinstance(failure, ssl.SSLCertVerificationError):
        return f"certificate refused, {failure.verify_message}"
    if isinstance(failure, ssl.SSLError) and failure.reason:
        return str(failure.reason).lower().replace("_", " ")
    return _os_words(failure)


def _deciding_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: _printable(headers[name], _HEADER_CAP) for name in ("retry-after", "date") if name in headers}


def _printable(text: str, cap: int) -> str:
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown.encode()[:cap].decode(errors="ignore")


def _url_secrets(url: str) -> tuple[str, ...]:
    """The parts of a URL that may not be shown: userinfo, query, and the path beyond its first segment."""
    try:
        parsed = URL(url)
    except ValueError:
        return (url,)
    _, _, beyond = parsed.raw_path.lstrip("/").partition("/")
    return tuple(part for part in (parsed.raw_user, parsed.raw_password, parsed.raw_query_string, beyond) if part)


def _hide(body: bytes, hidden: Iterable[str]) -> bytes:
    """The body without secrets that the receiver echoed; very short values would only riddle it with holes."""
    for value in sorted(hidden, key=len, reverse=True):
        if len(value) >= _SHORTEST_HIDDEN:
            body = body.replace(value.encode(errors="replace"), b"[redacted]")
    return body

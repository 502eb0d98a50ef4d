"""The aiohttp side of a connection: the two sessions, dialling, hanging up, and what failures mean."""

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp
import structlog
from yarl import URL

from relay.clock import Clock
from relay.config.settings import UpstreamSettings
from relay.errors import SecretUnreadable
from relay.http_date import http_date_ms
from relay.log_names import Log
from relay.secret import Secret
from relay.upstream.endings import EndKind, EpochOver, classify_close, classify_handshake
from relay.upstream.protocol import printable
from relay.upstream.throttling import retry_after_header

USER_AGENT: Final = "houdini-relay"

MAX_MESSAGE: Final = 2**20
"""Bytes beyond which a WebSocket message is refused (an order is 3 to 8 kB)."""

CLOSE_GRACE: Final = 2.0
"""Seconds a polite close may take before the transport is cut."""

_USER_TIMEOUT_MS: Final = 30_000
_CLEANS_TLS_BADLY: Final = sys.version_info < (3, 12, 8) or sys.version_info[:3] == (3, 13, 0)
_SPELLINGS: Final = {"partner-api": "api-partner", "api-partner": "partner-api"}


Socket = aiohttp.ClientWebSocketResponse[bool]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Line:
    """An open WebSocket.

    Attributes:
        response: the answer to the upgrade, which holds the connection's place in the session.
        transport: what can be cut at once, None when it is gone already.
        server_date_ms: the server's own time at the upgrade, None when it named none.
    """

    socket: Socket
    response: aiohttp.ClientResponse
    transport: asyncio.Transport | None
    server_date_ms: int | None


class RedirectRefused(aiohttp.ClientError):
    """The upstream answered with a redirect; following it could carry the credentials elsewhere."""


async def refuse_redirects(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A client middleware: `ws_connect` has no switch for redirects, so they are stopped here."""
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise RedirectRefused(f"answered with a redirect ({response.status}), which is not followed")
    return response


class DialBroken(aiohttp.ClientError):
    """The connection broke before the upgrade was answered."""


async def dial_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """A client middleware: aiohttp would silently dial a second time, past our backoff."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        raise DialBroken("broke the connection instead of answering the upgrade") from None


def watched_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket on which the kernel notices a dead peer by itself, within about half a minute."""
    family, kind, protocol = address[:3]
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
    return sock


def open_socket_session(version: str) -> aiohttp.ClientSession:
    """The session for the WebSocket; its timeouts bound the handshake only."""
    connector = aiohttp.TCPConnector(
        limit=2,
        force_close=True,
        use_dns_cache=False,
        socket_factory=watched_socket,
        enable_cleanup_closed=_CLEANS_TLS_BADLY,
    )
    timeout = aiohttp.ClientTimeout(total=120, ceil_threshold=300)
    return _session(connector, version, timeout, (refuse_redirects, dial_once))


def open_rest_session(version: str) -> aiohttp.ClientSession:
    """The session for REST; bodies come as they are, so that a small answer cannot unfold into a huge one."""
    connector = aiohttp.TCPConnector(
        limit=4,
        keepalive_timeout=15,
        ttl_dns_cache=30,
        socket_factory=watched_socket,
        enable_cleanup_closed=_CLEANS_TLS_BADLY,
    )
    timeout = aiohttp.ClientTimeout(total=60, ceil_threshold=300)
    return _session(connector, version, timeout, (refuse_redirects,), auto_decompress=False)


async def dial(settings: UpstreamSettings, http: aiohttp.ClientSession, clock: Clock) -> Line:
    """Open the WebSocket within `handshake_timeout`.

    Raises:
        EpochOver: it cannot be opened now.
    """
    url = URL(settings.websocket_url)
    try:
        async with asyncio.timeout(settings.handshake_timeout):
            socket = await http.ws_connect(
                url,
                headers={"Authorization": await credentials(settings.partner_id, settings.secret)},
                heartbeat=settings.heartbeat.interval,
                timeout=aiohttp.ClientWSTimeout(ws_receive=None, ws_close=CLOSE_GRACE),
                compress=0,
                max_msg_size=MAX_MESSAGE,
                decode_text=False,
            )
    except SecretUnreadable as error:
        raise EpochOver(EndKind.AUTH, str(error)) from None
    except aiohttp.WSServerHandshakeError as error:
        wait = retry_after_header(error.headers or {}, clock.wall_ms())
        detail = f"the upgrade was answered with {error.status}"
        raise EpochOver(classify_handshake(error.status), detail, wait) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise EpochOver(*describe_failure(error, url.host or "the upstream")) from None
    # Private both, but nothing public can abort a transport, or give back what was cut short.
    connection, response = socket._conn, socket._response
    transport = connection.transport if connection is not None else None
    return Line(socket, response, transport, http_date_ms(response.headers.get("Date")))


async def hang_up(line: Line) -> None:
    """Close politely within the grace, then cut: a chatty or dead peer would hold us for ever."""
    try:
        async with asyncio.timeout(CLOSE_GRACE):
            await line.socket.close()
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        log.debug(Log.UPSTREAM_CLOSE_CUT, reason=type(error).__name__)
    finally:
        if line.transport is not None:
            line.transport.abort()
        # Cut short, aiohttp keeps the connection's place among the session's few until the garbage collector comes by.
        line.response.close()


def why_it_ended(socket: Socket, kind: aiohttp.WSMsgType, data: object, extra: object) -> EpochOver:
    """Why `receive` gave something other than a message: the frame's type, data and extra."""
    if kind is aiohttp.WSMsgType.CLOSE:
        code = data if isinstance(data, int) else 0
        detail = f"closed by the upstream with {int(code) or 'no code'} {printable(str(extra or ''))}".rstrip()
        return EpochOver(classify_close(code), detail)
    error = data if isinstance(data, BaseException) else socket.exception()
    if isinstance(error, aiohttp.WebSocketError):
        return EpochOver(classify_close(error.code), f"the upstream broke the protocol ({int(error.code)})")
    if isinstance(error, TimeoutError):
        return EpochOver(EndKind.SILENT, "no answer to the protocol's ping")
    return EpochOver(EndKind.CLOSED, "the connection was lost without a close frame")


async def credentials(partner_id: str, secret: Secret) -> str:
    """The `Authorization` value, read anew because a rotated secret may lie in a file.

    Raises:
        SecretUnreadable: it cannot be read, or holds what no header can carry.
    """
    return header_value(f"{partner_id}:{await asyncio.to_thread(secret.reveal)}", secret.where)


async def secret_headers(secrets: Mapping[str, Secret]) -> dict[str, str]:
    """Configured extra headers, revealed.

    Raises:
        SecretUnreadable: as for `credentials`.
    """
    return {
        name: header_value(await asyncio.to_thread(secret.reveal), secret.where) for name, secret in secrets.items()
    }


def header_value(text: str, where: str) -> str:
    """The same text, if a header can carry it; the message names only where it came from."""
    if not text.isprintable() or not text.isascii():
        raise SecretUnreadable(f"the secret ({where}) holds a character that no header can carry")
    return text


def describe_failure(error: Exception, host: str) -> tuple[EndKind, str]:
    """The kind of a failed connection and a sentence about it; never the URL or headers of the request."""
    match error:
        case RedirectRefused():
            return EndKind.REDIRECT, f"{host} {error}"
        case DialBroken():
            return EndKind.UNREACHABLE, f"{host} {error}"
        case aiohttp.ClientConnectorDNSError():
            return EndKind.UNREACHABLE, f"the name {host} cannot be resolved{other_spelling(host)}"
        case aiohttp.ClientConnectorCertificateError():
            return EndKind.TLS, f"the certificate of {host} is not trusted: {_tls_reason(error.certificate_error)}"
        case aiohttp.ClientSSLError():
            return EndKind.TLS, f"TLS with {host} failed: {type(error).__name__}"
        case TimeoutError():
            return EndKind.TIMEOUT, f"{host} did not answer in time"
        case OSError():
            return EndKind.UNREACHABLE, f"{host} cannot be reached: {error.strerror or type(error).__name__}"
        case _:
            return EndKind.UNREACHABLE, f"the connection to {host} failed: {type(error).__name__}"


def other_spelling(host: str) -> str:
    """A hint when the host is one of the two spellings that the upstream's documentation uses."""
    first, _, rest = host.partition(".")
    return f"; the documentation also spells it {_SPELLINGS[first]}.{rest}" if first in _SPELLINGS else ""


async def close_session(session: aiohttp.ClientSession) -> None:
    """Close a session within two seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            await session.close()


def _tls_reason(error: Exception) -> str:
    return error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else type(error).__name__


def _session(
    connector: aiohttp.TCPConnector,
    version: str,
    timeout: aiohttp.ClientTimeout,
    middlewares: Sequence[aiohttp.ClientMiddlewareType],
    auto_decompress: bool = True,
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        headers={"User-Agent": f"{USER_AGENT}/{version}", "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        middlewares=middlewares,
        trust_env=False,
        auto_decompress=auto_decompress,
    )

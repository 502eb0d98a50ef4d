"""A new connection for one route: look up, judge, connect, through the proxy if there is one, TLS.

The very address that is dialled has been judged: nothing is looked up between the guard and the connect.
"""

import asyncio
import itertools
import socket
import ssl
from collections.abc import Sequence
from typing import Final, NoReturn

from relay.clock import Clock
from relay.config.addresses import Address, literal_address
from relay.delivery.connection import Connection
from relay.delivery.failures import AttemptFailed, os_words, tls_words
from relay.delivery.guard import refusal
from relay.delivery.lookup import Lookup
from relay.delivery.route import Hop, Route
from relay.model import FailureKind, Timings

ADDRESS_TRIES: Final = 6
"""Addresses of one host that are tried in one attempt."""
ADDRESS_SHARE_S: Final = 5.0
"""The most seconds that one address may hold up those after it."""

_PROXY_KINDS: Final = (FailureKind.DNS, FailureKind.CONNECT, FailureKind.TLS, FailureKind.RESET, FailureKind.PROTOCOL)


class Progress:
    """How far an attempt has come.

    Attributes:
        deadline: monotonic time at which it ends.
        phase: what it waits for, in words that follow "no answer within 15 s: ".
        dns_ms, connect_ms, tls_ms, first_byte_ms: see `Timings`.
    """

    __slots__ = ("connect_ms", "deadline", "dns_ms", "first_byte_ms", "phase", "tls_ms")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.phase = "waiting for a connection"
        self.dns_ms: float | None = None
        self.connect_ms: float | None = None
        self.tls_ms: float | None = None
        self.first_byte_ms: float | None = None

    def timings(self) -> Timings:
        """The phases so far."""
        return Timings(self.dns_ms, self.connect_ms, self.tls_ms, self.first_byte_ms)


class Dialer:
    """Makes connections for one route."""

    def __init__(self, route: Route, lookup: Lookup, clock: Clock, user_agent: str) -> None:
        self._route = route
        self._lookup = lookup
        self._clock = clock
        self._user_agent = user_agent
        self._last_good: Address | None = None

    async def dial(self, progress: Progress) -> Connection:
        """A connection that is ready for a request; the caller's deadline bounds it.

        Raises:
            AttemptFailed: there is none; kinds `dns`, `forbidden`, `connect`, `tls`, `proxy`.
        """
        receiver, proxy = self._route.receiver, self._route.proxy
        if proxy is None:
            connection = await self._reach(receiver, progress, "")
        else:
            literal = literal_address(receiver.host)
            if literal is not None:
                _judge((literal,), receiver)
            connection = await self._reach_proxy(proxy, progress)
        try:
            if self._route.tunnelled:
                await self._open_tunnel(connection, progress)
            if receiver.tls is not None:
                await self._agree_on_tls(connection, receiver, receiver.tls, progress, "")
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _reach_proxy(self, proxy: Hop, progress: Progress) -> Connection:
        try:
            connection = await self._reach(proxy, progress, " of the proxy")
            try:
                if proxy.tls is not None:
                    await self._agree_on_tls(connection, proxy, proxy.tls, progress, " of the proxy")
            except BaseException:
                connection.abort()
                raise
        except AttemptFailed as failure:
            _blame_proxy(failure)
        return connection

    async def _reach(self, hop: Hop, progress: Progress, whose: str) -> Connection:
        """A plain TCP connection."""
        progress.phase = f"looking up the name{whose}"
        began = self._clock.mono()
        literal = literal_address(hop.host)
        if literal is None:
            found: Sequence[Address] = await self._lookup.resolve(hop.host, hop.port)
            progress.dns_ms = (self._clock.mono() - began) * 1000
        else:
            found = (literal,)
        allowed = _judge(found, hop)
        progress.phase = f"connecting to the address{whose}"
        began = self._clock.mono()
        sock = await self._connect(self._in_order(allowed), hop.port, progress)
        connection = await _wrapped(sock, self._clock)
        progress.connect_ms = (self._clock.mono() - began) * 1000
        return connection

    def _in_order(self, addresses: Sequence[Address]) -> list[Address]:
        """The one that worked last comes first; then the families take turns, so that a dead one costs one try."""
        families = {address.version: [a for a in addresses if a.version == address.version] for address in addresses}
        turns = itertools.chain.from_iterable(itertools.zip_longest(*families.values()))
        ordered = [address for address in turns if address is not None][:ADDRESS_TRIES]
        if self._last_good in addresses and self._last_good is not None:
            ordered = [self._last_good, *(address for address in ordered if address != self._last_good)]
        return ordered

    async def _connect(self, addresses: Sequence[Address], port: int, progress: Progress) -> socket.socket:
        """The first that accepts. All but the last get a share of the time, so that a dead one does not eat it."""
        failure = "no address"
        for tried, address in enumerate(addresses):
            left = len(addresses) - tried
            remaining = progress.deadline - self._clock.mono()
            share = None if left == 1 else min(ADDRESS_SHARE_S, remaining / left)
            try:
                async with asyncio.timeout(share):
                    sock = await _connected(address, port)
            except OSError as error:
                # TimeoutError is one, too: of the kernel, or of the share.
                failure = os_words(error) if error.errno else "no answer to the connect"
                continue
            self._last_good = address
            return sock
        words = failure if len(addresses) == 1 else f"{failure} (the last of {len(addresses)} addresses)"
        raise AttemptFailed(FailureKind.CONNECT, words)

    async def _open_tunnel(self, connection: Connection, progress: Progress) -> None:
        authority = self._route.receiver.authority
        lines = [f"CONNECT {authority} HTTP/1.1", f"host: {authority}", f"user-agent: {self._user_agent}"]
        if self._route.proxy_authorization is not None:
            lines.append(f"proxy-authorization: {self._route.proxy_authorization}")
        progress.phase = "waiting for the proxy's answer"
        try:
            status = await connection.ask_for_tunnel("\r\n".join([*lines, "", ""]).encode())
        except AttemptFailed as failure:
            # Nothing was sent but the CONNECT, so nothing can have been processed.
            detail = failure.detail.removesuffix("; the request may have been processed")
            _blame_proxy(AttemptFailed(failure.kind, detail))
        if status == 407:
            raise AttemptFailed(FailureKind.PROXY, "it wants other credentials than those in proxy (407)")
        if not 200 <= status <= 299:
            raise AttemptFailed(FailureKind.PROXY, f"it refused the tunnel to the receiver ({status})")

    async def _agree_on_tls(
        self, connection: Connection, hop: Hop, context: ssl.SSLContext, progress: Progress, whose: str
    ) -> None:
        progress.phase = f"agreeing on TLS{whose}"
        began = self._clock.mono()
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                connection.transport,
                connection,
                context,
                server_hostname=hop.host,
                ssl_handshake_timeout=max(1.0, progress.deadline - began + 1),
                ssl_shutdown_timeout=1.0,
            )
        except (OSError, ssl.CertificateError) as error:
            raise AttemptFailed(FailureKind.TLS, tls_words(error)) from None
        if transport is None:
            raise AttemptFailed(FailureKind.TLS, "connection closed during the handshake")
        connection.secured(transport)
        progress.tls_ms = (progress.tls_ms or 0.0) + (self._clock.mono() - began) * 1000


def _judge(addresses: Sequence[Address], hop: Hop) -> list[Address]:
    """Those that may be dialled: where some may not, the others do; where none may, the first one's reason counts."""
    refusals = [refusal(address, hop.rules) for address in addresses]
    allowed = [address for address, refused in zip(addresses, refusals, strict=True) if refused is None]
    if not allowed:
        raise AttemptFailed(FailureKind.FORBIDDEN, next(filter(None, refusals), "the name has no address"))
    return allowed


def _blame_proxy(failure: AttemptFailed) -> NoReturn:
    if failure.kind in _PROXY_KINDS:
        raise AttemptFailed(FailureKind.PROXY, f"it cannot be used ({failure.kind}: {failure.detail})") from None
    raise failure


async def _connected(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _wrapped(sock: socket.socket, clock: Clock) -> Connection:
    connection = Connection(sock, clock.mono)
    try:
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=sock)
    except OSError as error:
        sock.close()
        raise AttemptFailed(FailureKind.CONNECT, os_words(error)) from None
    except BaseException:
        connection.abort()
        sock.close()
        raise
    return connection

"""Asking a token server for an access token (OAuth 2 client credentials), over aiohttp.

The connection is guarded like every other: judged by the very address that is dialled, no redirects, one
deadline, a cap on the answer. No error quotes the request or the answer.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote_plus, urlencode

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from relay.clock import Clock
from relay.config import TargetSettings
from relay.config.addresses import literal_address
from relay.config.targets import OAuth2
from relay.config.urls import parse_url
from relay.delivery.credentials import basic
from relay.delivery.failures import AttemptFailed, os_words, tls_words
from relay.delivery.guard import Rules, refusal, rules_for
from relay.delivery.lookup import Lookup
from relay.delivery.token_answer import Token, read_token, read_trouble
from relay.errors import RelayError

FETCH_TIMEOUT: Final = 10.0
"""Seconds for a whole token request."""
BODY_CAP: Final = 64 * 1024


class AuthFailed(RelayError):
    """There is no way to identify ourselves now.

    Attributes:
        forbidden: whether the guard refused the token server's address.
    """

    def __init__(self, message: str, *, forbidden: bool = False) -> None:
        super().__init__(message)
        self.forbidden = forbidden


@dataclass(frozen=True, slots=True)
class _Way:
    """How the token server is reached, secrets revealed."""

    url: str
    proxy: str | None = field(repr=False)
    rules: Rules
    tls: ssl.SSLContext
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class TokenRequest:
    """How one target's tokens are asked for."""

    def __init__(self, target: TargetSettings, oauth2: OAuth2, lookup: Lookup, clock: Clock, version: str) -> None:
        self._target = target
        self._oauth2 = oauth2
        self._lookup = lookup
        self._clock = clock
        self._user_agent = f"houdini-relay/{version}"

    async def fetch(self) -> Token:
        """A new token.

        Raises:
            AuthFailed: none can be had now.
        """
        host = parse_url(self._oauth2.token_url, ("https", "http")).host
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                way = await asyncio.to_thread(self._way, host)
                return await self._ask(way, host)
        except AuthFailed:
            raise
        except TimeoutError:
            raise AuthFailed(f"the token server {host} did not answer within {FETCH_TIMEOUT:g} s") from None
        except AttemptFailed as error:
            raise AuthFailed(f"the token server {host} cannot be reached: {error.detail}") from None
        except RelayError as error:
            raise AuthFailed(str(error)) from None
        except Exception as error:
            # Whatever a hostile answer or a library comes up with is a failed fetch, and never quotes the request.
            raise AuthFailed(f"the token server {host} could not be asked: {_reason(error)}") from None

    def _way(self, host: str) -> _Way:
        """Reads secrets and authorities' files."""
        target, oauth2 = self._target, self._oauth2
        form = {"grant_type": "client_credentials"} | ({"scope": oauth2.scope} if oauth2.scope else {})
        # RFC 6749, 2.3.1: both are form-encoded before they become basic credentials.
        client = basic(quote_plus(oauth2.client_id.reveal()), quote_plus(oauth2.client_secret.reveal()))
        headers = {
            "authorization": client,
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": self._user_agent,
        }
        proxy = None if target.proxy is None else target.proxy.reveal()
        dialled = host if proxy is None else parse_url(proxy, ("http", "https")).host
        return _Way(
            oauth2.token_url,
            proxy,
            rules_for(dialled, target.allow_networks),
            tls_context(target),
            headers,
            urlencode(form).encode(),
        )

    async def _ask(self, way: _Way, host: str) -> Token:
        refused: list[str] = []
        connector = aiohttp.TCPConnector(
            limit=1,
            force_close=True,
            use_dns_cache=False,
            resolver=_LookupResolver(self._lookup),
            socket_factory=_guarded(way.rules, refused),
            ssl=way.tls,
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=FETCH_TIMEOUT, ceil_threshold=60),
        ) as session:
            asked_at = self._clock.mono()
            try:
                async with session.post(
                    URL(way.url), data=way.body, headers=way.headers, proxy=way.proxy, allow_redirects=False
                ) as response:
                    body = await _read_capped(response)
            except aiohttp.ClientConnectorError:
                if refused:
                    raise AuthFailed(f"token server {host}: {refused[0]}", forbidden=True) from None
                raise
        if response.status != 200:
            raise AuthFailed(f"the token server {host} {read_trouble(response.status, body)}")
        return _token(body, asked_at, host)


def tls_context(target: TargetSettings) -> ssl.SSLContext:
    """Whom to trust as a token server: the system's authorities and the target's own. Reads files.

    Raises:
        RelayError: `tls.ca_file` cannot be used.
    """
    context = ssl.create_default_context()
    if target.tls.ca_file is not None:
        try:
            context.load_verify_locations(target.tls.ca_file)
        except OSError as error:
            words = tls_words(error)
            raise RelayError(f"tls.ca_file of target {target.name} cannot be used: {words}") from None
    return context


class _LookupResolver(AbstractResolver):
    """Our look-up, which never uses the loop's own threads, in aiohttp's terms."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Every address of `host`."""
        addresses = await self._lookup.resolve(host, port)
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """The look-up is not ours to close."""


def _guarded(rules: Rules, refused: list[str]) -> Callable[[aiohttp.AddrInfoType], socket.socket]:
    """A socket factory that asks the guard about the very address the socket is for; refusals go to `refused`."""

    def make(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol = info[:3]
        address = literal_address(str(info[4][0]))
        why = "the resolver gave something that is no address" if address is None else refusal(address, rules)
        if why is not None:
            refused.append(why)
            raise OSError(why)
        return socket.socket(family, kind, protocol)

    return make


async def _read_capped(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    while len(body) <= BODY_CAP and (chunk := await response.content.read(BODY_CAP + 1 - len(body))):
        body += chunk
    if len(body) > BODY_CAP:
        response.close()
    return bytes(body)


def _token(body: bytes, asked_at: float, host: str) -> Token:
    if len(body) > BODY_CAP:
        raise AuthFailed(f"the token server {host} answered with more than {BODY_CAP} bytes")
    try:
        return read_token(body, asked_at)
    except ValueError as error:
        raise AuthFailed(f"the token server {host} {error}") from None


def _reason(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return tls_words(error.certificate_error)
        case aiohttp.ClientSSLError():
            return tls_words(error.os_error)
        case aiohttp.ClientConnectorError():
            return os_words(error.os_error)
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered {error.status}"
        case OSError():
            return os_words(error)
    return type(error).__name__

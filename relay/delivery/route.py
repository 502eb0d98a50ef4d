"""How one target is reached: where to, by which rules, with which certificates, through which proxy."""

import ssl
from dataclasses import dataclass, field
from typing import Final, NoReturn
from urllib.parse import unquote, urlsplit

from relay.config import TargetSettings
from relay.config.targets import TlsSettings
from relay.config.urls import Url, parse_url
from relay.delivery.credentials import basic
from relay.delivery.guard import Rules, rules_for
from relay.errors import RelayError

_SCHEMES: Final = ("https", "http")
_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Hop:
    """A host that is dialled, or asked for through a tunnel.

    Attributes:
        host: as in the URL, lower case, without brackets.
        port: the URL's, or its scheme's own.
        tls: how TLS is spoken with it, under the name `host`; None for plain TCP.
        rules: which of its addresses may be dialled.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    rules: Rules

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return f"{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    """Everything about reaching one URL.

    Attributes:
        receiver: whose answer counts.
        host_header: the URL's host, with its port unless that is the scheme's own.
        request_target: what stands in the request line.
        proxy: what is dialled in the receiver's place, None without one.
        proxy_authorization: its `proxy-authorization` value, None without userinfo in its URL.
        hidden: secrets of the proxy, not to be kept when they are echoed.
    """

    receiver: Hop
    host_header: str
    request_target: str = field(repr=False)
    proxy: Hop | None = None
    proxy_authorization: str | None = field(default=None, repr=False)
    hidden: tuple[str, ...] = field(default=(), repr=False)

    @property
    def tunnelled(self) -> bool:
        """Whether the proxy is asked for a tunnel (CONNECT); otherwise it is handed the request itself."""
        return self.proxy is not None and self.receiver.tls is not None


def route_of(target: TargetSettings) -> Route:
    """The way to this target. Reads its secrets and certificate files, so it may block.

    Raises:
        SecretUnreadable: the URL's or the proxy's secret cannot be read now.
        RelayError: a certificate or key file cannot be used; or a URL that lies in a file is not a usable one.
    """
    url = _url(target, "url", target.url.reveal())
    rules = rules_for(url.host, target.allow_networks)
    tls = _client_context(target) if url.scheme == "https" else None
    receiver = Hop(url.host, url.port or _PORTS[url.scheme], tls, rules)
    default = receiver.port == _PORTS[url.scheme]
    host_header = _bracketed(url.host) if default else receiver.authority
    path = (url.path or "/") + ("" if url.query is None else f"?{url.query}")
    if target.proxy is None:
        return Route(receiver, host_header, path)
    text = target.proxy.reveal()
    proxy = _url(target, "proxy", text)
    hop = Hop(
        proxy.host,
        proxy.port or _PORTS[proxy.scheme],
        _proxy_context(target) if proxy.scheme == "https" else None,
        rules_for(proxy.host, target.allow_networks),
    )
    userinfo = urlsplit(text).netloc.rpartition("@")[0]
    name, _, password = userinfo.partition(":")
    authorization = basic(unquote(name), unquote(password)) if userinfo else None
    hidden = (userinfo, password, unquote(password), (authorization or "").removeprefix("Basic "))
    request_target = path if tls is not None else f"http://{host_header}{path}"
    return Route(receiver, host_header, request_target, hop, authorization, tuple(filter(None, hidden)))


def _url(target: TargetSettings, key: str, text: str) -> Url:
    try:
        return parse_url(text, _SCHEMES)
    except ValueError as error:
        # The configuration has been checked, but a secret that lies in a file may have changed since.
        raise RelayError(f"the {key} of target {target.name} cannot be used: {error}") from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _client_context(target: TargetSettings) -> ssl.SSLContext:
    """For the receiver: `ca_file` in place of the system's authorities, and our own certificate."""
    tls = target.tls
    context = _context(target, tls.ca_file)
    if tls.cert_file is not None:
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file, password=_no_passphrase)
        except (OSError, ValueError) as error:
            _unusable(target, _own_files(tls), error)
    return context


def _proxy_context(target: TargetSettings) -> ssl.SSLContext:
    """For the proxy: the system's authorities and `ca_file`; it is never shown our certificate."""
    context = _context(target, None)
    if target.tls.ca_file is not None:
        try:
            context.load_verify_locations(target.tls.ca_file)
        except OSError as error:
            _unusable(target, "tls.ca_file", error)
    return context


def _context(target: TargetSettings, ca_file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        _unusable(target, "tls.ca_file", error)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    # A server that could also speak HTTP/2 is told that we do not.
    context.set_alpn_protocols(["http/1.1"])
    return context


def _own_files(tls: TlsSettings) -> str:
    return "tls.cert_file" if tls.key_file is None else "tls.cert_file with tls.key_file"


def _no_passphrase() -> str:
    """Without this, OpenSSL would ask for it on the terminal, and wait."""
    raise ValueError("the key is encrypted; write it without a passphrase")


def _unusable(target: TargetSettings, key: str, error: Exception) -> NoReturn:
    words = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
    reason = words or getattr(error, "reason", None) or str(error)
    raise RelayError(f"{key} of target {target.name} cannot be used: {reason}") from None

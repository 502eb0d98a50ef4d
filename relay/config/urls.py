"""URLs as strict values: what a URL library may read in two ways is refused. Messages never quote the URL."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from relay.config.addresses import Network, is_forbidden, is_loopback_host, literal_address

MAX_LENGTH: Final = 2048

_SHAPE: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?"
)
_AUTHORITY: Final = re.compile(r"(?:(?P<user>[^@\[\]]*)@)?(?P<host>\[[^\[\]@]*\]|[^\[\]@:]*)(?::(?P<port>[^@:]*))?")
_NAME: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*")
_NUMBER_LABEL: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in its parts; `host` in lower case and without brackets, `port` None where the scheme decides."""

    scheme: str
    host: str
    port: int | None
    has_userinfo: bool
    path: str
    query: str | None


def parse_url(text: str, schemes: Collection[str]) -> Url:
    """Take a URL apart.

    Raises:
        ValueError: it is not a URL of one of these schemes; the message says why.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"longer than {MAX_LENGTH} characters")
    if not re.fullmatch(r"[!-~]*", text) or "\\" in text:
        raise ValueError("a URL has no spaces, backslashes or letters beyond ASCII; percent-encode them")
    shape = _SHAPE.fullmatch(text)
    if shape is None or shape["scheme"].lower() not in schemes:
        raise ValueError("write a URL that begins with " + " or ".join(f"{scheme}://" for scheme in schemes))
    if shape["fragment"] is not None:
        raise ValueError("a fragment (#...) is never sent; leave it out, or percent-encode the # as %23")
    authority = _AUTHORITY.fullmatch(shape["authority"])
    if authority is None or not authority["host"]:
        raise ValueError("the host is missing or malformed; write scheme://host/path")
    port = None if authority["port"] is None else _parse_port(authority["port"])
    host = parse_host(authority["host"])
    return Url(shape["scheme"].lower(), host, port, authority["user"] is not None, shape["path"] or "", shape["query"])


def _parse_port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError("the port must be a number from 1 to 65535")
    return int(text)


def parse_host(text: str) -> str:
    """A host name or address in lower case, without brackets.

    Raises:
        ValueError: it is neither, or an address in a form that different programs read differently.
    """
    if text.startswith("["):
        address = literal_address(text[1:-1])
        if not isinstance(address, IPv6Address) or address.scope_id is not None:
            raise ValueError("what stands in brackets is not an IPv6 address")
        return str(address)
    if not _NAME.fullmatch(text):
        raise ValueError("the host is missing or malformed; a name beyond ASCII is written in its xn-- form")
    if _NUMBER_LABEL.fullmatch(text.rsplit(".", 1)[-1]) and literal_address(text) is None:
        raise ValueError("write an IPv4 address as four decimal numbers without leading zeros")
    return text.lower()


def upstream_url_fault(text: str, secure: str, plain: str) -> str | None:
    """What is wrong with an upstream URL, None when nothing is. `plain` is the scheme for loopback only."""
    try:
        url = parse_url(text, (secure, plain))
    except ValueError as error:
        return str(error)
    if url.has_userinfo:
        return "credentials do not belong in this URL; use upstream.partner_id and upstream.secret"
    if url.query is not None:
        return "leave the query (?...) out"
    if url.scheme == plain and not is_loopback_host(url.host):
        return f"{plain}:// is for loopback only; write {secure}://"
    return None


def token_url_fault(text: str) -> str | None:
    """What is wrong with the URL of a token server taken alone, None when nothing is."""
    try:
        url = parse_url(text, ("https", "http"))
    except ValueError as error:
        return str(error)
    if url.has_userinfo:
        return "credentials do not belong in this URL; use client_id and client_secret"
    if url.scheme == "http" and not is_loopback_host(url.host):
        return "a token is fetched over https:// only (http:// is for loopback)"
    return None


def address_fault(url: Url, allow_networks: Collection[Network]) -> str | None:
    """What is wrong with a host that is written as an address; a name is judged when it is dialled."""
    address = literal_address(url.host)
    if address is None or is_loopback_host(url.host) or not is_forbidden(address, allow_networks):
        return None
    return "this address is private or reserved; if it is meant, add its network to allow_networks"


def target_url_faults(url: Url, allow_http: bool, allow_networks: Collection[Network]) -> list[str]:
    """What the target's own rules hold against its URL. A host name is judged when it is dialled."""
    if is_loopback_host(url.host):
        return []
    found = []
    if url.scheme == "http" and not allow_http:
        found.append("plain http:// is refused; write https://, or set allow_http: true for this target")
    fault = address_fault(url, allow_networks)
    return found if fault is None else [*found, fault]


def redacted(url: Url) -> str:
    """The URL without what may be a key: userinfo, query, and the path beyond its first segment."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = f":{url.port}" if url.port is not None else ""
    userinfo = "[redacted]@" if url.has_userinfo else ""
    first, slash, rest = url.path[1:].partition("/")
    path = ("/" if url.path else "") + first + slash + ("[redacted]" if rest else "")
    query = "?[redacted]" if url.query else ""
    return f"{url.scheme}://{userinfo}{host}{port}{path}{query}"

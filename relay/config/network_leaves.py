"""Networks, hosts and listening addresses as settings."""

import ipaddress
import re

from relay.config.addresses import Network
from relay.config.leaves import Leaf, Reading, text, text_of
from relay.config.urls import parse_host


def network() -> Leaf:
    """A network in CIDR notation."""
    words = "a network, as in 10.0.0.0/8 or fd00::/8"

    def read(value: object, reading: Reading) -> Network:
        if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
            return value
        given = text_of(value, words)
        if not re.fullmatch(r"[0-9A-Fa-f.:]{2,45}/[0-9]{1,3}", given):
            raise ValueError(f"expected {words}")
        try:
            found = ipaddress.ip_network(given, strict=False)
        except ValueError:
            found = None
        if found is None:
            raise ValueError(f"expected {words}")
        if str(found.network_address) != str(ipaddress.ip_address(given.partition("/")[0])):
            raise ValueError(f"this names an address inside a network; the network is {found}")
        return found

    return Leaf(words, read)


def host() -> Leaf:
    """A host name or address without port."""

    def fault(given: str) -> str | None:
        try:
            parse_host(given)
        except ValueError as error:
            return str(error)
        return None

    return text("a host name", fault)


def listen_address() -> Leaf:
    """`host:port` -> (host without brackets, port); port 0 takes a free one."""
    words = "host:port, as in 127.0.0.1:8787 or [::1]:8787"

    def read(value: object, reading: Reading) -> tuple[str, int]:
        if isinstance(value, tuple) and len(value) == 2:
            value = f"[{value[0]}]:{value[1]}" if ":" in str(value[0]) else f"{value[0]}:{value[1]}"
        found = re.fullmatch(r"(\[[^\[\]]+\]|[^\[\]:]+):([0-9]{1,5})", text_of(value, words))
        if found is None or int(found[2]) > 65535:
            raise ValueError(f"expected {words}")
        return parse_host(found[1]), int(found[2])

    return Leaf(words, read, lambda value: f"[{value[0]}]:{value[1]}" if ":" in value[0] else f"{value[0]}:{value[1]}")

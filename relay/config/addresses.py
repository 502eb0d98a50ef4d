"""Which network addresses a target may have. Pure; the connect-time guard asks the same questions."""

import ipaddress
from collections.abc import Iterable
from typing import Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# Ranges that lead somewhere private or nowhere although some Python versions call them global:
# shared carrier space, protocol assignments, and IPv6 prefixes that carry an IPv4 address inside.
_NEVER: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/23",
        "2002::/16",
        "5f00::/16",
        "fec0::/10",
    )
)


def is_forbidden(address: Address) -> bool:
    """Whether nothing of ours may be sent there: loopback, private, link-local, metadata, multicast, reserved."""
    real = unmapped(address)
    if not real.is_global or real.is_multicast or real.is_reserved:
        return True
    return covered(real, _NEVER)


def covered(address: Address, networks: Iterable[Network]) -> bool:
    """Whether one of `networks` holds this address."""
    real = unmapped(address)
    return any(real.version == network.version and real in network for network in networks)


def unmapped(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped IPv6 address; any other address as it is."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def literal_address(host: str) -> Address | None:
    """The address a host is written as, None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback_host(host: str) -> bool:
    """Whether a host is loopback, written as such: `localhost`, 127.0.0.0/8 or ::1, no disguise."""
    address = literal_address(host)
    if address is None:
        return host.lower() == "localhost"
    return address.is_loopback and address == unmapped(address)

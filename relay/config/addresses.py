"""Which network addresses a target may have: one table for the configuration and for every dial. Pure.

The table is ours and not `ipaddress`'s `is_global`, whose answers change between patch releases of Python. Of
IPv6 only global unicast (2000::/3) is open at all, so a range that nobody has heard of yet is closed.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class ClosedRange:
    """A range that is closed to targets; `what` completes "this is ..."."""

    what: str
    network: Network


# The first that holds an address names it, so what is narrow and dangerous comes first.
_RANGES: Final[tuple[ClosedRange, ...]] = tuple(
    ClosedRange(what, ipaddress.ip_network(network))
    for what, networks in (
        ("a cloud's metadata service", "169.254.169.254 168.63.129.16 100.100.100.200 192.0.0.192"),
        ("a cloud's metadata service", "fd00:ec2::254 fd20:ce::254"),
        ("a loopback address", "127.0.0.0/8 ::1/128"),
        ("an unspecified address", "0.0.0.0/8 ::/128"),
        ("a private address", "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7"),
        ("a link-local address", "169.254.0.0/16 fe80::/10"),
        ("a carrier's shared address", "100.64.0.0/10"),
        ("the broadcast address", "255.255.255.255"),
        ("a multicast address", "224.0.0.0/4 ff00::/8"),
        ("a documentation address", "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20"),
        ("a benchmarking address", "198.18.0.0/15 2001:2::/48"),
        ("a reserved address", "192.0.0.0/24 240.0.0.0/4"),
        ("an IPv4-compatible address, a disguise of an IPv4 address", "::/96"),
        ("a NAT64 address, a disguise of an IPv4 address", "64:ff9b::/96 64:ff9b:1::/48"),
        ("a Teredo address, a disguise of an IPv4 address", "2001::/32"),
        ("a 6to4 address, a disguise of an IPv4 address", "2002::/16 192.88.99.0/24"),
        ("an address set aside for protocols", "2001::/23"),
        ("a segment routing address", "5f00::/16"),
        ("a site-local address", "fec0::/10"),
    )
    for network in networks.split()
)
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})


def closed_range(address: Address, allow_networks: Iterable[Network] = ()) -> ClosedRange | None:
    """Why nothing may be sent to this address; None when it is open or one of `allow_networks` exempts it.

    An IPv4-mapped address counts as the IPv4 address inside. So does, where the NAT64 prefix is exempt, the
    one that a translator would send to: that exemption opens no private network.
    """
    allow = tuple(allow_networks)
    real = unmapped(address)
    if covered(real, allow):
        inner = _translated(real)
        return None if inner is None else closed_range(inner, allow)
    for closed in _RANGES:
        if closed.network.version == real.version and real in closed.network:
            return closed
    return _closed_form(real) if isinstance(real, ipaddress.IPv6Address) else None


def is_forbidden(address: Address, allow_networks: Iterable[Network] = ()) -> bool:
    """Whether nothing of ours may be sent there."""
    return closed_range(address, allow_networks) is not None


def _closed_form(address: ipaddress.IPv6Address) -> ClosedRange | None:
    own = ipaddress.IPv6Network(int(address))
    if address.scope_id is not None:
        return ClosedRange("an address with a zone, which leads to a neighbour", own)
    if address not in _GLOBAL_UNICAST:
        return ClosedRange("a reserved address", own)
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return ClosedRange("an ISATAP address, a disguise of an IPv4 address", own)
    return None


def _translated(address: Address) -> Address | None:
    if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


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
    return is_loopback(address) and address == unmapped(address)


def is_loopback(address: Address) -> bool:
    """Whether this machine is meant: 127.0.0.0/8 or ::1, also as an IPv4-mapped address."""
    real = unmapped(address)
    if isinstance(real, ipaddress.IPv6Address):
        return int(real) == 1
    return int(real) >> 24 == 127

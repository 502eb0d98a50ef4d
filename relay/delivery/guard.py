"""May this address be dialled? Asked of every address, after resolution, right before the connect. Pure.

A check of the URL alone would be passed by any name whose answer changes afterwards; so the dialler asks here
about the very address that it is about to connect to.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from relay.config.addresses import Address, Network, closed_range, is_loopback, is_loopback_host, unmapped


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says about reaching one host.

    Attributes:
        loopback: the host is written as this machine, so this machine it must be, and nothing else.
        allow_networks: networks exempt from the block of private addresses.
    """

    loopback: bool
    allow_networks: tuple[Network, ...]


def rules_for(host: str, allow_networks: Iterable[Network]) -> Rules:
    """The rules for dialling `host` (as written in a URL, without brackets)."""
    return Rules(is_loopback_host(host), tuple(allow_networks))


def refusal(address: Address, rules: Rules) -> str | None:
    """Why this address may not be dialled, as a sentence with what to do about it; None when it may."""
    shown = _shown(address)
    if rules.loopback:
        # `allow_networks` does not help here: plain http:// was accepted because this machine was named.
        if is_loopback(address):
            return None
        return f"{shown} is not this machine, which the URL names; write the receiver's own name into the URL"
    closed = closed_range(address, rules.allow_networks)
    if closed is None:
        return None
    where = "" if closed.network.num_addresses == 1 else f" ({closed.network})"
    if is_loopback(address):
        remedy = "if this machine is meant, write localhost, 127.0.0.1 or [::1] into the URL"
    else:
        remedy = "if this receiver is meant, add its network to this target's allow_networks"
    return f"{shown} is {closed.what}{where}; {remedy}"


def _shown(address: Address) -> str:
    real = unmapped(address)
    return str(address) if real == address else f"{real} (as {address})"

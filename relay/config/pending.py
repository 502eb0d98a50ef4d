"""What this version understands but does not do yet. A part that is built deletes its rows here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from relay.config.problems import Suffix
from relay.config.secret_leaves import peek
from relay.model import Secret


@dataclass(frozen=True, slots=True)
class Row:
    """A refusal.

    Attributes:
        refused: (value, default) -> the parts of the value that cannot be had yet.
        instead: what to do about it.
    """

    refused: Callable[[Any, Any], Sequence[Suffix]]
    instead: str = "leave it out"


def _unless_default(value: Any, default: Any) -> Sequence[Suffix]:
    return [()] if value != default else []


def _words(*refused: str) -> Callable[[Any, Any], Sequence[Suffix]]:
    return lambda value, default: [()] if value in refused else []


def _items(refused: Callable[[Any], bool]) -> Callable[[Any, Any], Sequence[Suffix]]:
    return lambda value, default: [(index,) for index, item in enumerate(value) if refused(item)]


def _is_ed25519(secret: Secret) -> bool:
    return (peek(secret) or "").startswith("whsk_")


PENDING: Final[Mapping[str, Row]] = {
    "StoreSettings.url": Row(
        lambda value, default: [()] if value.startswith("postgresql:") else [], "use sqlite:///relay.db"
    ),
    "StoreSettings.retention": Row(_unless_default),
    "TargetSettings.secrets": Row(_items(_is_ed25519), "use whsec_ secrets only"),
    "TargetSettings.changes": Row(_unless_default),
    "TargetSettings.format": Row(_words("cloudevents", "slack"), "use standard or raw"),
    "TargetSettings.ordering": Row(_unless_default),
    "TargetSettings.rate_limit": Row(_unless_default),
    "TargetSettings.expire_after": Row(_unless_default),
    "TargetSettings.max_pending": Row(_unless_default),
    "BreakerSettings.failures": Row(_unless_default),
    "ProbeSettings.initial": Row(_unless_default),
    "ProbeSettings.max": Row(_unless_default),
    "TargetSettings.auth": Row(_unless_default),
    "TlsSettings.ca_file": Row(_unless_default),
    "TlsSettings.cert_file": Row(_unless_default),
    "TlsSettings.key_file": Row(_unless_default),
    "TargetSettings.proxy": Row(_unless_default),
    "TargetSettings.paused": Row(_unless_default),
}


def refusals(section: str, setting: str, value: Any, default: Any) -> list[tuple[Suffix, str]]:
    """What of a setting's value this version cannot do, with the message for each part."""
    row = PENDING.get(f"{section}.{setting}")
    if row is None:
        return []
    return [(suffix, f"not available yet in this version; {row.instead}") for suffix in row.refused(value, default)]

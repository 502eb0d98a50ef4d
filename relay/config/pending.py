"""What this version understands but does not do yet. A part that is built deletes its rows here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from relay.config.problems import Suffix


@dataclass(frozen=True, slots=True)
class Row:
    """A refusal.

    Attributes:
        refused: (value, default) -> the parts of the value that cannot be had yet.
        instead: what to do about it.
    """

    refused: Callable[[Any, Any], Sequence[Suffix]]
    instead: str = "leave it out"


PENDING: Final[Mapping[str, Row]] = {
    "StoreSettings.url": Row(
        lambda value, default: [()] if value.startswith("postgresql:") else [], "use sqlite:///relay.db"
    ),
}


def refusals(section: str, setting: str, value: Any, default: Any) -> list[tuple[Suffix, str]]:
    """What of a setting's value this version cannot do, with the message for each part."""
    row = PENDING.get(f"{section}.{setting}")
    if row is None:
        return []
    return [(suffix, f"not available yet in this version; {row.instead}") for suffix in row.refused(value, default)]

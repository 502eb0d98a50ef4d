"""A target's last hour as bars of a small drawing. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

HEIGHT: Final = 32
"""Units of the drawing; a minute is `WIDTH` of them wide."""
WIDTH: Final = 4
_LEAST: Final = 2.0
"""How high something is that happened at all, so that one failure beside thousands is seen."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One minute's successes or failures: where, how high, and which (`delivered` or `failed`)."""

    x: int
    y: float
    height: float
    kind: str


def bars(hour: Mapping[str, Any]) -> list[Bar]:
    """What is to be drawn of `last_hour`: failures stand on successes; minutes without either draw nothing."""
    delivered: Sequence[int] = hour["delivered"]
    failed: Sequence[int] = hour["failed"]
    most = max((good + bad for good, bad in zip(delivered, failed, strict=True)), default=0)
    found = []
    for minute, (good, bad) in enumerate(zip(delivered, failed, strict=True)):
        top = float(HEIGHT)
        for count, kind in ((good, "delivered"), (bad, "failed")):
            if count:
                height = round(max(_LEAST, (HEIGHT - _LEAST) * count / most), 2)
                top = round(top - height, 2)
                found.append(Bar(minute * WIDTH, top, height, kind))
    return found

"""Gaps for people. Pure."""

from typing import Any, Final

from relay.admin.shapes import moment
from relay.model import iso_utc
from relay.store.values import Gap

WINDOW: Final = 47 * 3600.0
"""Seconds of a gap that the 48 h which REST shows surely cover, with an hour to spare (as in `relay.upstream.gaps`)."""


def gap_shape(gap: Gap, now_ms: int) -> dict[str, Any]:
    """A gap, as the API shows it."""
    seconds = gap_seconds(gap, now_ms)
    return {
        "from": iso_utc(gap.from_ms),
        "to": moment(gap.to_ms),
        "seconds": seconds,
        "cause": gap.cause,
        "open": gap.to_ms is None,
        "exceeds_window": seconds > WINDOW,
        "swept_at": moment(gap.swept_ms),
        "closed_by": gap.closed_by,
    }


def gap_seconds(gap: Gap, now_ms: int) -> float:
    """How long it was, or has been so far."""
    return max(0, (now_ms if gap.to_ms is None else gap.to_ms) - gap.from_ms) / 1000

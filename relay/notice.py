"""Notices: what the relay says about itself, as events like any other. One way of making them. Pure.

A condition is told once for each time it began: the webhook id follows from type, subject and that moment.
"""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from relay.model import Event, iso_utc

UPSTREAM: Final = "upstream"
STORE: Final = "store"
CONFIG: Final = "config"
"""Subjects beside the names of targets."""

LANE_PREFIX: Final = "relay:"
NOTICE_LIFE: Final = 3600.0
"""Seconds after which a notice that has not been delivered is given up, whatever was tried: it is stale news."""
_LONGEST_TEXT: Final = 400


class NoticeType(StrEnum):
    """Every notice there is; `docs/notices.md` says what each means."""

    AUTH_FAILED = "relay.upstream.auth_failed"
    DOWN = "relay.upstream.down"
    UPSTREAM_RECOVERED = "relay.upstream.recovered"
    GAP_EXCEEDS_WINDOW = "relay.upstream.gap_exceeds_window"
    FAILING = "relay.target.failing"
    LAGGING = "relay.target.lagging"
    TARGET_RECOVERED = "relay.target.recovered"
    PARKED = "relay.target.parked"
    DEAD = "relay.delivery.dead"
    DISK_LOW = "relay.store.disk_low"
    CONFIG_REFUSED = "relay.config.refused"
    TEST = "relay.test"


_ABOUT_TARGETS: Final = frozenset(
    {NoticeType.FAILING, NoticeType.LAGGING, NoticeType.TARGET_RECOVERED, NoticeType.PARKED, NoticeType.DEAD}
)

Fact = str | int | float | dict[str, int] | list[str] | None


def make_notice(
    type: NoticeType, subject: str, since_ms: int, at_ms: int, what: str, advice: str, facts: Mapping[str, Fact]
) -> Event:
    """The event that tells of a condition.

    Args:
        type: which condition.
        subject: whom it is about: a target's name, `upstream`, `store` or `config`.
        since_ms: wall time at which it began; the same moment makes the same webhook id.
        at_ms: wall time now.
        what: what is wrong, a sentence.
        advice: what to do about it, a sentence.
        facts: further members of `data`; those that are None are left out, long texts cut.
    """
    since = iso_utc(since_ms)
    digest = hashlib.sha256(f"{type}\n{subject}\n{since}".encode()).hexdigest()[:32]
    body: dict[str, Fact] = {"what": what, "since": since, "advice": advice, **facts}
    told = {name: _shortened(fact) for name, fact in body.items() if fact is not None}
    return Event(
        webhook_id=f"evt_{digest}",
        lane=LANE_PREFIX + subject,
        type=type.value,
        at_ms=at_ms,
        # Texts may come from receivers and the upstream: ASCII escapes carry even a lone surrogate through.
        body=json.dumps(told, separators=(",", ":")).encode("ascii"),
        facts=None,
    )


def subject_of(event: Event) -> str:
    """Whom a notice is about."""
    return event.lane.removeprefix(LANE_PREFIX)


def is_about(event: Event, target: str) -> bool:
    """Whether an event is a notice about this target, which is then the last that can be told so."""
    return event.facts is None and event.type in _ABOUT_TARGETS and subject_of(event) == target


def _shortened(fact: Fact) -> Fact:
    if isinstance(fact, list):
        return [_cut(text) for text in fact]
    return _cut(fact) if isinstance(fact, str) else fact


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 3] + "..."

"""Event types and the patterns that choose among them."""

import re
from collections.abc import Iterable
from typing import Final

from relay.config.problems import guess
from relay.model import LABELS, event_type
from relay.notice import NoticeType

ORDER_TYPES: Final = (*(event_type(code) for code in LABELS), "order.unknown")

NOTICE_TYPES: Final = tuple(one.value for one in NoticeType)

_PATTERN: Final = re.compile(r"\*|[a-z_]+(?:\.[a-z_]+)*(?:\.\*)?")
_KNOWN: Final = (*ORDER_TYPES, *NOTICE_TYPES)
_SUGGESTIONS: Final = (*_KNOWN, "order.*", "relay.*", "relay.upstream.*", "relay.target.*")


def pattern_fault(pattern: str) -> str | None:
    """What is wrong with a pattern, None when nothing is."""
    close = guess(pattern, _SUGGESTIONS)
    hint = f'; did you mean "{close}"?' if close else ""
    if not _PATTERN.fullmatch(pattern):
        return f'an event type has small letters, and * only as its last part, as in "order.*"{hint}'
    if not any(matches(pattern, known) for known in _KNOWN):
        return "no such event type" + (hint or '; write "order.*" for all changes of orders')
    return None


def matches(pattern: str, event_type: str) -> bool:
    """Whether a pattern chooses an event type. `*` alone chooses everything but the notices (`relay.`)."""
    if pattern == "*":
        return not event_type.startswith("relay.")
    if pattern.endswith(".*"):
        return event_type.startswith(pattern[:-1])
    return event_type == pattern


def any_matches(patterns: Iterable[str], event_type: str) -> bool:
    """Whether at least one pattern chooses an event type."""
    return any(matches(pattern, event_type) for pattern in patterns)

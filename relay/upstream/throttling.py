"""How long the upstream asks us to wait, from any of the shapes in which it says so. Pure."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from relay.http_date import http_date_ms

DEFAULT_WAIT: Final = 60.0
"""Seconds to wait when a throttling answer names no time."""

LONGEST_WAIT: Final = 86_400.0
LONGEST_BY_OUR_CLOCK: Final = 900.0
"""Seconds to which a date is trusted when only our own clock, which may be wrong by hours, says how far off it is."""

SHORTEST_WAIT: Final = 1.0

_SENTENCE: Final = re.compile(r"try again in (\d{1,9}(?:\.\d{1,9})?) ?(s|sec|seconds?|m|min|minutes?)\b", re.IGNORECASE)
_LIMIT_CODES: Final = (429, "429", "RATE_LIMIT_EXCEEDED")


def is_throttled(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether an answer means "wait": 429, 503 that names a time, or a limit error under another status."""
    if status == 429 or (status == 503 and "Retry-After" in headers):
        return True
    return any(_names_a_limit(part) for part in _error_parts(_object(body)))


def throttle_seconds(headers: Mapping[str, str], body: bytes, now_ms: int) -> float:
    """Seconds to wait, by the documented order of trust; never less than asked, a day at most.

    Args:
        headers: the answer's, looked up as `Retry-After` and `Date` (a case-insensitive mapping).
        body: the answer's body, whatever it is.
        now_ms: our wall time, used when the answer has no `Date` of its own.
    """
    answer = _object(body)
    for seconds in _candidates(headers, answer, now_ms):
        if seconds is not None and seconds >= 0:
            return min(max(seconds, SHORTEST_WAIT), LONGEST_WAIT)
    return DEFAULT_WAIT


def retry_after_header(headers: Mapping[str, str], now_ms: int) -> float | None:
    """Seconds named by `Retry-After` (a number or a date), None when absent, past or garbage."""
    text = headers.get("Retry-After")
    if text is None:
        return None
    seconds = _number(text)
    if seconds is None and (at_ms := http_date_ms(text)) is not None:
        server_ms = http_date_ms(headers.get("Date"))
        seconds = (at_ms - (now_ms if server_ms is None else server_ms)) / 1000
        if server_ms is None:
            seconds = min(seconds, LONGEST_BY_OUR_CLOCK)
    return seconds if seconds is not None and seconds >= 0 else None


def _candidates(headers: Mapping[str, str], answer: dict[str, Any], now_ms: int) -> Iterator[float | None]:
    yield retry_after_header(headers, now_ms)
    for part in _error_parts(answer):
        yield _number(part.get("retryAfter"))
    for text in (answer.get("message"), *(part.get("message") for part in _error_parts(answer))):
        yield _sentence(text)


def _error_parts(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield answer
    for name in ("meta", "extensions"):
        if isinstance(part := answer.get(name), dict):
            yield part
    errors = answer.get("errors")
    for error in errors[:10] if isinstance(errors, list) else ():
        if isinstance(error, dict):
            yield error
            if isinstance(part := error.get("extensions"), dict):
                yield part


def _names_a_limit(part: dict[str, Any]) -> bool:
    return part.get("code") in _LIMIT_CODES or part.get("type") == "RATE_LIMIT_EXCEEDED"


def _object(body: bytes) -> dict[str, Any]:
    if body.lstrip()[:1] != b"{" or len(body) > 65_536:
        return {}
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not re.fullmatch(r"\s*\d{1,12}(\.\d{1,9})?\s*", value, re.ASCII):
        return None
    seconds = float(value)
    return seconds if math.isfinite(seconds) else None


def _sentence(text: object) -> float | None:
    if not isinstance(text, str) or (found := _SENTENCE.search(text[:500])) is None:
        return None
    return float(found[1]) * (60 if found[2].lower().startswith("m") else 1)

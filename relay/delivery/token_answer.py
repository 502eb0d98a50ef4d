"""What a token server's answer is worth. Pure; the answer is hostile until shown otherwise."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

USUAL_LIFE: Final = 300.0
"""Seconds a token is used when its server does not say."""
SHORTEST_LIFE: Final = 5.0
"""Seconds a token is used at least, so that no answer makes us ask before every attempt."""
LONGEST_LIFE: Final = 86_400.0
SKEW: Final = 60.0
"""Seconds before its end at which a token is renewed; of a short life at most a tenth."""

_LONGEST_TOKEN: Final = 8192
_CODES: Final = frozenset(
    {
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
        "temporarily_unavailable",
    }
)
"""OAuth's own error codes: the only words of the server that are repeated."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token.

    Attributes:
        value: never shown.
        good_until: monotonic seconds from which another one is fetched.
    """

    value: str = field(repr=False)
    good_until: float


def read_token(body: bytes, asked_at: float) -> Token:
    """The token of a 200.

    Args:
        body: as it came, of any shape.
        asked_at: monotonic time at which the request was sent; its life counts from there.

    Raises:
        ValueError: it holds none that can be used; the message never quotes it.
    """
    answer = _object(body)
    value = answer.get("access_token")
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]+", value) or len(value) > _LONGEST_TOKEN:
        raise ValueError("answered 200 without a usable access_token")
    kind = answer.get("token_type", "bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise ValueError("answered with another token_type than bearer")
    return Token(value, asked_at + _life(answer.get("expires_in")))


def read_trouble(status: int, body: bytes) -> str:
    """What any other answer says, as the end of a sentence."""
    if 300 <= status <= 399:
        return f"answered with a redirect ({status}), which is not followed"
    try:
        code = _object(body).get("error")
    except ValueError:
        code = None
    return f"answered {status}" + (f" ({code})" if isinstance(code, str) and code in _CODES else "")


def _life(expires_in: object) -> float:
    """Seconds for which to use a token; servers write the number as text, or not at all."""
    try:
        seconds = float(expires_in) if isinstance(expires_in, (int, float, str)) else USUAL_LIFE
    except (ValueError, OverflowError):
        seconds = USUAL_LIFE
    if isinstance(expires_in, bool) or math.isnan(seconds):
        seconds = USUAL_LIFE
    seconds = min(max(seconds, 0.0), LONGEST_LIFE)
    return max(seconds - min(SKEW, seconds / 10), SHORTEST_LIFE)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ValueError("answered with something that is no JSON object")
    return answer

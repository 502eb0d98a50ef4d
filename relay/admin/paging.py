"""What the lists may be asked: a filter, how many, and where to go on. Pure."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from relay.admin.answers import ApiError
from relay.admin.questions import period
from relay.model import DeliveryStatus
from relay.store.reads import Filter

MOST: Final = 500
"""Items that one page may have."""
USUAL: Final = 50
PARAMETERS: Final = ("limit", "cursor", "target", "status", "type", "order", "since", "until")
TARGET_FORM: Final = r"[a-z0-9-]{1,63}"
_FORMS: Final = {
    "target": (TARGET_FORM, "a target's name"),
    "type": (r"[a-z0-9_.]{1,100}", "an event type, as in order.finished"),
    "order": (r"[!-~]{1,200}", "a houdiniId, or relay: and a subject"),
}


@dataclass(frozen=True, slots=True)
class ListQuestion:
    """What a list was asked: which items, how many at most, and the id to go on below (None: from the newest)."""

    only: Filter
    cursor: int | None
    limit: int


def read_list(asked: Mapping[str, str], kind: str, now_ms: int) -> ListQuestion:
    """The query parameters of a list.

    Args:
        asked: the parameters, each at most once.
        kind: a letter for what is listed; a cursor of another list is refused.
        now_ms: wall time, for moments such as `24h`.

    Raises:
        ApiError: one is unknown or cannot be used; says which.
    """
    if not set(asked) <= set(PARAMETERS):
        raise ApiError(400, "bad_query", f"unknown query parameter; possible: {', '.join(PARAMETERS)}")
    since_ms, until_ms = period(asked.get("since"), asked.get("until"), now_ms)
    only = Filter(
        target=_formed(asked, "target"),
        status=_status(asked.get("status")),
        type=_formed(asked, "type"),
        order=_formed(asked, "order"),
        since_ms=since_ms,
        until_ms=until_ms,
    )
    cursor = asked.get("cursor")
    return ListQuestion(only, None if cursor is None else read_cursor(cursor, kind), _limit(asked.get("limit")))


def cursor_text(following: int | None, kind: str) -> str | None:
    """`next` of a page, opaque and safe in a URL."""
    if following is None:
        return None
    return base64.urlsafe_b64encode(f"{kind}{following}".encode()).decode().rstrip("=")


def read_cursor(text: str, kind: str) -> int:
    """The id in a cursor.

    Raises:
        ApiError: it is none that this list gave out.
    """
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (ValueError, binascii.Error):
        content = ""
    found = re.fullmatch(re.escape(kind) + r"([1-9][0-9]{0,17})", content)
    if found is None or cursor_text(int(found[1]), kind) != text:
        raise ApiError(400, "bad_cursor", "`cursor` must be the `next` of a page of this list")
    return int(found[1])


def _limit(text: str | None) -> int:
    if text is None:
        return USUAL
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text) or int(text) > MOST:
        raise ApiError(400, "bad_limit", f"`limit` must be a number from 1 to {MOST}")
    return int(text)


def _status(text: str | None) -> DeliveryStatus | None:
    if text is None:
        return None
    try:
        return DeliveryStatus(text)
    except ValueError:
        words = ", ".join(word.value for word in DeliveryStatus)
        raise ApiError(400, "bad_status", f"`status` must be one of {words}") from None


def _formed(asked: Mapping[str, str], name: str) -> str | None:
    text = asked.get(name)
    form, words = _FORMS[name]
    if text is not None and not re.fullmatch(form, text):
        raise ApiError(400, f"bad_{name}", f"`{name}` must be {words}")
    return text

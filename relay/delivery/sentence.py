"""An event as a sentence for people, in Slack's notation. Pure.

Every word of it may come from outside: it is made printable, cut to a length, and escaped, so that no order
can ring a channel (`<!channel>`) or hide a link.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from relay.model import LABELS, Event, OrderFacts, status_label

_LONGEST_WORD: Final = 60
_LONGEST_TEXT: Final = 1000
_MOST_FIELDS: Final = 6


def sentence(event: Event) -> str:
    """What happened, in one or two lines; whatever the body does not hold is left out."""
    fields = _fields(event.body)
    if event.facts is None:
        return _notice(event, fields)
    return _order(event, event.facts, fields)


def _order(event: Event, facts: OrderFacts, fields: Mapping[str, Any]) -> str:
    parts = [f"Order {_word(event.lane)}: {_status(facts)}."]
    amounts = [_amount(fields, side) for side in ("in", "out")]
    if all(amounts):
        swap = " to ".join(amounts)
        by = _word(fields.get("swapName"))
        parts.append(f"{swap} by {by}." if by else f"{swap}.")
    if fields.get("actionRequired") is True:
        parts.append("*HoudiniSwap asks for an action.*")
    return " ".join(parts)


def _status(facts: OrderFacts) -> str:
    label = f"*{_label(facts.status)}*"
    if facts.previous_status is None:
        return label
    if facts.previous_status != facts.status:
        return f"{label}, was {_label(facts.previous_status)}"
    changed = [_word(name) for name in facts.changed[:_MOST_FIELDS]]
    if not changed:
        return f"still {label}"
    left = len(facts.changed) - len(changed)
    more = f" and {left} more" if left else ""
    return f"still {label}, changed: {', '.join(changed)}{more}"


def _label(status: int) -> str:
    return status_label(status) if status in LABELS else f"UNKNOWN ({status})"


def _amount(fields: Mapping[str, Any], side: str) -> str:
    amount, symbol = _word(fields.get(f"{side}Amount")), _word(fields.get(f"{side}Symbol"))
    return f"{amount} {symbol}" if amount and symbol else ""


def _notice(event: Event, fields: Mapping[str, Any]) -> str:
    subject = _word(event.lane.removeprefix("relay:"))
    parts = [f"*{_word(event.type)}* ({subject})"]
    if what := _text(fields.get("what")):
        parts[0] += f": {what}"
    if since := _word(fields.get("since")):
        until = _word(fields.get("until"))
        parts[0] += f" (from {since} until {until})" if until else f" (since {since})"
    if advice := _text(fields.get("advice")):
        parts.append(f"What to do: {advice}")
    return "\n".join(parts)


def _fields(body: bytes) -> Mapping[str, Any]:
    """The body's members, numbers as they are written; none when it is no object."""
    try:
        found = json.loads(body, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _word(value: object) -> str:
    return _clean(value, _LONGEST_WORD)


def _text(value: object) -> str:
    return _clean(value, _LONGEST_TEXT)


def _clean(value: object, longest: int) -> str:
    if not isinstance(value, str):
        return ""
    cut = value if len(value) <= longest else value[: longest - 3] + "..."
    shown = "".join(char if char.isprintable() else " " for char in cut).strip()
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

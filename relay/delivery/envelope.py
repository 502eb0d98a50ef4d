"""The bytes of a webhook's body for each format. Pure.

An order is money: its JSON is spliced in as it came, never parsed and written again, so that
`0.37271038265600004` and the order of keys survive.
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

import msgspec

from relay.delivery.sentence import sentence
from relay.model import TERMINAL, Event, OrderFacts, Origin, iso_utc, status_label

_JSON: Final = "application/json"
_NOTICE_LANE: Final = "relay:"
_PATH_SEGMENT: Final = "!$&'()*+,;=:@"
"""What a path segment of a URI reference may hold beside letters, digits and `-._~`."""


def compose(event: Event, format: str, partner_id: str) -> bytes:
    """The body to sign and send.

    Args:
        event: an order's event or a notice.
        format: a target's `format` setting.
        partner_id: the upstream's id of us; only CloudEvents name it, as their source.

    Raises:
        ValueError: a format this program does not have.
    """
    return _entry(format)[0](event, partner_id)


def content_type(format: str) -> str:
    """The `content-type` of bodies in this format.

    Raises:
        ValueError: a format this program does not have.
    """
    return _entry(format)[1]


def _standard(event: Event, partner_id: str) -> bytes:
    head = f'{{"type":{_type(event.type)},"timestamp":"{iso_utc(event.at_ms)}","data":'.encode()
    if event.facts is None:
        return head + event.body + b"}"
    return head + event.body + b',"relay":' + _facts(event.facts) + b"}"


def _raw(event: Event, partner_id: str) -> bytes:
    if event.facts is None:
        return _standard(event, partner_id)
    return b'{"type":"order_update","data":' + event.body + b"}"


def _cloudevents(event: Event, partner_id: str) -> bytes:
    """CloudEvents 1.0, structured mode."""
    attributes: dict[str, object] = {
        "specversion": "1.0",
        "id": event.webhook_id,
        "source": f"houdini-relay/{quote(partner_id, safe=_PATH_SEGMENT)}",
        "type": f"com.houdiniswap.{event.type}",
        "subject": event.lane if event.facts else event.lane.removeprefix(_NOTICE_LANE),
        "time": iso_utc(event.at_ms),
        "datacontenttype": _JSON,
    }
    if event.facts is not None:
        attributes |= _extensions(event.facts)
    return _json(attributes)[:-1].encode("ascii") + b',"data":' + event.body + b"}"


def _extensions(facts: OrderFacts) -> dict[str, object]:
    """The facts as extension attributes: names are lower-case letters, values never null, text without controls."""
    found: dict[str, object] = {
        "relaysequence": str(facts.sequence),
        "relaystatus": status_label(facts.status),
        "relayterminal": facts.status in TERMINAL,
        "relayorigin": facts.origin.value,
    }
    if facts.previous_status is not None:
        found["relaypreviousstatus"] = status_label(facts.previous_status)
    if facts.changed:
        # Percent-encoded, or a field whose name holds a comma would read as two.
        found["relaychanged"] = ",".join(quote(name, safe="", errors="replace") for name in facts.changed)
    return found


def _slack(event: Event, partner_id: str) -> bytes:
    return _json({"text": sentence(event)}).encode("ascii")


_FORMATS: Final[Mapping[str, tuple[Callable[[Event, str], bytes], str]]] = {
    "standard": (_standard, _JSON),
    "raw": (_raw, _JSON),
    "cloudevents": (_cloudevents, "application/cloudevents+json"),
    "slack": (_slack, _JSON),
}


def _entry(format: str) -> tuple[Callable[[Event, str], bytes], str]:
    try:
        return _FORMATS[format]
    except KeyError:
        raise ValueError(f"no such webhook format: {format}") from None


def _facts(facts: OrderFacts) -> bytes:
    move, rest = _of_move(facts.status, facts.previous_status, facts.origin)
    return f'{{"orderSequence":{facts.sequence},{move},"changed":{_json(facts.changed)},{rest}}}'.encode("ascii")


@lru_cache(maxsize=512)
def _of_move(status: int, previous: int | None, origin: Origin) -> tuple[str, str]:
    """The members before `changed` and those after it; the names in that are the upstream's, and may be long."""
    before = {
        "status": status_label(status),
        "previousStatus": None if previous is None else status_label(previous),
    }
    after = {"terminal": status in TERMINAL, "origin": origin.value}
    return _json(before)[1:-1], _json(after)[1:-1]


@lru_cache(maxsize=512)
def _type(name: str) -> str:
    return _json(name)


def _json(value: Any) -> str:
    try:
        text = msgspec.json.encode(value)
        if text.isascii() and b"\x7f" not in text:  # which the other one escapes: bytes must not differ by version
            return text.decode("ascii")
    except UnicodeEncodeError:
        pass
    # Field names come from upstream: ASCII escapes carry even a lone surrogate through.
    return json.dumps(value, separators=(",", ":"))

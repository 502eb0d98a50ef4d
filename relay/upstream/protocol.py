"""What the upstream's socket says, as values: bytes in, messages and snapshots out.

Pure. An order's JSON is never re-written: what is forwarded later is the text that came, byte for byte.
"""

import hashlib
from typing import Final

import msgspec

from relay.model import Origin, Snapshot
from relay.upstream.splice import NotSplit, members

MAX_ID_LENGTH: Final = 200
_MAX_CREATED_LENGTH: Final = 64
_MAX_TEXT_LENGTH: Final = 200
_INT32: Final = range(-(2**31), 2**31)


class Welcome(msgspec.Struct, frozen=True):
    """The credentials were accepted."""

    partner_id: str | None


class Subscribed(msgspec.Struct, frozen=True):
    """A subscription is confirmed; `ids` is None for all orders (an empty list may mean that too)."""

    ids: frozenset[str] | None


class Unsubscribed(msgspec.Struct, frozen=True):
    """A subscription has ended; `ids` is None for everything."""

    ids: frozenset[str] | None


class OrderUpdate(msgspec.Struct, frozen=True):
    """An order as it is now; `order` is its JSON as it came, not looked into yet."""

    order: bytes


class Pong(msgspec.Struct, frozen=True):
    """The answer to our application ping."""


class UpstreamErrorMessage(msgspec.Struct, frozen=True):
    """The upstream could not process something we said, or refuses us (`AUTH_FAILED`)."""

    code: str
    text: str


class UnknownMessage(msgspec.Struct, frozen=True):
    """A well-formed message of a type nobody documented."""

    type: str


class BadMessage(msgspec.Struct, frozen=True):
    """Not a message at all; `reason` is safe to log."""

    reason: str


Message = Welcome | Subscribed | Unsubscribed | OrderUpdate | Pong | UpstreamErrorMessage | UnknownMessage | BadMessage


class BadOrder(ValueError):
    """An order object that lacks what every order must have; `str()` is safe to log."""


class ParsedOrder(msgspec.Struct, frozen=True):
    """An order object taken apart.

    Attributes:
        fields: every top-level field -> its JSON text as it came.
        created: the upstream's `created` text, None when absent or no sensible text.
    """

    houdini_id: str
    status: int
    fields: dict[str, bytes]
    created: str | None


_texts = msgspec.json.Decoder(str)
_lists = msgspec.json.Decoder(list[object])
_integers = msgspec.json.Decoder(int)

_MALFORMED: Final = (msgspec.MsgspecError, RecursionError, UnicodeError)


def printable(text: str, limit: int = _MAX_TEXT_LENGTH) -> str:
    """Text from outside made safe for a log line: unprintable characters replaced, length limited."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:limit])


def parse_message(data: str | bytes) -> Message:
    """Understand one frame, text or binary; never raises on whatever came."""
    try:
        frame = members(data.encode() if isinstance(data, str) else data)
        return _to_message(_texts.decode(frame.get("type", b"null")), frame)
    except (NotSplit, *_MALFORMED) as error:
        return BadMessage(f"{type(error).__name__}: {printable(str(error))}")


def parse_order(body: bytes) -> ParsedOrder:
    """Take an order object apart.

    Raises:
        BadOrder: it is not an object with a printable `houdiniId` and an integer `status`.
    """
    try:
        fields = members(body)
    except NotSplit as error:
        raise BadOrder(f"not an order object: {error}") from None
    return ParsedOrder(_houdini_id(fields), _status(fields), fields, _created(fields))


def stand_in(body: bytes) -> tuple[str, str | None]:
    """What takes the place of an unreadable order in a list: an id that no order can have, and its `created`."""
    name = "\0" + hashlib.sha256(body).hexdigest()
    try:
        return name, _created(members(body))
    except NotSplit:
        return name, None


def snapshot(
    order: ParsedOrder,
    body: bytes,
    *,
    origin: Origin,
    seen_ms: int,
    asked_at: float,
    first_sweep: bool = False,
    silent: bool = False,
) -> Snapshot:
    """A parsed order with where and when it was seen."""
    return Snapshot(
        houdini_id=order.houdini_id,
        status=order.status,
        body=body,
        fields=order.fields,
        created=order.created,
        origin=origin,
        seen_ms=seen_ms,
        asked_at=asked_at,
        first_sweep=first_sweep,
        silent=silent,
    )


def valid_id(text: str) -> bool:
    """Whether this can be an order's id: 1 to 200 printable characters."""
    return 0 < len(text) <= MAX_ID_LENGTH and text.isprintable()


def _to_message(kind: str, frame: dict[str, bytes]) -> Message:
    match kind:
        case "order_update":
            order = frame.get("data", b"")
            return OrderUpdate(order) if order.startswith(b"{") else BadMessage("order_update without an order object")
        case "welcome":
            return Welcome(_text(frame.get("partnerId")) or None)
        case "subscribed":
            return Subscribed(_ids(frame.get("houdiniIds")))
        case "unsubscribed":
            return Unsubscribed(_ids(frame.get("houdiniIds")))
        case "pong":
            return Pong()
        case "error":
            return UpstreamErrorMessage(_text(frame.get("code")), _text(frame.get("message")))
        case unknown:
            return UnknownMessage(printable(unknown, 64))


def _ids(raw: bytes | None) -> frozenset[str] | None:
    """The ids of an acknowledgement; whatever is no list (its spelling in all mode is not documented) means all."""
    if raw is None or not raw.startswith(b"["):
        return None
    return frozenset(item for item in _lists.decode(raw) if isinstance(item, str))


def _text(raw: bytes | None) -> str:
    """A text field whose type is not documented: a string as it is, anything else as its JSON, nothing as nothing."""
    text = raw or b""
    return printable(_texts.decode(text) if text.startswith(b'"') else text.decode())


def _houdini_id(fields: dict[str, bytes]) -> str:
    try:
        houdini_id = _texts.decode(fields["houdiniId"])
    except (KeyError, *_MALFORMED):
        raise BadOrder("houdiniId is missing or not a string") from None
    if not valid_id(houdini_id):
        raise BadOrder(f"houdiniId is not 1 to {MAX_ID_LENGTH} printable characters")
    return houdini_id


def _status(fields: dict[str, bytes]) -> int:
    try:
        status = _integers.decode(fields["status"])
    except (KeyError, *_MALFORMED):
        raise BadOrder("status is missing or not an integer") from None
    if status not in _INT32:
        raise BadOrder("status is beyond 32 bits")
    return status


def _created(fields: dict[str, bytes]) -> str | None:
    try:
        created = _texts.decode(fields["created"])
    except (KeyError, *_MALFORMED):
        return None
    return created if len(created) <= _MAX_CREATED_LENGTH and created.isprintable() else None

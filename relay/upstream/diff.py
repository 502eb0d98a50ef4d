"""The rank rule: is a snapshot news, a repetition, or something to ask REST about?

The upstream gives no version and no update time, but a status only moves forward along its documented
life, so the status is the version. A late frame or a lagging REST answer shows an earlier state, which is
a lower or equal rank. `docs/architecture.md` has the whole table; this file is it, as functions of values.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from relay.model import LIVE_PRICE_FIELDS, STATUS_FIELDS, KnownOrder, Origin, Snapshot, status_rank
from relay.upstream.splice import members

SETTLING: Final = 60.0
"""Seconds by which REST may lag the stream, and within which two of its replicas may disagree."""


class Move(StrEnum):
    """Where a snapshot stands to what is known of its order."""

    NEW = "new"
    FORWARD = "forward"
    SAME = "same"
    SIDEWAYS = "sideways"
    BACKWARD = "backward"


class NewEvent(msgspec.Struct, frozen=True):
    """It is news: write an event that names the fields that changed."""

    changed: tuple[str, ...]
    move: Move


class Learn(msgspec.Struct, frozen=True):
    """An order that existed before the first start: remember it without an event."""


class Duplicate(msgspec.Struct, frozen=True):
    """A frame that repeats what is known."""


class Hint(msgspec.Struct, frozen=True):
    """REST is ahead of the socket, so its frame is probably on the way: judge it again a little later."""


class Ask(msgspec.Struct, frozen=True):
    """A frame that is not believed: ask REST about its order."""

    move: Move


class Nothing(msgspec.Struct, frozen=True):
    """A REST row that says nothing new, or that cannot be believed now."""


Verdict = NewEvent | Learn | Duplicate | Hint | Ask | Nothing


def judge(
    known: KnownOrder | None, snapshot: Snapshot, *, quiet: bool, prompt: bool, confirmed: bool = False
) -> Verdict:
    """Decide what a snapshot means for what is known of its order.

    Args:
        known: the order's projection, None when it was never seen.
        snapshot: what was seen.
        quiet: whether nothing believed, and no frame repeating what is known, was ingested for this order
            within the settling time before the REST request was sent (see `is_quiet`).
        prompt: whether a REST row that is ahead may be believed at once: in an epoch's first sweep, or when
            it was a hint whose frame has not come.
        confirmed: whether this is a disbelieved frame that REST could not be asked about in time, so that
            nothing can contradict it any more.
    """
    if confirmed:
        return _judge_confirmed(known, snapshot)
    if known is None and snapshot.silent:
        return Learn()
    if snapshot.origin is Origin.WEBSOCKET:
        return _judge_frame(known, snapshot)
    return _judge_row(known, snapshot, quiet=quiet, prompt=prompt)


def is_quiet(last_touched: float, asked_at: float, settling: float = SETTLING) -> bool:
    """Whether a REST answer asked for at `asked_at` cannot be older than what is known (monotonic seconds)."""
    return asked_at - last_touched > settling


def classify_move(known: KnownOrder | None, snapshot: Snapshot) -> Move:
    """Compare ranks; an unknown code keeps the known rank, so it can only be `SAME`."""
    if known is None:
        return Move.NEW
    rank = status_rank(snapshot.status)
    if rank is None:
        return Move.SAME
    before = None if known.ranked_status is None else status_rank(known.ranked_status)
    if before is None or rank > before:
        return Move.FORWARD
    if rank < before:
        return Move.BACKWARD
    return Move.SAME if snapshot.status == known.ranked_status else Move.SIDEWAYS


def status_values(fields: Mapping[str, bytes]) -> dict[str, Any]:
    """The status fields that an order shows, decoded; absent and null ones say nothing and are left out."""
    found: dict[str, Any] = {}
    for name in STATUS_FIELDS:
        text = fields.get(name)
        if text is None or text == b"null":
            continue
        try:
            found[name] = msgspec.json.decode(text)
        except (msgspec.MsgspecError, ValueError):
            found[name] = text.decode("utf-8", "replace")
    return found


def changed_fields(known: KnownOrder, snapshot: Snapshot) -> tuple[str, ...]:
    """Which fields differ from what is known, `()` when none does.

    A frame is compared whole with the order's last frame, live prices aside. A row, and the first frame after
    an event that REST showed, in status fields only, each only when both sides have it: the shapes differ.
    A field that is absent says nothing; one that a frame adds to the last frame is a change.
    """
    differing = [name for name, value in status_values(snapshot.fields).items() if _differs(known.fields, name, value)]
    if snapshot.origin is Origin.WEBSOCKET and known.last_frame is not None:
        before = members(known.last_frame)
        differing += [
            name
            for name, text in snapshot.fields.items()
            if name not in STATUS_FIELDS
            and name not in LIVE_PRICE_FIELDS
            and text != b"null"
            and before.get(name) != text
        ]
        differing += [name for name in status_values(snapshot.fields) if name not in known.fields]
    return tuple(dict.fromkeys(differing))


def webhook_id(partner_id: str, houdini_id: str, status: int, nth: int) -> str:
    """The id of the nth event of this order in this status: the same however and wherever it was seen."""
    material = f"{partner_id}\n{houdini_id}\n{status}\n{nth}".encode()
    return "evt_" + hashlib.sha256(material).hexdigest()[:32]


def _judge_frame(known: KnownOrder | None, snapshot: Snapshot) -> Verdict:
    move = classify_move(known, snapshot)
    if known is None or known.silent:
        return NewEvent(("status",), move)
    if move in (Move.BACKWARD, Move.SIDEWAYS):
        return Ask(move)
    changed = changed_fields(known, snapshot)
    return NewEvent(changed, move) if changed else Duplicate()


def _judge_confirmed(known: KnownOrder | None, snapshot: Snapshot) -> Verdict:
    """Only while it is still sideways: whatever has been believed since then knows better."""
    if known is None or classify_move(known, snapshot) is not Move.SIDEWAYS:
        return Nothing()
    return NewEvent(_changed_or_first(known, snapshot), Move.SIDEWAYS)


def _judge_row(known: KnownOrder | None, snapshot: Snapshot, *, quiet: bool, prompt: bool) -> Verdict:
    move = classify_move(known, snapshot)
    if known is None or move is Move.FORWARD:
        if not prompt:
            return Hint()
        return NewEvent(_changed_or_first(known, snapshot), move)
    changed = changed_fields(known, snapshot)
    if changed and quiet:
        return NewEvent(_changed_or_first(known, snapshot), move)
    return Nothing()


def _changed_or_first(known: KnownOrder | None, snapshot: Snapshot) -> tuple[str, ...]:
    if known is None or known.sequence == 0:
        return ("status",)
    return changed_fields(known, snapshot)


def _differs(known_fields: Mapping[str, Any], name: str, value: Any) -> bool:
    return name in known_fields and known_fields[name] != value

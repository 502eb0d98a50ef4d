"""What the upstream shows against what the ledger holds and what targets acknowledged. Pure."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from relay.model import DeliveryStatus, KnownOrder, event_type, status_label
from relay.store.values import DeliveryOfOrder


class Kind(StrEnum):
    """What is different.

    `unknown_order`: the upstream shows it, the ledger does not know it. `status_differs`: a status field
    differs. `missing`: a delivery that should have been made was not. `dead`: one ended without success.
    `pending`: one has been waiting for longer than the settling time.
    """

    UNKNOWN_ORDER = "unknown_order"
    STATUS_DIFFERS = "status_differs"
    MISSING = "missing"
    DEAD = "dead"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class SeenOrder:
    """An order as REST shows it.

    Attributes:
        fields: the status fields that it shows, decoded.
        body: the order, byte for byte.
        created_ms: when it was made, None when it does not say.
        asked_at: monotonic time at which REST was asked.
    """

    houdini_id: str
    status: int
    fields: Mapping[str, Any]
    body: bytes
    created_ms: int | None
    asked_at: float


@dataclass(frozen=True, slots=True)
class Expectation:
    """What one target is to get.

    Attributes:
        wants: whether it wants events of a type.
        since_ms: orders made after this moment owe it every event; of older ones it may have come too late.
        status_only: whether it wants only events that change the status (`changes: status`).
    """

    name: str
    wants: Callable[[str], bool]
    since_ms: int
    status_only: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference, and what is needed to tell whether it is still the same at a second look.

    Attributes:
        target: whom it concerns, None when everybody.
        upstream: the status that REST shows, in words.
        known: the status that the ledger or the event holds, in words; None when there is none.
        webhook_id: the event that is to be sent again, None where there is none to name.
        ledger: what the ledger held, for comparison with a later look.
    """

    order: str
    target: str | None
    kind: Kind
    upstream: str
    known: str | None
    detail: str
    webhook_id: str | None = None
    ledger: object = None

    @property
    def key(self) -> tuple[object, ...]:
        """The same for the same difference, seen again."""
        return self.order, self.target, self.kind, self.webhook_id, self.ledger


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the store knows of some orders."""

    orders: Mapping[str, KnownOrder]
    deliveries: Sequence[DeliveryOfOrder]


LastId = Callable[[KnownOrder], str]
"""The webhook id of an order's last event."""


def compare(seen: SeenOrder, ledger: Ledger, targets: Sequence[Expectation], last_id: LastId) -> list[Difference]:
    """Every difference of one order."""
    known = ledger.orders.get(seen.houdini_id)
    if known is None:
        detail = "the upstream shows it, the relay has never seen it"
        return [Difference(seen.houdini_id, None, Kind.UNKNOWN_ORDER, label(seen.status), None, detail)]
    found = _compare_status(seen, known)
    if known.sequence:
        deliveries = [one for one in ledger.deliveries if one.houdini_id == seen.houdini_id]
        for target in targets:
            found += _compare_deliveries(seen, known, deliveries, target, last_id)
    return found


def is_certain(difference: Difference, created_ms: int | None, settled_ms: int) -> bool:
    """Whether one look is enough: what ended or was never made will not come by itself.

    A status or a waiting delivery may be on its way, as may an order made after `settled_ms`.
    """
    if difference.kind is Kind.UNKNOWN_ORDER:
        return created_ms is not None and created_ms < settled_ms
    return difference.kind in (Kind.DEAD, Kind.MISSING)


def label(code: int) -> str:
    """A status for people; an unknown code is shown as its number."""
    word = status_label(code)
    return f"UNKNOWN ({code})" if word == "UNKNOWN" else word


def _compare_status(seen: SeenOrder, known: KnownOrder) -> list[Difference]:
    differing = [name for name, value in seen.fields.items() if name in known.fields and known.fields[name] != value]
    if not differing:
        return []
    shown = "; ".join(f"{name} is {seen.fields[name]!s:.60}, known as {known.fields[name]!s:.60}" for name in differing)
    state = (known.sequence, known.status, tuple(sorted((key, str(value)) for key, value in known.fields.items())))
    return [
        Difference(
            seen.houdini_id, None, Kind.STATUS_DIFFERS, label(seen.status), label(known.status), shown, ledger=state
        )
    ]


def _compare_deliveries(
    seen: SeenOrder, known: KnownOrder, deliveries: Sequence[DeliveryOfOrder], target: Expectation, last_id: LastId
) -> list[Difference]:
    events: dict[int, DeliveryOfOrder] = {one.sequence: one for one in deliveries}
    events.setdefault(known.sequence, _unmade(known, last_id))
    own: dict[int, list[DeliveryOfOrder]] = {}
    for one in deliveries:
        if one.target == target.name:
            own.setdefault(one.sequence, []).append(one)
    found = []
    for sequence, event in sorted(events.items()):
        if made := own.get(sequence):
            found += _judge_made(seen, made)
        elif _is_wanted(event, target) and _owed(seen, target, sequence, own):
            detail = f"event {sequence} ({event_type(event.event_status)}) has no delivery for this target"
            found.append(_about(seen, event, target.name, Kind.MISSING, detail))
    return found


def _is_wanted(event: DeliveryOfOrder, target: Expectation) -> bool:
    return target.wants(event_type(event.event_status)) and (event.moves_status or not target.status_only)


def _owed(seen: SeenOrder, target: Expectation, sequence: int, own: Collection[int]) -> bool:
    """Whether the target was there when the event happened: it has an earlier one, or is older than the order."""
    young = seen.created_ms is not None and seen.created_ms >= target.since_ms
    return young or any(earlier < sequence for earlier in own)


def _judge_made(seen: SeenOrder, made: Sequence[DeliveryOfOrder]) -> list[Difference]:
    """One event at one target, replays included: acknowledged once is acknowledged."""
    states = {one.status for one in made}
    last = made[-1]
    name = f"event {last.sequence} ({event_type(last.event_status)})"
    if DeliveryStatus.DELIVERED in states:
        return []
    if states & {DeliveryStatus.PENDING, DeliveryStatus.IN_FLIGHT}:
        return [_about(seen, last, last.target, Kind.PENDING, f"{name} waits to be acknowledged")]
    if last.status is DeliveryStatus.DEAD:
        reason = last.reason.value if last.reason else "no reason was kept"
        return [_about(seen, last, last.target, Kind.DEAD, f"{name} ended dead: {reason}")]
    # Superseded by a newer event, or cancelled by a person: as it should be.
    return []


def _about(seen: SeenOrder, event: DeliveryOfOrder, target: str, kind: Kind, detail: str) -> Difference:
    return Difference(
        seen.houdini_id, target, kind, label(seen.status), label(event.event_status), detail, event.webhook_id
    )


def _unmade(known: KnownOrder, last_id: LastId) -> DeliveryOfOrder:
    """An order's last event as its projection remembers it, for when no target has a delivery of it.

    What that event changed is not remembered there; only of a first one is it certain.
    """
    return DeliveryOfOrder(
        known.houdini_id,
        last_id(known),
        known.sequence,
        known.status,
        "",
        DeliveryStatus.PENDING,
        None,
        0,
        moves_status=known.sequence == 1,
    )

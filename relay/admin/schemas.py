"""What answers look like, as JSON Schema: the words of the OpenAPI document. Tests hold real answers against it."""

from collections.abc import Mapping
from typing import Final

from relay.admin.compare import Kind
from relay.admin.schema_words import (
    ANYTHING,
    COUNT,
    FIGURE,
    FIGURE_,
    MOMENT,
    MOMENT_,
    NUMBER,
    NUMBER_,
    TEXT,
    TEXT_,
    YES,
    Schema,
    also,
    listed,
    mapped,
    maybe,
    page,
    ref,
    thing,
    words,
)
from relay.board import UpstreamState
from relay.model import DeadReason, DeliveryStatus, FailureKind, Origin, Outcome
from relay.standing import Breaker

_STATUS, _OUTCOME, _REASON = words(DeliveryStatus), words(Outcome), maybe(words(DeadReason))

DELIVERY: Final = thing(
    "One event for one target.",
    id=NUMBER,
    event_id=TEXT,
    type=TEXT,
    order=TEXT,
    target=TEXT,
    status=_STATUS,
    reason=_REASON,
    replay=COUNT,
    head=YES,
    attempts_made=COUNT,
    due_at=MOMENT_,
    created_at=MOMENT,
    finished_at=MOMENT_,
    last_outcome=maybe(_OUTCOME),
    last_status_code=NUMBER_,
    replayed=YES,
)
EVENT: Final = thing(
    "One change, once in the log; `id` is the webhook id. What belongs to an order is null for a notice.",
    id=TEXT,
    type=TEXT,
    order=TEXT,
    at=MOMENT,
    sequence=NUMBER_,
    status=TEXT_,
    previous_status=TEXT_,
    changed=listed(TEXT),
    origin=maybe(words(Origin)),
    counts=mapped(COUNT),
)
TARGET: Final = thing(
    "A receiver. Its URL is redacted, and null when the configuration names it no longer.",
    name=TEXT,
    url=TEXT_,
    state=words("active", "paused", "parked", "orphaned"),
    breaker=words(Breaker),
    pending=COUNT,
    oldest_age_s=FIGURE_,
    last_success_at=MOMENT_,
    last_error=TEXT_,
    in_flight=COUNT,
    failures=COUNT,
    paused_by=maybe(words("configuration", "person")),
    paused_at=MOMENT_,
    parked_at=MOMENT_,
    probe_at=MOMENT_,
    throttled_until=MOMENT_,
)
_FINDINGS: Final = listed(thing("What, and what to do.", subject=TEXT, message=TEXT, advice=TEXT))

SCHEMAS: Final[Mapping[str, Schema]] = {
    "Error": thing(
        "Every error.",
        error=thing(
            "A word for machines, a sentence for people.", code={"pattern": "^[a-z0-9_]+$", **TEXT}, message=TEXT
        ),
    ),
    "Health": thing("Whether all is well, and if not, why.", ok=YES, reasons=listed(TEXT)),
    "Status": thing(
        "Is everything where it should be, and if not, why and what to do.",
        fine=YES,
        problems=_FINDINGS,
        notes=_FINDINGS,
        version=TEXT,
        now=MOMENT,
        upstream=thing(
            "The connection to the upstream.",
            state=words(UpstreamState),
            first_sweep_done=YES,
            in_sync=YES,
            why_not_in_sync=TEXT_,
            epoch=COUNT,
            since=MOMENT_,
            last_message_at=MOMENT_,
            last_error=TEXT_,
            questions_open=COUNT,
            unconfirmed=COUNT,
            sweeps=mapped(COUNT),
            gate=TEXT_,
        ),
        instances=listed(
            thing(
                "One that shares the store and was heard of lately; `in_flight`: target -> attempts under way.",
                id=TEXT,
                host=TEXT,
                this=YES,
                leads=YES,
                epoch=NUMBER_,
                started_at=MOMENT,
                seen_at=MOMENT,
                in_flight=mapped(COUNT),
            )
        ),
        gaps=listed(ref("Gap")),
        targets=listed(also(TARGET, "A target and how it has done lately.", dead=COUNT, last_hour=ref("LastHour"))),
        store=thing("The store.", size_bytes=COUNT, failure=TEXT_),
    ),
    "Gap": {
        "description": "A time without a subscription. `from` and `to` are moments; `to` is null while it is open.",
        "type": "object",
        "properties": {
            "from": MOMENT,
            "to": MOMENT_,
            "seconds": FIGURE,
            "cause": TEXT,
            "open": YES,
            "exceeds_window": YES,
            "swept_at": MOMENT_,
            "closed_by": TEXT_,
        },
        "required": ["from", "to", "seconds", "cause", "open", "exceeds_window", "swept_at", "closed_by"],
        "additionalProperties": False,
    },
    "LastHour": thing(
        "Attempts in each of the last 60 minutes, oldest first; how long from the change being seen to the 2xx.",
        delivered=listed(COUNT),
        failed=listed(COUNT),
        latency_ms=thing("Half, 95 and 99 in a hundred took at most so long.", p50=FIGURE_, p95=FIGURE_, p99=FIGURE_),
    ),
    "Target": TARGET,
    "Targets": page(ref("Target")),
    "Delivery": DELIVERY,
    "Deliveries": page(ref("Delivery")),
    "WholeDelivery": also(
        DELIVERY,
        "A delivery and its last attempts. While it waits, `held_by` is what of its target holds it back whatever "
        "`due_at` says; `held_until` is the next probe, or the end of throttling.",
        held_by=maybe(words("paused", "parked", "orphaned", "breaker_open", "throttled")),
        held_until=MOMENT_,
        attempts=listed(ref("Attempt")),
    ),
    "Attempt": thing(
        "One POST; what its receiver said is escaped for terminals, not for HTML.",
        number=NUMBER,
        at=MOMENT,
        outcome=_OUTCOME,
        status_code=NUMBER_,
        duration_ms=FIGURE,
        kind=maybe(words(FailureKind)),
        error=TEXT_,
        response_body=TEXT,
        headers=mapped(TEXT),
        timings=thing("The phases.", dns_ms=FIGURE_, connect_ms=FIGURE_, tls_ms=FIGURE_, first_byte_ms=FIGURE_),
        manual=YES,
        probe=YES,
    ),
    "Event": EVENT,
    "Events": page(ref("Event")),
    "WholeEvent": also(
        EVENT, "An event, its data byte for byte, its deliveries.", data=ANYTHING, deliveries=listed(ref("Delivery"))
    ),
    "Order": thing(
        "An order as it is known, and its life: its last events, oldest first.",
        id=TEXT,
        status=TEXT,
        status_code=NUMBER,
        terminal=YES,
        fields=mapped(ANYTHING),
        created=TEXT_,
        events=COUNT,
        silent=YES,
        learned_at=MOMENT,
        believed_at=MOMENT,
        aged_out_at=MOMENT_,
        data=ANYTHING,
        life=listed(also(EVENT, "An event with its deliveries.", deliveries=listed(ref("WholeDelivery")))),
        life_is_whole=YES,
    ),
    "Keys": thing("Public keys.", items=listed(thing("One target's.", target=TEXT, keys=listed(TEXT)))),
    "SweepRequested": thing("A sweep begins within seconds.", requested=YES),
    "Audit": thing(
        "How the upstream and the deliveries differ.",
        compared=COUNT,
        differences=listed(
            thing(
                "One difference.",
                order=TEXT,
                target=TEXT_,
                kind=words(Kind),
                upstream=TEXT,
                known=TEXT_,
                detail=TEXT,
                repaired=YES,
            )
        ),
        settling=COUNT,
        truncated=YES,
    ),
    "BackedUp": thing("The copy.", path=TEXT, bytes=COUNT),
    "Retried": {
        "anyOf": [
            thing("It is attempted now.", delivery=NUMBER, retried=YES),
            thing("It had ended, so its event is sent again, as this delivery.", delivery=NUMBER, replayed=NUMBER),
        ]
    },
    "Cancelled": thing("It is not sent.", delivery=NUMBER, cancelled=YES),
    "Replayed": thing("How many are sent again, or would be.", count=COUNT),
    "Paused": thing("False: it was paused already.", target=TEXT, paused=YES),
    "Resumed": thing(
        "False: it was neither parked nor paused, and its breaker is closed. `breaker_open`: it is probed now.",
        target=TEXT,
        resumed=YES,
        was=maybe(words("parked", "paused", "breaker_open")),
    ),
    "Tested": thing("The attempt.", target=TEXT, attempt=ref("Attempt")),
    "Forgotten": thing("How many deliveries were cancelled.", target=TEXT, cancelled=COUNT),
    # What the stream tells: `event:` names the kind, `data:` is one of these.
    "StreamEvent": thing(
        "event: an event was written.", id=TEXT, type=TEXT, order=TEXT, at=MOMENT, targets=listed(TEXT)
    ),
    "StreamAttempt": thing(
        "attempt: an attempt ended; `status` and `reason` are the delivery's after it.",
        at=MOMENT,
        delivery=NUMBER,
        event_id=TEXT,
        type=TEXT,
        order=TEXT,
        target=TEXT,
        number=NUMBER,
        outcome=_OUTCOME,
        status_code=NUMBER_,
        kind=maybe(words(FailureKind)),
        duration_ms=FIGURE,
        error=TEXT_,
        status=_STATUS,
        reason=_REASON,
        manual=YES,
        probe=YES,
    ),
    "StreamTarget": thing(
        "target: how a target stands has changed.",
        name=TEXT,
        state=TARGET["properties"]["state"],
        breaker=words(Breaker),
    ),
    "StreamUpstream": thing(
        "upstream: where the connection stands has changed.", state=words(UpstreamState), since=MOMENT
    ),
    "StreamNotice": thing(
        "notice: a notice was written; beside these, what is in its data.", id=TEXT, type=TEXT, subject=TEXT
    )
    | {"additionalProperties": True},
    "StreamMissed": thing(
        "missed: so many were not told, of any kind; null: nobody knows, the relay began anew.", count=NUMBER_
    ),
}

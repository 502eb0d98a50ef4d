"""One trace per event, from frame to every attempt, when the environment names an OpenTelemetry collector.

Ids are not kept anywhere: the trace's follows from the webhook id, and a span's from what it is about. So attempts
of days later, after a restart, or in another process land in the same trace.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import structlog

from relay.log_names import Log
from relay.model import Attempt, DeadReason, Delivery, DeliveryStatus, Event, Outcome

if TYPE_CHECKING:
    from relay.otel import SpanExport

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Either of these standard variables turns tracing on."""
CLOSE_GRACE: Final = 3.0
"""Seconds that the collector gets at the end to take what waits."""
_ID_DIGITS: Final = 32

_log = structlog.get_logger()


class Tracing:
    """What the rooms tell; this one keeps nothing of it."""

    def written(self, event: Event, committed_ms: int) -> None:
        """An event has been committed."""

    def attempted(self, delivery: Delivery, attempt: Attempt) -> None:
        """The outcome of an attempt has been committed."""

    def ended(self, delivery: Delivery, status: DeliveryStatus, reason: DeadReason | None, now_ms: int) -> None:
        """A delivery has ended by the attempt that was told before."""

    def traceparent(self, delivery: Delivery) -> str | None:
        """The W3C header of this delivery's next attempt; None to send none."""
        return None

    async def close(self) -> None:
        """Send what waits, within `CLOSE_GRACE`; what is left then is lost."""


OFF: Final = Tracing()


class Traces(Tracing):
    """Makes spans and hands them over; never waits."""

    def __init__(self, export: "SpanExport") -> None:
        self._export = export

    def written(self, event: Event, committed_ms: int) -> None:
        """The span `frame`: from the reading of a frame or a REST row to the commit."""
        trace_id = trace_id_of(event.webhook_id)
        if event.facts is None or not self._export.is_sampled(trace_id):
            return
        attributes = _of_event(event) | {
            "relay.origin": event.facts.origin.value,
            "relay.order_sequence": event.facts.sequence,
        }
        ids = (trace_id, _frame_id(event), None)
        self._export.add("frame", ids, (event.at_ms, committed_ms), attributes)

    def attempted(self, delivery: Delivery, attempt: Attempt) -> None:
        """The span `attempt`: one POST."""
        trace_id = trace_id_of(delivery.event.webhook_id)
        if not self._export.is_sampled(trace_id):
            return
        attributes = _of_delivery(delivery) | {
            "http.request.method": "POST",
            "relay.attempt": delivery.attempts_made + 1,
            "relay.outcome": attempt.outcome.value,
            "relay.probe": delivery.probe,
        }
        failed = attempt.outcome is not Outcome.OK
        if attempt.status_code is not None:
            attributes["http.response.status_code"] = attempt.status_code
        if failed:
            attributes["error.type"] = attempt.kind.value if attempt.kind else str(attempt.status_code)
        ids = (trace_id, _attempt_id(delivery), _delivery_id(delivery))
        times = (attempt.at_ms, attempt.at_ms + attempt.duration_ms)
        self._export.add("attempt", ids, times, attributes, failed=failed)

    def ended(self, delivery: Delivery, status: DeliveryStatus, reason: DeadReason | None, now_ms: int) -> None:
        """The span `delivery`: from its making to its end."""
        trace_id = trace_id_of(delivery.event.webhook_id)
        if not self._export.is_sampled(trace_id):
            return
        attributes = _of_delivery(delivery) | {
            "relay.status": status.value,
            "relay.attempts": delivery.attempts_made + 1,
        }
        if reason is not None:
            attributes["relay.reason"] = reason.value
        # A notice is no frame's: its delivery is the trace's root.
        parent = None if delivery.event.facts is None else _frame_id(delivery.event)
        ids = (trace_id, _delivery_id(delivery), parent)
        failed = status is not DeliveryStatus.DELIVERED
        self._export.add("delivery", ids, (delivery.created_ms, now_ms), attributes, failed=failed)

    def traceparent(self, delivery: Delivery) -> str | None:
        """Makes the receiver's spans children of the attempt."""
        trace_id = trace_id_of(delivery.event.webhook_id)
        flags = int(self._export.is_sampled(trace_id))
        return f"00-{trace_id:032x}-{_attempt_id(delivery):016x}-{flags:02x}"

    async def close(self) -> None:
        """Send what waits, within `CLOSE_GRACE`; what is left then is lost."""
        try:
            async with asyncio.timeout(CLOSE_GRACE):
                await asyncio.to_thread(self._export.close)
        except TimeoutError:
            _log.warning(
                Log.SPANS_LOST, detail="the collector did not take the last spans in time; nothing else is lost"
            )


def tracing_from(environ: Mapping[str, str], version: str) -> Tracing:
    """Tracing as the environment wants it: off unless it names a collector.

    Args:
        environ: the process's environment, which the SDK reads as well.
        version: of this program.
    """
    switched_off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if switched_off or not any(environ.get(name, "").strip() for name in ENDPOINTS):
        return OFF
    try:
        from relay.otel import SpanExport
    except ImportError as error:
        advice = 'pip install "houdini-relay[otel]", or unset OTEL_EXPORTER_OTLP_ENDPOINT'
        _log.warning(Log.TRACING_UNAVAILABLE, error=f"{error.name} is not installed", advice=advice)
        return OFF
    try:
        return Traces(SpanExport(version))
    except (ValueError, OSError) as error:
        advice = "see the OTEL_ variables of its environment; everything but tracing goes on"
        _log.warning(Log.TRACING_UNAVAILABLE, error=str(error), advice=advice)
        return OFF


def trace_id_of(webhook_id: str) -> int:
    """The 128 bits that a webhook id is the text of; of any other text, a digest."""
    digits = webhook_id.removeprefix("evt_")
    try:
        number = int(digits, 16) if len(digits) == _ID_DIGITS else 0
    except ValueError:
        number = 0
    return number or _digest(16, webhook_id)


def _frame_id(event: Event) -> int:
    return _digest(8, "frame", event.webhook_id)


def _delivery_id(delivery: Delivery) -> int:
    return _digest(8, "delivery", delivery.event.webhook_id, delivery.target, str(delivery.id))


def _attempt_id(delivery: Delivery) -> int:
    number = str(delivery.attempts_made + 1)
    return _digest(8, "attempt", delivery.event.webhook_id, delivery.target, str(delivery.id), number)


def _digest(size: int, *parts: str) -> int:
    return int.from_bytes(hashlib.sha256("\n".join(parts).encode()).digest()[:size]) or 1


def _of_event(event: Event) -> dict[str, str | int | bool]:
    return {"relay.webhook_id": event.webhook_id, "relay.order": event.lane, "relay.type": event.type}


def _of_delivery(delivery: Delivery) -> dict[str, str | int | bool]:
    return _of_event(delivery.event) | {"relay.target": delivery.target}

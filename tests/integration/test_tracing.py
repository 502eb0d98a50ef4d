"""One trace per event: what the rooms tell becomes spans whose ids follow from what they are about."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from structlog.testing import capture_logs
from support.engine import Steps, answer, target
from support.factories import event, snapshot

from relay.clock import SystemClock
from relay.config import TargetSettings
from relay.delivery.request import PostRequest, build_request, fixed_part
from relay.delivery.settler import Context
from relay.delivery.signer import Signer
from relay.metrics import Metrics
from relay.model import Attempt, Delivery, DeliveryStatus, FailureKind, Outcome
from relay.otel import SpanExport
from relay.store.sqlite import SqliteStore
from relay.store.values import TargetEntry
from relay.tracing import ENDPOINTS, OFF, Traces, Tracing, trace_id_of, tracing_from
from relay.upstream.ingest import Ingest
from relay.upstream.intake import Intake

WEBHOOK_ID = "evt_00112233445566778899aabbccddeeff"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture(autouse=True)
def no_otel_variables(monkeypatch: pytest.MonkeyPatch):
    for name in (*ENDPOINTS, "OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def kept() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def traces_to(kept: InMemorySpanExporter) -> Traces:
    return Traces(SpanExport("1.2.3", SimpleSpanProcessor(kept)))


@pytest.fixture
def traces(kept: InMemorySpanExporter) -> Traces:
    """Made outside the event loop, as the daemon does it: the SDK asks its environment in a blocking way."""
    return traces_to(kept)


class TracedSteps(Steps):
    tracing: Tracing = OFF

    @property
    def context(self) -> Context:
        return replace(super().context, tracing=self.tracing)


def one(kept: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = [span for span in kept.get_finished_spans() if span.name == name]
    return span


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def delivery(webhook_id: str = WEBHOOK_ID, attempts_made: int = 0, **changes: Any) -> Delivery:
    values = {"target": "alpha", "event": event(webhook_id=webhook_id), "steps_used": 0, "created_ms": 1_000}
    return Delivery(7, attempts_made=attempts_made, **{**values, **changes})


def test_the_trace_is_the_webhook_id():
    assert f"{trace_id_of(WEBHOOK_ID):032x}" == WEBHOOK_ID.removeprefix("evt_")
    others = {trace_id_of(text) for text in ("evt_", "evt_xyz", "evt_" + "0" * 32, "evt_" + "g" * 32)}
    assert len(others) == 4
    assert all(0 < other < 2**128 for other in others)


async def test_frame_delivery_and_attempts_are_one_trace(tmp_path: Path, kept: InMemorySpanExporter, traces: Traces):
    async with TracedSteps(tmp_path / "relay.db", target(retry={"schedule": ["5s"], "jitter": 0})) as room:
        room.tracing = traces
        await room.restart()  # so that loops and settler have it
        said = event("o1", webhook_id=WEBHOOK_ID, at_ms=room.clock.wall_ms() - 40)
        room.tracing.written(said, room.clock.wall_ms())
        await room.add(said)
        room.client.script = lambda sent: 200 if sent.attempts_made else 500
        await room.live(6)
    frame, whole = one(kept, "frame"), one(kept, "delivery")
    first, second = [span for span in kept.get_finished_spans() if span.name == "attempt"]
    assert {span.context.trace_id for span in (frame, whole, first, second)} == {trace_id_of(WEBHOOK_ID)}
    assert frame.parent is None
    assert whole.parent.span_id == frame.context.span_id
    assert first.parent.span_id == second.parent.span_id == whole.context.span_id
    assert len({span.context.span_id for span in (frame, whole, first, second)}) == 4
    assert frame.end_time - frame.start_time == 40_000_000
    assert whole.start_time <= first.start_time < second.start_time
    assert whole.end_time >= second.start_time


async def test_attempts_say_how_they_went_and_nothing_else(tmp_path: Path, kept: InMemorySpanExporter, traces: Traces):
    async with TracedSteps(tmp_path / "relay.db", target(retry={"schedule": ["5s"], "jitter": 0})) as room:
        room.tracing = traces
        await room.restart()
        await room.add(event("o1", webhook_id=WEBHOOK_ID, body=b'{"canary":1}'))
        room.client.script = lambda sent: answer(503, secret="canary") if not sent.attempts_made else answer(500)
        await room.live(6)
    first, second = [span for span in kept.get_finished_spans() if span.name == "attempt"]
    said = {"relay.webhook_id": WEBHOOK_ID, "relay.order": "o1", "relay.type": "order.waiting", "relay.target": "alpha"}
    assert attributes(first) == said | {
        "http.request.method": "POST",
        "http.response.status_code": 503,
        "error.type": "503",
        "relay.attempt": 1,
        "relay.outcome": "retry",
        "relay.probe": False,
    }
    assert first.status.status_code is StatusCode.ERROR
    assert attributes(second)["relay.attempt"] == 2
    assert attributes(one(kept, "delivery")) == said | {
        "relay.status": "dead",
        "relay.reason": "exhausted",
        "relay.attempts": 2,
    }
    assert "canary" not in "".join(span.to_json() for span in kept.get_finished_spans())


def test_no_answer_is_told_by_its_kind_alone(kept: InMemorySpanExporter):
    failed = Attempt(5, 9.0, Outcome.RETRY, kind=FailureKind.TLS, error="tls: the peer said canary")
    traces_to(kept).attempted(delivery(), failed)
    span = one(kept, "attempt")
    assert attributes(span)["error.type"] == "tls"
    assert "http.response.status_code" not in attributes(span)
    assert "canary" not in span.to_json()
    assert span.end_time - span.start_time == 9_000_000


async def test_ingest_tells_after_the_commit(tmp_path: Path, kept: InMemorySpanExporter, traces: Traces):
    clock = SystemClock()
    store = SqliteStore(tmp_path / "relay.db", clock.wall_ms, lambda _seconds: None)
    await store.open([TargetEntry("alpha")])
    intake = Intake()
    ingest = Ingest(intake, store, "p", lambda _event: ("alpha",), Metrics("t"), clock, tracing=traces)
    intake.offer(snapshot("o1", 0, seen_ms=clock.wall_ms() - 5))
    await ingest.run_once()
    await store.close()
    span = one(kept, "frame")
    assert attributes(span)["relay.origin"] == "websocket"
    assert attributes(span)["relay.order_sequence"] == 1
    assert f"evt_{span.context.trace_id:032x}" == attributes(span)["relay.webhook_id"]
    assert 5_000_000 <= span.end_time - span.start_time < 60_000_000_000


def test_a_notice_has_no_frame(kept: InMemorySpanExporter):
    notice = delivery(event=event(webhook_id=WEBHOOK_ID, facts=None))
    traces = traces_to(kept)
    traces.written(notice.event, 2_000)
    traces.ended(notice, DeliveryStatus.DELIVERED, None, 2_000)
    assert one(kept, "delivery").parent is None


def test_a_clock_that_was_set_back_makes_no_span_that_ends_before_it_begins(kept: InMemorySpanExporter):
    traces_to(kept).ended(delivery(created_ms=9_000), DeliveryStatus.DELIVERED, None, 2_000)
    span = one(kept, "delivery")
    assert span.end_time == span.start_time


def build(traceparent: str | None) -> PostRequest:
    to = TargetSettings.model_validate(
        {"name": "t", "url": "https://t.example.com/", "secrets": [SECRET], "headers": {"traceparent": "mine"}}
    )
    return build_request(
        delivery(), fixed_part(to, {}), Signer([SECRET]), 1_700_000_000_000, partner_id="p", traceparent=traceparent
    )


def test_traceparent_names_the_attempt_and_leaves_signed_headers_alone(kept: InMemorySpanExporter):
    traces = traces_to(kept)
    header = traces.traceparent(delivery())
    traces.attempted(delivery(), Attempt(1, 1.0, Outcome.OK, status_code=200))
    assert header == f"00-{trace_id_of(WEBHOOK_ID):032x}-{one(kept, 'attempt').context.span_id:016x}-01"
    assert traces.traceparent(delivery(attempts_made=1)) != header
    assert traces_to(InMemorySpanExporter()).traceparent(delivery()) == header
    plain, traced = build(None), build(header)
    assert plain.body == traced.body
    assert dict(traced.headers) == dict(plain.headers) | {"traceparent": header}


@pytest.mark.parametrize(("share", "count", "flag"), [("0", 0, "00"), ("1", 3, "01")])
def test_the_sampler_of_the_environment_decides(
    monkeypatch: pytest.MonkeyPatch, kept: InMemorySpanExporter, share: str, count: int, flag: str
):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", share)
    traces, sent = traces_to(kept), delivery()
    traces.written(sent.event, 2_000)
    traces.attempted(sent, Attempt(1, 1.0, Outcome.OK, status_code=200))
    traces.ended(sent, DeliveryStatus.DELIVERED, None, 3_000)
    assert len(kept.get_finished_spans()) == count
    assert str(traces.traceparent(sent)).endswith(f"-{flag}")


def test_the_service_is_named_unless_the_environment_names_it(
    monkeypatch: pytest.MonkeyPatch, kept: InMemorySpanExporter
):
    traces_to(kept).written(delivery().event, 2_000)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    traces_to(kept).written(delivery().event, 2_000)
    first, second = [span.resource.attributes for span in kept.get_finished_spans()]
    assert (first["service.name"], first["service.version"]) == ("houdini-relay", "1.2.3")
    assert second["service.name"] == "mine"


@pytest.mark.parametrize(
    "environ",
    [{}, {ENDPOINTS[0]: " "}, {ENDPOINTS[0]: "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}],
    ids=["unset", "empty", "disabled"],
)
async def test_it_is_off_unless_the_environment_names_a_collector(environ: dict[str, str]):
    tracing = tracing_from(environ, "1")
    assert tracing is OFF
    assert tracing.traceparent(delivery()) is None
    await tracing.close()


def test_without_the_extra_it_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "relay.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with capture_logs() as logs:
        assert tracing_from({ENDPOINTS[0]: "http://127.0.0.1:9"}, "1") is OFF
    (line,) = logs
    assert line["event"] == "tracing_unavailable"
    assert "houdini-relay[otel]" in line["advice"]


class StuckProcessor(SimpleSpanProcessor):
    def __init__(self) -> None:
        super().__init__(InMemorySpanExporter())
        self.released = threading.Event()

    def shutdown(self) -> None:
        self.released.wait(30)


@pytest.fixture
def stuck() -> tuple[Traces, threading.Event]:
    processor = StuckProcessor()
    return Traces(SpanExport("1", processor)), processor.released


async def test_a_collector_that_never_answers_holds_up_the_end_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch, stuck: tuple[Traces, threading.Event]
):
    monkeypatch.setattr("relay.tracing.CLOSE_GRACE", 0.1)
    traces, released = stuck
    with capture_logs() as logs:
        await traces.close()
    released.set()
    assert [line["event"] for line in logs] == ["spans_lost"]


def test_what_is_off_imports_nothing_of_the_sdk():
    code = (
        "import sys, json, relay.daemon; print(json.dumps([m for m in sys.modules if m.startswith('opentelemetry')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    assert json.loads(done.stdout) == []

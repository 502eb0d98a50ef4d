"""Finished spans to a collector, by the OpenTelemetry SDK. Imported only when tracing is on: the SDK is an extra."""

from collections.abc import Mapping
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

NAME: Final = "houdini-relay"
_NS_PER_MS: Final = 1_000_000

Attributes = Mapping[str, str | int | bool]


class SpanExport:
    """Takes spans when they are over; sending them is a thread's affair, and its queue is bounded."""

    def __init__(self, version: str, processor: SpanProcessor | None = None) -> None:
        """Prepare, going by the standard `OTEL_` variables of the environment.

        Args:
            version: of this program.
            processor: where spans go; None is the collector that the environment names.
        """
        self._ids = _GivenIds()
        self._provider = TracerProvider(resource=_resource(version), id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(NAME, version)

    def is_sampled(self, trace_id: int) -> bool:
        """Whether this trace is to be kept: the sampler's decision, the same for everything of one trace."""
        return self._provider.sampler.should_sample(None, trace_id, "").decision is Decision.RECORD_AND_SAMPLE

    def add(
        self,
        name: str,
        ids: tuple[int, int, int | None],
        times_ms: tuple[float, float],
        attributes: Attributes,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        failed: bool = False,
    ) -> None:
        """Hand over a span of a trace that is sampled.

        Args:
            name: what it is a span of.
            ids: of its trace, its own, and its parent's (None: it is the trace's root).
            times_ms: wall time of its beginning and its end.
            attributes: what is told of it.
            kind: as a trace viewer is to understand it.
            failed: whether it ended badly.
        """
        trace_id, span_id, parent_id = ids
        context = None
        if parent_id is not None:
            parent = SpanContext(trace_id, parent_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
            context = set_span_in_context(NonRecordingSpan(parent))
        self._ids.trace_id, self._ids.span_id = trace_id, span_id
        began, ended = times_ms
        span = self._tracer.start_span(
            name, context, kind=kind, attributes=dict(attributes), start_time=round(began * _NS_PER_MS)
        )
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(round(max(began, ended) * _NS_PER_MS))

    def close(self) -> None:
        """Send what waits; blocks for as long as the collector takes to answer."""
        self._provider.shutdown()


class _GivenIds(IdGenerator):
    """The ids of the span that is being made: they follow from what it is about, not from chance."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 1

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


def _resource(version: str) -> Resource:
    resource = Resource.create({SERVICE_VERSION: version})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):  # the environment names none
        resource = resource.merge(Resource({SERVICE_NAME: NAME}))
    return resource

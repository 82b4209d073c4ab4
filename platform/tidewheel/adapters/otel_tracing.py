"""Traces of requests to an OpenTelemetry collector, over HTTP. Of what callers send only the trace is in them.

Spans are made when a batch is through, from the moments that it noted: a request that is not sampled costs a hash.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tidewheel.clock import Clock
from tidewheel.errors import TidewheelError
from tidewheel.serving.request import PredictReply, PredictRequest
from tidewheel.serving.stages import Stages

EXPORT_TIMEOUT_S = 5
EVERY_MS = 1000
MAX_WAITING = 4096  # spans; more are dropped


class OtelTracer:
    """Implements serving.tracing.Tracer. ``ratio`` of the requests that come without a trace are sampled; one that
    comes with a trace is where its parent is."""

    def __init__(self, endpoint: str, project: str, version: str, ratio: float, clock: Clock) -> None:
        resource = Resource.create({"service.name": f"tidewheel-{project}", "service.version": version})
        self._provider = TracerProvider(sampler=ParentBasedTraceIdRatio(ratio), resource=resource)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=MAX_WAITING, schedule_delay_millis=EVERY_MS)
        )
        self._tracer: Tracer = self._provider.get_tracer("tidewheel.serving")
        self._propagator = TraceContextTextMapPropagator()
        self._project, self._clock = project, clock

    def batch(
        self, requests: Sequence[PredictRequest], replies: Sequence[PredictReply | TidewheelError], stages: Stages
    ) -> None:
        ahead_us = self._clock.now_us() - self._clock.monotonic_us()  # of the wall clock
        for request, reply in zip(requests, replies, strict=True):
            sent = {"traceparent": request.traceparent} if request.traceparent else {}
            parent = self._propagator.extract(sent, context=Context())
            began_ns = (request.arrived_us + ahead_us) * 1000
            span = self._tracer.start_span("predict", parent, kind=SpanKind.SERVER, start_time=began_ns)
            if span.is_recording():
                self._describe(span, request, reply, len(requests))
                within, last_us = set_span_in_context(span, Context()), request.arrived_us
                for name, ended_us in (
                    ("queue", stages.began_us), ("read features", stages.read_us), ("score", stages.scored_us),
                    ("log", stages.logged_us),
                ):  # fmt: skip
                    stage = self._tracer.start_span(name, within, start_time=(last_us + ahead_us) * 1000)
                    stage.end((max(ended_us, last_us) + ahead_us) * 1000)
                    last_us = max(ended_us, last_us)
            span.end((stages.logged_us + ahead_us) * 1000)

    def _describe(
        self, span: Span, request: PredictRequest, reply: PredictReply | TidewheelError, n_together: int
    ) -> None:
        span.set_attributes(
            {"tidewheel.project": self._project, "tidewheel.rows": request.n_rows, "tidewheel.batch": n_together}
        )
        if isinstance(reply, PredictReply):
            reasons = sorted({reason for row in reply.reasons for reason in row})
            span.set_attributes(
                {"tidewheel.versions": sorted(set(reply.versions)), "tidewheel.degraded": bool(reasons),
                 "tidewheel.reasons": reasons}
            )  # fmt: skip
        else:
            span.set_status(Status(StatusCode.ERROR, type(reply).__name__))

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()

"""Traces by OpenTelemetry and metrics by Prometheus, the same for every service.

Spans go to OTEL_EXPORTER_OTLP_ENDPOINT where it is set. Without it none are made, and
only the traces' ids go from call to call, for logs and audit events.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler

import grpc
from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.instrumentation.grpc import aio_client_interceptors, aio_server_interceptor, filters
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from facetmesh import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

_ids = RandomIdGenerator()
_LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SILENT_S = 5.0
"""How long who asks for metrics may say nothing."""
_NOT_SAMPLED = "-00"
"""How a traceparent ends whose trace nobody records: another span in it would be nothing but work."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """What every service counts. Served by `serve`."""

    registry: CollectorRegistry
    calls: Counter
    """Calls ended, by method and status code."""
    latency_s: Histogram
    """How long calls took, by method."""
    in_progress: Gauge
    """Calls being worked on."""
    audit_pending: Gauge
    """Audit events not yet accepted."""
    audit_unpublished: Gauge
    """Audit events in the journal that the sidecar has not yet accepted."""
    audit_dropped: Counter
    """Best-effort audit events that were given up."""
    events: Counter
    """Events that the sidecar delivered, by topic and what became of them: ok, retry or drop (a dead letter)."""
    alerts: Counter
    """Alerts raised, by rule."""
    ready: Gauge
    """1 while a dependency answers, by dependency."""

    @classmethod
    def create(cls) -> Metrics:
        """Metrics in a registry of their own."""
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        return cls(
            registry,
            Counter("facetmesh_calls", "Calls ended.", ["method", "code"], registry=registry),
            Histogram(
                "facetmesh_call_latency_seconds", "How long calls took.", ["method"],
                buckets=_LATENCY_BUCKETS_S, registry=registry,
            ),
            Gauge("facetmesh_calls_in_progress", "Calls being worked on.", registry=registry),
            Gauge("facetmesh_audit_events_pending", "Audit events not yet accepted.", registry=registry),
            Gauge("facetmesh_audit_events_unpublished", "Audit events in the journal only.", registry=registry),
            Counter("facetmesh_audit_events_dropped", "Best-effort audit events given up.", registry=registry),
            Counter("facetmesh_events", "Events delivered.", ["topic", "outcome"], registry=registry),
            Counter("facetmesh_alerts", "Alerts raised.", ["rule"], registry=registry),
            Gauge("facetmesh_dependency_ready", "1 while a dependency answers.", ["dependency"], registry=registry),
        )


@dataclass(slots=True)
class Telemetry:
    """A service's traces and metrics."""

    service: str
    region: str
    metrics: Metrics = field(default_factory=Metrics.create)
    _provider: TracerProvider | None = None

    def start(self) -> None:
        """Makes this process's tracer. Once a process."""
        exported = _exported()
        self._provider = TracerProvider(
            sampler=DEFAULT_ON if exported else ALWAYS_OFF,
            resource=Resource.create(
                {"service.name": f"facetmesh-{self.service}", "service.version": __version__,
                 "cloud.region": self.region}
            )
        )
        if exported:
            # Imported only where it is used: it costs 100 ms at start.
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
                OTLPSpanExporter,
            )

            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(self._provider)

    def serve(self, host: str, port: int) -> tuple[int, Callable[[], None]]:
        """Serves the metrics over HTTP; returns the port and what ends it.

        Raises:
            OSError: The port is taken.
        """
        server, thread = start_http_server(port, addr=host, registry=self.metrics.registry)
        server.RequestHandlerClass = _Scrape

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join(timeout=1)

        return server.server_port, close

    def stop(self) -> None:
        """Sends what is left."""
        if self._provider is not None:
            self._provider.shutdown()


class _Scrape(WSGIRequestHandler):
    """A connection that asks for metrics. It has a thread, which who says nothing, or goes, must not keep."""

    timeout = SILENT_S

    def handle(self) -> None:
        """Answers; without a traceback in the log where that cannot be done."""
        with suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class calls it
        """Says nothing: it is asked every few seconds."""


class _TraceIds(grpc.aio.ServerInterceptor):
    """Continues the caller's trace, or begins one, without spans: those cost more than the rest of a short call."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Sets the context, which is the call's own: it ends with its task."""
        metadata = handler_call_details.invocation_metadata or ()
        parent = next((str(value) for key, value in metadata if key == "traceparent"), "")
        attach(_trace(parent))
        return await continuation(handler_call_details)


def _trace(parent: str) -> Context:
    """The context of a caller's trace; of a new one where there is none."""
    if parent:
        context = propagate.extract({"traceparent": parent})
        if trace.get_current_span(context).get_span_context().is_valid:
            return context
    ids = SpanContext(_ids.generate_trace_id(), _ids.generate_span_id(), is_remote=False)
    return trace.set_span_in_context(NonRecordingSpan(ids), Context())


def _exported() -> bool:
    return any(map(os.environ.get, ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")))


def server_interceptor() -> grpc.aio.ServerInterceptor:
    """Continues the caller's trace, in a span of the server's own where it is exported. Health checks have none."""
    if not _exported():
        return _TraceIds()
    made: grpc.aio.ServerInterceptor = aio_server_interceptor(  # type: ignore[no-untyped-call] # the library has no types
        filter_=filters.negate(filters.health_check())
    )
    return made


def client_interceptors() -> Sequence[grpc.aio.ClientInterceptor]:
    """Carries the current trace to the service that is called."""
    made: Sequence[grpc.aio.ClientInterceptor] = aio_client_interceptors()  # type: ignore[no-untyped-call] # as above
    return made


def carrier() -> dict[str, str]:
    """The current trace as W3C headers (`traceparent`), for an event that leaves."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return {"traceparent": parent} | ({"tracestate": context.trace_state.to_header()} if context.trace_state else {})


@contextmanager
def continued(name: str, traceparents: Sequence[str]) -> Iterator[None]:
    """A span for the handling of events, in the trace of each. The work within belongs to the first's."""
    if not _exported():
        token = attach(_trace(traceparents[0]))
        try:
            yield
        finally:
            detach(token)
        return
    tracer = trace.get_tracer(__name__)
    first, *others = dict.fromkeys(traceparents)
    spans = [
        tracer.start_span(name, context=propagate.extract({"traceparent": parent}), kind=SpanKind.CONSUMER)
        for parent in (first, *(one for one in others if not one.endswith(_NOT_SAMPLED)))
    ]
    try:
        with trace.use_span(spans[0]):
            yield
    finally:
        for one in spans:
            one.end()


def span(name: str) -> AbstractContextManager[Any]:
    """A span for a part of the work; none where the trace is not recorded, to which it would add nothing but time."""
    if not trace.get_current_span().is_recording():
        return nullcontext()
    return trace.get_tracer(__name__).start_as_current_span(name)


def trace_id() -> str:
    """The current trace's id as 32 hex characters; "" outside of one."""
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else ""

"""Spans of requests, exported in the background to an OpenTelemetry receiver; without an endpoint there are none.

    POST /v1/recommendations            gateway, child of the caller's span
      wait                              until a micro-batch starts
      features                          read the users' rows
      candidates                        the call of the stage
        Candidates.candidates           in the stage's replica
      ranking, reranking                likewise
      append slates                     after the answer: the impression, with `EventLog` in its writer's process

Each sampled request of a micro-batch gets its own spans, with the times of the batch, so that every trace is complete.
Spans contain no user or item ids, no paths with ids in them, and no messages of errors.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from handsell.core.errors import ConfigError
from handsell.core.logs.request_trace import RequestTrace, get_traces, set_traces
from handsell.serving.telemetry.config import TracingConfig

log = logging.getLogger(__name__)

PROPAGATOR = TraceContextTextMapPropagator()
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")  # they override the config
SERVICE = "OTEL_SERVICE_NAME"
NO_SPAN = nullcontext()
TRACE_BYTES, SPAN_BYTES = 16, 8  # of their ids

_tracer: Tracer | None = None
_provider: TracerProvider | None = None


def start_tracing(config: TracingConfig, process: str) -> None:
    """Export the spans of this process if there is an endpoint; `process` is the part that runs here, as Gateway.

    Raises ConfigError if the config names one and the exporter is not installed.
    """
    global _tracer, _provider
    in_environment = any(os.environ.get(name) for name in ENDPOINTS)
    if not (config.endpoint or in_environment):
        return
    try:  # imported here: they take a quarter of a second
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as ExportingProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        problem = f"spans cannot be exported ({error}): pip install 'handsell[tracing]'"
        if config.endpoint:
            raise ConfigError(f"tracing.endpoint: {problem}") from None
        log.warning("an OTLP endpoint is in the environment, but %s", problem)
        return  # it may be there for all programs of a cluster

    stop_tracing()
    name = {} if os.environ.get(SERVICE) else {"service.name": f"handsell-{process.lower()}"}
    endpoint = None if in_environment else f"{config.endpoint.rstrip('/')}/v1/traces"
    provider = ExportingProvider(resource=Resource.create({**name, "process.pid": os.getpid()}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    _provider, _tracer = provider, provider.get_tracer("handsell")
    own, library = logging.getLogger("handsell"), logging.getLogger("opentelemetry")
    library.handlers, library.propagate = own.handlers, own.propagate  # failed exports, as JSON lines


def stop_tracing() -> None:
    """Export what waits, and record no more spans."""
    global _tracer, _provider
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        provider.shutdown()  # type: ignore[attr-defined]


def begin_request(headers: Mapping[bytes, bytes]) -> tuple[bytes, Span | None]:
    """Continue the caller's trace or begin one; return the `traceparent` of the answer, and the span if it is sampled.

    This task works for the request from now on.
    """
    if _tracer is None and b"traceparent" not in headers:
        name = secrets.token_hex(TRACE_BYTES + SPAN_BYTES)
        trace_id, span_id = name[: 2 * TRACE_BYTES], name[2 * TRACE_BYTES :]
        set_traces((RequestTrace(trace_id=trace_id),))
        return _format_header(trace_id, span_id, 0), None
    parent = _read_parent(headers)
    if _tracer is None:
        caller = get_current_span(parent).get_span_context()
        trace_id = format_trace_id(caller.trace_id) if caller.is_valid else secrets.token_hex(16)
        set_traces((RequestTrace(trace_id=trace_id),))
        return _format_header(trace_id, secrets.token_hex(8), caller.trace_flags if caller.is_valid else 0), None
    span = _tracer.start_span("HTTP", parent, SpanKind.SERVER)
    made = span.get_span_context()
    trace_id, span_id = format_trace_id(made.trace_id), format_span_id(made.span_id)
    set_traces((RequestTrace("", trace_id, span_id if span.is_recording() else ""),))
    return _format_header(trace_id, span_id, made.trace_flags), span if span.is_recording() else None


def _read_parent(headers: Mapping[bytes, bytes]) -> Context:
    """Return the caller's trace, an empty context without one."""
    if b"traceparent" not in headers:
        return Context()
    named = (name for name in (b"traceparent", b"tracestate") if name in headers)
    return PROPAGATOR.extract({name.decode(): headers[name].decode("latin-1") for name in named})


def end_request(span: Span | None, method: str, route: str, status: int) -> None:
    """End the span of a request."""
    if span is None:
        return
    span.update_name(f"{method} {route}")
    span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
    if names := [trace.recommendation_id for trace in get_traces() if trace.recommendation_id]:
        span.set_attribute("handsell.recommendation_id", names[0])
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def trace(name: str, kind: SpanKind = SpanKind.INTERNAL) -> AbstractContextManager[None]:
    """Record the block as a span of each sampled request that it works for; calls within it are its children."""
    traces = get_traces()
    if _tracer is None or not any(each.span_id for each in traces):
        return NO_SPAN
    return _record(_tracer, name, kind, traces)


@contextmanager
def _record(tracer: Tracer, name: str, kind: SpanKind, traces: Sequence[RequestTrace]) -> Iterator[None]:
    attributes = {"handsell.requests": len(traces)}
    spans = [_start_child(tracer, name, each, kind, attributes) if each.span_id else None for each in traces]
    set_traces(
        each if span is None else each._replace(span_id=format_span_id(span.get_span_context().span_id))
        for each, span in zip(traces, spans, strict=True)
    )
    started = [span for span in spans if span is not None]
    try:
        yield
    except BaseException as error:
        for span in started:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))  # its message may name people
        raise
    finally:
        for span in started:
            span.end()
        set_traces(traces)


def record_wait(name: str, trace: RequestTrace, seconds: float) -> None:
    """Record the time until now as a span of a request, if it is sampled."""
    if _tracer is None or not trace.span_id:
        return
    now_ns = time.time_ns()
    _start_child(_tracer, name, trace, SpanKind.INTERNAL, {}, now_ns - round(seconds * 1e9)).end(now_ns)


def _start_child(
    tracer: Tracer,
    name: str,
    parent: RequestTrace,
    kind: SpanKind,
    attributes: Mapping[str, int],
    start_ns: int | None = None,
) -> Span:
    sampled = TraceFlags(TraceFlags.SAMPLED)
    place = SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=sampled)
    about: dict[str, str | int] = {**attributes, "handsell.recommendation_id": parent.recommendation_id}
    context = set_span_in_context(NonRecordingSpan(place), Context())
    return tracer.start_span(name, context, kind, about, start_time=start_ns)


def _format_header(trace_id: str, span_id: str, flags: int) -> bytes:
    return f"00-{trace_id}-{span_id}-{flags:02x}".encode()

"""A receiver of OpenTelemetry spans on loopback: OTLP over HTTP, decoded with the protocol's own messages."""

from __future__ import annotations

import gzip
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class ReceivedSpan:
    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    failed: bool
    attributes: dict[str, object]


@dataclass
class Receiver:
    port: int = 0
    spans: list[ReceivedSpan] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, n: int, trace_id: str | None = None, timeout_s: float = 30.0) -> list[ReceivedSpan]:
        """Return the spans of a trace as soon as there are n, or those that have come when the time is over."""
        until = time.monotonic() + timeout_s
        while True:
            found = [span for span in list(self.spans) if trace_id in (None, span.trace_id)]
            if len(found) >= n or time.monotonic() > until:
                return found
            time.sleep(0.05)


def decode(body: bytes) -> Iterator[ReceivedSpan]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        about = {each.key: each.value.string_value for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    about.get("service.name", ""), span.name, span.trace_id.hex(), span.span_id.hex(),
                    span.parent_span_id.hex(), span.start_time_unix_nano, span.end_time_unix_nano,
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes},
                )  # fmt: skip


@contextmanager
def otlp_receiver() -> Iterator[Receiver]:
    """Listen for POST /v1/traces until the end of the block."""
    received = Receiver()

    class Collect(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            answer = ExportTraceServiceResponse().SerializeToString()
            known = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
            if known:
                received.spans.extend(decode(body))
                received.headers.append(dict(self.headers))
            self.send_response(200 if known else 404)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collect)
    server.daemon_threads = True
    received.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()

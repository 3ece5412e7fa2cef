"""Processor time that traces and log joins add to a request, in this process.

    python -m benchmarks tracing
    python -m benchmarks tracing --rounds 40

Each round makes the calls that a recommendation makes in a gateway and in the replicas of three stages: with spans
switched off, with spans of every request or of one in a hundred, which go to a receiver in another process (the export
counts), and the calls that version 0.1 made without spans: continuing the caller's trace. Rounds take turns; the median
counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.trace import SpanKind, format_trace_id, get_current_span

from benchmarks.report import measure_cpu_speed, write_report
from handsell.core.logs.log_lines import set_named_ids
from handsell.core.logs.request_trace import RequestTrace, get_trace, get_traces, set_recommendation_id, set_traces
from handsell.serving.graph.remote import pack_traces
from handsell.serving.telemetry import tracing
from handsell.serving.telemetry.config import TracingConfig

HEADERS = [(b"host", b"shop"), (b"traceparent", b"00-" + b"5" * 32 + b"-" + b"7" * 16 + b"-01")]
UNTRACED = HEADERS[:1]
STAGES = (("candidates", "candidates"), ("ranking", "rank"), ("reranking", "rerank"))
RECEIVER = """
import http.server
class Collect(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collect)
print(server.server_port, flush=True)
server.serve_forever()
"""


def trace_request(headers: list[tuple[bytes, bytes]]) -> None:
    """Make the calls of one recommendation."""
    _, span = tracing.begin_request(dict(headers))
    set_named_ids(lambda: ())
    set_recommendation_id("r1")
    query = get_trace()
    set_traces((query,))
    set_named_ids(lambda: ())
    tracing.record_wait("wait", query, 0.001)
    with tracing.trace("features"):
        pass
    for stage, operation in STAGES:
        with tracing.trace(stage, SpanKind.CLIENT):
            called = get_traces()
            set_traces(RequestTrace(*each) for each in pack_traces(called))  # in the replica
            with tracing.trace(f"{stage.capitalize()}.{operation}", SpanKind.SERVER):
                pass
    tracing.end_request(span, "GET", "/v1/users/{user_id}/recommendations", 200)


def continue_trace(headers: list[tuple[bytes, bytes]]) -> None:
    """Continue the caller's trace, without spans and without passing it on."""
    header = next((value for name, value in headers if name == b"traceparent"), b"")
    parent = tracing.PROPAGATOR.extract({"traceparent": header.decode("latin-1")})
    caller = get_current_span(parent).get_span_context()
    trace_id = format_trace_id(caller.trace_id) if caller.is_valid else "0" * 32
    set_traces((RequestTrace(trace_id=trace_id),))


def measure(request: Callable[[list[tuple[bytes, bytes]]], None], every: int, requests: int) -> float:
    """Return µs of processor time of one request, of which one in `every` is traced by its caller."""
    begun = time.process_time()
    for n in range(requests):
        request(HEADERS if n % every == 0 else [*UNTRACED, (b"traceparent", HEADERS[1][1][:-1] + b"0")])
    if tracing._provider is not None:
        tracing._provider.force_flush()  # type: ignore[attr-defined]
    return (time.process_time() - begun) / requests * 1e6


@contextmanager
def receive() -> Iterator[str]:
    """Run a receiver that drops what it gets; yields its address."""
    with subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def compare(rounds: int, requests: int, endpoint: str) -> list[dict[str, Any]]:
    """Return the µs of a request for each setting."""
    on = TracingConfig(endpoint=endpoint)
    settings: dict[str, tuple[TracingConfig, Callable, int]] = {
        "the caller's trace alone": (TracingConfig(), continue_trace, 1),
        "off": (TracingConfig(), trace_request, 1),
        "on, 1 of 100 requests": (on, trace_request, 100),
        "on, every request": (on, trace_request, 1),
    }
    took: dict[str, list[float]] = {name: [] for name in settings}
    for _ in range(rounds):
        for name, (config, request, every) in settings.items():
            tracing.start_tracing(config, "Gateway")
            took[name].append(measure(request, every, requests))
            tracing.stop_tracing()
    return [{"spans": name, "us": statistics.median(each)} for name, each in took.items()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks tracing", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=1_000, help="requests of each kind in a round")
    parser.add_argument("--json", type=Path, help="output file")
    options = parser.parse_args()
    for name in tracing.ENDPOINTS:
        os.environ.pop(name, None)
    os.environ["OTEL_BSP_MAX_QUEUE_SIZE"] = str(20 * options.requests)  # nothing is dropped
    with receive() as endpoint:
        rows = compare(options.rounds, options.requests, endpoint)
    about = {"rounds": options.rounds, "requests": options.requests, "loops_per_us": round(measure_cpu_speed(), 1)}
    write_report("tracing", rows, about, options.json)


if __name__ == "__main__":
    main()

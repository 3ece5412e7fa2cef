"""The context of a micro-batch: log lines and spans of all its requests, not of the one that happened to start it."""

from __future__ import annotations

from collections.abc import Sequence

from handsell.core.logs.log_lines import set_named_ids
from handsell.core.logs.request_trace import set_traces
from handsell.serving.http.queries import Query
from handsell.serving.telemetry.tracing import record_wait


def work_for(queries: Sequence[Query], now: float) -> None:
    """Work for these queries from now on (event loop time), in this task; record how long they have waited."""
    traces = [query.trace for query in queries]
    set_traces(traces)
    set_named_ids(lambda: (query.user_id for query in queries if query.user_id is not None))
    for query, trace in zip(queries, traces, strict=True):
        record_wait("wait", trace, now - query.arrived)

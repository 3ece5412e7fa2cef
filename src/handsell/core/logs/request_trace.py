"""The requests that the running code works for: their recommendation ids and traces, for log lines and spans.

They follow a request through its coroutines. A micro-batch works for several requests at once; calls between processes
pass them on.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import NamedTuple


class RequestTrace(NamedTuple):
    """One request; what is not known yet is empty."""

    recommendation_id: str = ""
    trace_id: str = ""  # 32 hexadecimal digits
    span_id: str = ""  # 16 hexadecimal digits; empty unless the request is sampled, so that spans are recorded


_current: ContextVar[tuple[RequestTrace, ...]] = ContextVar("request_traces", default=())


def get_traces() -> tuple[RequestTrace, ...]:
    """Return the requests that the running code works for."""
    return _current.get()


def set_traces(traces: Iterable[RequestTrace]) -> None:
    """Work for these requests from now on, in this task and in those that it starts."""
    _current.set(tuple(traces))


def get_trace() -> RequestTrace:
    """Return the one request of this task, an empty one outside of requests."""
    traces = _current.get()
    return traces[0] if traces else RequestTrace()


def set_recommendation_id(recommendation_id: str) -> None:
    """Name the one request of this task."""
    _current.set((get_trace()._replace(recommendation_id=recommendation_id),))

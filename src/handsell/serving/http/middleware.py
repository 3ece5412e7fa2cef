"""Middleware of the HTTP API: HEAD requests, metrics, traces, log lines of requests."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handsell.core.logs.log_lines import set_named_ids
from handsell.serving.graph.service import Service
from handsell.serving.telemetry.request_ids import list_request_ids
from handsell.serving.telemetry.tracing import begin_request, end_request

log = logging.getLogger(__name__)


class HeadAsGet:
    """Middleware that answers HEAD like GET, without the body."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_headers(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self.app({**scope, "method": "GET"}, receive, send_headers)


class RequestMetrics:
    """Middleware that times, counts and traces every request by its route, if it has one."""

    def __init__(self, app: ASGIApp, service: Service):
        self.app, self.metrics, self.is_logged = app, service.metrics, service.config.logging.requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        header, span = begin_request(scope["headers"])
        set_named_ids(partial(list_request_ids, scope))

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"traceparent", header)]
            await send(message)

        try:
            await self.app(scope, receive, observe)
        finally:
            route = getattr(scope.get("route"), "path_format", "other")
            self.metrics.requests.labels(route, status).inc()
            seconds = time.perf_counter() - started
            self.metrics.request_seconds.labels(route).observe(seconds)
            end_request(span, scope["method"], route, status)
            if self.is_logged:
                log.info("request", extra={"fields": describe_request(scope, route, status, seconds)})


def describe_request(scope: Scope, route: str, status: int, seconds: float) -> dict[str, Any]:
    """Return the fields of a request's log line; `key_id` where the caller has a key."""
    caller = scope.get("state", {}).get("caller")
    key = {"key_id": caller.key_id} if caller is not None and caller.key_id else {}
    return {"method": scope["method"], "route": route, "status": status, "ms": round(1_000 * seconds, 2), **key}

"""The one middleware of the HTTP API: what every request passes before its route, and what every answer gets."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handsell.core.logs.log_lines import set_named_ids
from handsell.serving.graph.service import Service
from handsell.serving.http.access.audit_trail import AuditTrail, make_audit_hash
from handsell.serving.http.access.gate import AccessGate
from handsell.serving.http.problems import check_encoding, read_body, replay_body
from handsell.serving.telemetry.request_ids import BODY, list_request_ids
from handsell.serving.telemetry.tracing import begin_request, end_request

log = logging.getLogger(__name__)

READING = ("GET", "HEAD", "OPTIONS")  # methods without a body, which change nothing


class ApiMiddleware:
    """Answers HEAD like GET without the body; checks access, size and encoding; adds headers; records the request.

    One layer instead of one for each task: a layer costs its own coroutine and its own `send` on every request.
    """

    def __init__(self, app: ASGIApp, service: Service):
        config = service.config
        self.app, self._metrics = app, service.metrics
        self._gate = AccessGate(service.access)
        self._audit = AuditTrail(service.access.append_audit, make_audit_hash(config))
        self._longest_body, self._is_logged = config.serving.max_body_bytes, config.logging.requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status, sends_body = time.perf_counter(), 500, True
        if scope["method"] == "HEAD":
            scope, sends_body = {**scope, "method": "GET"}, False
        headers = dict(scope["headers"])  # of a header that is sent twice, the last
        traceparent, span = begin_request(headers)
        set_named_ids(partial(list_request_ids, scope))
        added, is_recorded = self._gate.list_headers(headers), scope["method"] in READING

        async def send_completed(message: Message) -> None:
            nonlocal status, is_recorded
            if message["type"] == "http.response.start":
                status = message["status"]
                if not is_recorded:
                    is_recorded = True
                    await self._audit.record(scope, status)
                own = message.get("headers", ())
                given = {name for name, _ in own}  # the page of the API has a policy of its own
                missing = (header for header in added if header[0] not in given)
                message["headers"] = [*own, *missing, (b"traceparent", traceparent)]
            elif not sends_body:
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._pass(scope, headers, receive, send_completed)
        except Exception:
            if not is_recorded:
                await self._audit.record(scope, 500)
            raise
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path_format", "other")
            self._metrics.count_request(route, status, seconds)
            end_request(span, scope["method"], route, status)
            if self._is_logged:
                log.info("request", extra={"fields": describe_request(scope, route, status, seconds)})

    async def _pass(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        """Pass a request on to its route, or answer why it is refused."""
        refusal = self._gate.find_refusal(scope, headers)
        if refusal is None and scope["method"] not in READING:
            body = await read_body(receive, self._longest_body)
            if body is None:
                return  # the caller has gone
            if isinstance(body, bytes):
                scope[BODY], receive = body, replay_body(body, receive)
            else:
                refusal = body
        await (refusal or check_encoding(scope) or self.app)(scope, receive, send)


def describe_request(scope: Scope, route: str, status: int, seconds: float) -> dict[str, Any]:
    """Return the fields of a request's log line; `key_id` where the caller has a key."""
    caller = scope.get("state", {}).get("caller")
    key = {"key_id": caller.key_id} if caller is not None and caller.key_id else {}
    return {"method": scope["method"], "route": route, "status": status, "ms": round(1_000 * seconds, 2), **key}

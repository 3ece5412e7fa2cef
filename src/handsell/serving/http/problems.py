"""Errors as RFC 9457 problem details, and checks of a request before any route runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

from handsell.core.errors import RequestError
from handsell.events.store.interface import EventStoreError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = "1"
TITLES = {
    400: "Malformed request", 401: "Unauthenticated", 403: "Forbidden", 404: "Not found", 405: "Method not allowed",
    409: "Conflict", 413: "Body too large", 415: "Unsupported media type", 422: "Invalid request",
    429: "Too many requests", 500: "Internal error", 503: "Unavailable",
}  # fmt: skip


class FieldError(BaseModel):
    field: str
    detail: str
    received: str | None = None


class Problem(BaseModel):
    """RFC 9457 problem details. `code` is stable and meant for programs; `errors` names each wrong field."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldError] = []


def problem(status: int, detail: str, code: str, errors: Sequence[dict[str, Any]] = ()) -> Response:
    body = Problem(
        type="about:blank", title=TITLES.get(status, "Error"), status=status, detail=detail, code=code,
        **({"errors": list(errors)} if errors else {}),
    )  # fmt: skip
    headers = {"Retry-After": RETRY_AFTER_S} if status == 503 else None
    return Response(body.model_dump_json(exclude_unset=True), status, headers, MEDIA_TYPE)


def install_handlers(app: FastAPI) -> None:
    """Answer every error of the app as a problem."""
    handlers: dict[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
        RequestError: _request_error,
        RequestValidationError: _validation_error,
        EventStoreError: _event_log_error,
        HTTPException: _http_error,
        Exception: _answer_unexpected,
    }
    for error, handler in handlers.items():
        app.add_exception_handler(error, handler)


async def _request_error(_: Request, error: RequestError) -> Response:
    found = ((error.field, error.detail), *error.errors) if error.field else ()
    fields = [{"field": field, "detail": detail} for field, detail in found]
    return problem(error.status, error.detail, error.code, fields)


async def _validation_error(_: Request, error: RequestValidationError) -> Response:
    found = error.errors()
    if any(e["type"] == "json_invalid" for e in found):
        reason = found[0].get("ctx", {}).get("error", "")
        return problem(400, f"the body is not valid JSON: {reason}", "malformed_json")
    fields = describe_errors(found, skip=1)
    return problem(422, summarize_errors(fields), "invalid_request", fields)


async def _event_log_error(_: Request, error: EventStoreError) -> Response:
    log.error("event log: %s", error)
    return problem(
        503,
        "the event store does not answer; nothing of this request was stored: send it again later",
        "log_unavailable",
    )


async def _http_error(request: Request, error: HTTPException) -> Response:
    detail = f"{request.method} {request.url.path[:200]}: {error.detail}; see /openapi.json"
    answer = problem(error.status_code, detail, TITLES.get(error.status_code, "error").lower().replace(" ", "_"))
    answer.headers.update(error.headers or {})
    return answer


async def _answer_unexpected(_: Request, error: Exception) -> Response:
    log.error("unexpected error", exc_info=error)
    return problem(500, "an unexpected error; the service's log has the details", "internal_error")


def describe_errors(errors: Sequence[Any], skip: int) -> list[dict[str, str]]:
    """Return field, detail and received value of Pydantic errors, at most 20; `skip` leading parts of each location."""
    return [
        {
            "field": _path(e["loc"], skip),
            "detail": e["msg"].removeprefix("Value error, "),  # pydantic's prefix for messages of our validators
            "received": _short(e.get("input")),
        }
        for e in errors[:20]
    ]


def summarize_errors(fields: Sequence[dict[str, str]]) -> str:
    """Describe the first wrong field in one line."""
    first = fields[0]
    place = first["field"] + ": " if first["field"] else ""
    return f"{place}{first['detail']} (received: {first['received']})"


def _path(location: Sequence[str | int], skip: int) -> str:
    """("body", "session", "events", 0, "type") → "session.events.0.type"."""
    parts = [str(p) for p in location]
    return ".".join(parts[skip:] or parts)[:200]


def _short(value: Any) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}… ({len(text)} characters)"


def check_encoding(scope: Scope) -> Response | None:
    """Read a URL as UTF-8, or answer why it is none: its invalid bytes would be replaced, which makes ids equal."""
    path, query = scope.get("raw_path") or b"", scope["query_string"]
    if path.isascii() and query.isascii() and b"%" not in path and b"%" not in query:
        return None
    # Starlette reads bytes that are not percent-encoded as Latin-1
    query = re.sub(rb"[^\x00-\x7f]", lambda byte: b"%%%02X" % ord(byte[0]), query)
    for name, part in (("path", path), ("query", query)):
        try:
            unquote_to_bytes(part).decode()
        except UnicodeDecodeError as error:
            detail = f"{name}: expected percent-encoded UTF-8; got byte {error.object[error.start]:#04x}"
            return problem(422, detail, "invalid_request", [{"field": name, "detail": detail}])
    scope["query_string"] = query
    return None


async def read_body(receive: Receive, limit: int) -> bytes | Response | None:
    """Read a body, also if sent in chunks; return an answer to one over `limit` bytes, None if the caller has gone."""
    body = bytearray()
    more = True
    while more and len(body) <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if len(body) > limit:
        detail = f"body: expected at most {limit} bytes, got more: split it, or raise serving.max_body_bytes"
        return problem(413, detail, "body_too_large")
    return bytes(body)


def replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a receiver of the body already read, and then of later messages."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay_first() -> Message:
        return first.pop() if first else await receive()

    return replay_first

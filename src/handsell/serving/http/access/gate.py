"""Middleware that decides who may call at all, before a body is read, and adds security headers."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handsell.access.caller import Caller
from handsell.access.exposure import refuse_host
from handsell.serving.http.access.access_control import AccessControl
from handsell.serving.http.access.route_scopes import ALL_SCOPES
from handsell.serving.http.api_page.routes import PATHS as PAGE_PATHS
from handsell.serving.http.problems import problem

OPEN_PATHS = ("/healthz", "/readyz", "/metrics")  # probes and monitoring have no key
FRONT_DOOR = "/"  # leads to the console, which has its own sign-in
GORSE_OPEN_PATHS = ("/api/health/live", "/api/health/ready")
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
METHODS, HEADERS = b"GET, POST, PUT, PATCH, DELETE", b"authorization, content-type, x-api-key, traceparent"
READABLE = b"retry-after, traceparent"
PREFLIGHT_S = b"600"
EXPECTED = "expected an API key in the header Authorization (Bearer KEY) or X-API-Key"


def describe_keys(document: dict[str, Any], is_required: bool) -> None:
    """Say in an OpenAPI document how a key is sent, which operations need none, and which scope the others need."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "an API key, or a widget's signed token"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "the same"},
    }
    document["security"] = [*([] if is_required else [{}]), {"bearer": []}, {"header": []}]
    for path in (*OPEN_PATHS, *GORSE_OPEN_PATHS):
        for operation in document["paths"].get(path, {}).values():
            operation["security"] = []
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["tags"] = ["gorse" if path.startswith("/api/") else ALL_SCOPES.get(path, "operation")]


class AccessGate:
    """Sets `request.state.caller`; answers 401, 403 or 429 for who may not call."""

    def __init__(self, app: ASGIApp, control: AccessControl):
        self.app, self.control = app, control
        self.origins = {origin.lower().encode() for origin in control.config.cors_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        found = dict(scope["headers"])  # of a header that is sent twice, the last
        origin = found.get(b"origin")
        allowed = origin is not None and origin.lower() in self.origins
        added = _list_headers(origin) if origin is not None and allowed else SECURITY_HEADERS

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message.get("headers", ())
                given = {name for name, _ in own}  # the page of the API has a policy of its own
                message["headers"] = [*own, *(header for header in added if header[0] not in given)]
            await send(message)

        refusal = (
            self._refuse_host(found)
            or self._refuse_origin(scope, found, origin, allowed)
            or self._identify(scope, found)
        )
        await (self.app if refusal is None else refusal)(scope, receive, send_with_headers)

    def _refuse_host(self, headers: dict[bytes, bytes]) -> Response | None:
        """Answer a request that a page under a name of its own may have sent to this machine."""
        reason = refuse_host(self.control.config, headers.get(b"host", b"").decode("latin-1"))
        return problem(403, reason, "host_not_allowed") if reason else None

    def _refuse_origin(
        self, scope: Scope, headers: dict[bytes, bytes], origin: bytes | None, allowed: bool
    ) -> Response | None:
        """Answer a request of a page that may not call, and a browser's question before a request (preflight)."""
        if origin is None:
            return None
        if not allowed and origin.partition(b"://")[2].lower() != headers.get(b"host", b"").lower():
            return problem(
                403,
                f"expected a request without the header Origin, or one of access.cors_origins, got {_show(origin)}: "
                "add the page's origin there",
                "origin_not_allowed",
            )
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            return Response(status_code=204)
        return None

    def _identify(self, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        """Set the caller of a request, or answer why it is refused."""
        state = scope.setdefault("state", {})
        if not self.control.is_required or scope["path"] in (*OPEN_PATHS, *GORSE_OPEN_PATHS, *PAGE_PATHS, FRONT_DOOR):
            state["caller"] = Caller.anonymous()
            return None
        text = _read_key(headers)
        caller = self.control.keys.identify(text) if text else None
        if caller is None:
            return self._refuse(text)
        excess = self.control.find_excess(caller)
        if excess is not None:
            answer = problem(429, excess.detail, excess.code)
            answer.headers["Retry-After"] = str(excess.retry_after_s)
            return answer
        state["caller"] = caller
        return None

    def _refuse(self, text: str) -> Response:
        if not self.control.keys.is_complete:
            return problem(503, "the API keys could not be read yet: send again", "keys_unknown")
        if not text:
            answer = problem(401, f"{EXPECTED}, got none", "key_missing")
            answer.headers["WWW-Authenticate"] = 'Bearer realm="handsell"'
            return answer
        answer = problem(401, f"{EXPECTED}, got one that is unknown, expired or revoked", "key_invalid")
        answer.headers["WWW-Authenticate"] = 'Bearer realm="handsell", error="invalid_token"'
        return answer


def _read_key(headers: dict[bytes, bytes]) -> str:
    """Return the key or token of a request, an empty text without one."""
    scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
    given = value if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
    return given.strip().decode("latin-1")


def _list_headers(origin: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer to a page that may call."""
    return [
        *SECURITY_HEADERS,
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", HEADERS),
        (b"access-control-expose-headers", READABLE),
        (b"access-control-max-age", PREFLIGHT_S),
        (b"vary", b"origin"),
    ]


def _show(value: bytes) -> str:
    return repr(value[:100].decode("latin-1"))

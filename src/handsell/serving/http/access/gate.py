"""Who may call at all, decided before a body is read, and the security headers of every answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from starlette.responses import Response
from starlette.types import Scope

from handsell.access.caller import Caller, set_key_id
from handsell.access.exposure import refuse_host
from handsell.serving.http.access.access_control import AccessControl
from handsell.serving.http.access.route_scopes import ALL_SCOPES
from handsell.serving.http.api_page.routes import PATHS as PAGE_PATHS
from handsell.serving.http.problems import problem

OPEN_PATHS = ("/healthz", "/readyz", "/metrics")  # probes and monitoring have no key
FRONT_DOOR = "/"  # leads to the console, which has its own sign-in
GORSE_OPEN_PATHS = ("/api/health/live", "/api/health/ready")
WITHOUT_KEY = frozenset((*OPEN_PATHS, *GORSE_OPEN_PATHS, *PAGE_PATHS, FRONT_DOOR))
HOSTS = 1_000  # values of the header Host that have been checked
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

    def __init__(self, control: AccessControl):
        self.control = control
        self.origins = {origin.lower().encode() for origin in control.config.cors_origins}
        self._find_wrong_host = lru_cache(HOSTS)(partial(refuse_host, control.config))

    def list_headers(self, headers: Mapping[bytes, bytes]) -> Sequence[tuple[bytes, bytes]]:
        """Return the headers that an answer gets unless it has its own."""
        origin = headers.get(b"origin")
        return SECURITY_HEADERS if origin is None or not self._is_allowed(origin) else _list_headers(origin)

    def find_refusal(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Response | None:
        """Set the caller of a request, or answer why it is refused."""
        return self._refuse_host(headers) or self._refuse_origin(scope, headers) or self._identify(scope, headers)

    def _is_allowed(self, origin: bytes) -> bool:
        return origin.lower() in self.origins

    def _refuse_host(self, headers: Mapping[bytes, bytes]) -> Response | None:
        """Answer a request that a page under a name of its own may have sent to this machine."""
        reason = self._find_wrong_host(headers.get(b"host", b"").decode("latin-1"))
        return problem(403, reason, "host_not_allowed") if reason else None

    def _refuse_origin(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Response | None:
        """Answer a request of a page that may not call, and a browser's question before a request (preflight)."""
        origin = headers.get(b"origin")
        if origin is None:
            return None
        if not self._is_allowed(origin) and origin.partition(b"://")[2].lower() != headers.get(b"host", b"").lower():
            return problem(
                403,
                f"expected a request without the header Origin, or one of access.cors_origins, got {_show(origin)}: "
                "add the page's origin there",
                "origin_not_allowed",
            )
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            return Response(status_code=204)
        return None

    def _identify(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Response | None:
        """Set the caller of a request, or answer why it is refused."""
        state = scope.setdefault("state", {})
        set_key_id(None)
        if not self.control.is_required or scope["path"] in WITHOUT_KEY:
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
        set_key_id(caller.key_id)
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


def _read_key(headers: Mapping[bytes, bytes]) -> str:
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

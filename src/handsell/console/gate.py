"""Middleware of the console: sessions, sign-in, forged requests, and security headers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handsell.access.exposure import refuse_host
from handsell.console.rendering import find_place, is_partial, make_url
from handsell.console.sessions import COOKIE, Session
from handsell.console.visit import ConsoleContext, Visit
from handsell.core.logs.log_lines import set_named_ids

ID_FIELDS = ("user", "user_id", "item", "item_id", "id", "find")  # of queries and forms
OPEN_PLACES = ("/healthz", "/signin", "/session")
LARGEST_FORM = 1_000_000  # bytes
FORM = "application/x-www-form-urlencoded"
MOST_FIELDS = 2_000
CONTENT_POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
POLICY = b"content-security-policy"
HEADERS = (
    (POLICY, CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
NO_STORE, CACHED = (b"cache-control", b"no-store"), (b"cache-control", b"public, max-age=86400")


class ConsoleGate:
    """Sets `request.state.visit`; leads to the sign-in who has no session where the service needs keys."""

    def __init__(self, app: ASGIApp, context: ConsoleContext):
        self.app, self.context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"] == scope.get("root_path", ""):
            scope["path"] += "/"  # the address without a slash at its end
        request = Request(scope, receive)
        if reason := refuse_host(self.context.config.access, request.headers.get("host", "")):
            await PlainTextResponse(f"{reason}\n", 403)(scope, receive, send)
            return
        is_static = find_place(request).startswith("/static/")
        begun: Session | None = None
        answer: Response | None = None
        if not is_static:
            begun, answer = await self._admit(request)
        added = [*HEADERS, CACHED if is_static else NO_STORE]
        if begun is not None:
            added.append((b"set-cookie", make_cookie(request, begun.id).encode()))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message.get("headers", ())
                policies = {name for name, _ in own if name == POLICY}  # that of a report, which has its own styles
                message["headers"] = [*own, *((name, value) for name, value in added if name not in policies)]
            await send(message)

        await (answer or self.app)(scope, receive, send_with_headers)

    async def _admit(self, request: Request) -> tuple[Session | None, Response | None]:
        """Set the visit; return a session that begins with this request, and the answer to one that goes no further."""
        session, begun = self.context.sessions.find(request.cookies.get(COOKIE, "")), None
        caller = await self.context.visitors.identify(session.key) if session is not None else None
        if session is not None and caller is None:
            self.context.sessions.end(session)  # its key was revoked or has expired
            session = None
        if session is None and not self.context.visitors.needs_key:
            session = begun = self.context.sessions.begin("")
            caller = await self.context.visitors.identify("")
        form: Mapping[str, list[str]] = {}
        if request.method not in ("GET", "HEAD"):
            read = await read_form(request)
            if isinstance(read, Response):
                return begun, read
            form = read
            if refusal := refuse_forged(request, session if begun is None else None, form):
                return begun, refusal
        request.state.form = form
        set_named_ids(partial(list_named_ids, request.query_params.multi_items(), form))
        if session is not None and caller is not None:
            request.state.visit = Visit(self.context, session, caller, form)
        elif find_place(request).partition("?")[0] not in OPEN_PLACES:
            return None, ask_to_sign_in(request)
        return begun, None


async def read_form(request: Request) -> dict[str, list[str]] | Response:
    """Return the fields of a form, or the answer to a request that is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        return PlainTextResponse(f"content-type: expected {FORM}, got {kind[:80] or 'none'}\n", 415)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM:
            return PlainTextResponse(f"expected a form of at most {LARGEST_FORM} bytes: send less\n", 413)
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        return PlainTextResponse(f"expected a form of at most {MOST_FIELDS} fields in UTF-8\n", 400)


def refuse_forged(request: Request, session: Session | None, form: Mapping[str, list[str]]) -> Response | None:
    """Answer a request that a page of another origin may have caused; None for one of the console's own pages."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    is_own = origin is None or origin.partition("://")[2].lower() == host.lower()
    sent = request.headers.get("x-csrf-token") or (form.get("csrf") or [""])[-1]
    is_open = find_place(request).partition("?")[0] in OPEN_PLACES
    has_token = session is not None and secrets.compare_digest(sent.encode(), session.csrf.encode())
    if is_own and (has_token or (session is None and is_open)):
        return None
    if is_own and session is None:
        return ask_to_sign_in(request)
    return PlainTextResponse(
        "This form was not sent by a page of the console, or its session has ended: open the page again.\n", 403
    )


def list_named_ids(query: Sequence[tuple[str, str]], form: Mapping[str, list[str]]) -> list[str]:
    """Return the ids of people and items that a request names: they are hashed in log lines."""
    pairs = [*query, *((name, value) for name, values in form.items() for value in values)]
    named = [value for name, value in pairs if name in ID_FIELDS]
    return named + [value.partition(":")[2] for name, value in pairs if name == "event"]


def ask_to_sign_in(request: Request) -> Response:
    place = find_place(request) if request.method in ("GET", "HEAD") else "/"
    target = make_url(request, f"/signin?next={quote(place, safe='')}")
    if is_partial(request):
        return Response(status_code=401, headers={"HX-Redirect": target})
    return RedirectResponse(target, status_code=303)


def make_cookie(request: Request, value: str, name: str = COOKIE, life_s: int | None = None) -> str:
    """Return the header Set-Cookie of a cookie that the console's own pages alone send."""
    is_secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
    parts = [f"{name}={value}", f"Path={make_url(request, '') or '/'}", "HttpOnly", "SameSite=Strict"]
    parts += ["Secure"] if is_secure else []
    parts += [f"Max-Age={life_s}"] if life_s is not None else []
    return "; ".join(parts)

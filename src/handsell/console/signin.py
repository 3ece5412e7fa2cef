"""Routes of the session itself: sign in and out, the switch "edit", light or dark."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from handsell.console.gate import make_cookie
from handsell.console.rendering import THEME_COOKIE, THEMES, check_place, make_url, redirect, render
from handsell.console.sessions import COOKIE
from handsell.console.visit import ConsoleContext, get_visit

YEAR_S = 365 * 86_400
WRONG_KEY = (
    "Expected an API key that is valid now, as `handsell keys create` prints it, got another text: check it with "
    "`handsell keys list`."
)
UNKNOWN_KEYS = "The API keys could not be read yet, because the event store does not answer: try again in a moment."


async def show_sign_in(request: Request) -> Response:
    if getattr(request.state, "visit", None) is not None:
        return redirect(request, request.query_params.get("next", "/"))
    return render(request, "signin.html.j2", error="", next=check_place(request.query_params.get("next", "/")))


async def answer_session(request: Request) -> Response:
    """Answer whether there is a session: a link from another site comes without the cookie."""
    return Response(status_code=204 if getattr(request.state, "visit", None) is not None else 401)


async def sign_in(request: Request) -> Response:
    context: ConsoleContext = request.app.state.context
    fields = {name: values[-1].strip() for name, values in request.state.form.items()}
    place = check_place(fields.get("next", "/"))
    if not context.visitors.needs_key:
        return redirect(request, place)
    key = fields.get("key", "")
    caller = await context.visitors.identify_new(key)
    if caller is None:
        error = WRONG_KEY if context.visitors.knows_keys else UNKNOWN_KEYS
        return render(request, "signin.html.j2", 401, error=error, next=place)
    session = context.sessions.begin(key)
    answer = RedirectResponse(make_url(request, place), status_code=303)
    answer.raw_headers.append((b"set-cookie", make_cookie(request, session.id).encode()))
    return answer


async def sign_out(request: Request) -> Response:
    visit = get_visit(request)
    visit.context.sessions.end(visit.session)
    answer = RedirectResponse(make_url(request, "/"), status_code=303)
    answer.raw_headers.append((b"set-cookie", make_cookie(request, "", COOKIE, 0).encode()))
    return answer


async def switch_edit(request: Request) -> Response:
    visit = get_visit(request)
    visit.session.is_editing = visit.field("edit") == "on"
    message = "Editing is on: changes are live at once." if visit.session.is_editing else "Editing is off."
    return redirect(request, visit.field("next", "/"), message)


async def switch_theme(request: Request) -> Response:
    visit = get_visit(request)
    theme = visit.field("theme")
    answer = redirect(request, visit.field("next", "/"))
    value = theme if theme in THEMES else THEMES[0]
    answer.raw_headers.append((b"set-cookie", make_cookie(request, value, THEME_COOKIE, YEAR_S).encode()))
    return answer


SESSION_ROUTES = (
    Route("/signin", show_sign_in, methods=["GET"]),
    Route("/signin", sign_in, methods=["POST"]),
    Route("/session", answer_session),
    Route("/signout", sign_out, methods=["POST"]),
    Route("/edit", switch_edit, methods=["POST"]),
    Route("/theme", switch_theme, methods=["POST"]),
)

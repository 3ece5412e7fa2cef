"""HTML of a request: whole pages, and the parts that htmx puts into a page."""

from __future__ import annotations

import hashlib
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from handsell.console.chart import describe_chart
from handsell.console.sessions import Session

STATIC = Path(__file__).with_name("static")
THEME_COOKIE, THEMES = "handsell_theme", ("auto", "light", "dark")


def open_templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("handsell.console"), autoescape=True, undefined=StrictUndefined, auto_reload=False,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"query": urlencode, "zip_same": lambda values: [(one, one) for one in values]}
    environment.globals |= {"describe_chart": describe_chart}
    return environment


def render(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Render a template; `url`, `asset` and `visit` are known in all of them."""
    return HTMLResponse(render_text(request, template, **values), status)


def render_text(request: Request, template: str, **values: Any) -> Markup:
    visit = getattr(request.state, "visit", None)
    environment: Environment = request.app.state.templates
    given = {
        "url": partial(make_url, request),
        "asset": partial(make_asset_url, request),
        "visit": visit, "theme": find_theme(request), "place": find_place(request),
        "notice": "" if visit is None or is_partial(request) else take_message(visit.session),
        "pages": [page for page in request.app.state.pages if visit and visit.may(page.scope)],
    }  # fmt: skip
    return Markup(environment.get_template(template).render(**given, **values))


def make_url(request: Request, path: str = "/") -> str:
    """Return the address of a path of the console."""
    root: str = request.scope.get("root_path", "")
    return root + path


def make_asset_url(request: Request, name: str) -> str:
    """Return the address of a static file, another one after each change."""
    return make_url(request, f"/static/{name}?v={digest_static()}")


def find_place(request: Request) -> str:
    """Return the path of a request below the console, with its query."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", "")) or "/"
    return quote(path, safe="/%") + (f"?{request.url.query}" if request.url.query else "")


def find_theme(request: Request) -> str:
    theme = request.cookies.get(THEME_COOKIE, "auto")
    return theme if theme in THEMES else "auto"


def take_message(session: Session) -> str:
    """Return the message for the next page, once."""
    message, session.message = session.message, ""
    return message


def redirect(request: Request, place: str, message: str = "") -> Response:
    """Go to a path of the console after a change, and say there what was done."""
    visit = getattr(request.state, "visit", None)
    if message and visit is not None:
        visit.session.message = message
    target = make_url(request, check_place(place))
    if is_partial(request):
        return Response(headers={"HX-Redirect": target})
    return RedirectResponse(target, status_code=303)


def check_place(place: str) -> str:
    """Return a path of the console; that of its first page for anything that leads elsewhere."""
    is_own = place.startswith("/") and not place.startswith("//") and "\\" not in place and place.isprintable()
    return place if is_own else "/"


def is_partial(request: Request) -> bool:
    """Whether htmx asks for a part of a page; going back in the history, it asks for the whole page."""
    headers = request.headers
    return headers.get("hx-request") == "true" and headers.get("hx-history-restore-request") != "true"


@cache
def digest_static() -> str:
    """Return a digest of the static files, so that browsers ask again for changed ones."""
    files = sorted(path for path in STATIC.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:10]

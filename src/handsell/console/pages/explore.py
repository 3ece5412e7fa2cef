"""The page Explore: what a user gets, and why."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handsell.console.page import ConsolePage
from handsell.console.rendering import render
from handsell.console.visit import get_visit


async def show_explore(request: Request) -> Response:
    visit = get_visit(request)
    readiness = await visit.ask("GET", "/readyz")
    return render(request, "explore/page.html.j2", title="Explore", readiness=readiness)


PAGE = ConsolePage("explore", "Explore", (Route("/", show_explore),))

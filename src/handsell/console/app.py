"""The console as an ASGI application; it is mounted at `/console`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from handsell.access.audit_entry import AuditEntry
from handsell.client.errors import NoAnswer, ProblemError
from handsell.config import Config
from handsell.console.gate import ConsoleGate
from handsell.console.live.service_watcher import ServiceWatcher
from handsell.console.page import ConsolePage
from handsell.console.pages.registry import PAGES
from handsell.console.rendering import STATIC, is_partial, open_templates, redirect, render
from handsell.console.service_client import ServiceClient, find_service_url
from handsell.console.sessions import SessionStore
from handsell.console.signin import SESSION_ROUTES
from handsell.console.visit import ActionRefused, ConsoleContext, get_visit
from handsell.console.visitors import Visitors
from handsell.core.errors import HandsellError
from handsell.events.store.opening import open_reader

log = logging.getLogger(__name__)

HOUR_S = 3_600
UNEXPECTED = "The console could not finish this; its log has the cause."
NOT_FOUND = "There is no such page: choose one from the menu."


def build_console(
    config: Config,
    append_audit: Callable[[AuditEntry], None],
    *,
    pages: Sequence[ConsolePage] = PAGES,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Starlette:
    """Build the console of a deployment; `transport` replaces the network to the HTTP API."""
    templates = open_templates()
    service = ServiceClient(find_service_url(config), transport)
    context = ConsoleContext(
        config, service, Visitors(config.access, lambda: open_reader(config)),
        SessionStore(config.console.session_hours * HOUR_S), templates, append_audit,
        ServiceWatcher(lambda: service.ask("GET", "/metrics")),
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(context.watcher.run())
        yield
        watching.cancel()
        await context.commands.close()
        await context.service.close()

    app = Starlette(
        routes=[
            Route("/", show_first_page), Route("/healthz", answer_health), *SESSION_ROUTES,
            Mount("/static", StaticFiles(directory=STATIC)), *(route for page in pages for route in list_routes(page)),
        ],
        middleware=[Middleware(ConsoleGate, context=context)],
        exception_handlers={HandsellError: show_error, HTTPException: show_http_error, Exception: show_failure},
        lifespan=lifespan,
    )  # fmt: skip
    app.router.redirect_slashes = False
    app.state.context, app.state.templates, app.state.pages = context, templates, tuple(pages)
    return app


def list_routes(page: ConsolePage) -> list[BaseRoute]:
    """Return the routes of a page below its name, for visitors whose key may see it."""
    return [
        Route(
            f"/{page.name}{route.path}".rstrip("/"), _check_scope(page, route.endpoint),
            methods=list(route.methods or ["GET"]),
        )
        for route in page.routes
    ]  # fmt: skip


def _check_scope(page: ConsolePage, endpoint: Callable) -> Callable:
    async def answer(request: Request) -> Response:
        if not get_visit(request).may(page.scope):
            raise ActionRefused(f"The page {page.title} needs a key with the scope {page.scope}.")
        try:
            answered: Response = await endpoint(request)
        except (HandsellError, HTTPException):
            raise
        except Exception as error:  # here, so that the answer has the headers of the gate
            return await show_failure(request, error)
        return answered

    return answer


async def show_first_page(request: Request) -> Response:
    visit = get_visit(request)
    page = next((page for page in request.app.state.pages if visit.may(page.scope)), None)
    if page is None:
        raise ActionRefused("No page is open to this key: it needs the scope recommend, catalog, experiments or admin.")
    return redirect(request, f"/{page.name}")


async def answer_health(_: Request) -> Response:
    return PlainTextResponse("ok")


async def show_error(request: Request, error: Exception) -> Response:
    """Show an error whose message is meant for people."""
    if isinstance(error, ActionRefused):
        return _show(request, 403, "Not possible with this session", str(error))
    if isinstance(error, NoAnswer):
        return _show(request, 502, "The service does not answer", str(error))
    if isinstance(error, ProblemError):
        status = error.status if error.status < 500 else 502
        return _show(request, status, "The service refuses this", str(error))
    return _show(request, 422, "This is not possible", str(error))


async def show_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = NOT_FOUND if status == 404 else f"The console does not answer {request.method} here."
    return _show(request, status, "Not found" if status == 404 else "Not possible", text)


async def show_failure(request: Request, error: Exception) -> Response:
    log.exception("a page of the console failed", exc_info=error)
    return _show(request, 500, "Something went wrong", UNEXPECTED)


def _show(request: Request, status: int, title: str, detail: str) -> Response:
    template = "error_part.html.j2" if is_partial(request) else "error.html.j2"
    return render(request, template, status, title=title, detail=detail)

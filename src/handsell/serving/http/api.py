"""Routes of the HTTP API v1; service.py makes the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import Receive, Scope, Send

import handsell
from handsell.serving.graph.service import Service
from handsell.serving.http import answers as a
from handsell.serving.http import schemas as s
from handsell.serving.http.access.access_control import AccessControl
from handsell.serving.http.access.gate import describe_keys
from handsell.serving.http.api_page.routes import build_page_routes
from handsell.serving.http.catalog_api import build_item_routes, build_user_routes
from handsell.serving.http.compatibility.gorse_api import GORSE_ROUTES
from handsell.serving.http.compatibility.ubi_api import build_ubi_routes
from handsell.serving.http.middleware import ApiMiddleware
from handsell.serving.http.onboarding.question_api import build_onboarding_routes
from handsell.serving.http.people_api import build_identity_routes
from handsell.serving.http.preview.preview_api import build_preview_routes
from handsell.serving.http.problems import MEDIA_TYPE, install_handlers
from handsell.serving.http.routing import (
    BODY,
    ITEM,
    PROBLEMS,
    USER,
    DirectDispatch,
    DirectRoute,
    ItemId,
    LoggedUser,
    QueriedUser,
    StrictRoute,
    UserId,
    answer,
    problems,
)


def build_document(app: FastAPI, control: AccessControl) -> Callable[[], dict[str, Any]]:
    """Return a function that builds the OpenAPI document, with problems under their own media type, and keys."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes, openapi_version="3.1.0"
            )
            for operation in (o for path in schema["paths"].values() for o in path.values()):
                for status, response in operation["responses"].items():
                    if int(status) >= 400:
                        response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
            describe_keys(schema, control.is_required)
            app.openapi_schema = schema
        return app.openapi_schema

    return openapi


class Watcher(Protocol):
    """Keeps a part of the service up to date."""

    async def run(self) -> None: ...


class Api(FastAPI):
    """FastAPI behind the one middleware, which passes most requests on to their direct route."""

    def __init__(self, service: Service, **options: Any):
        super().__init__(**options)
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._first if scope["type"] == "http" else super().__call__)(scope, receive, send)

    @cached_property
    def _first(self) -> ApiMiddleware:
        """The middleware, made with the first request, when all routes are known."""
        return ApiMiddleware(DirectDispatch(super().__call__, self.router.routes), self._service)


def build_api(service: Service, watchers: Sequence[Watcher] = ()) -> FastAPI:
    """The ASGI app of one gateway; `watchers` run as long as it does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(run()) for run in (*(one.run for one in (*watchers, service.access)), service.measure)
        ]
        yield
        for task in tasks:
            task.cancel()
        await service.close()

    app = Api(
        service, title="handsell", version=handsell.__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        summary="out of millions of items, which ten for this user, now?",
        redirect_slashes=False,  # the decoded path is not quoted again: %252F would become a slash
    )  # fmt: skip
    install_handlers(app)
    app.openapi = build_document(app, service.access)  # type: ignore[method-assign]
    gorse = GORSE_ROUTES if service.config.serving.gorse_api else ()
    for routes in (*ROUTE_GROUPS, *gorse):
        app.router.routes += routes(service).routes  # an included router would match every request twice
    app.include_router(build_page_routes())
    if service.config.console.enabled:
        app.add_route("/", lead_to_console, include_in_schema=False)
    return app


async def lead_to_console(_: Request) -> Response:
    return Response(status_code=307, headers={"Location": "console"})


def _event_routes(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", route_class=DirectRoute)

    @routes.post("/events", status_code=202, response_model=a.EventsAnswer, responses=problems(*BODY))
    async def events(body: s.EventsBody) -> Response:
        """Store events; answered when they are durable."""
        return answer(await service.events(body), 202)

    return routes


def _slate_routes(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", route_class=DirectRoute)

    @routes.post("/recommendations", response_model=a.RecommendationsAnswer, responses=problems(*BODY))
    async def recommendations(body: s.RecommendationsBody) -> Response:
        """Recommend items to a user on a surface."""
        return answer(await service.recommend(body))

    @routes.get(f"{USER}/recommendations", response_model=a.RecommendationsAnswer, responses=problems(422))
    async def user_recommendations(user_id: UserId, query: Annotated[s.SlateParameters, Query()]) -> Response:
        """Recommend items to a user; the short form for a browser or curl."""
        return answer(await service.recommend(s.RecommendationsBody(user_id=user_id, **dict(query))))

    @routes.get("/recommendations", response_model=a.RecommendationsAnswer, responses=problems(422))
    async def query_recommendations(query: Annotated[s.UserSlateParameters, Query()]) -> Response:
        """Recommend items to a user; the form for any id."""
        return answer(await service.recommend(s.RecommendationsBody(**dict(query))))

    @routes.get(f"{ITEM}/similar", response_model=a.RecommendationsAnswer, responses=problems(404, 422))
    async def similar(item_id: ItemId, query: Annotated[s.SimilarParameters, Query()]) -> Response:
        """List items similar to one."""
        return answer(await service.similar(item_id, query))

    @routes.get("/similar", response_model=a.RecommendationsAnswer, responses=problems(404, 422))
    async def query_similar(query: Annotated[s.SimilarItemParameters, Query()]) -> Response:
        """List items similar to one; the form for any id."""
        return answer(await service.similar(query.item_id, query))

    @routes.get("/popular", response_model=a.ListAnswer, responses=problems(422))
    async def popular(query: Annotated[s.ListParameters, Query()]) -> Response:
        """List the most popular items."""
        return answer(service.public_list("popular", query))

    @routes.get("/trending", response_model=a.ListAnswer, responses=problems(422))
    async def trending(query: Annotated[s.ListParameters, Query()]) -> Response:
        """List items that are liked more this week than before."""
        return answer(service.public_list("trending", query))

    @routes.post("/rank", response_model=a.RankAnswer, responses=problems(*BODY))
    async def rank(body: s.RankBody) -> Response:
        """Rank the caller's own items for a user."""
        return answer(await service.rank(body))

    @routes.get("/explain", response_model=a.ExplainAnswer, responses=problems(404, 422))
    async def explain(query: Annotated[s.ExplainParameters, Query()]) -> Response:
        """Explain why an item is or is not in the user's slate, stage by stage."""
        return answer(await service.explain(query))

    return routes


def _user_routes(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", route_class=StrictRoute)

    @routes.put(f"{USER}/blocks", response_model=a.BlocksAnswer, responses=problems(*BODY))
    async def put_blocks(user_id: LoggedUser, body: s.BlocksBody) -> Response:
        """Block creators and tags for a user; replaces earlier blocks."""
        return answer(await service.block(user_id, body))

    @routes.get(f"{USER}/blocks", response_model=a.BlocksAnswer, responses=problems(422))
    async def get_blocks(user_id: LoggedUser) -> Response:
        """Show the creators and tags that a user blocks."""
        return answer(await service.blocks(user_id))

    @routes.delete(f"{USER}/blocks", response_model=a.BlocksAnswer, responses=problems(422))
    async def delete_blocks(user_id: LoggedUser) -> Response:
        """Remove all blocks of a user."""
        return answer(await service.block(user_id, s.BlocksBody()))

    @routes.put("/blocks", response_model=a.BlocksAnswer, responses=problems(*BODY))
    async def query_put_blocks(user_id: QueriedUser, body: s.BlocksBody) -> Response:
        """Block creators and tags for a user; the form for any id."""
        return answer(await service.block(user_id, body))

    @routes.get("/blocks", response_model=a.BlocksAnswer, responses=problems(422))
    async def query_blocks(user_id: QueriedUser) -> Response:
        """Show the creators and tags that a user blocks; the form for any id."""
        return answer(await service.blocks(user_id))

    @routes.delete("/blocks", response_model=a.BlocksAnswer, responses=problems(422))
    async def query_delete_blocks(user_id: QueriedUser) -> Response:
        """Remove all blocks of a user; the form for any id."""
        return answer(await service.block(user_id, s.BlocksBody()))

    return routes


def _operation_routes(service: Service) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz", response_model=a.Health, responses={500: PROBLEMS[500]})
    async def healthz() -> Response:
        """Answer that the process is alive."""
        return answer(a.Health(status="ok"))

    @routes.get("/readyz", response_model=a.Health, responses=problems())
    async def readyz() -> Response:
        """Check that every stage answers a real request."""
        return answer(await service.ready())

    @routes.get(
        "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, 500: PROBLEMS[500]}
    )
    async def metrics() -> Response:
        """Metrics of this gateway in the Prometheus text format."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return routes


ROUTE_GROUPS: tuple[Callable[[Service], APIRouter], ...] = (
    _event_routes, _slate_routes, _user_routes, build_item_routes, build_user_routes, build_identity_routes,
    build_onboarding_routes, build_preview_routes, build_ubi_routes, _operation_routes,
)  # fmt: skip
"""A request is compared with the routes in this order: that with most requests comes first."""

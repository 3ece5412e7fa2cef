"""The HTTP API v1: routes in, answers out. What an answer is, `service.py` decides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, FastAPI, Path, Query
from fastapi.openapi.utils import get_openapi
from fastapi.requests import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import handsell
from handsell.core.errors import RequestError
from handsell.serving.graph.bundle_watcher import BundleWatcher
from handsell.serving.graph.service import Service
from handsell.serving.http import answers as a
from handsell.serving.http import schemas as s
from handsell.serving.http.problems import MEDIA_TYPE, BodyLimit, Problem, install
from handsell.serving.telemetry.observability import continue_trace

WRONG: dict[int, dict[str, Any]] = {
    status: {"model": Problem, "description": what}
    for status, what in (
        (400, "Malformed JSON"), (404, "Unknown"), (413, "Body too large"), (415, "Not application/json"),
        (422, "A field is wrong"), (500, "Internal error"), (503, "Not now: come back after Retry-After seconds"),
    )
}  # fmt: skip
BODY = (400, 413, 415, 422)  # what may be wrong with a body
UserId = Annotated[s.Id, Path(description="an unknown user is a cold start, not an error")]
LoggedUser = Annotated[s.Id, Path(description="as in requests and events")]
ItemId = Annotated[s.Id, Path()]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: WRONG[status] for status in (*statuses, 500, 503)}


def document(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """The OpenAPI document, with errors under their own media type."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes, openapi_version="3.1.0"
            )
            for operation in (o for path in schema["paths"].values() for o in path.values()):
                for status, response in operation["responses"].items():
                    if int(status) >= 400:
                        response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
            app.openapi_schema = schema
        return app.openapi_schema

    return openapi


class StrictJson(Request):
    """JSON as the standard has it: no NaN, no bad UTF-8, no bottomless nesting."""

    async def json(self) -> Any:
        return orjson.loads(await self.body())


class StrictRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
            if (
                request.method in ("POST", "PUT") and kind != "application/json"
            ):  # browsers cannot send it across sites unasked
                raise RequestError(
                    f"content-type is expected to be application/json; got {kind[:80] or 'none'!r}",
                    field="content-type", status=415, code="unsupported_media_type",
                )  # fmt: skip
            return await handle(StrictJson(request.scope, request.receive))

        return strict


def build_api(service: Service, follower: BundleWatcher | None = None) -> FastAPI:
    """The ASGI app of one gateway; while it runs, `follower` turns it to whatever bundle becomes the live one."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(follower.run()) if follower else None
        yield
        if following:
            following.cancel()
        await service.close()

    app = FastAPI(
        title="handsell", version=handsell.__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        summary="out of millions of items, which ten for this user, now?",
    )  # fmt: skip
    install(app)
    app.openapi = document(app)  # type: ignore[method-assign]
    app.include_router(_answers(service))
    app.include_router(_operations(service))
    app.add_middleware(BodyLimit, limit=service.config.serving.max_body_bytes)
    app.add_middleware(Observed, service=service)
    return app


def _answers(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", route_class=StrictRoute)

    @routes.post("/recommendations", response_model=a.RecommendationsAnswer, responses=problems(*BODY))
    async def recommendations(body: s.RecommendationsBody) -> Response:
        """The best items for a user on a surface, now."""
        return answer(await service.recommend(body))

    @routes.get("/users/{user_id}/recommendations", response_model=a.RecommendationsAnswer, responses=problems(422))
    async def user_recommendations(user_id: UserId, query: Annotated[s.SlateParameters, Query()]) -> Response:
        """The same, for a browser or curl."""
        return answer(await service.recommend(s.RecommendationsBody(user_id=user_id, **dict(query))))

    @routes.get("/items/{item_id}/similar", response_model=a.RecommendationsAnswer, responses=problems(404, 422))
    async def similar(item_id: ItemId, query: Annotated[s.SimilarParameters, Query()]) -> Response:
        """What goes with an item."""
        return answer(await service.similar(item_id, query))

    @routes.get("/popular", response_model=a.ListAnswer, responses=problems(422))
    async def popular(query: Annotated[s.ListParameters, Query()]) -> Response:
        """What most users like."""
        return answer(service.public_list("popular", query))

    @routes.get("/trending", response_model=a.ListAnswer, responses=problems(422))
    async def trending(query: Annotated[s.ListParameters, Query()]) -> Response:
        """What is liked more this week than before."""
        return answer(service.public_list("trending", query))

    @routes.post("/rank", response_model=a.RankAnswer, responses=problems(*BODY))
    async def rank(body: s.RankBody) -> Response:
        """The caller's own items, ranked for a user."""
        return answer(await service.rank(body))

    @routes.get("/explain", response_model=a.ExplainAnswer, responses=problems(404, 422))
    async def explain(query: Annotated[s.ExplainParameters, Query()]) -> Response:
        """Why an item is in the user's slate or is not, stage by stage."""
        return answer(await service.explain(query))

    @routes.put("/users/{user_id}/blocks", response_model=a.BlocksAnswer, responses=problems(*BODY))
    async def put_blocks(user_id: LoggedUser, body: s.BlocksBody) -> Response:
        """Creators and tags that are never shown to a user from now on; replaces what was blocked before."""
        return answer(await service.block(user_id, body))

    @routes.get("/users/{user_id}/blocks", response_model=a.BlocksAnswer, responses=problems(422))
    async def get_blocks(user_id: LoggedUser) -> Response:
        """What a user blocks."""
        return answer(service.blocks(user_id))

    @routes.delete("/users/{user_id}/blocks", response_model=a.BlocksAnswer, responses=problems(422))
    async def delete_blocks(user_id: LoggedUser) -> Response:
        """Nothing is blocked any longer."""
        return answer(await service.block(user_id, s.BlocksBody()))

    @routes.post("/events", status_code=202, response_model=a.EventsAnswer, responses=problems(*BODY))
    async def events(body: s.EventsBody) -> Response:
        """What users did; answered when it is on the disk."""
        return answer(await service.events(body), 202)

    return routes


def _operations(service: Service) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz", response_model=a.Health, responses={500: WRONG[500]})
    async def healthz() -> Response:
        """The process answers."""
        return answer(a.Health(status="ok"))

    @routes.get("/readyz", response_model=a.Health, responses=problems())
    async def readyz() -> Response:
        """Every stage answers a real request."""
        return answer(await service.ready())

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, 500: WRONG[500]})
    async def metrics() -> Response:
        """Prometheus text format, of this gateway."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return routes


def answer(body: a.Answer, status: int = 200) -> Response:
    return Response(body.to_json(), status, media_type="application/json")


class Observed:
    """Times, counts and traces every request by route, also those that never reach one."""

    def __init__(self, app: ASGIApp, service: Service):
        self.app, self.metrics = app, service.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        trace = continue_trace(next((value for name, value in scope["headers"] if name == b"traceparent"), b""))

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"traceparent", trace)]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, status).inc()
            self.metrics.request_seconds.labels(route).observe(time.perf_counter() - started)

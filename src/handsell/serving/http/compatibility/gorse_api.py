"""Routes of the Gorse-compatible API, for clients such as pygorse; the switch is `serving.gorse_api`.

Every answer that succeeds has status 200, which Gorse's clients expect.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel

from handsell.core.errors import RequestError
from handsell.serving.graph.service import Service
from handsell.serving.http.compatibility import gorse_schemas as g
from handsell.serving.http.compatibility.gorse_catalog import GorseCatalogCalls
from handsell.serving.http.compatibility.gorse_feedback import GorseFeedbackCalls
from handsell.serving.http.compatibility.gorse_lists import GorseListCalls
from handsell.serving.http.routing import BodylessRoute, ItemId, LoggedUser, StrictRoute, problems

BODY = (400, 413, 415, 422)
Category = Annotated[str, Path(max_length=256)]
Version = Annotated[str, Header(alias="X-API-Version", description="2: with scores")]
ListQuery = Annotated[g.GorseListParameters, Query()]
PublicQuery = Annotated[g.GorsePublicParameters, Query()]
RecommendQuery = Annotated[g.GorseRecommendParameters, Query()]
DONE = g.GorseSuccess(RowAffected=1)
KEPT = "events are kept as they happened: send an event of negative weight, or erase the person with DELETE /api/user/…"


def reply(body: BaseModel) -> Response:
    return Response(body.model_dump_json(exclude_unset=True), media_type="application/json")


def _feedback_routes(service: Service) -> APIRouter:
    routes, calls = APIRouter(prefix="/api", route_class=StrictRoute, tags=["Gorse"]), GorseFeedbackCalls(service)

    @routes.post("/feedback", response_model=g.GorseSuccess, responses=problems(*BODY))
    async def post_feedback(body: list[g.GorseFeedbackBody]) -> Response:
        """Store feedback as events: all of the request, or none."""
        return reply(await calls.insert(body))

    @routes.put("/feedback", response_model=g.GorseSuccess, responses=problems(*BODY))
    async def put_feedback(body: list[g.GorseFeedbackBody]) -> Response:
        """Store feedback as events; the same event counts once, and none is overwritten."""
        return reply(await calls.insert(body))

    @routes.get("/feedback", response_model=g.GorseFeedbackPage, responses=problems(400, 422))
    async def list_feedback(query: Annotated[g.GorsePageParameters, Query()]) -> Response:
        """List the events that the event store has."""
        return reply(await calls.list_page(query))

    @routes.get("/feedback/{feedback_type}", response_model=g.GorseFeedbackPage, responses=problems(400, 422))
    async def list_typed_feedback(
        feedback_type: Category, query: Annotated[g.GorsePageParameters, Query()]
    ) -> Response:
        """List the events of a type that the event store has."""
        return reply(await calls.list_page(query, feedback_type))

    @routes.get("/feedback/{user_id}/{item_id}", response_model=g.GorseFeedbackList, responses=problems(422))
    async def list_pair(user_id: LoggedUser, item_id: ItemId) -> Response:
        """List the events of a user with an item."""
        return reply(g.GorseFeedbackList(await calls.list_of_user(user_id, None, item_id)))

    @routes.delete("/feedback/{user_id}/{item_id}", response_model=g.GorseSuccess, responses=problems(409, 422))
    async def delete_pair(user_id: LoggedUser, item_id: ItemId) -> Response:
        """Refuse to delete events."""
        raise RequestError(KEPT, status=409, code="events_are_kept")

    @routes.get("/user/{user_id}/feedback/{feedback_type}", response_model=g.GorseFeedbackList, responses=problems(422))
    async def list_typed_feedback_of_user(user_id: LoggedUser, feedback_type: Category) -> Response:
        """List the events of a user of one type, newest first."""
        return reply(g.GorseFeedbackList(await calls.list_of_user(user_id, feedback_type, None)))

    @routes.get("/user/{user_id}/feedback", response_model=g.GorseFeedbackList, responses=problems(422))
    async def list_feedback_of_user(user_id: LoggedUser) -> Response:
        """List the events of a user, newest first."""
        return reply(g.GorseFeedbackList(await calls.list_of_user(user_id, None, None)))

    return routes


def _list_routes(service: Service) -> APIRouter:
    routes, calls = APIRouter(prefix="/api", route_class=StrictRoute, tags=["Gorse"]), GorseListCalls(service)

    async def recommend(user_id: str, query: g.GorseRecommendParameters, version: str, category: str) -> Response:
        found = await calls.recommend(user_id, query, query.category or [category])
        return reply(g.GorseRecommendations(found if version.strip() == "2" else [one.Id for one in found]))

    @routes.get("/recommend/{user_id}", response_model=g.GorseRecommendations, responses=problems(400, 422))
    @routes.get("/recommend/{user_id}/", include_in_schema=False)
    async def recommend_any(user_id: LoggedUser, query: RecommendQuery, version: Version = "1") -> Response:
        """Recommend items to a user."""
        return await recommend(user_id, query, version, "")

    @routes.get("/recommend/{user_id}/{category}", response_model=g.GorseRecommendations, responses=problems(400, 422))
    async def recommend_category(
        user_id: LoggedUser, category: Category, query: RecommendQuery, version: Version = "1"
    ) -> Response:
        """Recommend items of a category to a user."""
        return await recommend(user_id, query, version, category)

    @routes.post("/session/recommend", response_model=g.GorseScores, responses=problems(*BODY))
    async def recommend_for_session(body: list[g.GorseFeedbackBody], query: ListQuery) -> Response:
        """Recommend items to a visitor with these events, which are not stored."""
        return reply(g.GorseScores(await calls.recommend_for_session(body, query, [])))

    @routes.post("/session/recommend/{category}", response_model=g.GorseScores, responses=problems(*BODY))
    async def recommend_category_for_session(
        category: Category, body: list[g.GorseFeedbackBody], query: ListQuery
    ) -> Response:
        """Recommend items of a category to a visitor with these events."""
        return reply(g.GorseScores(await calls.recommend_for_session(body, query, [category])))

    @routes.get("/item/{item_id}/neighbors", response_model=g.GorseScores, responses=problems(400, 422))
    @routes.get("/item/{item_id}/neighbors/", include_in_schema=False)
    async def neighbors(item_id: ItemId, query: ListQuery) -> Response:
        """List items similar to one."""
        return reply(g.GorseScores(await calls.list_neighbors(item_id, query, [])))

    @routes.get("/item/{item_id}/neighbors/{category}", response_model=g.GorseScores, responses=problems(400, 422))
    async def category_neighbors(item_id: ItemId, category: Category, query: ListQuery) -> Response:
        """List items of a category similar to one."""
        return reply(g.GorseScores(await calls.list_neighbors(item_id, query, [category])))

    @routes.get("/popular", response_model=g.GorseScores, responses=problems(400, 422))
    async def popular(query: PublicQuery) -> Response:
        """List popular items."""
        return reply(g.GorseScores(await calls.list_public("popular", query, [])))

    @routes.get("/popular/{category}", response_model=g.GorseScores, responses=problems(400, 422))
    async def category_popular(category: Category, query: PublicQuery) -> Response:
        """List popular items of a category."""
        return reply(g.GorseScores(await calls.list_public("popular", query, [category])))

    @routes.get("/latest", response_model=g.GorseScores, responses=problems(400, 422))
    async def latest(query: PublicQuery) -> Response:
        """List the items that were published last; the score is the time in epoch seconds."""
        return reply(g.GorseScores(await calls.list_public("latest", query, [])))

    @routes.get("/latest/{category}", response_model=g.GorseScores, responses=problems(400, 422))
    async def category_latest(category: Category, query: PublicQuery) -> Response:
        """List the items of a category that were published last."""
        return reply(g.GorseScores(await calls.list_public("latest", query, [category])))

    return routes


def _category_routes(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/api", route_class=BodylessRoute, tags=["Gorse"])
    calls = GorseCatalogCalls(service)

    @routes.put("/item/{item_id}/category/{category}", response_model=g.GorseSuccess, responses=problems(404, 422))
    async def put_category(item_id: ItemId, category: Category) -> Response:
        """Add a category to an item."""
        await calls.change_category(item_id, category, is_added=True)
        return reply(DONE)

    @routes.delete("/item/{item_id}/category/{category}", response_model=g.GorseSuccess, responses=problems(404, 422))
    async def delete_category(item_id: ItemId, category: Category) -> Response:
        """Remove a category from an item."""
        await calls.change_category(item_id, category, is_added=False)
        return reply(DONE)

    return routes


def _item_routes(service: Service) -> APIRouter:
    routes, calls = APIRouter(prefix="/api", route_class=StrictRoute, tags=["Gorse"]), GorseCatalogCalls(service)

    @routes.post("/item", response_model=g.GorseSuccess, responses=problems(*BODY))
    async def post_item(body: g.GorseItemBody) -> Response:
        """Add or replace an item."""
        return reply(g.GorseSuccess(RowAffected=await calls.put_items([body])))

    @routes.post("/items", response_model=g.GorseSuccess, responses=problems(*BODY))
    async def post_items(body: list[g.GorseItemBody]) -> Response:
        """Add or replace items."""
        return reply(g.GorseSuccess(RowAffected=await calls.put_items(body)))

    @routes.get("/items", response_model=g.GorseItemPage, responses=problems(400, 422))
    async def list_items(query: Annotated[g.GorseItemPageParameters, Query()]) -> Response:
        """List items, or those with a text in their title."""
        return reply(await calls.list_items(query))

    @routes.get("/item/{item_id:id}", response_model=g.GorseItem, responses=problems(404, 422))
    async def get_item(item_id: ItemId) -> Response:
        """Show an item."""
        return reply(await calls.get_item(item_id))

    @routes.patch("/item/{item_id:id}", response_model=g.GorseSuccess, responses=problems(404, *BODY))
    async def patch_item(item_id: ItemId, body: g.GorseItemPatch) -> Response:
        """Change the fields of an item that are not null."""
        await calls.patch_item(item_id, body)
        return reply(DONE)

    @routes.delete("/item/{item_id:id}", response_model=g.GorseSuccess, responses=problems(404, 422))
    async def delete_item(item_id: ItemId) -> Response:
        """Delete an item; its events stay."""
        await service.items.delete(service.bundle, item_id)
        return reply(DONE)

    return routes


def _user_routes(service: Service) -> APIRouter:
    routes, calls = APIRouter(prefix="/api", route_class=StrictRoute, tags=["Gorse"]), GorseCatalogCalls(service)

    @routes.post("/user", response_model=g.GorseSuccess, responses=problems(*BODY))
    async def post_user(body: g.GorseUserBody) -> Response:
        """Add or replace a user."""
        return reply(g.GorseSuccess(RowAffected=await calls.put_users([body])))

    @routes.post("/users", response_model=g.GorseSuccess, responses=problems(*BODY))
    async def post_users(body: list[g.GorseUserBody]) -> Response:
        """Add or replace users."""
        return reply(g.GorseSuccess(RowAffected=await calls.put_users(body)))

    @routes.get("/users", response_model=g.GorseUserPage, responses=problems(400, 422))
    async def list_users(query: Annotated[g.GorsePageParameters, Query()]) -> Response:
        """List the users that were put over HTTP."""
        return reply(await calls.list_users(query))

    @routes.get("/user/{user_id:id}", response_model=g.GorseUser, responses=problems(404, 422))
    async def get_user(user_id: LoggedUser) -> Response:
        """Show a user."""
        return reply(await calls.get_user(user_id))

    @routes.patch("/user/{user_id:id}", response_model=g.GorseSuccess, responses=problems(404, *BODY))
    async def patch_user(user_id: LoggedUser, body: g.GorseUserPatch) -> Response:
        """Change the fields of a user that are not null."""
        await calls.patch_user(user_id, body)
        return reply(DONE)

    @routes.delete("/user/{user_id:id}", response_model=g.GorseSuccess, responses=problems(409, 422))
    async def delete_user(user_id: LoggedUser) -> Response:
        """Erase a person: attributes and events; needs scope admin."""
        await service.people.erase(service.bundle, user_id)
        return reply(DONE)

    return routes


def _health_routes(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/api", tags=["Gorse"])

    @routes.get("/health/live", response_model=g.GorseHealth, responses=problems())
    async def live() -> Response:
        """Answer that the process is alive."""
        return reply(_describe_health())

    @routes.get("/health/ready", response_model=g.GorseHealth, responses=problems())
    async def ready() -> Response:
        """Check that every stage answers a real request."""
        await service.ready()
        return reply(_describe_health())

    return routes


def _describe_health() -> g.GorseHealth:
    return g.GorseHealth(
        Ready=True, DataStoreError=None, CacheStoreError=None, DataStoreConnected=True, CacheStoreConnected=True
    )


GORSE_ROUTES = (_feedback_routes, _list_routes, _category_routes, _item_routes, _user_routes, _health_routes)

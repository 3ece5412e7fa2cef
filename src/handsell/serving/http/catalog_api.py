"""Routes of items and users: read, replace, change and delete one, or put many."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from handsell.serving.graph.service import Service
from handsell.serving.http import catalog_schemas as c
from handsell.serving.http.routing import (
    BODY,
    ITEM,
    USER,
    ItemId,
    LoggedUser,
    QueriedItem,
    QueriedUser,
    StrictRoute,
    answer,
    problems,
)

CREATED: dict[int | str, dict[str, Any]] = {
    201: {"model": c.ItemAnswer, "description": "The item was unknown or deleted"}
}
CREATED_USER: dict[int | str, dict[str, Any]] = {
    201: {"model": c.UserAnswer, "description": "The user was unknown or deleted"}
}
ERASED: dict[int | str, dict[str, Any]] = {
    202: {"model": c.ErasureAnswer, "description": "Erased, as far as the answer says"}
}
GONE = Response(status_code=204)


def build_item_routes(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", route_class=StrictRoute)
    rows = service.items

    async def put(item_id: str, body: c.ItemBody) -> Response:
        stored, created = await rows.put(service.bundle, item_id, body.given)
        return answer(c.ItemAnswer(**stored), 201 if created else 200)

    async def patch(item_id: str, body: c.ItemBody) -> Response:
        return answer(c.ItemAnswer(**await rows.patch(service.bundle, item_id, body.given)))

    async def get(item_id: str) -> Response:
        return answer(c.ItemAnswer(**await rows.get(service.bundle, item_id)))

    async def delete(item_id: str) -> Response:
        await rows.delete(service.bundle, item_id)
        return GONE

    @routes.post("/items", response_model=c.RowsAnswer, responses=problems(*BODY))
    async def post_items(body: c.ItemsBody) -> Response:
        """Put up to 1,000 items; answered when they are durable."""
        return answer(await rows.put_many(service.bundle, body.rows))

    @routes.put(ITEM, response_model=c.ItemAnswer, responses={**problems(*BODY), **CREATED})
    async def put_item(item_id: ItemId, body: c.ItemBody) -> Response:
        """Add or replace an item; a deleted one comes back."""
        return await put(item_id, body)

    @routes.put("/items", response_model=c.ItemAnswer, responses={**problems(*BODY), **CREATED})
    async def query_put_item(item_id: QueriedItem, body: c.ItemBody) -> Response:
        """Add or replace an item; the form for any id."""
        return await put(item_id, body)

    @routes.patch(ITEM, response_model=c.ItemAnswer, responses=problems(404, *BODY))
    async def patch_item(item_id: ItemId, body: c.ItemBody) -> Response:
        """Change some fields of an item (JSON merge patch): null removes a field."""
        return await patch(item_id, body)

    @routes.patch("/items", response_model=c.ItemAnswer, responses=problems(404, *BODY))
    async def query_patch_item(item_id: QueriedItem, body: c.ItemBody) -> Response:
        """Change some fields of an item; the form for any id."""
        return await patch(item_id, body)

    @routes.get(ITEM, response_model=c.ItemAnswer, responses=problems(404, 422))
    async def get_item(item_id: ItemId) -> Response:
        """Show the current state of an item, with the changes since the bundle was made."""
        return await get(item_id)

    @routes.get("/items", response_model=c.ItemAnswer, responses=problems(404, 422))
    async def query_item(item_id: QueriedItem) -> Response:
        """Show the current state of an item; the form for any id."""
        return await get(item_id)

    @routes.delete(ITEM, status_code=204, response_class=Response, responses=problems(404, 422))
    async def delete_item(item_id: ItemId) -> Response:
        """Delete an item: it is never shown again, until it is put again."""
        return await delete(item_id)

    @routes.delete("/items", status_code=204, response_class=Response, responses=problems(404, 422))
    async def query_delete_item(item_id: QueriedItem) -> Response:
        """Delete an item; the form for any id."""
        return await delete(item_id)

    return routes


def build_user_routes(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", route_class=StrictRoute)
    rows = service.users

    async def put(user_id: str, body: c.UserBody) -> Response:
        stored, created = await rows.put(service.bundle, user_id, body.given)
        return answer(c.UserAnswer(**stored), 201 if created else 200)

    async def patch(user_id: str, body: c.UserBody) -> Response:
        return answer(c.UserAnswer(**await rows.patch(service.bundle, user_id, body.given)))

    async def get(user_id: str) -> Response:
        return answer(c.UserAnswer(**await rows.get(service.bundle, user_id)))

    async def delete(user_id: str, query: c.DeleteParameters) -> Response:
        if query.erase:
            return answer(await service.people.erase(service.bundle, user_id), 202)
        await rows.delete(service.bundle, user_id)
        return GONE

    @routes.post("/users", response_model=c.RowsAnswer, responses=problems(*BODY))
    async def post_users(body: c.UsersBody) -> Response:
        """Put up to 1,000 users; answered when they are durable."""
        return answer(await rows.put_many(service.bundle, body.rows))

    @routes.put(USER, response_model=c.UserAnswer, responses={**problems(*BODY), **CREATED_USER})
    async def put_user(user_id: LoggedUser, body: c.UserBody) -> Response:
        """Add or replace the attributes of a user."""
        return await put(user_id, body)

    @routes.put("/users", response_model=c.UserAnswer, responses={**problems(*BODY), **CREATED_USER})
    async def query_put_user(user_id: QueriedUser, body: c.UserBody) -> Response:
        """Add or replace the attributes of a user; the form for any id."""
        return await put(user_id, body)

    @routes.patch(USER, response_model=c.UserAnswer, responses=problems(404, *BODY))
    async def patch_user(user_id: LoggedUser, body: c.UserBody) -> Response:
        """Change some attributes of a user (JSON merge patch): null removes one."""
        return await patch(user_id, body)

    @routes.patch("/users", response_model=c.UserAnswer, responses=problems(404, *BODY))
    async def query_patch_user(user_id: QueriedUser, body: c.UserBody) -> Response:
        """Change some attributes of a user; the form for any id."""
        return await patch(user_id, body)

    @routes.get(USER, response_model=c.UserAnswer, responses=problems(404, 422))
    async def get_user(user_id: LoggedUser) -> Response:
        """Show the attributes of a user that filters and the ranker may read, and those that were put."""
        return await get(user_id)

    @routes.get("/users", response_model=c.UserAnswer, responses=problems(404, 422))
    async def query_user(user_id: QueriedUser) -> Response:
        """Show the attributes of a user; the form for any id."""
        return await get(user_id)

    @routes.delete(USER, status_code=204, response_class=Response, responses={**problems(404, 409, 422), **ERASED})
    async def delete_user(user_id: LoggedUser, query: Annotated[c.DeleteParameters, Query()]) -> Response:
        """Delete the attributes of a user; with `erase`, everything of this person."""
        return await delete(user_id, query)

    @routes.delete("/users", status_code=204, response_class=Response, responses={**problems(404, 409, 422), **ERASED})
    async def query_delete_user(query: Annotated[c.DeleteUserParameters, Query()]) -> Response:
        """Delete the attributes of a user, or everything; the form for any id."""
        return await delete(query.user_id, query)

    return routes

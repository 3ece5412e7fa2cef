"""The scope that each route needs, and for which user a widget may call it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request

from handsell.access.caller import Caller, Scope
from handsell.core.errors import RequestError

USER, ITEM = "/v1/users/{user_id}", "/v1/items/{item_id}"
ROUTE_SCOPES: Mapping[str, Scope] = {
    **dict.fromkeys(
        (
            "/v1/recommendations", f"{USER}/recommendations", "/v1/similar", f"{ITEM}/similar", "/v1/popular",
            "/v1/trending", "/v1/rank", "/v1/explain", "/v1/onboarding",
        ), "recommend",
    ),
    **dict.fromkeys(("/v1/events", "/v1/identities/merge", "/v1/blocks", f"{USER}/blocks"), "events"),
    **dict.fromkeys(("/v1/items", ITEM, "/v1/users", USER), "catalog"),
    "/v1/ubi_events": "events",
    **dict.fromkeys(("/v1/preview", "/v1/preview/explain"), "experiments"),
}  # fmt: skip
"""By path: a route without a scope cannot be built."""

GORSE_USER, GORSE_ITEM = "/api/user/{user_id}", "/api/item/{item_id}"
GORSE_SCOPES: Mapping[str, Scope] = {
    **dict.fromkeys(
        (
            "/api/recommend/{user_id}", "/api/recommend/{user_id}/", "/api/recommend/{user_id}/{category}",
            "/api/session/recommend", "/api/session/recommend/{category}", f"{GORSE_ITEM}/neighbors",
            f"{GORSE_ITEM}/neighbors/", f"{GORSE_ITEM}/neighbors/{{category}}", "/api/popular",
            "/api/popular/{category}", "/api/latest", "/api/latest/{category}",
        ), "recommend",
    ),
    **dict.fromkeys(
        (
            "/api/feedback", "/api/feedback/{feedback_type}", "/api/feedback/{user_id}/{item_id}",
            f"{GORSE_USER}/feedback", f"{GORSE_USER}/feedback/{{feedback_type}}",
        ), "events",
    ),
    **dict.fromkeys(
        (
            "/api/item", "/api/items", "/api/user", "/api/users", GORSE_ITEM, GORSE_USER,
            f"{GORSE_ITEM}/category/{{category}}",
        ), "catalog",
    ),
}  # fmt: skip
"""Likewise, where `serving.gorse_api` is on."""
ADMIN_ONLY = {  # whoever lists all events reads what everybody did; in Gorse, deleting a user is an erasure
    ("GET", "/api/feedback"), ("GET", "/api/feedback/{feedback_type}"), ("DELETE", GORSE_USER),
}  # fmt: skip
ALL_SCOPES: Mapping[str, Scope] = {**ROUTE_SCOPES, **GORSE_SCOPES}

OF_ONE_USER = ("/v1/recommendations", f"{USER}/recommendations")
OF_NO_USER = ("/v1/similar", f"{ITEM}/similar", "/v1/popular", "/v1/trending")
EVENTS, UBI_EVENTS = "/v1/events", "/v1/ubi_events"


def require_scope(path: str) -> None:
    """Raise KeyError for a route that has no scope."""
    ALL_SCOPES[path]


def find_scope(path: str, request: Request) -> Scope:
    """Return the scope that a request of a route needs: to erase a person takes admin."""
    if (request.method == "DELETE" and "erase" in request.query_params) or (request.method, path) in ADMIN_ONLY:
        return "admin"
    return ALL_SCOPES[path]


async def require_access(path: str, request: Request) -> None:
    """Raise RequestError (403) unless the caller may make this request of a route."""
    caller: Caller = getattr(request.state, "caller", Caller.anonymous())
    needed = find_scope(path, request)
    if not caller.may(needed):
        raise RequestError(
            f"expected a key with scope {needed}, key {caller.name!r} has {', '.join(sorted(caller.scopes))}: "
            "use another key, or create one with `handsell keys create`",
            status=403, code="missing_scope",
        )  # fmt: skip
    if caller.user_id is not None:
        await _require_own_user(path, request, caller.user_id)


async def _require_own_user(path: str, request: Request, user_id: str) -> None:
    """Raise RequestError unless a widget's request is about its own user alone."""
    if path in OF_NO_USER:
        return
    if path == EVENTS:
        events = (await _read_object(request)).get("events")
        named = [_list_ids(event) for event in events] if isinstance(events, list) else []
    elif path == UBI_EVENTS:  # a browser always has a client_id, which stands behind the user's id
        named = [[event.get("user_id")] for event in await _read_objects(request)]
    elif path in OF_ONE_USER:
        named = [_list_ids(await _read_object(request)) if request.method == "POST" else _list_named(request)]
    else:
        raise RequestError(
            "a widget may only ask for recommendations and send events", status=403, code="not_for_widgets"
        )
    if any(ids != [user_id] for ids in named):
        raise RequestError(
            "user_id: expected the user of the widget's token, and no anonymous_id, got another: a widget acts for "
            "its own user only",
            field="user_id", status=403, code="other_user",
        )  # fmt: skip


def _list_named(request: Request) -> list[Any]:
    """Return every id that path and query name."""
    named = [request.path_params["user_id"]] if "user_id" in request.path_params else []
    return named + [id_ for name in ("user_id", "anonymous_id") for id_ in request.query_params.getlist(name)]


def _list_ids(body: Any) -> list[Any]:
    if not isinstance(body, dict):
        return []
    return [body[name] for name in ("user_id", "anonymous_id") if body.get(name) is not None]


async def _read_objects(request: Request) -> list[dict[str, Any]]:
    """Return the JSON objects of a body that is a list or one of them; those that are none are refused by the route."""
    try:
        body = await request.json()
    except ValueError:
        return []
    return [one for one in (body if isinstance(body, list) else [body]) if isinstance(one, dict)]


async def _read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object of a body; an empty one for anything else, which the route refuses."""
    try:
        body = await request.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}

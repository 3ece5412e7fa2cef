"""A direct route answers every request as FastAPI's own layers do, and a correct one without them."""

import json
from types import SimpleNamespace

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from handsell.access.caller import SCOPES, Caller
from handsell.core.errors import RequestError
from handsell.events.store.interface import EventStoreError
from handsell.serving.http.api import _event_routes, _slate_routes
from handsell.serving.http.problems import install_handlers
from handsell.serving.http.routing import DirectDispatch, DirectRoute, StrictRoute
from handsell.serving.telemetry.request_ids import BODY

JSON = {"content-type": "application/json"}
USER = "/v1/users/u%201/recommendations"
EVENT = {"type": "play", "item_id": "i1", "user_id": "u1"}
CORRECT = [
    ("GET", USER, b"", {}),
    ("GET", f"{USER}?count=3&surface=email&include=metadata&include=metadata", b"", {}),
    ("GET", f"{USER}?count=3&count=4&filter=item.year%20%3E%201", b"", {}),
    ("GET", "/v1/recommendations?user_id=%E6%97%A5&deadline_ms=50", b"", {}),
    ("GET", "/v1/items/a/b/similar?count=5", b"", {}),
    ("GET", "/v1/similar?item_id=i1", b"", {}),
    ("GET", "/v1/popular", b"", {}),
    ("POST", "/v1/recommendations", b'{"user_id":"u1","basket":{"item_ids":["i1"]},"include":["metadata"]}', JSON),
    ("POST", "/v1/rank", b'{"item_ids":["i1"]}', {"content-type": "application/json; charset=utf-8"}),
    ("POST", "/v1/events", json.dumps({"events": [EVENT, {"type": 1}]}).encode(), JSON),
]
WRONG = [
    ("GET", f"{USER}?count=many&other=1", b"", {}),
    ("GET", f"{USER}?count=", b"", {}),
    ("GET", f"{USER}?surface=", b"", {}),
    ("GET", "/v1/users//recommendations?count=0", b"", {}),
    ("GET", "/v1/users/a%0Ab/recommendations?include=all", b"", {}),
    ("GET", "/v1/similar", b"", {}),
    ("POST", "/v1/recommendations", b"", JSON),
    ("POST", "/v1/recommendations", b"null", JSON),
    ("POST", "/v1/recommendations", b'{"user_id":NaN}', JSON),
    ("POST", "/v1/recommendations", b'{"user_id":"\xff"}', JSON),
    ("POST", "/v1/recommendations", b'{"user_id":1,"count":"3"}', JSON),
    ("POST", "/v1/recommendations", b'{"user_id":"u1"}', {}),
    ("POST", "/v1/recommendations", b'{"user_id":"u1"}', {"content-type": "text/plain"}),
    ("POST", "/v1/events", b"[]", JSON),
    ("DELETE", "/v1/recommendations", b"", {}),
]


class Called:
    """A service that notes its calls."""

    def __init__(self, error=None):
        self.calls, self.error = [], error

    def __getattr__(self, name):
        def note(*arguments):
            self.calls.append((name, *map(repr, arguments)))
            if self.error is not None:
                raise self.error
            return SimpleNamespace(to_json=lambda: b"{}")

        async def note_later(*arguments):
            return note(*arguments)

        return note if name == "public_list" else note_later


def build_app(service, route_class, caller):
    """The routes, with FastAPI's layers counted and what the middleware leaves in the scope."""
    app, through = FastAPI(), []
    for build in (_event_routes, _slate_routes):
        routes = build(service)
        if route_class is StrictRoute:
            routes = as_strict(routes)
        app.router.routes += routes.routes
    install_handlers(app)
    for route in app.router.routes:
        if isinstance(route, DirectRoute):
            route._ask_fastapi = count(route._ask_fastapi, through)

    first = DirectDispatch(app, app.router.routes) if route_class is DirectRoute else app

    async def with_scope(scope, receive, send):
        if scope["type"] == "http" and scope["method"] != "GET":
            body = (await receive())["body"]
            scope[BODY] = body

            async def receive():
                return {"type": "http.request", "body": body, "more_body": False}

        scope.setdefault("state", {})["caller"] = caller
        await first(scope, receive, send)

    return with_scope, through


def as_strict(routes):
    strict = APIRouter(route_class=StrictRoute)
    for route in routes.routes:
        strict.add_api_route(
            route.path, route.endpoint, methods=route.methods, response_model=route.response_model,
            status_code=route.status_code,
        )  # fmt: skip
    return strict


def count(app, through):
    async def counted(scope, receive, send):
        through.append(scope["path"])
        await app(scope, receive, send)

    return counted


async def ask(app, method, url, body, headers):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        answer = await client.request(method, url, content=body, headers=headers)
    return answer.status_code, answer.headers, answer.text


async def compare(request, caller=Caller.anonymous(), error=None):
    """Return the status of a request, after a comparison of both routes, and whether FastAPI's layers were asked."""
    mine, theirs = Called(error), Called(error)
    direct, through = build_app(mine, DirectRoute, caller)
    answer = await ask(direct, *request)
    assert answer == await ask(build_app(theirs, StrictRoute, caller)[0], *request)
    assert mine.calls == theirs.calls
    return answer[0], bool(through)


@pytest.mark.parametrize("request_", CORRECT, ids=lambda request: f"{request[0]} {request[1]}")
async def test_a_correct_request_is_answered_alike_without_fastapis_layers(request_):
    status, through = await compare(request_)
    assert status in (200, 202) and not through


@pytest.mark.parametrize("request_", WRONG, ids=lambda request: f"{request[0]} {request[1]} {request[2]!r}")
async def test_a_wrong_request_gets_fastapis_answer(request_):
    status, through = await compare(request_)
    assert 400 <= status < 500 and (through or status == 405)


ERRORS = [
    (RequestError("no", field="user_id", code="wrong"), 422),
    (RequestError("later", status=503, code="overloaded"), 503),
    (EventStoreError("away"), 503),
    (ValueError("a defect"), 500),
]


@pytest.mark.parametrize(("error", "status"), ERRORS, ids=lambda value: repr(value))
@pytest.mark.parametrize("request_", [CORRECT[0], CORRECT[-1]], ids=["GET", "POST"])
async def test_an_error_of_the_service_is_answered_by_the_handlers_and_not_tried_again(request_, error, status):
    assert await compare(request_, error=error) == (status, False)


CALLERS = [Caller("k", "events only", frozenset(["events"])), Caller("k", "widget", frozenset(SCOPES), "u2")]


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.name)
async def test_who_may_not_call_for_everybody_is_left_to_fastapi(caller):
    assert await compare(("GET", USER, b"", {}), caller) == (403, True)
    assert await compare(("POST", "/v1/recommendations", b'{"user_id":"u1"}', JSON), caller) == (403, True)

"""What all routes of the HTTP API share: ids in paths, strict JSON bodies, documented problems."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, get_origin
from urllib.parse import parse_qsl

import orjson
from fastapi import Path, Query
from fastapi.requests import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

from handsell.core.errors import RequestError
from handsell.serving.http import answers as a
from handsell.serving.http import schemas as s
from handsell.serving.http.access.route_scopes import ALL_SCOPES, require_access, require_scope
from handsell.serving.http.problems import Problem
from handsell.serving.telemetry.request_ids import BODY as KEPT_BODY

PROBLEMS: dict[int, dict[str, Any]] = {
    status: {"model": Problem, "description": what}
    for status, what in (
        (400, "Malformed JSON"), (401, "No valid API key"), (403, "The key or the origin may not do this"),
        (404, "Unknown"), (409, "Conflict"), (413, "Body too large"),
        (415, "Not application/json"), (422, "Invalid field"),
        (429, "Too many requests; retry after the given number of seconds"), (500, "Internal error"),
        (503, "Service unavailable; retry after the given number of seconds"),
    )
}  # fmt: skip


class IdConvertor(PathConvertor):
    """Any text in a path, also with slashes, because servers decode %2F before the app routes, and line breaks."""

    regex = r"[\s\S]*"


register_url_convertor("id", IdConvertor())
USER, ITEM = "/users/{user_id:id}", "/items/{item_id:id}"
BODY_TYPES = {
    "POST": ("application/json",),
    "PUT": ("application/json",),
    "PATCH": ("application/json", "application/merge-patch+json"),
}
JSON_TYPES = (b"application/json", b"application/json; charset=utf-8")  # that need no parsing
FAILED = "handsell.failed"  # key of the scope under which the error of an endpoint is, that handlers will answer
BODY = (400, 413, 415, 422)  # problems of a request with a body
ACCESS = (401, 403, 429)  # problems of any request
UserId = Annotated[s.Id, Path(description="an unknown user is a cold start, not an error")]
LoggedUser = Annotated[s.Id, Path(description="the id used in requests and events")]
QueriedUser = Annotated[s.Id, Query(description="the id used in requests and events")]
ItemId = Annotated[s.Id, Path()]
QueriedItem = Annotated[s.Id, Query()]


Read = Callable[[Scope], Any]
"""Returns what FastAPI would validate; raises KeyError or ValueError where that is not there."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: PROBLEMS[status] for status in (*statuses, *ACCESS, 500, 503)}


class StrictJson(Request):
    """A request with strict JSON: no NaN, valid UTF-8, limited nesting."""

    async def json(self) -> Any:
        return orjson.loads(await self.body())


class StrictRoute(APIRoute):
    body_types: ClassVar[Mapping[str, tuple[str, ...]]] = BODY_TYPES

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, path = super().get_route_handler(), self.path_format
        require_scope(path)

        async def strict(request: Request) -> Response:
            strict_request = StrictJson(request.scope, request.receive)
            await require_access(path, strict_request)
            kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
            # browsers do not send this type to another site without its consent
            expected = self.body_types.get(request.method, ())
            if expected and kind not in expected:
                raise RequestError(
                    f"content-type is expected to be {expected[0]}; got {kind[:80] or 'none'!r}",
                    field="content-type", status=415, code="unsupported_media_type",
                )  # fmt: skip
            return await handle(strict_request)

        return strict


class BodylessRoute(StrictRoute):
    """A route whose path says it all: a PUT without a body."""

    body_types: ClassVar[Mapping[str, tuple[str, ...]]] = {}


class DirectRoute(StrictRoute):
    """A route that reads path, query and body itself, and validates each with the field that FastAPI has made for it.

    A request that is not correct, or whose caller may not call for everybody, is left to FastAPI, which answers what is
    wrong: both accept the same requests, and errors have one place. Query and body must be one model each.
    """

    def __init__(self, path: str, endpoint: Callable[..., Awaitable[Response]], **options: Any):
        super().__init__(path, endpoint, **options)
        self._ask_fastapi, self.app = self.app, self._answer
        wanted = self.dependant
        self._fields: list[tuple[Any, Read]] = [
            *((field, partial(_read_path, field.name)) for field in wanted.path_params),
            *((field, partial(_read_query, _find_lists(field))) for field in wanted.query_params),
            *((field, _read_body) for field in wanted.body_params),
        ]

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if FAILED in scope:
            raise scope.pop(FAILED)
        arguments = self.read_arguments(scope)
        if arguments is None:
            await self._ask_fastapi(scope, receive, send)
            return
        response = await self.endpoint(**arguments)
        await response(scope, receive, send)

    def _may_call(self, scope: Scope) -> bool:
        """Return whether the caller may call this route for every user."""
        caller = scope.get("state", {}).get("caller")
        return caller is not None and caller.user_id is None and caller.may(ALL_SCOPES[self.path_format])

    def read_arguments(self, scope: Scope) -> dict[str, Any] | None:
        """Return the arguments of the endpoint, None if one of them is not as expected or the caller may not call."""
        if not self._may_call(scope):
            return None
        arguments = {}
        for field, read in self._fields:
            try:
                arguments[field.name], errors = field.validate(read(scope))
            except (KeyError, ValueError):
                return None
            if errors:
                return None
        return arguments


class DirectDispatch:
    """The shortest way of a request: from the one middleware to its direct route, past FastAPI's layers.

    Only direct routes that come before all others with variable paths are looked at. `app`, FastAPI, answers everything
    else: requests that are wrong, callers who may not call for everybody, and the error of an endpoint, for which it
    has handlers.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[Any]):
        self._app = app
        self._fixed: dict[tuple[str, str], DirectRoute] = {}  # by method and path
        self._variable: list[tuple[frozenset[str], re.Pattern[str], DirectRoute]] = []
        self._others: set[str] = set()  # paths of other routes before these
        for route in routes:
            if not isinstance(route, DirectRoute):
                if route.param_convertors:
                    break  # it may answer any path
                self._others.add(route.path)
                continue
            methods = frozenset(route.methods or ())
            if route.param_convertors:
                self._variable.append((methods, route.path_regex, route))
            else:
                self._fixed |= {(method, route.path): route for method in methods}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route, path_params = self._find(scope)
        arguments = None if route is None else route.read_arguments({**scope, "path_params": path_params})
        if route is None or arguments is None:
            await self._app(scope, receive, send)
            return
        scope["route"], scope["path_params"] = route, path_params
        try:
            response = await route.endpoint(**arguments)
        except Exception as error:
            scope[FAILED] = error  # which the route raises where FastAPI's handlers are
            await self._app(scope, receive, send)
            return
        await response(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[DirectRoute | None, dict[str, Any]]:
        """Return the route of a request with the parameters in its path; None where FastAPI has to look."""
        method, path = scope["method"], scope["path"]
        if scope.get("root_path") or path in self._others:
            return None, {}
        if (fixed := self._fixed.get((method, path))) is not None:
            return fixed, {}
        for methods, pattern, route in self._variable:
            if method in methods and (found := pattern.match(path)) is not None:
                parameters = found.groupdict()
                return route, {name: route.param_convertors[name].convert(text) for name, text in parameters.items()}
        return None, {}


def answer(body: a.Answer, status: int = 200) -> Response:
    return Response(body.to_json(), status, media_type="application/json")


def _find_lists(field: Any) -> Collection[str]:
    """Return the names of a model's parameters that may be given several times."""
    fields = field.field_info.annotation.model_fields.items()
    return {name for name, info in fields if get_origin(info.annotation) is list}


def _read_path(name: str, scope: Scope) -> Any:
    return scope["path_params"][name]


def _read_query(lists: Collection[str], scope: Scope) -> dict[str, Any]:
    """Return the parameters by name: all values of a list, else the last one, as Starlette reads them."""
    found: dict[str, Any] = {}
    if scope["query_string"]:
        for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
            if name in lists:
                found.setdefault(name, []).append(value)
            else:
                found[name] = value
    return found


def _read_body(scope: Scope) -> Any:
    """Return the JSON value of the body that the middleware has read."""
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    if kind.lower() not in JSON_TYPES:
        raise ValueError(kind)
    return orjson.loads(scope[KEPT_BODY])
